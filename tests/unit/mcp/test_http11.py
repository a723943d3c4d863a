"""A request is sent as httpx sends it, and an answer is read as httpcore reads it, wherever it is cut."""

from __future__ import annotations

import os
from typing import Any

import h11
import httpx
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ai_ops.mcp.http.encodings import encoding_of
from ai_ops.mcp.http.http11 import MAX_HEAD_BYTES, RequestCycle

USUAL_HEAD = b"HTTP/1.1 200 OK\r\ndate: now\r\ncontent-type: text/event-stream; charset=utf-8\r\n"
EVENT = b'event: message\r\ndata: {"id":1}\r\n\r\n'


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


USUAL = [
    USUAL_HEAD + b"content-length: 5\r\n\r\nhello",
    USUAL_HEAD + b"Content-Length: 0\r\nConnection: keep-alive\r\n\r\n",
    USUAL_HEAD + b"content-length: 2\r\nset-cookie: a=b\r\nset-cookie: c=d\r\n\r\nok",
    USUAL_HEAD + b"transfer-encoding: chunked\r\n\r\n" + chunk(EVENT) + chunk(b"x" * 300) + b"0\r\n\r\n",
    USUAL_HEAD + b"Transfer-Encoding: chunked\r\nconnection: close\r\n\r\n0\r\n\r\n",
    b"HTTP/1.1 404\r\nContent-Length: 3\r\n\r\nno!",
    b"HTTP/1.1 500 Internal Server Error\r\nEmpty:\r\nContent-Length:3\r\n\r\nno!",
]
ODD = [
    USUAL_HEAD + b"Transfer-Encoding: Chunked\r\n\r\n0\r\n\r\n",
    b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
    b"HTTP/1.1 204 No Content\r\nContent-Length: 2\r\n\r\nok",
    b"HTTP/1.1 200 OK\r\n\r\nto the end",
    b"HTTP/1.1 200 OK\nContent-Length: 2\n\nok",
    b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nok",
    b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nokk",
    b"HTTP/1.1 200 OK\r\nContent-Length: 2, 2\r\n\r\nok",
    b"HTTP/1.1 200 OK\r\nContent-Length: +2\r\n\r\nok",
    b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999999\r\n\r\nok",
    b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\nok",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nConnection: x, close\r\nContent-Length: 2\r\n\r\nok",
    b"HTTP/1.1 200 OK\r\nConnection: keep-alive\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok",
    b"HTTP/1.1 200 OK\r\nX: a\r\n folded\r\nContent-Length: 2\r\n\r\nok",
    b"HTTP/1.1 200 OK\r\nX : a\r\nContent-Length: 2\r\n\r\nok",
    b"HTTP/1.1 200 OK\r\nX_y.z: a\r\nContent-Length: 2\r\n\r\nok",
    b"HTTP/1.1 200 OK\r\nX: a\tb\r\nContent-Length:\t2\r\n\r\nok",
    b"HTTP/1.1 200 OK\r\nX: \xc3\xa9 \xff\r\nContent-Length: 2\r\n\r\nok",
    b"HTTP/1.1 200 \xc3\xa9\r\nContent-Length: 2\r\n\r\nok",
    b"HTTP/1.1 200 OK\r\nX: a\x01b\r\nContent-Length: 2\r\n\r\nok",
    b"HTTP/1.1 200 OK\r\nX: a\x00b\r\nContent-Length: 2\r\n\r\nok",
    b"HTTP/1.1 200 OK\r\nno colon\r\nContent-Length: 2\r\n\r\nok",
    b"HTTP/1.1 200 OK\r\n: no name\r\nContent-Length: 2\r\n\r\nok",
    b"HTTP/1.1 099 Low\r\nContent-Length: 2\r\n\r\nok",
    b"HTTP/1.1 700 High\r\nContent-Length: 2\r\n\r\nok",
    b"HTTP/1.1 20 OK\r\n\r\n",
    b"HTTP/1.1  200 OK\r\n\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
    b"HTTP/1.1 103 Early\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
    b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\n\r\nraw",
    b"\x15\x03\x01\x00\x02\x02\x46",
    b"220 mail ready\r\n",
    b"\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
    b"HTTP/2 200\r\n\r\n",
    USUAL_HEAD + b"transfer-encoding: chunked\r\n\r\n5;x=y\r\nhello\r\n0\r\n\r\n",
    USUAL_HEAD + b"transfer-encoding: chunked\r\n\r\n5 \r\nhello\r\n0\r\n\r\n",
    USUAL_HEAD + b"transfer-encoding: chunked\r\n\r\n0000000005\r\nhello\r\n0\r\n\r\n",
    USUAL_HEAD + b"transfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX: trailer\r\n\r\n",
    USUAL_HEAD + b"transfer-encoding: chunked\r\n\r\n5\r\nhelloX\r\n0\r\n\r\n",
    USUAL_HEAD + b"transfer-encoding: chunked\r\n\r\n5\r\nhello\n0\r\n\r\n",
    USUAL_HEAD + b"transfer-encoding: chunked\r\n\r\nzz\r\nhello\r\n0\r\n\r\n",
    USUAL_HEAD + b"transfer-encoding: chunked\r\n\r\n-5\r\nhello\r\n0\r\n\r\n",
    USUAL_HEAD + b"transfer-encoding: chunked\r\n\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    USUAL_HEAD + b"content-length: 9\r\n\r\nhello",
    USUAL_HEAD + b"content-length: 2\r\n\r\nokHTTP/1.1 200 OK\r\n",
    USUAL_HEAD + b"X: " + b"x" * 8192 + b"\r\ncontent-length: 2\r\n\r\nok",
    USUAL_HEAD + b"X: " + b"x" * MAX_HEAD_BYTES + b"\r\ncontent-length: 2\r\n\r\nok",
    USUAL_HEAD + b"content-length: %d\r\n\r\n" % (2 * 65536) + b"x" * 2 * 65536,
    USUAL_HEAD + b"transfer-encoding: chunked\r\n\r\n" + chunk(b"x" * 7000) * 20 + b"0\r\n\r\n",
]


