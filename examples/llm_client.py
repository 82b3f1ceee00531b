"""Ask a language model many things at once.

    python llm_client.py http://localhost:8000 20/s 4000/s < prompts.txt

Two limits hold together, requests and tokens. Each call books what it may use, and settles
what it used; a refusal holds back all.
"""

import asyncio
import sys
from typing import Any

import httpx

from throttle import AllOf, Throttle, TokenBucket, retry, throttled

MAX_TOKENS = 200  # of each answer


def booked(prompt: str) -> dict[str, int]:
    return {"tokens": len(prompt) // 4 + MAX_TOKENS}


def used(reply: Any) -> dict[str, int]:
    return {"tokens": reply["usage"]["total_tokens"]}


def may_pass(error: Exception) -> bool:
    if isinstance(error, httpx.HTTPStatusError):
        return error.response.status_code in (429, 500, 502, 503, 529)
    return isinstance(error, httpx.TransportError)


async def converse(url: str, requests: str, tokens: str) -> None:
    per_request, per_token = TokenBucket(requests, burst=5), TokenBucket(tokens, burst=1000)
    model = AllOf(requests=per_request, tokens=per_token)
    async with httpx.AsyncClient(base_url=url, timeout=60) as client:

        @retry(on=may_pass, max_retry_after=120)
        @throttled(model, cost=booked, settle=used)
        async def ask(prompt: str) -> Any:
            question = {"prompt": prompt, "max_tokens": MAX_TOKENS}
            return (await client.post("/chat", json=question)).raise_for_status().json()

        total, prompts = 0, (line.strip() for line in sys.stdin)
        async with Throttle(False, concurrency=20).map(ask, prompts) as replies:
            async for prompt, reply in replies:
                total += used(reply)["tokens"]
                print(f"{prompt} -> {reply['text']}", flush=True)
    print(f"{total} tokens", file=sys.stderr)


asyncio.run(converse(*sys.argv[1:]))
