"""A receiver of webhooks: an HTTP proxy on loopback that answers for every host itself, and keeps what was sent."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(frozen=True)
class Delivery:
    """One request: the whole URL it was for, its headers, and its body as it came and as JSON."""

    url: str
    headers: dict[str, str]
    body: bytes
    payload: dict[str, Any]

    @property
    def what(self) -> tuple[str, str]:
        """The model, and what happened to it."""
        return self.payload["model"], self.payload["event"]

    @property
    def before(self) -> Any:
        """The object before the change; None for one that is new."""
        return self.payload["snapshots"]["prechange"]

    @property
    def after(self) -> Any:
        """The object after the change; None for one that was deleted."""
        return self.payload["snapshots"]["postchange"]


@dataclass
class WebhookReceiver:
    """A running receiver; `deliveries` are in the order in which they came."""

    port: int = 0
    deliveries: list[Delivery] = field(default_factory=list)
    _arrived: threading.Condition = field(default_factory=threading.Condition)

    @property
    def url(self) -> str:
        """Its address as a proxy."""
        return f"http://127.0.0.1:{self.port}"

    def wait_for(self, wanted: Callable[[Delivery], bool], what: str, seconds: float = 60.0) -> Delivery:
        """The first delivery that is `wanted`, as soon as it is there."""
        with self._arrived:
            found = self._arrived.wait_for(lambda: next(filter(wanted, self.deliveries), None), seconds)
            assert found, (
                f"{what} did not come in {seconds:g} s; there are {[each.payload for each in self.deliveries]}"
            )
            return found

    @contextlib.contextmanager
    def running(self) -> Iterator[WebhookReceiver]:
        """Listen until the block ends."""
        server = ThreadingHTTPServer(("127.0.0.1", self.port), self._handler())
        self.port = server.server_port
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield self
        finally:
            server.shutdown()
            server.server_close()
            thread.join(5)

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                with receiver._arrived:
                    receiver.deliveries.append(Delivery(self.path, dict(self.headers), body, json.loads(body)))
                    receiver._arrived.notify_all()
                self.send_response(204)
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:
                """Keep the tests' output free of a line for each request."""

        return Handler
