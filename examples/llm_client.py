"""Ask a language model many things at once: `python llm_client.py http://localhost:8000 20/s 4000/s < prompts.txt`.

Two limits hold together, requests and tokens. Each call books what it may use, and settles what it used.
"""

import asyncio
import sys
from typing import Any

import httpx

from throttle import AllOf, Retry, Throttle, TokenBucket

MAX_TOKENS = 200  # of each answer


async def converse(url: str, requests: str, tokens: str) -> None:
    limiter = AllOf(requests=TokenBucket(requests, burst=5), tokens=TokenBucket(tokens, burst=1000))
    api = Throttle(limiter, retry=Retry.for_http(max_retry_after=120), concurrency=20)
    client = api.wrap(httpx.AsyncClient(base_url=url, timeout=60))

    async def ask(prompt: str) -> Any:
        booked = {"tokens": len(prompt) // 4 + MAX_TOKENS}
        reply = await client.post(
            "/chat",
            json={"prompt": prompt, "max_tokens": MAX_TOKENS},
            extensions={"throttle": {"cost": booked}},
        )
        return reply.raise_for_status().json()

    used = 0
    async with client, Throttle(False, concurrency=50).map(ask, (line.strip() for line in sys.stdin)) as replies:
        async for prompt, reply in replies:
            used += reply["usage"]["total_tokens"]
            print(f"{prompt} -> {reply['text']}", flush=True)
    print(f"{used} tokens", file=sys.stderr)


asyncio.run(converse(*sys.argv[1:]))
