"""A client for a shared Redis that may fail for a while: pipelines, scans, and scripts under a fence."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar

import redis
from redis.cluster import RedisCluster
from redis.exceptions import AuthenticationError, NoPermissionError, RedisError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from ai_ops.checkpoints.logic.keys import MAX_KEY_BYTES
from ai_ops.checkpoints.logic.values import Reading
from ai_ops.checkpoints.redis.errors import explain, is_about_the_value
from ai_ops.checkpoints.redis.fence import CHECK, REFUSED, Fence
from ai_ops.checkpoints.redis.pipelining import Answer, CallsAhead, packed
from ai_ops.checkpoints.redis.scripts import JOINED_BYTES, NAME_BYTES, READ, REPLY_BYTES, SCAN_JOINED
from ai_ops.exceptions import CheckpointStoreError, LeaseLostError
from ai_ops.logic.batches import batches

SCAN_COUNT = 1000
# The names of a step of the scan, which are copied a few times on their way.
SCANNED_BYTES = 8 * 1024 * 1024
READ_AT_ONCE = 100  # one command is one pause for every other client
PIPELINE_COMMANDS = 500
# Seconds in which Redis surely has nothing to do for the cleanup. Between batches it mostly waits for it anyway.
BREATH = 0.0005
# Together some ten seconds: a restart or a failover takes about as long.
RETRY_DELAYS = (0.1, 0.3, 1.0, 3.0, 6.0)

Result = TypeVar("Result")


def _scan_command(cursor: int, count: int, joined: int, match: bytes | None) -> bytes:
    wanted = [match] if match is not None else []
    return packed(["EVAL", SCAN_JOINED, 0, cursor, count, joined, MAX_KEY_BYTES, SCANNED_BYTES, *wanted])


class RetryingRedis:
    """One Redis database, or a cluster.

    Every method retries a lost connection for some ten seconds.

    Args:
        client: A client of the database, with ``decode_responses=False``.
        sleep: How to wait; seconds.
        fence: Whose scripts Redis carries out; None for everybody's. A cluster knows none: one script can't compare
            a key on one node and delete on another.

    Raises:
        LeaseLostError: From scripts: another run has taken over.
        CheckpointStoreError: From every method: what Redis refused or why it could not be reached.
    """

    def __init__(self, client: redis.Redis, sleep: Callable[[float], object], fence: Fence | None) -> None:
        # Both answer the same commands; only their types have nothing in common.
        self._client: Any = client
        self.is_cluster = isinstance(client, RedisCluster)
        self._sleep = sleep
        self._fence = None if self.is_cluster else fence
        self._is_hurried = False
        self._calls = None if self.is_cluster else CallsAhead(client, self._retry)

    def size(self) -> int:
        """Return the number of keys in the database, on all primaries together."""
        targets = [{"target_nodes": node} if node else {} for node in self._primaries()]
        return sum(self._retry(lambda at=target: int(self._client.dbsize(**at))) for target in targets)  # type: ignore[misc]

    def memory(self) -> int | None:
        """Bytes of memory the server uses, all primaries together; None if the user may not ask."""
        return self._sum_of_info("memory", "used_memory")

    def evicted_keys(self) -> int | None:
        """Keys that the server evicted since it started, on all primaries together; None if the user may not ask."""
        return self._sum_of_info("stats", "evicted_keys")

    def max_memory(self) -> int | None:
        """Bytes of memory the server may use, all primaries together; None without a limit, or if it is not told."""
        limits = self._infos("memory", "maxmemory")
        return sum(limits) if limits and all(limits) else None

    def _sum_of_info(self, section: str, name: str) -> int | None:
        infos = self._infos(section, name)
        return None if infos is None else sum(infos)

    def _infos(self, section: str, name: str) -> list[int] | None:
        """A number of INFO from each primary, 0 where the server does not have it; None if the user may not ask."""
        try:
            infos = [self._retry(lambda at=node: self._info(section, at)) for node in self._primaries()]  # type: ignore[misc]
        except CheckpointStoreError as error:
            if isinstance(error.__cause__, NoPermissionError):
                return None
            raise
        return [int(info.get(name, 0)) for info in infos]

    def scan(self, restarted: Callable[[], object], match: bytes | None = None) -> Iterator[list[bytes]]:
        """Yield all keys of all primaries in batches; a key may come twice.

        When the connection was lost, the server behind it may be another one, or one that was started anew:
        its cursor means nothing to the old scan. Then `restarted` is called and all keys come again.

        Args:
            restarted: Called then.
            match: A glob as Redis has it: only the keys that it matches come. A batch is what there is of them among
                some SCAN_COUNT keys, and may be empty.
        """
        for delay in (*RETRY_DELAYS, None):
            try:
                for node in self._primaries():
                    yield from self._scan_node(node.redis_connection if node else self._client, match)
                return
            except (RedisConnectionError, RedisTimeoutError) as error:
                self._wait_or_give_up(error, delay)
                restarted()
            except RedisError as error:
                raise CheckpointStoreError(explain(error)) from error

    def ask(self, commands: Sequence[Sequence[Any]]) -> list[Any]:
        """Send commands together; an answer that is an error of its key's type comes back as None."""
        if not commands:
            return []
        # Earlier calls happen before.
        self.settle()

        def send() -> list[Any]:
            with self._client.pipeline(transaction=False) as pipeline:
                for command in commands:
                    pipeline.execute_command(*command)
                replies: list[Any] = pipeline.execute(raise_on_error=False)
                return replies

        def checked() -> list[Any]:
            replies = send()
            for reply in replies:
                if isinstance(reply, RedisError) and not is_about_the_value(reply):
                    raise reply
            return replies

        return [None if isinstance(reply, RedisError) else reply for reply in self._retry(checked)]

    def read(self, keys: Iterable[bytes], *paths: str, limit: int = NAME_BYTES) -> Iterator[tuple[bytes, Reading]]:
        """Read the values of keys by the command that fits each type, a few megabytes at a time.

        Args:
            keys: The keys.
            paths: What of a JSON document is of interest; without any, documents are not read.
            limit: Bytes that the value of one key may have; of a longer one the type alone is told.
        """
        for batch in batches(keys, 1 if self.is_cluster else READ_AT_ONCE):
            while batch:
                (replies,) = self.ask([("EVAL", READ, len(batch), *batch, limit, REPLY_BYTES, *paths)])
                for reply in replies or [[b"", None]]:
                    yield batch.pop(0), Reading(reply[0], reply[1] if len(reply) > 1 else None)

    def script(self, source: str, keys: Sequence[bytes], arguments: Sequence[Any]) -> Answer:
        """Have a script run; its answer is there after `wait_for` or `settle`, and in a cluster at once."""
        if self._calls is None:
            return Answer(b"", self._at_once(source, keys, arguments))
        return self._calls.add(packed(self.fenced(source, keys, arguments)))

    def ahead(self, source: str, keys: Sequence[bytes], arguments: Sequence[Any]) -> Answer:
        """Have a script run that reads; its answer is there as that of `script` is."""
        if self._calls is None:
            return Answer(b"", self._at_once(source, keys, arguments))
        return self._calls.add(packed(["EVAL", source, len(keys), *keys, *arguments]))

    def fenced(self, source: str, keys: Sequence[bytes], arguments: Sequence[Any]) -> list[Any]:
        """The command that runs a script under the fence, for `ask`."""
        if self._fence and self._fence.is_claimed:
            source, keys, arguments = CHECK + source, [*keys, self._fence.key], [*arguments, self._fence.number]
        return ["EVAL", source, len(keys), *keys, *arguments]

    def wait_for(self, answer: Answer) -> None:
        """Wait for a script, not for those that were to run after it."""
        if self._calls is not None:
            self._calls.wait_for(answer)

    def settle(self) -> None:
        """Wait for the scripts that are under way."""
        if self._calls is not None:
            self._calls.settle()

    def breathe(self) -> None:
        """Pause for a moment, so that Redis serves others."""
        self._sleep(BREATH)

    def claim(self) -> None:
        """Claim the fence, unless it is already claimed."""
        if self._fence and not self._fence.is_claimed:
            self._fence.claim(self._at_once)

    def release(self) -> None:
        """Return the connection of the scripts, and release the fence, at the end of a run."""
        self.settle()
        if self._fence:
            self._fence.release(self._at_once)

    def hurry(self) -> None:
        """Stop retrying: fail at once from now on."""
        self._is_hurried = True

    def _at_once(self, source: str, keys: Sequence[bytes], arguments: Sequence[Any]) -> Any:
        return self._retry(lambda: self._client.eval(source, len(keys), *keys, *arguments))

    def _primaries(self) -> list[Any]:
        """The nodes to scan: those of a cluster, or just the one there is."""
        return list(self._client.get_primaries()) if self.is_cluster else [None]

    def _info(self, section: str, node: Any) -> dict[str, Any]:
        target = {"target_nodes": node} if node else {}
        reply: dict[str, Any] = self._client.info(section, **target)
        return reply

    def _scan_node(self, client: Any, match: bytes | None) -> Iterator[list[bytes]]:
        # One connection for the whole scan: a pool would replace a lost one without a word.
        connection = client.connection_pool.get_connection()
        try:
            self._scan_at(0, connection, match)
            cursor = -1
            while cursor:
                cursor, keys = self._scanned(max(0, cursor), connection, match)
                if cursor:
                    # Redis looks for the next keys while the caller looks at these.
                    self._scan_at(cursor, connection, match)
                yield keys
        except BaseException:
            # A reply may still be on its way, and must not become that to another command.
            connection.disconnect()
            raise
        finally:
            client.connection_pool.release(connection)

    def _scan_at(self, cursor: int, connection: Any, match: bytes | None) -> None:
        """Ask for the step of the scan that begins at `cursor`."""
        connection.send_packed_command([_scan_command(cursor, SCAN_COUNT, JOINED_BYTES, match)])

    def _scanned(self, cursor: int, connection: Any, match: bytes | None) -> tuple[int, list[bytes]]:
        """The cursor and the keys with which the question at `cursor` is answered."""
        at, *found = connection.read_response()
        count = SCAN_COUNT
        while not found and count > 1:
            # Long names: fewer of them, from the same place.
            count = max(1, count // 8)
            connection.send_packed_command([_scan_command(cursor, count, JOINED_BYTES, match)])
            at, *found = connection.read_response()
        if len(found) == 2:
            keys = found[1].split(b"\n") if found[0] else []
            if len(keys) == found[0]:
                return int(at), keys
            # A key has a line break in its name: the same step again, told apart by Redis.
            connection.send_packed_command([_scan_command(cursor, count, -1, match)])
            at, *found = connection.read_response()
        return int(at), list(found[0]) if found else []

    def _retry(self, action: Callable[[], Result]) -> Result:
        for delay in (*(() if self._is_hurried else RETRY_DELAYS), None):
            try:
                return action()
            except (RedisConnectionError, RedisTimeoutError) as error:
                self._wait_or_give_up(error, delay)
            except RedisError as error:
                if REFUSED in str(error):
                    raise LeaseLostError("Another cleanup has taken over, or Redis was emptied: it stopped.") from error
                raise CheckpointStoreError(explain(error)) from error
        raise AssertionError("the last delay is None, which gives up")

    def _wait_or_give_up(self, error: RedisError, delay: float | None) -> None:
        if delay is None or isinstance(error, AuthenticationError):
            raise CheckpointStoreError(explain(error)) from error
        self._sleep(delay)