def read(pieces: list[bytes], ended: bool, closes: bool) -> list[Any]:
    """Return what is known after each piece: head, body, whether that is all of it, the rest, and the error."""
    headers = {"Host": "example.com", "Content-Length": "2", **({"Connection": "close"} if closes else {})}
    reader, head, body, over = RequestCycle("POST", "/mcp", headers, b"{}"), None, b"", False
    known: list[Any] = []
    for data in [*pieces, *([b""] if ended and pieces else [])]:
        try:
            if not over:
                reader.receive(data)
                head = head or reader.head()
                while head and not over and (piece := reader.piece()) is not None:
                    body, over = body + piece, not piece
        except h11.RemoteProtocolError as error:
            return [*known, str(error)]
        rest = reader.rest() if over else None
        known.append((head and (head.status, dict(head.headers), names(head.fields)), body, over, rest))
    return known


def read_by_h11(pieces: list[bytes], ended: bool, closes: bool) -> list[Any]:
    """The same, as httpcore does it."""
    connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_HEAD_BYTES)
    headers = [("Host", "example.com"), ("Content-Length", "2")] + [("Connection", "close")] * closes
    connection.send(h11.Request(method="POST", target="/mcp", headers=headers))
    connection.send(h11.Data(data=b"{}"))
    connection.send(h11.EndOfMessage())
    head, body, over = None, b"", False
    known: list[Any] = []
    for data in [*pieces, *([b""] if ended and pieces else [])]:
        try:
            if not over:
                if not data and connection.their_state is h11.SEND_RESPONSE:
                    return [*known, "Server disconnected without sending a response."]
                connection.receive_data(data)
                while not over and (event := connection.next_event()) is not h11.NEED_DATA:
                    switched = isinstance(event, h11.InformationalResponse) and event.status_code == 101
                    if isinstance(event, h11.Response) or switched:
                        fields = event.headers.raw_items()
                        head = event.status_code, dict(httpx.Headers(fields)), names(fields)
                    elif isinstance(event, h11.Data):
                        body += event.data
                    else:
                        over = head is not None
        except h11.RemoteProtocolError as error:
            return [*known, str(error)]
        done = over and connection.our_state is h11.DONE and connection.their_state is h11.DONE
        known.append((head, body, over, connection.trailing_data[0] if done else None))
    return known


def names(fields: Any) -> list[str]:
    return [name if isinstance(name, str) else name.decode() for name, _ in fields]


def cut(answer: bytes, places: list[int]) -> list[bytes]:
    ends = [*sorted({place % (len(answer) + 1) for place in places} - {0}), len(answer)]
    pieces = [answer[begin:end] for begin, end in zip([0, *ends], ends, strict=False)]
    return [piece for piece in pieces if piece]


@pytest.mark.parametrize("answer", USUAL + ODD)
def test_an_answer_is_read_as_h11_reads_it_wherever_it_is_cut(answer):
    # The end of the head, and the first lines of the body, are the places that matter.
    middle = answer.find(b"\r\n\r\n")
    for place in (1, 9, *range(max(middle - 3, 1), min(middle + 40, len(answer))), len(answer) - 1):
        pieces = cut(answer, [place])
        assert read(pieces, True, False) == read_by_h11(pieces, True, False)
    if len(answer) < 1000:
        drops = [bytes([byte]) for byte in answer]
        assert read(drops, True, False) == read_by_h11(drops, True, False)


