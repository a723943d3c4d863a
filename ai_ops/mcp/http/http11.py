"""Writes HTTP/1.1 requests and reads their answers as bytes, with h11 like the agents' client."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import h11
import httpx

# The limit of httpcore on the head of an answer.
MAX_HEAD_BYTES = 100 * 1024

# Statuses that precede an answer; 101 is an answer.
_GOES_ON = frozenset(range(100, 200)) - {101}


# The start and the headers of a request that h11 sends unchanged, which is most; a test compares. h11 decides on all
# others.
_PLAIN_START = re.compile(r"[A-Z]+ [!-~]+ HTTP/1\.1").fullmatch
_PLAIN_NAME = re.compile(r"[A-Za-z0-9-]+").fullmatch
_PLAIN_VALUE = re.compile(r"[!-~]+(?: [!-~]+)*").fullmatch


@dataclass(frozen=True, slots=True)
class Head:
    """The head of an answer.

    Attributes:
        status: Its status code.
        fields: Its headers as received, name and value.
        headers: Its headers by name in lower case; headers of the same name are joined as httpx joins them.
    """

    status: int
    fields: list[tuple[bytes, bytes]]
    headers: Mapping[str, str]


class RequestCycle:
    """One request, and the reading of its answer.

    Args:
        method: The method of the request.
        target: The path and the query.
        headers: All headers of the request; values go out as UTF-8, as with httpx.
        content: The body.
        begun: The bytes already received on the connection.

    Attributes:
        request: The bytes of the request: head and body together, mostly one packet.

    Raises:
        h11.LocalProtocolError: A header can't be sent.
    """

    def __init__(
        self, method: str, target: str, headers: Mapping[str, str], content: bytes = b"", begun: bytes = b""
    ) -> None:
        self.request = _request_bytes(method, target, headers, content)
        self._reader: _PlainReader | _H11Reader = _PlainReader(method, headers.get("Connection") == "close", begun)
        self._has_head = False
        self._over = False
        # The piece that `is_over` read ahead.
        self._next: bytes | h11.RemoteProtocolError | None = None

    def receive(self, data: bytes) -> None:
        """Add received bytes; empty bytes mean the end of the connection.

        Raises:
            h11.RemoteProtocolError: The connection ended before the answer began.
        """
        if not data and not self._has_head:
            raise h11.RemoteProtocolError("Server disconnected without sending a response.")
        self._reader.receive(data)

    def head(self) -> Head | None:
        """Return the head; None until it is complete.

        Raises:
            h11.RemoteProtocolError: The answer has no valid head.
        """
        try:
            head = self._reader.head()
        except _NotPlain as odd:
            self._reader = odd.reader
            head = self._reader.head()
        self._has_head = head is not None
        return head

    def piece(self) -> bytes | None:
        """Return the next piece of the body; None until more bytes arrive, empty bytes at its end.

        Raises:
            h11.RemoteProtocolError: The body does not match the head.
        """
        if isinstance(self._next, h11.RemoteProtocolError):
            raise self._next
        found, self._next = self._next, None
        return found or self._read_piece()

    def _read_piece(self) -> bytes | None:
        if self._over:
            return b""
        try:
            piece = self._reader.piece()
        except _NotPlain as odd:
            self._reader = odd.reader
            piece = self._reader.piece()
        self._over = piece == b""
        return piece

    def is_over(self) -> bool:
        """Return whether the whole answer was received and read."""
        if not self._next:
            try:
                self._next = self._read_piece()
            except h11.RemoteProtocolError as error:
                self._next = error
        return self._over

    def rest(self) -> bytes | None:
        """Return the bytes received after the answer; None if no other answer can follow on the connection."""
        return self._reader.rest() if self.is_over() else None


class _NotPlain(Exception):
    """Raised if h11 must read the rest of the answer."""

    def __init__(self, reader: _H11Reader) -> None:
        super().__init__()
        self.reader = reader


# The form of nearly all answers: in each line of the head a name, a colon, one space and a value; a body of a known
# length, or chunks without extensions. h11 reads such answers to the same result; a test compares.
_PLAIN_HEAD = re.compile(
    rb"HTTP/1\.1 ([2-5][0-9]{2})(?: [ -~]*)?\r\n((?:[A-Za-z0-9-]+: [!-~]+(?: +[!-~]+)*\r\n)*)\r\n"
).match
_PLAIN_LENGTH = re.compile(r"[0-9]{1,7}").fullmatch
_PLAIN_CHUNK = re.compile(rb"([1-9a-fA-F][0-9a-fA-F]{0,5})\r\n").match
_PLAIN_END = b"0\r\n\r\n"

# Answers to these methods have a body if their head announces one, except with these statuses.
_PLAIN_METHODS = frozenset({"GET", "POST", "DELETE"})
_WITHOUT_BODY = frozenset({204, 304})


class _PlainReader:
    """Reads an answer if its head, and each chunk or the whole body, arrive in one piece; h11 reads all others.

    h11 takes a fifth of the processor time of a probe over MCP; this class takes a tenth of that.
    """

    def __init__(self, method: str, closes: bool, begun: bytes) -> None:
        self._method = method
        self._closes = closes
        self._ended = False
        # The received bytes, and the place of the first unread byte.
        self._come = begun
        self._at = 0
        self._head = b""
        # Bytes of the body that are still to come; None for chunks.
        self._left: int | None = 0

    def receive(self, data: bytes) -> None:
        self._come, self._at = self._unread() + data, 0
        self._ended = self._ended or not data

    def _unread(self) -> bytes:
        return self._come[self._at :]

    def _waits(self) -> bool:
        return self._at == len(self._come) and not self._ended

    def head(self) -> Head | None:
        if self._waits():
            return None
        found = _PLAIN_HEAD(self._come)
        if not found or self._method not in _PLAIN_METHODS:
            raise self._not_plain()
        status, lines = int(found[1]), found[2].split(b"\r\n")[:-1]
        fields = [(name, value) for name, _, value in (line.partition(b": ") for line in lines)]
        headers = _by_name(fields)
        if status in _WITHOUT_BODY or not self._knows_framing(headers):
            raise self._not_plain()
        self._head, self._at = found[0], found.end()
        return Head(status, fields, headers)

    def _knows_framing(self, headers: Mapping[str, str]) -> bool:
        connection, coding = headers.get("connection", "keep-alive"), headers.get("transfer-encoding")
        length = headers.get("content-length")
        if coding is None and length is not None and _PLAIN_LENGTH(length):
            self._left = int(length)
        elif coding == "chunked" and length is None:
            self._left = None
        else:
            return False
        self._closes = self._closes or connection == "close"
        return connection in ("keep-alive", "close")

    def piece(self) -> bytes | None:
        if self._left == 0:
            return b""
        if self._waits():
            return None
        return self._chunk() if self._left is None else self._whole_body(self._left)

    def _whole_body(self, length: int) -> bytes:
        begin, end = self._at, self._at + length
        if end > len(self._come):
            raise self._not_plain()
        self._at, self._left = end, 0
        return self._come[begin:end]

    def _chunk(self) -> bytes:
        if self._come.startswith(_PLAIN_END, self._at):
            self._at, self._left = self._at + len(_PLAIN_END), 0
            return b""
        found = _PLAIN_CHUNK(self._come, self._at)
        if not found:
            raise self._not_plain()
        begin, end = found.end(), found.end() + int(found[1], 16)
        if not self._come.startswith(b"\r\n", end):
            raise self._not_plain()
        self._at = end + 2
        return self._come[begin:end]

    def rest(self) -> bytes | None:
        return None if self._closes or self._ended else self._unread()

    def _not_plain(self) -> _NotPlain:
        # Only whole chunks of the body were read, so h11 can start after them.
        return _NotPlain(_H11Reader(self._method, self._closes, self._head, self._unread(), self._ended))


class _H11Reader:
    """Reads any answer, as the agents' client does."""

    def __init__(self, method: str, closes: bool, head: bytes, unread: bytes, ended: bool) -> None:
        self._h11 = h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_HEAD_BYTES)
        self._h11.send(_request_for(method, closes))
        self._h11.send(_END)
        if head:
            self.receive(head)
            self.head()
        if unread:
            self.receive(unread)
        if ended:
            self.receive(b"")

    def receive(self, data: bytes) -> None:
        self._h11.receive_data(data)

    def head(self) -> Head | None:
        while (event := self._h11.next_event()) is not h11.NEED_DATA:
            if isinstance(event, h11.Response | h11.InformationalResponse) and event.status_code not in _GOES_ON:
                fields = event.headers.raw_items()
                return Head(event.status_code, fields, _by_name(fields))
        return None

    def piece(self) -> bytes | None:
        while (event := self._h11.next_event()) is not h11.NEED_DATA:
            if not isinstance(event, h11.Data):
                return b""
            if event.data:
                return bytes(event.data)
        return None

    def rest(self) -> bytes | None:
        done = self._h11.our_state is h11.DONE and self._h11.their_state is h11.DONE
        return self._h11.trailing_data[0] if done else None


def _request_bytes(method: str, target: str, headers: Mapping[str, str], content: bytes) -> bytes:
    start = f"{method} {target} HTTP/1.1"
    if _PLAIN_START(start) and all(map(_PLAIN_NAME, headers)) and all(map(_PLAIN_VALUE, headers.values())):
        lines = [f"{name}: {value}" for name, value in headers.items()]
        return "\r\n".join([start, *lines, "\r\n"]).encode("ascii") + content
    fields = [(name.encode("ascii"), value.encode("utf-8")) for name, value in headers.items()]
    head = h11.Connection(h11.CLIENT).send(h11.Request(method=method, target=target, headers=fields))
    return head + content


# The part of a request that h11 needs to read the answer. It is cached: making it takes h11 longer than reading the
# answer.
@lru_cache
def _request_for(method: str, closes: bool) -> h11.Request:
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
