"""A limit on the length of replies, because other programs write to Redis too."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import redis
from redis.connection import DefaultParser
from redis.exceptions import RedisError

# Maximum length of a reply: three times as much as a thousand of the longest usual names.
MOST_BYTES = 2 * 1024 * 1024


class ReplyTooLongError(RedisError):
    """A reply was longer than a worker should hold; the client closes the connection."""


class ReplyLimit:
    """A limit on the replies to a client, which applies within `applied`.

    Args:
        client: The client. Its existing connections are not limited.
    """

    def __init__(self, client: redis.Redis) -> None:
        self.most_bytes: float = math.inf
        client.connection_pool.connection_kwargs["parser_class"] = partial(_BoundedParser, self)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Limit the replies read in the block.

        Raises:
            ReplyTooLongError: A reply has more than MOST_BYTES.
        """
        self.most_bytes = MOST_BYTES
        try:
            yield
        finally:
            self.most_bytes = math.inf


class _BoundedParser(DefaultParser):  # type: ignore[misc,valid-type]
    """The parser of redis-py for hiredis, with a limit on the length of a reply."""

    def __init__(self, limit: ReplyLimit, socket_read_size: int) -> None:
        super().__init__(socket_read_size)
        self._limit = limit
        self._bytes = 0

    def read_response(self, *arguments: Any, **options: Any) -> Any:
        self._bytes = 0
        return super().read_response(*arguments, **options)

    def read_from_socket(self, *arguments: Any, **options: Any) -> Any:
        # If another thread closes the connection meanwhile, redis-py raises an error.
        reader = self._reader
        before = reader.len() if reader else 0
        was_read = super().read_from_socket(*arguments, **options)
        self._bytes += reader.len() - before
        if self._bytes > self._limit.most_bytes:
            raise ReplyTooLongError("Redis sent a reply that is too long.")
        return was_read
