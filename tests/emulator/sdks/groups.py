"""The operations on groups, and an event, with the official Python SDK: groups.py ENDPOINT"""

import sys
import time

from mixpanel import Consumer, Mixpanel, ServiceAccountCredentials

endpoint = sys.argv[1]
credentials = ServiceAccountCredentials("USER", "SECRET", "12345")
consumer = Consumer(
    groups_url=endpoint + "/groups",
    import_url=endpoint + "/import",
    credentials=credentials,
)
mixpanel = Mixpanel("TOKEN", consumer=consumer)

mixpanel.group_set(
    "company",
    "acme",
    {"name": "Acmé & Söhne+", "plan": "free", "seats": 5, "ratio": 0.25, "is_active": True, "old": 1},
)
mixpanel.group_set_once("company", "acme", {"plan": "enterprise", "founded": 1999})
mixpanel.group_union("company", "acme", {"tags": ["a", "b"], "ids": [1, 2]})
mixpanel.group_union("company", "acme", {"tags": ["b", "c"]})
mixpanel.group_remove("company", "acme", {"tags": "a"})
mixpanel.group_unset("company", "acme", ["old"])
mixpanel.group_set("company", "globex", {"plan": "free"})
mixpanel.group_delete("company", "globex")

mixpanel.import_data(
    api_key=None,
    distinct_id="user123",
    event_name="Purchase",
    timestamp=int(time.time()),
    properties={"company": "acme", "amount": 99.99},
)
