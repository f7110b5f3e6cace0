"""A test of a program in Python, with the official SDK: a_test.py ENDPOINT"""

import json
import sys
import urllib.request

from mixpanel import Consumer, Mixpanel, MixpanelException

endpoint = sys.argv[1]
consumer = Consumer(groups_url=endpoint + "/groups", import_url=endpoint + "/import")
mixpanel = Mixpanel("TOKEN", consumer=consumer)


def emulator(command, body=None):
    data = None if body is None else json.dumps(body).encode()
    with urllib.request.urlopen(f"{endpoint}/emulator/{command}", data) as response:
        return response.read()


# Mixpanel is down.
emulator("fail_next", {"status": 503})
try:
    mixpanel.group_set("company", "acme", {"plan": "free"})
    sys.exit("no exception")
except MixpanelException:
    pass

# The SDK repeats a 5xx over https only, unless told so as the README says.
s = consumer._session
s.mount("http://", s.get_adapter("https://"))
emulator("fail_next", {"status": 503})
mixpanel.group_set("company", "globex", {"plan": "free"})
assert json.loads(emulator("snapshot"))["groups"]["company"] == {"globex": {"plan": "free"}}

# What becomes of the profile?
mixpanel.group_set("company", "acme", {"plan": "free", "seats": 5})
mixpanel.group_unset("company", "acme", ["seats"])
snapshot = json.loads(emulator("snapshot"))
assert snapshot["groups"]["company"]["acme"] == {"plan": "free"}, snapshot

emulator("reset", {})
assert json.loads(emulator("snapshot")) == {"groups": {}, "events": []}
