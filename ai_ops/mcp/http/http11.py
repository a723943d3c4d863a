"""HTTP/1.1 as bytes: a request as it is sent, and its answer as it comes, by h11 as for the agents' client."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import h11
import httpx

# As httpcore has it: more is no head of an answer.
MAX_HEAD_BYTES = 100 * 1024

# These come before an answer; 101 is one.
_GOES_ON = frozenset(range(100, 200)) - {101}


# The start and the lines of a head that h11 sends as they are: most, and a test compares. h11 decides on all others.
_PLAIN_START = re.compile(r"[A-Z]+ [!-~]+ HTTP/1\.1").fullmatch
_PLAIN_LINE = re.compile(r"[A-Za-z0-9-]+: [!-~]+(?: [!-~]+)*").fullmatch


@dataclass(frozen=True, slots=True)
class Head:
    """The head of an answer.

    Attributes:
        status: Its status code.
        fields: Its headers as they came, name and value.
        headers: The same by name in lower case; of several with one name all, as httpx joins them.
    """

    status: int
    fields: list[tuple[bytes, bytes]]
    headers: Mapping[str, str]


class RequestCycle:
    """One request, and the reading of its answer.

    Args:
        method: The method of the request.
        target: The path and the query.
        headers: All headers of the request; values are sent as UTF-8, as httpx sends what a user has typed.
        content: The body.
        begun: What has come on the connection already.

    Attributes:
        request: The request as it is sent: head and body together, which is one packet for most.

    Raises:
        h11.LocalProtocolError: A header can't be sent.
    """

    def __init__(
        self, method: str, target: str, headers: Mapping[str, str], content: bytes = b"", begun: bytes = b""
    ) -> None:
        self.request = _request_bytes(method, target, headers, content)
        self._h11 = h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_HEAD_BYTES)
        self._h11.send(_told(method, headers.get("Connection") == "close"))
        self._h11.send(_END)
        self._has_head = False
        self._over = False
        # What `is_over` found when it looked ahead.
        self._next: bytes | h11.RemoteProtocolError | None = None
        if begun:
            self._h11.receive_data(begun)

    def receive(self, data: bytes) -> None:
        """Take what has come; no bytes at all are the end of the connection.

        Raises:
            h11.RemoteProtocolError: It ended before the answer began.
        """
        if not data and not self._has_head:
            raise h11.RemoteProtocolError("Server disconnected without sending a response.")
        self._h11.receive_data(data)

    def head(self) -> Head | None:
        """Return the head; None where more must come.

        Raises:
            h11.RemoteProtocolError: It is none.
        """
        while (event := self._h11.next_event()) is not h11.NEED_DATA:
            if isinstance(event, h11.Response | h11.InformationalResponse) and event.status_code not in _GOES_ON:
                self._has_head = True
                fields = event.headers.raw_items()
                return Head(event.status_code, fields, _by_name(fields))
        return None

    def piece(self) -> bytes | None:
        """Return the next piece of the body; None where more must come, no bytes at its end.

        Raises:
            h11.RemoteProtocolError: It is not what the head announces.
        """
        if isinstance(self._next, h11.RemoteProtocolError):
            raise self._next
        found, self._next = self._next, None
        return found or self._read_piece()

    def _read_piece(self) -> bytes | None:
        if self._over:
            return b""
        while (event := self._h11.next_event()) is not h11.NEED_DATA:
            if not isinstance(event, h11.Data):
                self._over = True
                return b""
            if event.data:
                return bytes(event.data)
        return None

    def is_over(self) -> bool:
        """Return whether all of the answer was read, and its end has come."""
        if not self._next:
            try:
                self._next = self._read_piece()
            except h11.RemoteProtocolError as error:
                self._next = error
        return self._over

    def rest(self) -> bytes | None:
        """Return what has come after the answer; None where no other answer can follow on the connection."""
        if not self.is_over():
            return None
        done = self._h11.our_state is h11.DONE and self._h11.their_state is h11.DONE
        return self._h11.trailing_data[0] if done else None


def _request_bytes(method: str, target: str, headers: Mapping[str, str], content: bytes) -> bytes:
    start = f"{method} {target} HTTP/1.1"
    lines = [f"{name}: {value}" for name, value in headers.items()]
    if _PLAIN_START(start) and all(map(_PLAIN_LINE, lines)):
        return "\r\n".join([start, *lines, "\r\n"]).encode("ascii") + content
    fields = [(name.encode("ascii"), value.encode("utf-8")) for name, value in headers.items()]
    head = h11.Connection(h11.CLIENT).send(h11.Request(method=method, target=target, headers=fields))
    return head + content


# As much of a request as h11 needs to read its answer. To make one takes h11 longer than to read the answer.
@lru_cache
def _told(method: str, closes: bool) -> h11.Request:
    headers = [("Host", "-"), *([("Connection", "close")] if closes else [])]
    return h11.Request(method=method, target="/", headers=headers)


_END = h11.EndOfMessage()


def _by_name(fields: list[tuple[bytes, bytes]]) -> dict[str, str]:
    """Return headers by name in lower case, as httpx reads and joins them."""
    try:
        pairs = [(name.decode("ascii").lower(), value.decode("ascii")) for name, value in fields]
    except UnicodeDecodeError:
        return dict(httpx.Headers(fields))
    headers: dict[str, str] = {}
    for name, value in pairs:
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return headers
