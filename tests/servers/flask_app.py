"""Flask under Flask-Limiter: `flask_app.py "20 per 1 second" moving-window [http-date]` prints its port and serves."""

from __future__ import annotations

import sys
from logging import getLogger

from flask import Flask, Response, jsonify, request
from flask_limiter import Limiter
from werkzeug.serving import WSGIRequestHandler, make_server


def build(limit: str, strategy: str, retry_after: str = "delta-seconds") -> Flask:
    app = Flask(__name__)
    rules = {"default_limits": [limit], "strategy": strategy, "headers_enabled": True, "storage_uri": "memory://"}
    limiter = Limiter(lambda: "all", app=app, retry_after=retry_after, **rules)
    counts = [0, 0]  # let through, refused

    @app.get("/item")
    def item() -> str:
        return "hello"

    @app.errorhandler(429)
    def count(_error: object) -> tuple[str, int]:
        return "slow down", 429

    @app.after_request
    def counted(response: Response) -> Response:
        if request.path == "/item":
            counts[response.status_code == 429] += 1
        return response

    @app.get("/refused")
    @limiter.exempt
    def told() -> str:
        return str(counts[1])

    @app.get("/counts")
    @limiter.exempt
    def both() -> Response:
        return jsonify(counts)

    return app


if __name__ == "__main__":
    getLogger("werkzeug").setLevel("ERROR")
    WSGIRequestHandler.protocol_version = "HTTP/1.1"  # connections are kept
    server = make_server("127.0.0.1", 0, build(*sys.argv[1:4]), threaded=True)
    print(server.port, flush=True)
    server.serve_forever()
