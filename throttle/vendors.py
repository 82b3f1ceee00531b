"""What is known of single vendors, as tables; the general rules in `families` and `bodies` come first.

Each entry names its source. A vendor that keeps to the general forms (GitHub, OpenAI, Anthropic, Discord, Okta, Twitch,
Kong and most others) needs no entry.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

__all__ = ["ERRORS", "FIELDS", "HOSTS", "NO_RETRY", "SCOPES", "Host", "host_entry"]

# ── fields whose names do not follow the families ─────────────────────────────────────────────────────────────────────

FIELDS: dict[str, tuple[str, str, str]] = {  # field -> the family it belongs to, the limit's name, the part it tells
    # developers.hubspot.com, API usage guidelines: one limit per interval, one per day
    "x-hubspot-ratelimit-max": ("x-hubspot", "interval", "limit"),
    "x-hubspot-ratelimit-remaining": ("x-hubspot", "interval", "remaining"),
    "x-hubspot-ratelimit-interval-milliseconds": ("x-hubspot", "interval", "window-ms"),
    "x-hubspot-ratelimit-daily": ("x-hubspot", "daily", "limit"),
    "x-hubspot-ratelimit-secondly": ("x-hubspot", "secondly", "limit"),
    # developer.x.com, rate limits: the app's and the user's day beside the window of the endpoint
    "x-app-limit-24hour-limit": ("x-app", "24hour", "limit"),
    "x-app-limit-24hour-remaining": ("x-app", "24hour", "remaining"),
    "x-app-limit-24hour-reset": ("x-app", "24hour", "reset"),
    "x-user-limit-24hour-limit": ("x-user", "user-24hour", "limit"),
    "x-user-limit-24hour-remaining": ("x-user", "user-24hour", "remaining"),
    "x-user-limit-24hour-reset": ("x-user", "user-24hour", "reset"),
    # shopify.dev, REST admin API rate limits: used/size of a leaky bucket
    "x-shopify-shop-api-call-limit": ("x-shopify", "", "share"),
    # developer.salesforce.com, Sforce-Limit-Info: api-usage=18/5000; api-bursts=1/750
    "sforce-limit-info": ("sforce", "", "share"),
    # auth0.com, token quotas: b=per_hour;q=100;r=90;t=3600,b=per_day;..., the key b repeats
    "auth0-client-quota-limit": ("auth0-client", "", "pairs"),
    "auth0-organization-quota-limit": ("auth0-organization", "", "pairs"),
}

# Fields in which a server says whose limit it is, the more telling first: discord-api-docs rate limits; github/docs;
# developer.atlassian.com rate limiting; docs.stripe.com rate limits.
SCOPES = (
    "x-ratelimit-scope",
    "x-ratelimit-resource",
    "x-ratelimit-bucket",
    "ratelimit-reason",
    "stripe-rate-limited-reason",
)

# Fields that carry an error code: AWS SDKs' retry behaviour; MediaWiki action API (errors come with status 200).
ERRORS = ("x-amzn-errortype", "mediawiki-api-error")

# "false" says that waiting does not help: openai-python and stripe-python read them.
NO_RETRY = ("x-should-retry", "stripe-should-retry")


# ── hosts ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Host:
    """What only the documentation of a host says."""

    floor: float | None = None  # seconds to wait after a refusal that names no time
    reset_unit: float = 1.0  # seconds of one in a reset that counts down


HOSTS = {
    "github.com": Host(floor=60.0),  # github/docs, rate limits for the REST API: secondary limits, at least one minute
    "airtable.com": Host(floor=30.0),  # airtable.com/developers, rate limits: 30 seconds
    "sec.gov": Host(floor=600.0),  # sec.gov, fair access: limited until below the rate for ten minutes
    "crossref.org": Host(floor=1.0),  # CrossRef/rest-api-doc: limits are per interval, the shortest one second
    "kucoin.com": Host(reset_unit=0.001),  # kucoin.com/docs, rate limits: gw-ratelimit-reset in milliseconds
    "skuvault.com": Host(reset_unit=0.001),  # dev.skuvault.com: X-RateLimit-Reset in milliseconds
}

_UNKNOWN = Host()


def host_entry(host: object) -> Host:
    """The entry of a host or of the domain it is in."""
    return _entry(host) if isinstance(host, str) else _UNKNOWN


@lru_cache(maxsize=64)
def _entry(host: str) -> Host:
    labels = host.lower().partition(":")[0].rstrip(".").rsplit(".", 2)
    return HOSTS.get(".".join(labels[-2:]), _UNKNOWN)
