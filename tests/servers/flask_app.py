"""Flask under Flask-Limiter: `flask_app.py "20 per 1 second" moving-window` prints its port and serves."""

from __future__ import annotations

import sys
from logging import getLogger

from flask import Flask
from flask_limiter import Limiter
from werkzeug.serving import make_server


def build(limit: str, strategy: str) -> Flask:
    app = Flask(__name__)
    rules = {"default_limits": [limit], "strategy": strategy, "headers_enabled": True, "storage_uri": "memory://"}
    limiter = Limiter(lambda: "all", app=app, **rules)
    refused = 0

    @app.get("/item")
    def item() -> str:
        return "hello"

    @app.errorhandler(429)
    def count(_error: object) -> tuple[str, int]:
        nonlocal refused
        refused += 1
        return "slow down", 429

    @app.get("/refused")
    @limiter.exempt
    def told() -> str:
        return str(refused)

    return app


if __name__ == "__main__":
    getLogger("werkzeug").setLevel("ERROR")
    server = make_server("127.0.0.1", 0, build(*sys.argv[1:3]), threaded=True)
    print(server.port, flush=True)
    server.serve_forever()
