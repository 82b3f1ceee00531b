"""One worker of a fleet.

    python fleet_redis.py redis://localhost:6379/0 20/s https://api.example.com 100

Start as many as you like, on as many machines: together they keep the rate. When Redis is
away they wait for it, each call for at most a minute.
"""

import asyncio
import sys

import httpx

from throttle import Retry, Throttle, TokenBucket
from throttle.counters import RedisCounter


async def work(redis: str, rate: str, url: str, count: str) -> None:
    async with RedisCounter(redis) as counter:
        limiter = TokenBucket(rate, burst=1, counter=counter, name="fleet")
        api = Throttle(limiter, retry=Retry.for_http(timeout=60), concurrency=20)
        async with httpx.AsyncClient(base_url=url) as client:

            @api
            async def fetch(number: int) -> str:
                return (await client.get(f"/items/{number}")).raise_for_status().text

            async with api.map(fetch, range(int(count))) as results:
                async for _, text in results:
                    print(text, flush=True)


asyncio.run(work(*sys.argv[1:]))
