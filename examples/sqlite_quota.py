"""A daily quota that outlives the program.

    python sqlite_quota.py quota.db 100/day https://api.example.com 30

Run it again, or several at once: together they never exceed the quota of the day (counted
from midnight UTC). When it is spent, the program says when to come back, and does not wait
for it.
"""

import asyncio
import sys

import httpx

from throttle import FixedWindow, ThrottleTransport, WaitTooLong
from throttle.counters import SQLiteCounter


async def fetch(path: str, quota: str, url: str, count: str) -> None:
    limiter = FixedWindow(quota, counter=SQLiteCounter(path, durability="full"), name="api")
    transport = ThrottleTransport(limiter=limiter, max_wait=2)
    async with httpx.AsyncClient(base_url=url, transport=transport) as client:
        try:
            for number in range(int(count)):
                print((await client.get(f"/items/{number}")).text, flush=True)
        except WaitTooLong as spent:
            hours = spent.retry_after / 3600
            print(f"the quota is spent; come back in {hours:.1f} h", file=sys.stderr)


asyncio.run(fetch(*sys.argv[1:]))
