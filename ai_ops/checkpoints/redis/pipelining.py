"""Calls sent ahead to Redis, which works on them while the caller prepares the next."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from typing import Any

from redis.exceptions import ResponseError

# Maximum number of calls without an answer: enough that Redis has work while the next calls are prepared. With ten,
# Redis reads most of them together and other clients wait for all: the 99th percentile of their PING was five times
# that of an idle server.
CALLS_AT_ONCE = 3


class Answer:
    """The answer of Redis to a call; None until it has arrived.

    Attributes:
        command: The call, packed.
        value: The reply.
        repeated: Whether the call was sent more than once. Redis may then have executed it twice, and the reply is the
            last one.
    """

    __slots__ = ("command", "repeated", "value")

    def __init__(self, command: bytes, value: Any = None) -> None:
        self.command = command
        self.value = value
        self.repeated = False


class CallsAhead:
    """Calls on one connection, executed in the order of their addition.

    After a lost connection, calls without an answer are sent again in the same order.

    Args:
        client: The client with the connections.
        retry: Executes an action, and repeats it after a lost connection; finally raises the error.

    Raises:
        ResponseError: Raised by every method: Redis refused a call. Then all calls have answers.
    """

    def __init__(self, client: Any, retry: Callable[[Callable[[], None]], None]) -> None:
        self._pool = client.connection_pool
        self._retry = retry
        self._connection: Any = None
        self._under_way: deque[Answer] = deque()
        # Number of calls sent on this connection.
        self._sent = 0
        self._refused: ResponseError | None = None

    def add(self, command: bytes) -> Answer:
        """Send a call when few enough earlier calls are without an answer."""
        self._await(CALLS_AT_ONCE - 1)
        answer = Answer(command)
        self._under_way.append(answer)
        self._retry(self._deliver)
        return answer

    def wait_for(self, answer: Answer) -> None:
        """Wait until a call has its answer; later calls may still have none."""
        if answer in self._under_way:
            self._await(len(self._under_way) - 1 - self._under_way.index(answer))

    def settle(self) -> None:
        """Wait until all calls have their answers, and return the connection."""
        self._await(0)
        if self._connection is not None:
            self._release()

    def _await(self, most: int) -> None:
        """Wait until at most `most` calls are without an answer."""
        if len(self._under_way) > most:
            self._retry(lambda: self._receive(most))

    def _deliver(self) -> None:
        """Send the calls that were not yet sent on this connection."""
        unsent = [answer.command for answer in islice(self._under_way, self._sent, None)]
        if not unsent:
            return
        try:
            if self._connection is None:
                self._connection = self._pool.get_connection()
            self._connection.send_packed_command([b"".join(unsent)])
            self._sent = len(self._under_way)
        except BaseException:
            self._hang_up()
            raise

    def _receive(self, most: int) -> None:
        self._deliver()
        try:
            # The calls after a refused one are still executed.
            while len(self._under_way) > (most if self._refused is None else 0):
                try:
                    self._under_way[0].value = self._connection.read_response()
                except ResponseError as error:
                    self._refused = self._refused or error
                self._under_way.popleft()
                self._sent -= 1
        except BaseException:
            self._hang_up()
            raise
        if self._refused is not None:
            refused, self._refused = self._refused, None
            self._release()
            raise refused

    def _hang_up(self) -> None:
        """Close the connection, because a late reply must not be read as the reply to the next call."""
        for answer in self._under_way:
            answer.repeated = True
        self._sent = 0
        if self._connection is not None:
            self._connection.disconnect()
            self._release()

    def _release(self) -> None:
        connection, self._connection = self._connection, None
        self._pool.release(connection)


# What stands before a word of a command, by the length of the word; longer ones are rare.
_HEADS = [b"\r\n$%d\r\n" % length for length in range(1024)]


def packed(words: Sequence[str | bytes | int]) -> bytes:
    """Return a command in the protocol of Redis, in one piece and several times as fast as the client."""
    encoded = [word if type(word) is bytes else str(word).encode() for word in words]
    lengths = list(map(len, encoded))
    heads: Iterable[bytes] = map(_HEADS.__getitem__, lengths)
    if max(lengths) >= len(_HEADS):
        heads = [b"\r\n$%d\r\n" % length for length in lengths]
    pieces = [b""] * (2 * len(encoded))
    pieces[::2], pieces[1::2] = heads, encoded
    return b"*%d%b\r\n" % (len(encoded), b"".join(pieces))
