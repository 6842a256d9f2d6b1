"""``trueward up`` with small HTTP servers in place of the services; its argument is UpOptions as JSON."""

from __future__ import annotations

import asyncio
import http.server
import json
import os
import sys
from pathlib import Path


class Ready(http.server.BaseHTTPRequestHandler):
    """Is always ready."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


def serve() -> None:
    print("serving with", json.dumps({k: v for k, v in os.environ.items() if k.startswith("TRUEWARD_")}))  # noqa: T201
    http.server.HTTPServer(("127.0.0.1", int(os.environ["TRUEWARD_HTTP_PORT"])), Ready).serve_forever()


def run(options: dict[str, object]) -> None:
    from deploy.local.up import UpOptions, up  # noqa: PLC0415 - the stand-ins do without

    options["data_dir"] = Path(str(options["data_dir"]))
    asyncio.run(up(UpOptions(**options), service_command=(sys.executable, __file__)))  # type: ignore[arg-type]


if __name__ == "__main__":
    if sys.argv[1].startswith("{"):
        run(json.loads(sys.argv[1]))
    else:
        serve()
