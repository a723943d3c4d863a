"""Trims threads of CompactRedisSaver with the saver's own logic, many at a time and within limits.

The saver's logic only yields requests. This module sends the requests of several threads to Redis together, under the
run's fence, and limits the size of each answer.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Generator, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import ormsgpack

from ai_ops.checkpoints.redis.client import RetryingRedis
from ai_ops.checkpoints.redis.compact_scripts import FIELDS, NAME_BYTES, NAMES
from langgraph_checkpoint_compact import CompactSaverError, DamagedThreadError
from langgraph_checkpoint_compact.documents import decode_writes
from langgraph_checkpoint_compact.removal import Thread, all_except, remove
from langgraph_checkpoint_compact.requests import Command, Request, Run
from langgraph_checkpoint_compact.scripts import REMOVE
from langgraph_checkpoint_compact.session import Session, TailMemory

# Limit on the bytes read of one thread before the decision: enough for more than ten thousand checkpoints.
THREAD_BYTES = 32 * 1024 * 1024
FIELD_BYTES = 8 * 1024 * 1024
# Limit on one answer.
ANSWER_BYTES = 1024 * 1024
# Number of threads examined together; their documents stay in memory until the threads are trimmed.
AT_ONCE = 20

Result = TypeVar("Result")
Words = Sequence[Any]
Keep = Callable[[Iterable[bytes]], set[bytes] | None]


@dataclass(frozen=True, slots=True)
class Trim:
    """An examined thread, and the checkpoints to delete from it."""

    thread: Thread
    to_delete: Collection[bytes]


class _PlainSerializer:
    """Reads metadata without creating the objects that it names: no data of Redis may run code here."""

    def dumps_typed(self, value: Any) -> tuple[str, bytes]:
        """Raise TypeError: the cleanup writes no values."""
        raise TypeError("The cleanup writes no values.")

    def loads_typed(self, data: tuple[str, bytes]) -> Any:
        """Read MessagePack or JSON; raise CompactSaverError if the data is encrypted or damaged."""
        kind, content = data
        try:
            if kind == "msgpack":
                return ormsgpack.unpackb(content, ext_hook=lambda code, inner: None, option=ormsgpack.OPT_NON_STR_KEYS)
            if kind == "json":
                return json.loads(content)
        except ValueError as error:
            raise DamagedThreadError("A checkpoint's metadata can't be read.") from error
        raise _OpaqueError(f"A checkpoint's metadata are of the kind {kind!r}.")


class _OpaqueError(CompactSaverError):
    """Raised for a thread with encrypted metadata, which hides the checkpoints that it needs."""


class Trims:
    """Trims threads.

    Args:
        redis: The database with the threads.
        prefix: The prefix of their keys.
    """

    def __init__(self, redis: RetryingRedis, prefix: str) -> None:
        self._redis = redis
        self._session = Session(_PlainSerializer(), prefix, 0, 0, TailMemory())

    def look(self, threads: Sequence[tuple[bytes, bytes]], keep: Keep) -> list[Trim | str | None]:
        """Examine threads by their keys, and choose the checkpoints to delete.

        Args:
            threads: The keys of each thread.
            keep: Takes all checkpoints of a thread, ``<namespace>|<id>``, and returns those that must stay; None for
                all of them.

        Returns:
            For each thread the trim, which may be empty; None if its metadata is encrypted; a clause with the fault if
            the thread can't be read.
        """
        found = self._together([_chosen(Thread(self._session, keys), keep) for keys in threads])
        # An encrypted thread may need its old checkpoints, so it keeps them until the thread itself expires.
        return [
            None if isinstance(each, _OpaqueError) else str(each) if isinstance(each, Exception) else each
            for each in found
        ]

    def descended(self, keys: tuple[bytes, bytes], is_old: Callable[[bytes], bool]) -> Trim | None:
        """Return the trim of checkpoints that are old or come from old, even deleted ones; None if unread.

        Args:
            keys: The thread's keys.
            is_old: Returns whether a checkpoint id is old.
        """
        (found,) = self._together([_descended(Thread(self._session, keys), is_old)])
        return found if isinstance(found, Trim) else None

    def apply(self, trims: Sequence[Trim]) -> list[bool]:
        """Trim threads; return for each whether it was trimmed, which a write in the meantime prevents."""
        found = self._together([remove(each.thread, each.to_delete) for each in trims])
        return [each is True for each in found]

    def _together(self, steps: Sequence[Generator[Request, Any, Result]]) -> list[Result | CompactSaverError]:
        """Carry out the steps of several threads, and return their results."""
        results: dict[int, Result | CompactSaverError] = {}
        under_way = {number: self._commands(each) for number, each in enumerate(steps)}
        answers: dict[int, Any] = dict.fromkeys(under_way)
        while answers:
            commands: dict[int, Words] = {}
            for number, answer in answers.items():
                try:
                    commands[number] = under_way[number].send(answer)
                except StopIteration as end:
                    results[number] = end.value
                except CompactSaverError as error:
                    results[number] = error
            answers = dict(zip(commands, self._redis.ask(list(commands.values())), strict=True))
        return [results[number] for number in range(len(steps))]

    def _commands(self, steps: Generator[Request, Any, Result]) -> Generator[Words, Any, Result]:
        """Yield the commands of one thread's steps, and limit the size of their answers together."""
        left = THREAD_BYTES
        answer = None
        while True:
            try:
                request = steps.send(answer)
            except StopIteration as end:
                result: Result = end.value
                return result
            except (ValueError, IndexError) as error:
                # Names are decoded and split as they are needed, and another program may have written them.
                raise DamagedThreadError("It has a name that its saver does not write.") from error
            answer = yield from self._carried_out(request)
            left -= _size(answer)
            if left < 0:
                raise DamagedThreadError("It is larger than any conversation.")

    def _carried_out(self, request: Request) -> Generator[Words, Any, Any]:
        if isinstance(request, Run):
            source, arguments = request.script.source, list(request.arguments)
            if request.script is REMOVE:
                return _checked((yield self._redis.fenced(source, request.keys, arguments)))
            return _checked((yield ["EVAL", source, 2, *request.keys, *arguments]))
        assert isinstance(request, Command)  # noqa: S101
        name, key, *arguments = request.arguments
        if name == "ZRANGEBYLEX":
            start, count = arguments[0], arguments[-1]
            return _checked((yield ["EVAL", NAMES, 1, key, start, count, NAME_BYTES]))
        found: list[Any] = []
        while len(found) < len(arguments):
            room = [FIELD_BYTES, ANSWER_BYTES]
            found += _checked((yield ["EVAL", FIELDS, 1, key, *room, *arguments[len(found) :]]))
        return found if name == "HMGET" else found[0]


