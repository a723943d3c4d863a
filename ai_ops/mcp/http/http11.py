"""HTTP/1.1 as bytes: the head of a request, and an answer as it comes.

h11 is the parser of the agents' client, so its word counts: on what may be sent, on the meaning of an answer, and on
what is wrong with one. It also costs a third of a probe. So an answer that is written as nearly all servers write
theirs is read here, and any other is given to h11, from its first byte. Tests compare the two on made-up answers.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import h11
import httpx

# As httpcore has it: more is no head of an answer.
MAX_HEAD_BYTES = 100 * 1024

# A longer head, or answer, is left to h11: up to here its bytes are kept, since h11 may have to read them again.
QUICK_HEAD_BYTES = 8 * 1024
QUICK_BYTES = 64 * 1024

_VERSION = b"HTTP/1.1 "
_HEAD = re.compile(r"HTTP/1\.1 ([2-5][0-9]{2})(?: [ -~]*)?((?:\r\n[0-9A-Za-z-]+:[ -~]*)*)")
# These have no body, whatever their heads say.
_BODILESS = frozenset({204, 304})
# These come before an answer; 101 is one.
_GOES_ON = frozenset(range(100, 200)) - {101}
_FRAMING = frozenset({"content-length", "transfer-encoding", "connection"})
_LENGTH = re.compile(r"[0-9]{1,9}")
# The head of a chunk, and any beginning of one; a chunk before it ends with a line break.
_FIRST_CHUNK = re.compile(rb"([0-9A-Fa-f]{1,6})\r\n")
_NEXT_CHUNK = re.compile(rb"\r\n([0-9A-Fa-f]{1,6})\r\n")
_FIRST_CHUNK_BEGUN = re.compile(rb"[0-9A-Fa-f]{0,6}\r?")
_NEXT_CHUNK_BEGUN = re.compile(rb"(?:\r(?:\n[0-9A-Fa-f]{0,6}\r?)?)?")


def request_bytes(method: str, target: str, headers: Mapping[str, str], content: bytes) -> bytes:
    """Return a request as it is sent: head and body together, which is one packet for most.

    Raises:
        h11.LocalProtocolError: A header can't be sent.
    """
    if all(map(_is_plain, headers.values())):
        lines = (f"{method} {target} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items()), "\r\n")
        return "\r\n".join(lines).encode("ascii") + content
    # As httpx sends what a user has typed.
    fields = [(name.encode("ascii"), value.encode("utf-8")) for name, value in headers.items()]
    head = h11.Connection(h11.CLIENT).send(h11.Request(method=method, target=target, headers=fields))
    return (head or b"") + content


def _is_plain(value: str) -> bool:
    return value.isascii() and value.isprintable() and value == value.strip()


@dataclass(frozen=True, slots=True)
class Head:
    """The head of an answer.

    Attributes:
        status: Its status code.
        fields: Its headers as they came, name and value.
        headers: The same by name in lower case; of several with one name all, as httpx joins them.
    """

    status: int
    fields: list[tuple[str, str]] | list[tuple[bytes, bytes]]
    headers: Mapping[str, str]


class AnswerReader:
    """Reads the answer to one request.

    Args:
        method: The method of the request.
        closes: Whether the request asked to close the connection.
        begun: What has come on the connection already.
    """

    def __init__(self, method: str, closes: bool, begun: bytes = b"") -> None:
        self._method = method
        self._closes = closes
        self._seen = bytearray(begun)
        self._at = 0  # so many bytes of `_seen` are read
        self._has_head = False
        self._chunk_heads = False
        self._left = 0  # bytes to come: of the body, or of the chunk
        self._given = 0  # bytes of the body that were given out
        self._over = False
        self._h11: h11.Connection | None = None

    def receive(self, data: bytes) -> None:
        """Take what has come; no bytes at all are the end of the connection.

        Raises:
            h11.RemoteProtocolError: It ended before the answer began.
        """
        if not data and not self._has_head:
            raise h11.RemoteProtocolError("Server disconnected without sending a response.")
        if self._h11 is None and data and len(self._seen) + len(data) <= QUICK_BYTES:
            self._seen += data
        else:
            self._by_h11().receive_data(data)

    def head(self) -> Head | None:
        """Return the head; None where more must come.

        Raises:
            h11.RemoteProtocolError: It is none.
        """
        try:
            head = self._quick_head()
        except _Odd:
            head = self._head_by_h11(self._by_h11())
        self._has_head = head is not None
        return head

    def piece(self) -> bytes | None:
        """Return the next piece of the body; None where more must come, no bytes at its end.

        Raises:
            h11.RemoteProtocolError: It is not what the head announces.
        """
        try:
            return self._quick_piece()
        except _Odd:
            return self._piece_by_h11(self._by_h11())

    def is_over(self) -> bool:
        """Return whether the end of the answer has come, as far as this can be told without h11."""
        if self._over or self._h11 is not None:
            return self._over
        try:
            return self._quick_piece_is_last()
        except _Odd:
            return False

    def rest(self) -> bytes | None:
        """Return what has come after the answer; None where no other answer can follow on the connection."""
        if not self.is_over():
            return None
        if self._h11 is None:
            return None if self._closes else bytes(self._seen[self._at :])
        done = self._h11.our_state is h11.DONE and self._h11.their_state is h11.DONE
        return self._h11.trailing_data[0] if done else None

    # ----------------------------------------------------------------------------------------
    # The usual answer

    def _quick_head(self) -> Head | None:
        if self._h11 is not None:
            raise _Odd
        end = self._seen.find(b"\r\n\r\n")
        if end < 0:
            self._confirm_beginning()
            return None
        head = _parsed(bytes(self._seen[:end]))
        self._at = end + 4
        length = head.headers.get("content-length")
        self._chunk_heads = length is None
        self._left = int(length or 0)
        self._over = length is not None and self._left == 0
        self._closes = self._closes or head.headers.get("connection", "").lower() == "close"
        return head

    def _confirm_beginning(self) -> None:
        """Leave to h11 what can't become a usual head: it may say so before the end has come."""
        seen = self._seen
        if len(seen) > QUICK_HEAD_BYTES or not _VERSION.startswith(seen[: len(_VERSION)]):
            raise _Odd
        if seen.count(b"\n") != seen.count(b"\r\n"):
            raise _Odd

    def _quick_piece(self) -> bytes | None:
        if self._h11 is not None:
            raise _Odd
        if self._over or self._quick_piece_is_last():
            return b""
        piece = bytes(self._seen[self._at : self._at + self._left])
        self._at += len(piece)
        self._left -= len(piece)
        self._given += len(piece)
        self._over = not self._left and not self._chunk_heads
        return piece or None

    def _quick_piece_is_last(self) -> bool:
        """Go on to the next chunk where one is read; return whether that was the last."""
        if self._left or not self._chunk_heads:
            return False
        whole, begun = (_NEXT_CHUNK, _NEXT_CHUNK_BEGUN) if self._given else (_FIRST_CHUNK, _FIRST_CHUNK_BEGUN)
        head = whole.match(self._seen, self._at)
        if head is None:
            if begun.fullmatch(self._seen, self._at):
                return False
            raise _Odd
        size, at = int(head[1], 16), head.end()
        if size:
            self._at, self._left = at, size
            return False
        end = self._seen[at : at + 2]
        if end == b"\r\n":
            self._at, self._over = at + 2, True
        elif not b"\r\n".startswith(end):
            raise _Odd  # lines after the last chunk
        return self._over

    # ----------------------------------------------------------------------------------------
    # Any other

    def _by_h11(self) -> h11.Connection:
        """Return h11 at the place where the answer was read to."""
        if self._h11 is None:
            connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_HEAD_BYTES)
            headers = [("Host", "-"), *([("Connection", "close")] if self._closes else [])]
            connection.send(h11.Request(method=self._method, target="/", headers=headers))
            connection.send(h11.EndOfMessage())
            if self._seen:
                connection.receive_data(bytes(self._seen))
            if self._has_head:
                self._head_by_h11(connection)
            self._h11, self._seen = connection, bytearray()
        return self._h11

    def _head_by_h11(self, connection: h11.Connection) -> Head | None:
        while (event := connection.next_event()) is not h11.NEED_DATA:
            if isinstance(event, h11.Response | h11.InformationalResponse) and event.status_code not in _GOES_ON:
                fields = event.headers.raw_items()
                return Head(event.status_code, fields, dict(httpx.Headers(fields)))
        return None

    def _piece_by_h11(self, connection: h11.Connection) -> bytes | None:
        while (event := connection.next_event()) is not h11.NEED_DATA:
            if not isinstance(event, h11.Data):
                self._over = True
                return b""
            known = min(self._given, len(event.data))
            self._given -= known
            if piece := bytes(event.data[known:]):
                return piece
        return None


class _Odd(Exception):
    """An answer is not written as nearly all are, which is no fault."""


def _parsed(seen: bytes) -> Head:
    """Read a head that is written as nearly all are.

    Raises:
        _Odd: It is not.
    """
    head = _HEAD.fullmatch(seen.decode("latin-1"))
    if head is None or int(head[1]) in _BODILESS:
        raise _Odd
    fields: list[tuple[str, str]] = []
    headers: dict[str, str] = {}
    for line in head[2].split("\r\n")[1:]:
        name, _, value = line.partition(":")
        key, value = name.lower(), value.strip(" ")
        if key not in headers:
            headers[key] = value
        elif key in _FRAMING:
            raise _Odd
        else:
            headers[key] += f", {value}"
        fields.append((name, value))
    _confirm_framing(headers)
    return Head(int(head[1]), fields, headers)


def _confirm_framing(headers: Mapping[str, str]) -> None:
    length, coding = headers.get("content-length"), headers.get("transfer-encoding")
    usual = coding == "chunked" if length is None and coding else bool(length and _LENGTH.fullmatch(length))
    both = length is not None and coding is not None
    if both or not usual or headers.get("connection", "close").lower() not in ("close", "keep-alive"):
        raise _Odd
