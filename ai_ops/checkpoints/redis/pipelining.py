"""Calls to Redis that are sent ahead: it works on some while the caller prepares the next."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from redis.exceptions import ResponseError

# So many calls go together: enough for Redis to have work while the next are made ready. Of ten, most are read in one
# piece, and then others wait for all of them: the 99th percentile of their PING was five times that of an idle server.
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
    """

    def __init__(self, client: Any, retry: Callable[[Callable[[], None]], None]) -> None:
        self._pool = client.connection_pool
        self._retry = retry
        self._connection: Any = None
        self._is_sent = False
        self._collected: list[Answer] = []
        self._under_way: deque[Answer] = deque()
        self._refused: ResponseError | None = None

    def add(self, command: bytes) -> Answer:
        """Have a call sent, with others or at the next `send`."""
        answer = Answer(command)
        self._collected.append(answer)
        if len(self._collected) >= CALLS_AT_ONCE:
            self.send()
        return answer

    def send(self) -> None:
        """Send what was added, once all that was sent before has its answer.

        Raises:
            ResponseError: Redis refused one of those; all of them have been answered then.
        """
        self._await()
        if self._collected:
            self._under_way.extend(self._collected)
            self._collected.clear()
            self._is_sent = False
            self._retry(self._deliver)

    def settle(self) -> None:
        """Send what was added, and wait until all has its answer."""
        self.send()
        self._await()
        if self._connection is not None:
            self._release()

    def _await(self) -> None:
        if self._under_way:
            self._retry(self._receive)

    def _deliver(self) -> None:
        try:
            if self._connection is None:
                self._connection = self._pool.get_connection()
            self._connection.send_packed_command([b"".join([answer.command for answer in self._under_way])])
            self._is_sent = True
        except BaseException:
            self._hang_up()
            raise

    def _receive(self) -> None:
        if not self._is_sent:
            self._deliver()
        try:
            while self._under_way:
                try:
                    self._under_way[0].value = self._connection.read_response()
                except ResponseError as error:
                    # The others are on their way all the same.
                    self._refused = self._refused or error
                self._under_way.popleft()
        except BaseException:
            self._hang_up()
            raise
        if self._refused is not None:
            refused, self._refused = self._refused, None
            self._collected.clear()
            self._release()
            raise refused

    def _hang_up(self) -> None:
        """Give the connection up: a reply may still be on its way, and must not become that to the next call."""
        for answer in self._under_way:
            answer.repeated = True
        self._is_sent = False
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