@st.composite
def damaged(draw):
    """One of the answers above with some bytes of it replaced, left out or doubled."""
    answer = draw(st.sampled_from([each for each in USUAL + ODD if len(each) < 1000]))
    for _ in range(draw(st.integers(0, 3))):
        place, length = draw(st.integers(0, len(answer))), draw(st.integers(0, 3))
        put = draw(st.sampled_from([b"", b"\r", b"\n", b"\r\n", b" ", b"\t", b":", b"0", b"f", b"\x00", b"\xff", b"-"]))
        answer = answer[:place] + put * draw(st.integers(1, 2)) + answer[place + length :]
    return answer


@settings(deadline=None, max_examples=int(os.environ.get("AI_OPS_EXAMPLES", "200")))
@given(damaged(), st.lists(st.integers(0, 1000), max_size=6), st.booleans(), st.booleans())
def test_damaged_answers_are_read_as_h11_reads_them(answer, places, ended, closes):
    pieces = cut(answer, places)
    assert read(pieces, ended, closes) == read_by_h11(pieces, ended, closes)


@pytest.mark.parametrize("answer", USUAL + ODD)
def test_looking_for_the_end_takes_nothing_from_the_answer(answer):
    def read_all(looks):
        exchange, found = RequestCycle("GET", "/", HEADERS), []
        try:
            exchange.receive(answer)
            head = exchange.head()
            while head:
                over = looks and exchange.is_over()
                piece = exchange.piece()
                assert piece == b"" or not over
                found.append(piece)
                if not piece:
                    break
        except h11.RemoteProtocolError as error:
            found.append(str(error))
        return found

    assert read_all(looks=True) == read_all(looks=False)


def test_the_rest_belongs_to_the_next_answer():
    reader = RequestCycle("GET", "/", HEADERS)
    reader.receive(USUAL[0] + USUAL[2])
    assert (reader.head().status, reader.piece(), reader.piece()) == (200, b"hello", b"")
    following = RequestCycle("GET", "/", HEADERS, begun=reader.rest())
    assert (following.head().status, following.piece(), following.piece(), following.rest()) == (200, b"ok", b"", b"")


HEADERS = {"Host": "example.com", "Accept": "*/*"}


@pytest.mark.parametrize("value", ["token", "", "a b", "caf\u00e9", "a\x01b", "\u00a0"])
def test_a_header_is_sent_as_httpx_sends_it(value):
    sent = RequestCycle("GET", "/mcp?x=1", {**HEADERS, "X-Key": value}).request
    assert sent == b"GET /mcp?x=1 HTTP/1.1\r\nHost: example.com\r\nAccept: */*\r\nX-Key: %b\r\n\r\n" % value.encode()


@pytest.mark.parametrize("value", ["a\r\nInjected: yes", "a\nb", "a\rb", "a\x00b", " a", "a ", "\u2028"])
def test_a_header_that_h11_does_not_send_is_not_sent(value):
    try:
        sent = RequestCycle("GET", "/", {**HEADERS, "X-Key": value}).request
    except h11.LocalProtocolError:
        return
    assert sent == b"GET / HTTP/1.1\r\nHost: example.com\r\nAccept: */*\r\nX-Key: %b\r\n\r\n" % value.encode()
    assert value == "\u2028"


@settings(deadline=None, max_examples=int(os.environ.get("AI_OPS_EXAMPLES", "200")))
@example(": ", "0", "")
@given(
    st.text(st.sampled_from("aZ09-_: \r\n\t\x00\x7f\u00e9"), max_size=4),
    st.text(st.sampled_from("aZ09-_: ,\r\n\t\x00\x7f\u00a0\u00e9"), max_size=6),
    st.text(st.sampled_from("a/?% \r\n\x7f"), max_size=3),
)
def test_a_request_is_sent_as_h11_sends_it_or_not_at_all(name, value, path):
    headers = {**HEADERS, f"X{name}": value, "Content-Length": "2"}
    assert sent_by(lambda: RequestCycle("POST", f"/{path}", headers, b"{}").request) == sent_by(
        lambda: written_by_h11("POST", f"/{path}", headers, b"{}")
    )


def sent_by(write):
    """Return what is sent, None where it may not be."""
    try:
        return write()
    except (h11.LocalProtocolError, UnicodeEncodeError):
        return None


def written_by_h11(method: str, target: str, headers: dict[str, str], content: bytes) -> bytes:
    connection = h11.Connection(h11.CLIENT)
    fields = [(name.encode("ascii"), value.encode()) for name, value in headers.items()]
    events = [h11.Request(method=method, target=target, headers=fields), h11.Data(data=content), h11.EndOfMessage()]
    return b"".join(connection.send(event) or b"" for event in events)


def test_events_are_read_in_the_encoding_that_httpx_finds():
    kinds = ["text/event-stream", "text/event-stream; charset=latin-1", "text/event-stream; charset=none-such"]
    assert [encoding_of(kind) for kind in kinds] == ["utf-8", "latin-1", "utf-8"]
