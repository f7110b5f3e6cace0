"""Mixpanel's Python SDK: `python.py [buffered]`, a request an update or 50 a request."""

import os
import sys
import time

import mixpanel


def company(number):
    properties = {
        "name": f"Company Number {number} Inc.",
        "plan": "enterprise" if number % 3 == 0 else "free",
        "seats": number,
        "founding_year": 1900 + number % 120,
        "mrr": number * 1.25,
        "active": number % 2 == 0,
        "integrations": ["salesforce", "hubspot"],
        "address": {"city": "Springfield", "zip": 10_000 + number},
    }
    if number % 4 != 0:
        properties["industry"] = "Technology"
    return f"company_{number}", properties


companies = [company(number) for number in range(2_000)]
buffered = "buffered" in sys.argv
consumer = mixpanel.BufferedConsumer if buffered else mixpanel.Consumer
consumer = consumer(groups_url=os.environ["ENDPOINT"] + "/groups")
client = mixpanel.Mixpanel("PROJECT_TOKEN", consumer)

start = time.perf_counter()
for _ in range(int(os.environ["UPDATES"]) // len(companies)):
    for id, properties in companies:
        client.group_set("company", id, properties)
if buffered:
    consumer.flush()
print(time.perf_counter() - start)
