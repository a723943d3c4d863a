"""Execution of deletions: pointers first, in batches with pauses for other clients."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from ai_ops.checkpoints.logic.deletion import Deletion, Guard, Outcome
from ai_ops.checkpoints.logic.keys import Family, KeyParser
from ai_ops.checkpoints.logic.threads import Document
from ai_ops.checkpoints.logic.values import is_valkey_list, is_valkey_write, pointer_value
from ai_ops.checkpoints.logic.whole_threads import ID_BYTES, Share, WholeOutcomes, WholeThreads
from ai_ops.checkpoints.redis.client import PIPELINE_COMMANDS, RetryingRedis
from ai_ops.checkpoints.redis.pipelining import Answer
from ai_ops.checkpoints.redis.scripts import DROP_KEYS, DROP_POINTERS, GONE, OF_ANOTHER_TYPE
from ai_ops.logic.batches import batches

KEYS_PER_COMMAND = 100  # each command blocks all other clients: about a millisecond for JSON documents

TYPES = {
    # For erased threads. For all others pointers are compared first.
    Family.POINTER: b",string,list,",
    Family.SUPERSEDED_BLOB: b",ReJSON-RL,",
    Family.DOCUMENT: b",ReJSON-RL,string,",
    Family.WRITE: b",ReJSON-RL,",
    Family.REGISTRY: b",zset,set,",
    Family.BLOB: b",ReJSON-RL,",
}
VALKEY_WRITES_TYPE = b",string,"

SKIPPED = Outcome(0, changed=True)

# Keys of one kind, and the types that they may have.
Part = tuple[bytes, list[bytes]]


class Dropped(NamedTuple):
    """A call that deletes keys.

    Attributes:
        numbers: Numbers of the deletions of the keys.
        keys: The keys.
        answer: For each key that was not deleted its index in `keys`, and the reason: GONE or OF_ANOTHER_TYPE.
    """

    numbers: Sequence[int]
    keys: Sequence[bytes]
    answer: Answer

    def left(self) -> list[tuple[bytes, int]]:
        """Return the keys that were not deleted, with the reasons."""
        reply = self.answer.value
        if reply is None:
            # Refused: no key was deleted, and the error has the reason.
            return [(key, GONE) for key in self.keys]
        left = [(self.keys[place], why) for place, why in zip(reply[::2], reply[1::2], strict=True)]
        # A key that is missing at a retry was deleted at the first attempt, whose answer was lost.
        return [(key, why) for key, why in left if why != GONE or not self.answer.repeated]

    def deletion_index(self, key: bytes, deletions: Sequence[Deletion]) -> int:
        """Return the index of the deletion that a key belongs to."""
        return next(each for each in self.numbers if any(key in some for some in deletions[each].keys.values()))


class _Pending:
    """Whole threads whose other keys are deleted after Redis has deleted the pointers.

    Attributes:
        threads: The threads.
        dryrun: Whether nothing is deleted.
        answers: The calls that delete the pointers.
        outcomes: Returns the outcomes. Before the deletion of the other keys is sent, no key counts as deleted.
    """

    def __init__(self, threads: WholeThreads, dryrun: bool, answers: list[Answer]) -> None:
        self.threads = threads
        self.dryrun = dryrun
        self.answers = answers
        self.outcomes: Callable[[], Sequence[Outcome]] = lambda: [Outcome(0)] * len(threads)


class Deleter:
    """Executes the deletions of a plan, except for threads that have continued since.

    Args:
        redis: The Redis with the keys.
        parser: Parses keys.
        heads: Returns the documents that pointers name, by the pointer's key.
    """

    def __init__(
        self,
        redis: RetryingRedis,
        parser: KeyParser,
        heads: Callable[[Sequence[bytes]], Mapping[bytes, Document]],
    ) -> None:
        self._redis = redis
        self._parser = parser
        self._heads = heads
        self._pending: _Pending | None = None

    def apply(self, deletions: Sequence[Deletion], *, dryrun: bool) -> Callable[[], Sequence[Outcome]]:
        """Carry out deletions: of each thread pointers first, then documents, writes, registries and blobs.

        With `dryrun` nothing is deleted, and the outcomes are those of a real deletion.

        Returns:
            A function that returns the outcomes, and waits for Redis if necessary.
        """
        if not dryrun:
            self._redis.claim()
        self._redis.pause_if_due(len(deletions))
        if isinstance(deletions, WholeThreads) and not self._redis.is_cluster:
            return self._apply_whole(deletions, dryrun)
        self._finish()
        return self._apply_each(deletions, dryrun)

    def _apply_each(self, deletions: Sequence[Deletion], dryrun: bool) -> Callable[[], Sequence[Outcome]]:
        blocked: dict[int, tuple[bytes, ...]] = {}
        confirmed = sorted(self._drop_pointers(deletions, dryrun, self._still_without_owner(deletions), blocked))
        entries = [entry for number in confirmed for entry in deletions[number].list_entries]
        for some in batches(() if dryrun else entries, PIPELINE_COMMANDS):
            # From the end, where the old entries are.
            self._redis.ask([("LREM", key, -1, checkpoint_id) for key, checkpoint_id in some])
        dropped = [
            call
            for numbers in _shared_calls(deletions, confirmed)
            for call in self._drop(numbers, _parts(deletions, numbers), dryrun)
        ]
        return lambda: self._outcomes(deletions, confirmed, dropped, blocked)

    def _apply_whole(self, threads: WholeThreads, dryrun: bool) -> Callable[[], Sequence[Outcome]]:
        """Delete the pointers of whole threads, and then the other keys of the previous batch.

        The other keys of these threads are deleted with the next batch, or when the outcomes are requested. By then
        Redis has deleted the pointers, and the run does not have to wait.
        """
        pending = _Pending(threads, dryrun, self._drop_all_pointers(threads, dryrun))
        self._finish()
        self._pending = pending
        if not pending.answers:
            self._finish()

        def outcomes() -> Sequence[Outcome]:
            if pending is self._pending:
                self._finish()
            return pending.outcomes()

        return outcomes

    def _drop_all_pointers(self, threads: WholeThreads, dryrun: bool) -> list[Answer]:
        """Delete the pointers that name the newest document; return the calls, with an answer for each thread."""
        answers = []
        for some in batches(zip(threads.pointers, threads.newest, strict=False), KEYS_PER_COMMAND):
            keys, documents = map(list, zip(*some, strict=True))
            values = [key[-ID_BYTES:] for key in documents] if is_valkey_list(keys[0]) else documents
            words = [_flag(dryrun), len(keys), *[b"1"] * len(keys), *values]
            answers.append(self._redis.script(DROP_POINTERS, keys, words))
        return answers

    def _finish(self) -> None:
        """Delete the other keys of the whole threads whose pointers were deleted last."""
        if (pending := self._pending) is None:
            return
        # Other keys of a thread are deleted only after Redis has confirmed the deletion of its pointers.
        for answer in pending.answers[-1:]:
            self._redis.wait_for(answer)
        self._pending = None
        threads, dryrun = pending.threads, pending.dryrun
        if any(answer.value is None for answer in pending.answers):
            # Redis refused a call, and the error has the reason.
            return
        if all(all(answer.value) for answer in pending.answers):
            dropped = [
                call
                for numbers in threads.groups(KEYS_PER_COMMAND)
                for call in self._drop(numbers, _parts_of_whole(threads, numbers), dryrun)
            ]
            pending.outcomes = lambda: WholeOutcomes(threads, self._exceptions(threads, dropped))
        else:
            # Check the threads one by one. That a pointer is already deleted makes no difference.
            pending.outcomes = self._apply_each(threads, dryrun)

    def _outcomes(
        self,
        deletions: Sequence[Deletion],
        confirmed: Sequence[int],
        dropped: Sequence[Dropped],
        blocked: Mapping[int, tuple[bytes, ...]],
    ) -> list[Outcome]:
        outcomes = [SKIPPED] * len(deletions)
        for number, keys in blocked.items():
            outcomes[number] = Outcome(0, wrong_type=keys)
        exceptions = self._exceptions(deletions, dropped)
        for number in confirmed:
            outcomes[number] = exceptions.get(number) or Outcome(deletions[number].size)
        return outcomes

    def _exceptions(self, deletions: Sequence[Deletion], dropped: Sequence[Dropped]) -> dict[int, Outcome]:
        """Wait for the calls, and return the outcomes of deletions that left keys, by index."""
        if dropped:
            self._redis.wait_for(dropped[-1].answer)
        outcomes: dict[int, Outcome] = {}
        for call in dropped:
            for key, result in call.left():
                number = call.deletion_index(key, deletions)
                so_far = outcomes.get(number) or Outcome(deletions[number].size)
                wrong = (*so_far.wrong_type, key) if result == OF_ANOTHER_TYPE else so_far.wrong_type
                outcomes[number] = so_far._replace(deleted=so_far.deleted - 1, wrong_type=wrong)
        return outcomes

    def _drop_pointers(
        self, deletions: Sequence[Deletion], dryrun: bool, unowned: set[int], blocked: dict[int, tuple[bytes, ...]]
    ) -> set[int]:
        """Delete unchanged pointers; return the numbers in `unowned` whose deletion may continue.

        Deletions with a key of another type in place of a pointer are added to `blocked`, with these keys.
        """
        confirmed = {number for number in unowned if not deletions[number].guards}
        guarded = sorted(unowned - confirmed)
        compared = [
            (batch, self._compare_and_drop([deletions[number].guards for number in batch], dryrun))
            for batch in batches(guarded, KEYS_PER_COMMAND)
        ]
        # Other keys of a thread are deleted only after Redis has confirmed the deletion of its pointers.
        self._redis.settle()
        for batch, answer in compared:
            for number, same in zip(batch, answer.value, strict=True):
                guards = deletions[number].guards
                if same or self._drop_current_pointers(guards, dryrun):
                    confirmed.add(number)
                elif wrong := self._of_another_type(guards):
                    blocked[number] = wrong
        return confirmed

    def _of_another_type(self, guards: Sequence[Guard]) -> tuple[bytes, ...]:
        """Return the keys of guards with a type that no saver writes."""
        types_now = self._redis.ask([("TYPE", guard.key) for guard in guards])
        return tuple(
            guard.key for guard, kind in zip(guards, types_now, strict=True) if kind not in _allowed_types(guard)
        )

    def _drop_current_pointers(self, guards: Sequence[Guard], dryrun: bool) -> bool:
        """Retry with the current values of pointers, if no conversation can continue from these."""
        now_named = self._heads([guard.key for guard in guards])
        for guard in guards:
            named = now_named.get(guard.key)
            if named is not None and named not in guard.documents and not self._is_missing(named):
                return False
        named_now = [(now_named[guard.key],) if guard.key in now_named else () for guard in guards]
        current = [guard._replace(documents=named) for guard, named in zip(guards, named_now, strict=True)]
        answer = self._compare_and_drop([current], dryrun)
        self._redis.settle()
        return bool(answer.value[0])

    def _is_missing(self, document: Document) -> bool:
        """Return whether a pointer's document is missing and no saver is about to write it."""
        stale = self._parser.is_past_grace(document.time)
        return stale and not self._redis.ask([("EXISTS", document.key)])[0]

    def _compare_and_drop(self, threads: Sequence[Sequence[Guard]], dryrun: bool) -> Answer:
        """Delete the pointers of threads whose pointers all name the first of their documents.

        The answer has for each thread whether its pointers did.
        """
        if self._redis.is_cluster:
            return Answer(b"", [self._compare_and_drop_separately(guards, dryrun) for guards in threads])
        keys = [guard.key for guards in threads for guard in guards]
        sizes: list[bytes | int] = [len(guards) for guards in threads]
        values = [pointer_value(guard) for guards in threads for guard in guards]
        return self._redis.script(DROP_POINTERS, keys, [_flag(dryrun), len(threads), *sizes, *values])

    def _compare_and_drop_separately(self, guards: Sequence[Guard], dryrun: bool) -> int:
        """Compare all pointers and then delete them, each with its own script call, the root namespace's first."""
        for dry in (True, dryrun):
            for guard in guards:
                if not self._redis.script(DROP_POINTERS, [guard.key], [_flag(dry), 1, 1, pointer_value(guard)]).value[
                    0
                ]:
                    return 0
        return 1

    def _drop(self, numbers: Sequence[int], parts: Sequence[Part], dryrun: bool) -> Iterator[Dropped]:
        """Delete the keys, except pointers, of the deletions with these numbers."""
        if sum(len(keys) for _, keys in parts) <= KEYS_PER_COMMAND:
            if parts:
                yield self._drop_at_once(numbers, parts, dryrun)
            return
        for types, keys in parts:
            for some in batches(keys, KEYS_PER_COMMAND):
                yield self._drop_at_once(numbers, [(types, some)], dryrun)
            # The order is certain only within a call. A later call might succeed after an earlier one was refused.
            self._redis.settle()

    def _drop_at_once(self, numbers: Sequence[int], parts: Sequence[Part], dryrun: bool) -> Dropped:
        keys = [key for _, some in parts for key in some]
        if self._redis.is_cluster:
            places = [place for types, some in parts for place in self._drop_separately(some, types, dryrun)]
            return Dropped(numbers, keys, Answer(b"", places))
        sizes = [word for types, some in parts for word in (len(some), types)]
        return Dropped(numbers, keys, self._redis.script(DROP_KEYS, keys, [_flag(dryrun), *sizes]))

    def _drop_separately(self, keys: Sequence[bytes], types: bytes, dryrun: bool) -> list[int]:
        """Delete the keys without a script; return the answer that the script would have."""
        types_now = self._redis.ask([("TYPE", key) for key in keys])
        left = {
            place: GONE if each == b"none" else OF_ANOTHER_TYPE
            for place, each in enumerate(types_now)
            if b"," + each + b"," not in types
        }
        chosen = [] if dryrun else [key for place, key in enumerate(keys) if place not in left]
        self._redis.ask([("UNLINK", key) for key in chosen])
        return [number for pair in left.items() for number in pair]

    def _still_without_owner(self, deletions: Sequence[Deletion]) -> set[int]:
        """Return the numbers of the deletions whose owners are still missing."""
        owned: set[int] = set()
        questions = [(number, owner) for number, deletion in enumerate(deletions) for owner in deletion.owners]
        for batch in batches(questions, PIPELINE_COMMANDS):
            replies = self._redis.ask([("EXISTS", owner) for _, owner in batch])
            owned |= {number for (number, _), exists in zip(batch, replies, strict=True) if exists}
        if not questions:
            return set(range(len(deletions)))
        # Registries have no prefix. A registry may belong to a saver with another prefix, like its writes.
        registries = [
            (number, key)
            for number, deletion in enumerate(deletions)
            if deletion.owners
            for key in deletion.keys.get(Family.REGISTRY, ())
        ]
        for (number, _), (_, reading) in zip(registries, self._redis.read([key for _, key in registries]), strict=True):
            members = reading.value if isinstance(reading.value, list) else []
            is_foreign = any(b":" in member and self._parser.parse(member) is None for member in members[:1])
            if is_foreign or (reading.kind == b"zset" and reading.value is None):
                owned.add(number)
        return set(range(len(deletions))) - owned


