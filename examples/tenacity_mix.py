"""tenacity and throttle together: `python tenacity_mix.py http://localhost:8000 20`.

Code that retries by tenacity gets a limiter and a jitter of ours; a policy of ours is built
from tenacity's parts.
"""

import asyncio
import sys

import httpx
import tenacity

from throttle import FullJitter, Retry, SlidingWindow

limiter = SlidingWindow("15/s", hold=True)
eight_times = tenacity.stop_after_attempt(8)

ours = Retry(
    on=httpx.HTTPStatusError,
    backoff=tenacity.wait_fixed(0.1) + tenacity.wait_random(0, 0.2),
    stop=tenacity.stop_after_delay(30),
    attempts=10,
)


async def main(url: str, count: int) -> None:
    async with httpx.AsyncClient(base_url=url) as client:

        @tenacity.retry(wait=FullJitter(base=0.2, cap=5), stop=eight_times, reraise=True)
        async def by_tenacity(number: int) -> str:
            async with limiter:
                return (await client.get(f"/items/{number}")).raise_for_status().text

        @ours
        async def by_throttle(number: int) -> str:
            async with limiter:
                return (await client.get(f"/items/{number}")).raise_for_status().text

        both = (work(n) for n in range(count) for work in (by_tenacity, by_throttle))
        for text in await asyncio.gather(*both):
            print(text)


asyncio.run(main(sys.argv[1], int(sys.argv[2])))