def _chosen(thread: Thread, keep: Keep) -> Generator[Request, Any, Trim]:
    """Examine a thread and choose the checkpoints to delete."""
    yield from thread.look()
    kept = keep(thread.documents)
    if kept is None:
        raise DamagedThreadError("The time of one of its checkpoints is unknown.")
    to_delete = yield from all_except(thread, lambda newest: kept)
    return Trim(thread, to_delete)


def _descended(thread: Thread, is_old: Callable[[bytes], bool]) -> Generator[Request, Any, Trim]:
    yield from thread.look()
    yield from thread.look_at_values()
    to_delete: set[bytes] = set()
    # Parents are older than the checkpoints made from them.
    for member in sorted(thread.documents, key=lambda name: name.partition(b"|")[2]):
        namespace, _, checkpoint_id = member.partition(b"|")
        parent = thread.documents[member].parent_id.encode("utf-8", "surrogatepass")
        known = namespace + b"|" + parent
        if is_old(checkpoint_id) or known in to_delete or (parent and known not in thread.documents and is_old(parent)):
            to_delete.add(member)
    root = {member for member in thread.documents if member.startswith(b"|")}
    # A subgraph's first checkpoint has no parent: the root namespace decides on it.
    return Trim(thread, set(thread.documents) if root and root <= to_delete else to_delete)


def has_interrupt(fields: Iterable[bytes]) -> bool | None:
    """Return whether one of these fields of pending writes has an interrupt; None if one can't be read."""
    from langgraph.checkpoint.serde.types import INTERRUPT

    try:
        return any(write.channel == INTERRUPT for each in fields if each for write in decode_writes(each, ()))
    except CompactSaverError:
        return None


def _checked(answer: Any) -> Any:
    """Return the answer; raise DamagedThreadError if there is none because of the content of a key."""
    if answer is None:
        raise DamagedThreadError("One of its keys has data that the saver does not write.")
    return answer


def _size(answer: Any) -> int:
    if isinstance(answer, bytes):
        return len(answer)
    return sum(map(_size, answer)) if isinstance(answer, list) else 0