def _shared_calls(deletions: Sequence[Deletion], confirmed: Iterable[int]) -> Iterator[list[int]]:
    """Yield the numbers of the deletions, grouped by calls."""
    group: list[int] = []
    room = KEYS_PER_COMMAND
    for number in confirmed:
        size = sum(map(len, deletions[number].keys.values()))
        if group and size > room:
            yield group
            group, room = [], KEYS_PER_COMMAND
        group.append(number)
        room -= size
    if group:
        yield group


def _parts_of_whole(threads: WholeThreads, numbers: range) -> list[Part]:
    """Return the keys of these threads in the form of `_parts`."""
    parts = [(_types_of(share), share.of(numbers)) for share in threads.shares]
    return [part for part in parts if part[1]]


def _types_of(share: Share) -> bytes:
    """Return the types of a share's keys, all of which one saver wrote."""
    is_valkeys = share.family == Family.WRITE and is_valkey_write(share.keys[0])
    return VALKEY_WRITES_TYPE if is_valkeys else TYPES[share.family]


def _parts(deletions: Sequence[Deletion], numbers: Sequence[int]) -> list[Part]:
    """Return the keys of these deletions with their allowed types, family by family in the order of deletion."""
    found: dict[int, list[bytes]] = {family: [] for family in TYPES}
    for number in numbers:
        for family, keys in deletions[number].keys.items():
            found[family] += keys
    parts = []
    for family, types in TYPES.items():
        some = found[family]
        if family == Family.WRITE:
            # Writes of two savers are in one thread only by accident, so each key is checked.
            parts.append((VALKEY_WRITES_TYPE, [key for key in some if is_valkey_write(key)]))
            some = [key for key in some if not is_valkey_write(key)]
        parts.append((types, some))
    return [part for part in parts if part[1]]


def _allowed_types(guard: Guard) -> tuple[bytes, ...]:
    """Return the allowed types of a guard's key."""
    if is_valkey_list(guard.key):
        return (b"list", b"none")
    is_document = any(document.key == guard.key for document in guard.documents)
    return (b"ReJSON-RL", b"string", b"none") if is_document else (b"string", b"none")


def _flag(value: bool) -> bytes:
    return b"1" if value else b"0"
