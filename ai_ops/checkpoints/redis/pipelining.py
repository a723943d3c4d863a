"""Calls to Redis that are sent ahead: it works on some while the caller prepares the next."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from itertools import islice
from typing import Any

from redis.exceptions import ResponseError

# So many calls are without an answer at most: enough for Redis to have work while the next are made ready. Of ten, most
# are read in one piece, and then others wait for all of them: the 99th percentile of their PING was five times that of
# an idle server.
CALLS_AT_ONCE = 3


class Answer:
    """The answer of Redis to a call; None until it has come.

    Attributes:
        command: The call, packed.
        value: The reply.
        repeated: Whether the call was sent more than once. Then Redis may have carried it out twice, and the
            reply is that of the last time.
    """

    __slots__ = ("command", "repeated", "value")

    def __init__(self, command: bytes, value: Any = None) -> None:
        self.command = command
        self.value = value
        self.repeated = False


class CallsAhead:
    """Calls on one connection, carried out in the order they were added.

    When the connection is lost, those without an answer are sent again, in the same order.

    Args:
        client: Whose connections to use.
        retry: Carries out an action, again after a lost connection; raises for good.

    Raises:
        ResponseError: From every method: Redis refused a call. Then no call is left without an answer.
    """

    def __init__(self, client: Any, retry: Callable[[Callable[[], None]], None]) -> None:
        self._pool = client.connection_pool
        self._retry = retry
        self._connection: Any = None
        self._under_way: deque[Answer] = deque()
        # So many of them were sent on this connection.
        self._sent = 0
        self._refused: ResponseError | None = None

    def add(self, command: bytes) -> Answer:
        """Send a call, once few enough of those before are without an answer."""
        self._await(CALLS_AT_ONCE - 1)
        answer = Answer(command)
        self._under_way.append(answer)
        self._retry(self._deliver)
        return answer

    def wait_for(self, answer: Answer) -> None:
        """Wait until a call has its answer; later ones may still be without."""
        if answer in self._under_way:
            self._await(len(self._under_way) - 1 - self._under_way.index(answer))

    def settle(self) -> None:
        """Wait until all calls have their answers, and give the connection back."""
        self._await(0)
        if self._connection is not None:
            self._release()

    def _await(self, most: int) -> None:
        """Wait until at most so many calls are without an answer."""
        if len(self._under_way) > most:
            self._retry(lambda: self._receive(most))

    def _deliver(self) -> None:
        """Send the calls that were not sent on this connection."""
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
            # After one that was refused the others are on their way all the same.
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
        """Give the connection up: a reply may still be on its way, and must not become that to the next call."""
        for answer in self._under_way:
            answer.repeated = True
        self._sent = 0
        if self._connection is not None:
            self._connection.disconnect()
            self._release()

    def _release(self) -> None:
        connection, self._connection = self._connection, None
        self._pool.release(connection)


def packed(words: Sequence[str | bytes | int]) -> bytes:
    """A command as Redis reads it. The client's own packing takes three times as long, and sends it in pieces."""
    encoded = [word if type(word) is bytes else str(word).encode() for word in words]
    return b"".join([b"*%d\r\n" % len(encoded), *[b"$%d\r\n%b\r\n" % (len(word), word) for word in encoded]])
