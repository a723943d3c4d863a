"""A client for a shared Redis with temporary failures: pipelines, scans, and scripts under a fence."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
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
from ai_ops.checkpoints.redis.pipelining import Answer, PipelinedCalls, packed
from ai_ops.checkpoints.redis.replies import ReplyLimit, ReplyTooLongError
from ai_ops.checkpoints.redis.scripts import NAME_BYTES, READ, REPLY_BYTES, SCAN_LONG
from ai_ops.exceptions import CheckpointStoreError, LeaseLostError
from ai_ops.logic.batches import batches

SCAN_COUNT = 1000
# Maximum number of bytes of the names in one step of a scan with long names.
SCANNED_BYTES = 4 * 1024 * 1024
READ_AT_ONCE = 100  # each command blocks all other clients
PIPELINE_COMMANDS = 500
# Duration of a pause, in which Redis serves only other clients. Between batches Redis usually waits for the cleanup
# anyway.
PAUSE_SECONDS = 0.0005
DELETIONS_PER_PAUSE = 2500
# Together about ten seconds, the duration of a restart or a failover.
RETRY_DELAYS = (0.1, 0.3, 1.0, 3.0, 6.0)

Result = TypeVar("Result")


class RetryingRedis:
    """A Redis database or a cluster.

    Every method retries for about ten seconds after a lost connection.

    Args:
        client: A client of the database, with ``decode_responses=False``.
        sleep: Waits for a number of seconds.
        fence: The fence that scripts must hold; None for no fence. A cluster has no fence, because a script can't
            compare a key on one node and delete on another.
        retry_delays: Seconds before each retry; None for RETRY_DELAYS.

    Raises:
        LeaseLostError: Raised by scripts: another run has taken over.
        CheckpointStoreError: Raised by every method: Redis refused a command or could not be reached.
    """

    def __init__(
        self,
        client: redis.Redis,
        sleep: Callable[[float], object],
        fence: Fence | None,
        retry_delays: Sequence[float] | None = None,
    ) -> None:
        # The clients of a server and of a cluster have the same commands, but no common type.
        self._client: Any = client
        self.is_cluster = isinstance(client, RedisCluster)
        self._sleep = sleep
        self._fence = None if self.is_cluster else fence
        self._since_pause = 0
        self._retry_delays = RETRY_DELAYS if retry_delays is None else tuple(retry_delays)
        # The client of a cluster creates the pools of its nodes itself, so its replies have no limit.
        self._replies = None if self.is_cluster else ReplyLimit(client)
        self._has_long_names = self.is_cluster
        self._calls = None if self.is_cluster else PipelinedCalls(client, self._retry)

    def size(self) -> int:
        """Return the number of keys in the database, on all primaries together."""
        targets = [{"target_nodes": node} if node else {} for node in self._primaries()]
        return sum(self._retry(lambda at=target: int(self._client.dbsize(**at))) for target in targets)  # type: ignore[misc]

    def memory(self) -> int | None:
        """Return the used memory in bytes, of all primaries together; None if the user may not read it."""
        return self._sum_of_info("memory", "used_memory")

    def evicted_keys(self) -> int | None:
        """Return the keys evicted since the start, on all primaries together; None if the user may not read it."""
        return self._sum_of_info("stats", "evicted_keys")

    def max_memory(self) -> int | None:
        """Return the memory limit in bytes, of all primaries together; None without a limit, or if it is unknown."""
        limits = self._infos("memory", "maxmemory")
        return sum(limits) if limits and all(limits) else None

    def _sum_of_info(self, section: str, name: str) -> int | None:
        infos = self._infos(section, name)
        return None if infos is None else sum(infos)

    def _infos(self, section: str, name: str) -> list[int] | None:
        """Return a number of INFO from each primary, 0 if it is missing; None if the user may not call INFO."""
        try:
            infos = [self._retry(lambda at=node: self._info(section, at)) for node in self._primaries()]  # type: ignore[misc]
        except CheckpointStoreError as error:
            if isinstance(error.__cause__, NoPermissionError):
                return None
            raise
        return [int(info.get(name, 0)) for info in infos]

    def scan(self, restarted: Callable[[], object], match: bytes | None = None) -> Iterator[list[bytes]]:
        """Yield all keys of all primaries in batches; a key may come twice.

        After a lost connection the server may be another or a restarted one, for which the cursor has no meaning. So
        the scan starts again.

        Args:
            restarted: Called before the scan starts again.
            match: A Redis glob for the keys. A batch has the matching keys among about SCAN_COUNT, and may be empty.
        """
        try:
            yield from self._scan(restarted, match)
        except ReplyTooLongError:
            self._has_long_names = True
            restarted()
            yield from self._scan(restarted, match)

    def _scan(self, restarted: Callable[[], object], match: bytes | None) -> Iterator[list[bytes]]:
        for delay in (*self._retry_delays, None):
            try:
                for node in self._primaries():
                    yield from self._scan_node(node.redis_connection if node else self._client, match)
                return
            except ReplyTooLongError:
                raise
            except (RedisConnectionError, RedisTimeoutError) as error:
                self._wait_or_raise(error, delay)
                restarted()
            except RedisError as error:
                raise CheckpointStoreError(explain(error)) from error

    def ask(self, commands: Sequence[Sequence[Any]]) -> list[Any]:
        """Send commands together and return the replies, with None for an error about a key's type or value."""
        if not commands:
            return []
        # Earlier calls are executed first.
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
        """Read the values of keys with the command for each type, a few megabytes at a time.

        Args:
            keys: The keys.
            paths: Paths to read in a JSON document; without paths, documents are not read.
            limit: Maximum number of bytes of a value; for a longer value only the type is returned.
        """
        for batch in batches(keys, 1 if self.is_cluster else READ_AT_ONCE):
            while batch:
                (replies,) = self.ask([("EVAL", READ, len(batch), *batch, limit, REPLY_BYTES, *paths)])
                for reply in replies or [[b"", None]]:
                    yield batch.pop(0), Reading(reply[0], reply[1] if len(reply) > 1 else None)

    def script(self, source: str, keys: Sequence[bytes], arguments: Sequence[Any]) -> Answer:
        """Send a script under the fence.

        Returns:
            The answer. It has a value after `wait_for` or `settle`, and in a cluster immediately.
        """
        if self._calls is None:
            return Answer(b"", self._at_once(source, keys, arguments))
        return self._calls.add(packed(self.fenced(source, keys, arguments)))

    def read_script(self, source: str, keys: Sequence[bytes], arguments: Sequence[Any]) -> Answer:
        """Send a script that only reads, without the fence; the answer has a value when that of `script` has."""
        if self._calls is None:
            return Answer(b"", self._at_once(source, keys, arguments))
        return self._calls.add(packed(["EVAL", source, len(keys), *keys, *arguments]))

    def fenced(self, source: str, keys: Sequence[bytes], arguments: Sequence[Any]) -> list[Any]:
        """Return the command that runs a script under the fence, for `ask`."""
        if self._fence and self._fence.is_claimed:
            source, keys, arguments = CHECK + source, [*keys, self._fence.key], [*arguments, self._fence.number]
        return ["EVAL", source, len(keys), *keys, *arguments]

    def wait_for(self, answer: Answer) -> None:
        """Wait for the answer of a script, but not for those of later scripts."""
        if self._calls is not None:
            self._calls.wait_for(answer)

    def proceed(self) -> None:
        """Take the answers that have arrived and send the next scripts, without waiting."""
        if self._calls is not None:
            self._calls.proceed()

    def settle(self) -> None:
        """Wait for the answers of all scripts."""
        if self._calls is not None:
            self._calls.settle()

    def pause_if_due(self, deletions: int) -> None:
        """Count the deletions that follow, and pause before them if there were many since the last pause."""
        self._since_pause += deletions
        if self._since_pause > DELETIONS_PER_PAUSE:
            self._since_pause = 0
            self.settle()
            self.pause()

    def pause(self) -> None:
        """Pause for a moment, so that Redis can serve other clients."""
        self._sleep(PAUSE_SECONDS)

    def claim(self) -> None:
        """Claim the fence, unless it is already claimed."""
        if self._fence and not self._fence.is_claimed:
            self._fence.claim(self._at_once)

    def release(self) -> None:
        """Return the connection of the scripts, and release the fence, at the end of a run."""
        self.settle()
        if self._fence:
            self._fence.release(self._at_once)

    def stop_retrying(self) -> None:
        """Stop retrying: fail immediately from now on."""
        self._retry_delays = ()

    def _at_once(self, source: str, keys: Sequence[bytes], arguments: Sequence[Any]) -> Any:
        return self._retry(lambda: self._client.eval(source, len(keys), *keys, *arguments))

    def _primaries(self) -> list[Any]:
        """Return the nodes to scan: those of a cluster, or the single server."""
        return list(self._client.get_primaries()) if self.is_cluster else [None]

    def _info(self, section: str, node: Any) -> dict[str, Any]:
        target = {"target_nodes": node} if node else {}
        reply: dict[str, Any] = self._client.info(section, **target)
        return reply

    def _scan_node(self, client: Any, match: bytes | None) -> Iterator[list[bytes]]:
        # The scan keeps its connection, because a pool would silently replace a lost one.
        connection = client.connection_pool.get_connection()
        try:
            self._scan_at(0, SCAN_COUNT, connection, match)
            cursor = -1
            while cursor:
                cursor, keys = self._scanned(max(0, cursor), connection, match)
                if cursor:
                    # Redis scans the next keys while the caller processes these.
                    self._scan_at(cursor, SCAN_COUNT, connection, match)
                yield keys
        except BaseException:
            # A reply may still arrive, and must not be read as the reply to another command.
            connection.disconnect()
            raise
        finally:
            client.connection_pool.release(connection)

    def _scan_at(self, cursor: int, count: int, connection: Any, match: bytes | None) -> None:
        """Send the step of the scan that starts at `cursor`."""
        wanted = ("MATCH", match) if match is not None else ()
        command: list[bytes | str | int] = ["SCAN", cursor, "COUNT", count, *wanted]
        if self._has_long_names:
            command = ["EVAL", SCAN_LONG, 0, MAX_KEY_BYTES, SCANNED_BYTES, *command]
        connection.send_packed_command([packed(command)])

    def _scanned(self, cursor: int, connection: Any, match: bytes | None) -> tuple[int, list[bytes]]:
        """Return the next cursor and the keys of the step at `cursor`."""
        # The script for long names has its own limit.
        with nullcontext() if self._has_long_names or self._replies is None else self._replies.applied():
            at, *found = connection.read_response()
        count = SCAN_COUNT
        while not found and count > 1:
            # The names are long: request fewer of them at the same cursor.
            count = max(1, count // 8)
            self._scan_at(cursor, count, connection, match)
            at, *found = connection.read_response()
        return int(at), found[0] if found else []

    def _retry(self, action: Callable[[], Result]) -> Result:
        for delay in (*self._retry_delays, None):
            try:
                return action()
            except (RedisConnectionError, RedisTimeoutError) as error:
                self._wait_or_raise(error, delay)
            except RedisError as error:
                if REFUSED in str(error):
                    raise LeaseLostError("Another cleanup has taken over, or Redis was emptied: it stopped.") from error
                raise CheckpointStoreError(explain(error)) from error
        raise AssertionError("the last delay is None, which raises an error")

    def _wait_or_raise(self, error: RedisError, delay: float | None) -> None:
        if delay is None or isinstance(error, AuthenticationError):
            raise CheckpointStoreError(explain(error)) from error
        self._sleep(delay)
