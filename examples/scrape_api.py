"""Scrape a paged API: `python scrape_api.py https://api.example.com 20/s > items.jsonl`.

It lists `{"items": [1, 2], "next": "/items?page=2"}` at /items, and each item at /items/1.
A refusal stops all requests until the server takes them again; what failed is tried again.
"""

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from typing import Any

import httpx

from throttle import Retry, Throttle


async def scrape(url: str, rate: str) -> None:
    api = Throttle(rate, concurrency=10, retry=Retry.for_http())
    async with httpx.AsyncClient(base_url=url) as client:

        @api
        async def get(path: str) -> Any:
            return (await client.get(path)).raise_for_status().json()

        async def items() -> AsyncIterator[str]:
            page = "/items"
            while page:
                listed = await get(page)
                for number in listed["items"]:
                    yield f"/items/{number}"
                page = listed["next"]

        async with api.map(get, items()) as results:
            async for _, item in results:
                print(json.dumps(item), flush=True)


asyncio.run(scrape(*sys.argv[1:]))
