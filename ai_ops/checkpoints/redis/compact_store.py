"""Examines threads of CompactRedisSaver in one Redis, and deletes them unless they have changed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from redis.exceptions import NoPermissionError

from ai_ops.checkpoints.logic.compact_keys import CompactKeys, Thread
from ai_ops.checkpoints.logic.compact_plan import (
    CompactDeletion,
    Look,
    State,
    begin_of_id,
    kept_members,
    largest_namespace,
    newest_members,
    time_of_id,
)
from ai_ops.checkpoints.logic.deletion import Outcome, Reason
from ai_ops.checkpoints.logic.keys import KeyParser
from ai_ops.checkpoints.logic.retention import RetentionPolicy
from ai_ops.checkpoints.redis import compact_scripts as scripts
from ai_ops.checkpoints.redis.client import PIPELINE_COMMANDS, RetryingRedis
from ai_ops.checkpoints.redis.pipelining import Answer
from ai_ops.exceptions import CheckpointStoreError
from ai_ops.logic.batches import batches

if TYPE_CHECKING:
    from ai_ops.checkpoints.redis.compact_trims import Trim, Trims

# Limit on the pending writes of a checkpoint: 64 KiB and the last write.
WRITES_BYTES = 1024 * 1024
NAMESPACES = 100
# Limit on the listed checkpoints of a thread.
MEMBERS = 10_000


@dataclass(frozen=True, slots=True)
class Trimmed:
    """The decision on a live thread.

    Attributes:
        look: The thread.
        deletion: The deletion from the thread; None if it loses no checkpoint.
        left: Number of checkpoints of its largest namespace that stay; 0 if unknown.
        is_readable: Whether a decision was possible.
    """

    look: Look
    deletion: CompactDeletion | None = None
    left: int = 0
    is_readable: bool = True


class CompactStore:
    """The threads of CompactRedisSaver in one Redis database.

    Args:
        redis: The database.
        keys: The names of the threads' keys.
        parser: Reads times.

    Raises:
        LeaseLostError: From `apply`: another run has taken over.
        CheckpointStoreError: From every method: Redis refused a command, or the run could not reach it.
    """

    def __init__(self, redis: RetryingRedis, keys: CompactKeys, parser: KeyParser) -> None:
        self._redis = redis
        self._keys = keys
        self._parser = parser
        self._trims: Trims | None = None

    @property
    def trims(self) -> Trims:
        """Return the saver's logic for trimming. It imports LangGraph, so only a run that trims loads it."""
        if self._trims is None:
            from ai_ops.checkpoints.redis.compact_trims import Trims

            self._trims = Trims(self._redis, self._keys.prefix)
        return self._trims

    def look(self, threads: Sequence[Thread], young: float) -> Iterator[Look]:
        """Ask Redis for the newest checkpoint of threads, and for the facts that decide on most of them.

        Args:
            threads: The threads.
            young: Ask for more of the threads with activity after this time; seconds since 1970.
        """
        # In a cluster, each thread is in another slot.
        size = 1 if self._redis.is_cluster else scripts.LOOKED_AT_ONCE
        for some in batches(threads, PIPELINE_COMMANDS):
            calls = list(batches(some, size))
            replies = self._redis.ask([_call(scripts.LOOK, asked, begin_of_id(young)) for asked in calls])
            for asked, reply in zip(calls, replies, strict=True):
                yield from _looks(asked, reply)

    def look_ahead(self, threads: Sequence[Thread], young: float) -> Callable[[], list[Look]]:
        """Send the request of `look` without waiting, while the caller decides on other threads.

        Returns:
            A function that waits for the results and returns them.
        """
        if self._redis.is_cluster:
            found = list(self.look(threads, young))
            return lambda: found
        asked = list(batches(threads, scripts.LOOKED_AT_ONCE))
        words = [begin_of_id(young)]
        answers = [
            self._redis.read_script(scripts.LOOK, [key for thread in some for key in thread.keys], words)
            for some in asked
        ]

        def looks() -> list[Look]:
            for answer in answers[-1:]:
                self._redis.wait_for(answer)
            pairs = zip(asked, answers, strict=True)
            return [look for some, answer in pairs for look in _looks(some, answer.value)]

        return looks

    def waiting(self, looks: Sequence[Look]) -> dict[Look, bool | None]:
        """Return whether threads wait for an answer to an interrupt; None if that is unknown."""
        from ai_ops.checkpoints.redis.compact_trims import has_interrupt

        found: dict[Look, bool | None] = {}
        for batch in batches(looks, scripts.LOOKED_AT_ONCE):
            replies = self._redis.ask(
                [("EVAL", scripts.WAITING, 2, *look.thread.keys, WRITES_BYTES, NAMESPACES) for look in batch]
            )
            for look, reply in zip(batch, replies, strict=True):
                found[look] = has_interrupt(reply[0]) if reply else None
        return found

    def sizes(self, looks: Sequence[Look]) -> list[int | None]:
        """Return the bytes of memory of each thread; None if the Redis user may not ask, or the thread is gone."""
        found: list[int | None] = []
        for batch in batches(looks, PIPELINE_COMMANDS // 2):
            try:
                replies = self._redis.ask(
                    [("MEMORY USAGE", key, "SAMPLES", 0) for look in batch for key in look.thread.keys]
                )
            except CheckpointStoreError as error:
                if not isinstance(error.__cause__, NoPermissionError):
                    raise
                return [None] * len(looks)
            pairs = zip(replies[::2], replies[1::2], strict=True)
            found += [one + other if one is not None and other is not None else None for one, other in pairs]
        return found

    def trimmed(
        self, looks: Sequence[tuple[Look, float]], policy: RetentionPolicy, now: float, newest: int | None = None
    ) -> Iterator[Trimmed]:
        """Choose the deletions from live threads.

        Args:
            looks: The threads, each with the time of its newest checkpoint.
            policy: Their policy.
            now: The time from which ages count.
            newest: If set, this many of the newest checkpoints stay, instead of those that the policy keeps.
        """

        def keep(members: Any) -> set[bytes] | None:
            if newest is not None:
                return newest_members(members, newest, self._parser)
            return kept_members(members, policy, now, self._parser)

        chosen = self.trims.look([look.thread.keys for look, _ in looks], keep)
        for (look, active), found in zip(looks, chosen, strict=True):
            if isinstance(found, str):
                yield Trimmed(look, is_readable=False)
            elif found is None:
                yield Trimmed(look)
            else:
                left = largest_namespace(found.thread.documents.keys() - set(found.to_delete))
                yield Trimmed(look, _deletion(look, active, policy.name, found) if found.to_delete else None, left)

    def members(self, look: Look) -> list[bytes]:
        """Return the names of a thread's checkpoints, ``<namespace>|<id>``, in their order; at most MEMBERS."""
        (found,) = self._redis.ask([("ZRANGE", look.thread.keys[1], 0, MEMBERS - 1)])
        return list(found or ())

    def half(self, look: Look) -> CompactDeletion | Look | None:
        """Decide on a thread's only key: return its deletion, None if it stays, or the look if unknown."""
        reply = self._redis.ask([("EVAL", scripts.HALF, 2, *look.thread.keys, scripts.HALF_FIELDS)])[0]
        if not reply:
            return look
        writings, count, newest = reply
        if count < 0:
            return None
        if (time := time_of_id(newest, self._parser)) is None:
            return look
        if not self._parser.is_past_grace(time):
            return None
        key = look.thread.keys[0 if look.thread.has_hash else 1]
        seen = look._replace(writings=writings, checkpoints=count)
        return CompactDeletion(look.thread.name, Reason.ORPHANED, (key,), count, None, seen)

    def apply(self, deletions: Sequence[CompactDeletion], *, dryrun: bool) -> Callable[[], list[Outcome]]:
        """Carry out deletions; with `dryrun` only find out their outcomes.

        Returns:
            A function that returns the outcomes. It waits for Redis, which may still work on the last deletions.
        """
        if not dryrun:
            self._redis.claim()
        self._redis.pause_if_due(len(deletions))
        of_reason = {reason: [n for n, each in enumerate(deletions) if each.reason is reason] for reason in Reason}
        outcomes: dict[int, Outcome] = {}
        outcomes |= self._trim(deletions, of_reason[Reason.TRIMMED], dryrun)
        outcomes |= self._drop_halves(deletions, of_reason[Reason.ORPHANED], dryrun)
        calls = list(self._drop_threads(deletions, of_reason[Reason.EXPIRED], dryrun))

        def all_outcomes() -> list[Outcome]:
            for _, answer in calls[-1:]:
                self._redis.wait_for(answer)
            for numbers, answer in calls:
                # Redis refused the call, so the keys are still there; the error says more.
                replies = answer.value or [scripts.GONE] * len(numbers)
                for number, reply in zip(numbers, replies, strict=True):
                    outcomes[number] = self._outcome(deletions[number], reply, answer.repeated, dryrun)
            return [outcomes[number] for number in range(len(deletions))]

        return all_outcomes

    def _trim(self, deletions: Sequence[CompactDeletion], numbers: Sequence[int], dryrun: bool) -> dict[int, Outcome]:
        if dryrun:
            return {number: Outcome(0, trimmed=deletions[number].checkpoints) for number in numbers}
        if not numbers:
            return {}
        done = self.trims.apply([deletions[number].trim for number in numbers])
        return {
            number: Outcome(0, trimmed=deletions[number].checkpoints) if whole else Outcome(0, changed=True)
            for number, whole in zip(numbers, done, strict=True)
        }

    def _drop_halves(
        self, deletions: Sequence[CompactDeletion], numbers: Sequence[int], dryrun: bool
    ) -> dict[int, Outcome]:
        looks = {number: deletions[number].look for number in numbers}
        commands = [
            self._redis.fenced(scripts.DROP_HALF, look.thread.keys, [_flag(dryrun), look.writings, look.checkpoints])
            for look in looks.values()
        ]
        replies = self._redis.ask(commands)
        return {
            number: Outcome(1) if reply else Outcome(0, changed=True)
            for number, reply in zip(looks, replies, strict=True)
        }

    def _drop_threads(
        self, deletions: Sequence[CompactDeletion], numbers: Sequence[int], dryrun: bool
    ) -> Iterator[tuple[list[int], Answer]]:
        """Delete whole threads, in calls that each look at a bounded number of checkpoints."""
        for some in _fitting(deletions, numbers, 1 if self._redis.is_cluster else scripts.LOOKED_AT_ONCE):
            words: list[bytes | int] = [_flag(dryrun)]
            for number in some:
                look = deletions[number].look
                words += [look.newest, look.writings, self._check_word(look)]
            keys = [key for number in some for key in deletions[number].look.thread.keys]
            yield some, self._redis.script(scripts.DROP_THREADS, keys, words)

    def _check_word(self, look: Look) -> bytes:
        """Return the word for the script's check of a thread's formats; check a large thread beforehand."""
        if look.sealed is not None:
            return scripts.SEALED_SEVERAL if look.has_several else scripts.SEALED
        is_large = look.checkpoints > scripts.CHECKED_AT_ONCE
        return scripts.CHECKED if is_large and self._is_known(look) else scripts.TO_CHECK

    def _outcome(self, deletion: CompactDeletion, reply: int, repeated: bool, dryrun: bool) -> Outcome:
        if reply > 0:
            return Outcome(len(deletion.keys), namespaces=reply)
        if reply == scripts.GONE:
            # If the call was repeated, the first call had deleted the keys, and its answer was lost.
            return Outcome(len(deletion.keys) if repeated else 0)
        if reply == scripts.CHANGED:
            return Outcome(0, changed=True)
        if reply == scripts.TOO_MUCH and self._is_known(deletion.look):
            words = [_flag(dryrun), deletion.look.newest, deletion.look.writings, scripts.CHECKED]
            answer = self._redis.script(scripts.DROP_THREADS, deletion.keys, words)
            self._redis.settle()
            return self._outcome(deletion, (answer.value or [scripts.GONE])[0], answer.repeated, dryrun)
        return Outcome(0, wrong_type=deletion.keys[:1])

    def _is_known(self, look: Look) -> bool:
        """Return whether all checkpoints of a thread have a known format; read them in portions."""
        at = 0
        while at < look.checkpoints:
            last = at + scripts.CHECKED_AT_ONCE - 1
            reply = self._redis.ask([("EVAL", scripts.CHECK, 2, *look.thread.keys, look.newest, at, last)])[0]
            if not reply or not reply[0] or reply[1] == at:
                return bool(reply and reply[0])
            at = reply[1]
        return True


def _deletion(look: Look, active: float, policy: str, trim: Trim) -> CompactDeletion:
    spaces = len({member.partition(b"|")[0] for member in trim.to_delete})
    return CompactDeletion(
        look.thread.name, Reason.TRIMMED, look.thread.keys, len(trim.to_delete), active, look, trim, spaces, policy
    )


def _looks(threads: Sequence[Thread], reply: Sequence[Any] | None) -> Iterator[Look]:
    """Parse a reply about threads. Without a reply, their keys have other content."""
    if not reply:
        yield from (Look(thread, State.FOREIGN) for thread in threads)
        return
    columns = [reply[place :: scripts.LOOK_WORDS] for place in range(scripts.LOOK_WORDS)]
    yield from map(Look.of, threads, *columns)


def _call(script: str, threads: Sequence[Thread], *arguments: Any) -> list[Any]:
    return ["EVAL", script, 2 * len(threads), *[key for thread in threads for key in thread.keys], *arguments]


def _fitting(deletions: Sequence[CompactDeletion], numbers: Sequence[int], most: int) -> Iterator[list[int]]:
    """Group the numbers of the deletions by call, within its limit; the script reads no checkpoint of a sealed one."""
    group: list[int] = []
    room = scripts.CHECKED_AT_ONCE
    for number in numbers:
        look = deletions[number].look
        size = look.checkpoints if look.sealed is None else scripts.CHECKED_AT_ONCE // scripts.SEALED_AT_ONCE
        if group and (size > room or len(group) >= most):
            yield group
            group, room = [], scripts.CHECKED_AT_ONCE
        group.append(number)
        room -= size
    if group:
        yield group


def _flag(value: bool) -> bytes:
    return b"1" if value else b"0"
