"""Two decorators, without httpx: `python decorator_only.py http://localhost:8000 30`.

The client is the standard library's, in threads. Its exception carries the server's
Retry-After, which is heard as any.
"""

import asyncio
import sys
from urllib.error import HTTPError
from urllib.request import urlopen

from throttle import FullJitter, SlidingWindow, retry, throttled

URL, COUNT = sys.argv[1], int(sys.argv[2])


@retry(on=HTTPError, attempts=6, timeout=60, backoff=FullJitter(base=0.2, cap=10))
@throttled(SlidingWindow("30/s", hold=True))  # more than the server admits: it will say so
async def fetch(number: int) -> str:
    def get() -> str:
        with urlopen(f"{URL}/items/{number}") as response:
            return str(response.read().decode())

    return await asyncio.to_thread(get)


async def main() -> None:
    async with asyncio.TaskGroup() as tasks:
        fetched = [tasks.create_task(fetch(number)) for number in range(COUNT)]
    for task in fetched:
        print(task.result())


asyncio.run(main())
