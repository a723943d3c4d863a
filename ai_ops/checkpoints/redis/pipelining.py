"""Pipelined calls to Redis, which executes them while the caller prepares the next ones."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Any

from redis.exceptions import ResponseError

# Maximum number of sent calls without an answer. It is enough to keep Redis busy while the caller prepares the next
# calls. With ten, Redis reads most of them together, and other clients wait for all: the 99th percentile of their PING
# was five times that of an idle server.
CALLS_AT_ONCE = 3
# Limits on the queue of calls in this process. The queue lets the caller continue while Redis is busy for a moment.
CALLS_QUEUED = 20
BYTES_QUEUED = 1024 * 1024


class Answer:
    """The answer of Redis to a call; its value is None until it arrives.

    Attributes:
        command: The call in the protocol of Redis.
        value: The reply.
        repeated: Whether the call was sent more than once. Redis may then have executed it twice, and the reply is the
            last one.
    """

    __slots__ = ("command", "repeated", "value")

    def __init__(self, command: bytes, value: Any = None) -> None:
        self.command = command
        self.value = value
        self.repeated = False


class PipelinedCalls:
    """Calls on one connection, executed in the order of their addition.

    A few calls are sent without waiting for the answers to earlier ones. Some more wait in this process until Redis has
    answered. After a lost connection, calls without an answer are sent again in the same order.

    Args:
        client: The client with the connections.
        retry: Executes an action, and repeats it after a lost connection; finally raises the error.

    Raises:
        ResponseError: Raised by every method: Redis refused a call. Then the sent calls have answers, and the calls
            after them are dropped.
    """

    def __init__(self, client: Any, retry: Callable[[Callable[[], None]], None]) -> None:
        self._pool = client.connection_pool
        self._retry = retry
        self._connection: Any = None
        # The calls without an answer, and the number of those that were sent on this connection: the first ones.
        self._calls: deque[Answer] = deque()
        self._sent = 0
        # Bytes of all calls without an answer.
        self._bytes = 0
        self._refused: ResponseError | None = None

    def add(self, command: bytes) -> Answer:
        """Send a call, or queue it if CALLS_AT_ONCE earlier ones have no answer; wait only if the queue is full."""
        answer = Answer(command)
        self._calls.append(answer)
        self._bytes += len(command)
        self.proceed()
        self._await(CALLS_AT_ONCE + (CALLS_QUEUED if self._bytes <= BYTES_QUEUED else 0))
        return answer

    def proceed(self) -> None:
        """Take the answers that have arrived, and send the next calls, without waiting."""
        if self._calls:
            self._retry(self._proceed)

    def wait_for(self, answer: Answer) -> None:
        """Wait until a call has its answer; later calls may still have none."""
        if answer in self._calls:
            self._await(len(self._calls) - 1 - self._calls.index(answer))

    def settle(self) -> None:
        """Wait until all calls have their answers, and return the connection."""
        self._await(0)
        if self._connection is not None:
            self._release()

    def _await(self, most: int) -> None:
        """Wait until at most `most` calls are without an answer."""
        if len(self._calls) > most:
            self._retry(lambda: self._receive(most))

    def _proceed(self) -> None:
        with self._disconnect_on_error():
            self._send_next()
            while self._sent and self._connection.can_read():
                self._receive_answer()
            self._send_next()

    def _receive(self, most: int) -> None:
        with self._disconnect_on_error():
            while len(self._calls) > most:
                self._send_next()
                self._receive_answer()
            self._send_next()

    def _send_next(self) -> None:
        """Send the next calls, as many as may be without an answer."""
        unsent = [answer.command for answer in islice(self._calls, self._sent, CALLS_AT_ONCE)]
        if not unsent:
            return
        if self._connection is None:
            self._connection = self._pool.get_connection()
        # Count before sending: if sending fails midway, Redis may still execute some of these calls.
        self._sent += len(unsent)
        self._connection.send_packed_command([b"".join(unsent)])

    def _receive_answer(self) -> None:
        """Read the answer of the first call; after a refusal, read those of all sent calls and raise the error."""
        while True:
            try:
                self._calls[0].value = self._connection.read_response()
            except ResponseError as error:
                self._refused = self._refused or error
            self._bytes -= len(self._calls.popleft().command)
            self._sent -= 1
            if self._refused is None:
                return
            # The calls that were sent after a refused one are still executed.
            if not self._sent:
                break
        refused, self._refused = self._refused, None
        self._calls.clear()
        self._bytes = 0
        self._release()
        raise refused

    @contextmanager
    def _disconnect_on_error(self) -> Iterator[None]:
        """Close the connection after an error: a late reply must not be read as the reply to the next call."""
        try:
            yield
        except ResponseError:
            raise
        except BaseException:
            for answer in islice(self._calls, self._sent):
                answer.repeated = True
            self._sent = 0
            if self._connection is not None:
                self._connection.disconnect()
                self._release()
            raise

    def _release(self) -> None:
        connection, self._connection = self._connection, None
        self._pool.release(connection)


# The header of a word in a command, by the length of the word; longer words are rare.
_HEADS = [b"\r\n$%d\r\n" % length for length in range(4096)]


def packed(words: Sequence[str | bytes | int]) -> bytes:
    """Return a command in the protocol of Redis, as one byte string; several times as fast as the client does."""
    encoded = [word if type(word) is bytes else str(word).encode() for word in words]
    lengths = list(map(len, encoded))
    heads: Iterable[bytes] = map(_HEADS.__getitem__, lengths)
    if max(lengths) >= len(_HEADS):
        heads = [b"\r\n$%d\r\n" % length for length in lengths]
    pieces = [b""] * (2 * len(encoded))
    pieces[::2], pieces[1::2] = heads, encoded
    return b"*%d%b\r\n" % (len(encoded), b"".join(pieces))
