"""The two drivers: they carry out requests, one with a synchronous client and one with an asynchronous client."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Generator, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import redis
import redis.asyncio
from redis.client import NEVER_DECODE
from redis.exceptions import NoScriptError, ResponseError

from langgraph_checkpoint_compact.documents import damaged, newer_format
from langgraph_checkpoint_compact.errors import CompactSaverError
from langgraph_checkpoint_compact.requests import Command, Found, Request, Run, ScanPage, ScanPosition
from langgraph_checkpoint_compact.scripts import DAMAGED, NEWER_FORMAT

SyncClient = redis.Redis | redis.RedisCluster
AsyncClient = redis.asyncio.Redis | redis.asyncio.RedisCluster

SCAN_COUNT = 1000
# Values must be bytes, even if the caller's client decodes all answers.
_BYTES: dict[str, Any] = {NEVER_DECODE: []}

Result = TypeVar("Result")
Answer = Callable[[], Any]


@contextmanager
def _explained() -> Iterator[None]:
    """Raise the error of a script about unknown data as an error of this package."""
    try:
        yield
    except ResponseError as error:
        if (known := explained(error)) is None:
            raise
        raise known from error


def explained(error: ResponseError) -> CompactSaverError | None:
    """Return the error of this package for a script's error; None for other errors."""
    text = str(error)
    kind, _, rest = text.partition(" ")
    if kind == NEWER_FORMAT:
        version, _, name = rest.partition(" ")
        return newer_format(int(version), name)
    return damaged("A list of writes") if DAMAGED in text else None


def _script_arguments(request: Run, command: str, script: str) -> tuple[Any, ...]:
    return (command, script, 2, *request.keys, *request.arguments)


class SyncDriver:
    """Carries out requests with a client of redis-py."""

    def __init__(self, client: SyncClient) -> None:
        self.client = client

    def run(self, steps: Generator[Request, Any, Result]) -> Result:
        """Carry out all requests of `steps` and return their result."""
        answer = None
        try:
            while True:
                answer = self._answer(steps.send(answer))
        except StopIteration as end:
            result: Result = end.value
            return result

    def give(self, steps: Generator[Request | Found, Any, Any]) -> Iterator[Any]:
        """Yield the items of `steps`, and carry out requests only as the caller takes items."""
        answer = None
        while True:
            try:
                request = steps.send(answer)
            except StopIteration:
                return
            answer = None
            if isinstance(request, Found):
                yield request.item
            else:
                answer = self._answer(request)

    def _answer(self, request: Request) -> Any:
        if isinstance(request, ScanPage):
            return self._scan(request)
        # redis-py has no types for the arguments of this method.
        client: Any = self.client
        if isinstance(request, Command):
            return client.execute_command(*request.arguments, **_BYTES)
        with _explained():
            try:
                arguments = _script_arguments(request, "EVALSHA", request.script.sha)
                return client.execute_command(*arguments, **_BYTES)
            except NoScriptError:
                arguments = _script_arguments(request, "EVAL", request.script.source)
                return client.execute_command(*arguments, **_BYTES)

    def _scan(self, page: ScanPage) -> tuple[list[bytes], ScanPosition | None]:
        nodes = _primaries(self.client)
        position = page.position or ScanPosition()
        client: Any = self.client
        if nodes:
            client = self.client.get_redis_connection(nodes[position.node])  # type: ignore[union-attr]
        cursor, keys = client.execute_command(
            "SCAN", position.cursor, "MATCH", page.pattern, "COUNT", SCAN_COUNT, **_BYTES
        )
        return keys, _next(position, int(cursor), len(nodes))


class AsyncDriver:
    """Carries out requests with an asynchronous client of redis-py."""

    def __init__(self, client: AsyncClient) -> None:
        self.client = client

    async def run(self, steps: Generator[Request, Any, Result]) -> Result:
        """Carry out all requests of `steps` and return their result."""
        answer = None
        try:
            while True:
                answer = await self._answer(steps.send(answer))
        except StopIteration as end:
            result: Result = end.value
            return result

    async def give(self, steps: Generator[Request | Found, Any, Any]) -> AsyncIterator[Any]:
        """Yield the items of `steps`, and carry out requests only as the caller takes items."""
        answer = None
        while True:
            try:
                request = steps.send(answer)
            except StopIteration:
                return
            answer = None
            if isinstance(request, Found):
                yield request.item
            else:
                answer = await self._answer(request)

    async def _answer(self, request: Request) -> Any:
        if isinstance(request, ScanPage):
            return await self._scan(request)
        client: Any = self.client
        if isinstance(request, Command):
            return await client.execute_command(*request.arguments, **_BYTES)
        with _explained():
            try:
                arguments = _script_arguments(request, "EVALSHA", request.script.sha)
                return await client.execute_command(*arguments, **_BYTES)
            except NoScriptError:
                arguments = _script_arguments(request, "EVAL", request.script.source)
                return await client.execute_command(*arguments, **_BYTES)

    async def _scan(self, page: ScanPage) -> tuple[list[bytes], ScanPosition | None]:
        client: Any = self.client
        nodes = []
        if isinstance(client, redis.asyncio.RedisCluster):
            await client.initialize()
            nodes = _primaries(client)
        position = page.position or ScanPosition()
        target = nodes[position.node] if nodes else client
        cursor, keys = await target.execute_command(
            "SCAN", position.cursor, "MATCH", page.pattern, "COUNT", SCAN_COUNT, **_BYTES
        )
        return keys, _next(position, int(cursor), len(nodes))


def _primaries(client: SyncClient | AsyncClient) -> list[Any]:
    """Return the primaries of a cluster, always in the same order; none for a client of one server."""
    if not isinstance(client, redis.RedisCluster | redis.asyncio.RedisCluster):
        return []
    return sorted(client.get_primaries(), key=lambda node: (node.host, node.port))


def _next(position: ScanPosition, cursor: int, nodes: int) -> ScanPosition | None:
    if cursor:
        return ScanPosition(position.node, cursor)
    return ScanPosition(position.node + 1) if position.node + 1 < nodes else None
