"""COUNT updates through the official Python SDK's BufferedConsumer, then a flush:
batches.py ENDPOINT COUNT [no-id|nan]

The eleventh update has no group id, or a value that JSON does not have. Says what is raised, a line each.
"""

import sys

from mixpanel import BufferedConsumer, Mixpanel, MixpanelException

endpoint, count = sys.argv[1], int(sys.argv[2])
odd = sys.argv[3] if len(sys.argv) > 3 else None
consumer = BufferedConsumer(groups_url=endpoint + "/groups")
# It repeats what fails over https only, for which plain http stands here.
session = consumer._consumer._session
session.mount("http://", session.get_adapter("https://"))
mixpanel = Mixpanel("TOKEN", consumer=consumer)


def tell(call, *parameters):
    try:
        call(*parameters)
    except MixpanelException as error:
        print(error)


for number in range(count):
    is_odd = number == 10
    company = "" if is_odd and odd == "no-id" else f"company_{number}"
    seats = float("nan") if is_odd and odd == "nan" else number
    tell(mixpanel.group_set, "company", company, {"seats": seats}, {"$company_id": company})
tell(consumer.flush)
