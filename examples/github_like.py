"""Read repositories under two kinds of limit.

    python github_like.py https://api.github.com OWNER/NAME OWNER/NAME

The primary limit is told in every answer, and obeyed before it is spent; the secondary one
(bursts, too many at once) shows only when it refuses, with a 403 that is told apart from
"you may not". GITHUB_TOKEN is sent if it is set.
"""

import asyncio
import os
import sys

import httpx

from throttle import Retry, Throttle
from throttle.events import Event, Paused


def show(event: Event) -> None:
    if isinstance(event, Paused):
        print(f"the server asks for {event.seconds:.0f} s of patience", file=sys.stderr)


async def stars(url: str, *repositories: str) -> None:
    token = os.environ.get("GITHUB_TOKEN")
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    api = Throttle(retry=Retry.for_http(max_retry_after=3600), concurrency=5, on_event=show)
    async with httpx.AsyncClient(base_url=url, headers=headers) as client:

        async def get(name: str) -> httpx.Response:
            return await client.get(f"/repos/{name}")

        async with api.map(get, repositories) as answers:
            async for name, response in answers:
                print(name, response.status_code, flush=True)


asyncio.run(stars(*sys.argv[1:]))
