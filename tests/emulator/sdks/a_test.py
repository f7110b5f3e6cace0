"""A test of a program in Python, with the official SDK: a_test.py ENDPOINT"""

import json
import sys
import time
import urllib.request

from mixpanel import Consumer, Mixpanel, MixpanelException

url = sys.argv[1]
consumer = Consumer(events_url=url + "/track", people_url=url + "/engage", groups_url=url + "/groups", import_url=url + "/import")
mixpanel = Mixpanel("TOKEN", consumer=consumer)


def emulator(command, body=None):
    data = None if body is None else json.dumps(body).encode()
    with urllib.request.urlopen(f"{url}/emulator/{command}", data) as response:
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

# An event, with the project's token.
now = int(time.time())
mixpanel.import_data(None, "user123", "Purchase", now, {"company": "acme"}, api_secret="TOKEN")
assert len(json.loads(emulator("snapshot"))["events"]) == 1
try:
    mixpanel.import_data("TOKEN", "user123", "Purchase", now)
    sys.exit("no exception")
except MixpanelException as error:
    assert "Invalid credentials" in str(error), error

emulator("reset", {})
assert json.loads(emulator("snapshot")) == {"groups": {}, "events": []}

# What the emulator does not have fails there, and does not reach Mixpanel.
for call in [
    lambda: mixpanel.track("user123", "Purchase"),
    lambda: mixpanel.people_set("user123", {"plan": "free"}),
]:
    try:
        call()
        sys.exit("no exception")
    except MixpanelException:
        pass
