"""Check links on many hosts: `python many_hosts.py < urls.txt`.

Five requests a second to each host, thirty in all; a host that refuses is left alone for as
long as it asks, while the others go on.
"""

import asyncio
import sys

import httpx

from throttle import AllOf, Retry, SlidingWindow, ThrottleTransport


async def check(urls: list[str]) -> None:
    each, total = SlidingWindow("5/s", hold=True), SlidingWindow("30/s", hold=True)
    limiter = AllOf(each, total["all"])  # `each` has the key of the request: its origin
    retry = Retry.for_http(attempts=2)
    transport = ThrottleTransport(limiter=limiter, retry=retry, concurrency=50)
    async with httpx.AsyncClient(transport=transport, follow_redirects=True) as client:

        async def one(url: str) -> None:
            try:
                print(url, (await client.get(url)).status_code, flush=True)
            except httpx.HTTPError as error:
                print(url, type(error).__name__, flush=True)

        async with asyncio.TaskGroup() as tasks:
            for url in urls:
                tasks.create_task(one(url))
    for origin, counts in transport.statistics().items():
        print(f"{origin}: {counts.sent} sent, {counts.refused} refused", file=sys.stderr)


asyncio.run(check([line.strip() for line in sys.stdin if line.strip()]))
