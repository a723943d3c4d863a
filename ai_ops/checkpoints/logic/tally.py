"""The tally of a cleanup: its counts, and some names for log and report."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field

from ai_ops.checkpoints.logic.compact_plan import CompactDeletion
from ai_ops.checkpoints.logic.deletion import Deletion, Outcome, OverLimit, Reason
from ai_ops.checkpoints.logic.reports import ThreadReport
from ai_ops.checkpoints.logic.whole_threads import WholeThreads
from ai_ops.logic.largest import Largest

NAMED_KEYS = 5  # number of keys of unknown age that the log names
SHOWN_KEY_BYTES = 120
LARGEST_THREADS = 10
# Number of threads over a limit that the report names. It counts all of them.
NAMED_OVER_LIMITS = 1000
# The counts of each policy, by the names of the report.
OF_POLICIES = ("threads_deleted", "threads_kept", "checkpoints_trimmed", "deleted_count")

# The counts of each layout, by the names of the report.
OF_LAYOUTS = {
    "deleted_count": "deleted",
    "threads_deleted": "threads_deleted",
    "threads_kept": "threads_kept",
    "checkpoints_trimmed": "trimmed",
    "orphan_count": "orphans",
    "unfixable_count": "unfixable",
    "changed_count": "changed",
}
COMPACT, OTHERS = "compact", "others"


@dataclass
class Tally:
    """The counts of a run so far."""

    processed: int = 0
    deleted: int = 0
    # The count for `max_deletions`: deleted keys, and checkpoints deleted from a key that stays.
    spent: int = 0
    threads_deleted: int = 0
    threads_kept: int = 0
    trimmed: int = 0
    orphans: int = 0
    changed: int = 0
    unfixable: int = 0
    unfixable_names: list[str] = field(default_factory=list)
    largest: Largest[tuple[int, int, ThreadReport]] = field(default_factory=lambda: Largest(LARGEST_THREADS))

    _reported: int = 0

    over_limit_count: int = 0
    over_limits: list[OverLimit] = field(default_factory=list)
    # By the name of the policy, and then by the names of the report.
    _policies: defaultdict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))

    # The part of the numbers above for CompactRedisSaver's threads.
    _compact: Counter[str] = field(default_factory=Counter)

    @contextmanager
    def of_compact(self) -> Iterator[None]:
        """Add the counts of the block to those of CompactRedisSaver too."""
        before = {name: getattr(self, name) for name in OF_LAYOUTS.values()}
        try:
            yield
        finally:
            self._compact.update({name: getattr(self, name) - number for name, number in before.items()})

    def of_layout_of(self, deletions: Sequence[Deletion | CompactDeletion]) -> AbstractContextManager[None]:
        """Add the counts of the block to those of the layout of a batch, whose deletions all have the same layout."""
        return self.of_compact() if isinstance(deletions[0], CompactDeletion) else nullcontext()

    def layouts(self) -> dict[str, dict[str, int]]:
        """Return the counts of CompactRedisSaver's threads, and of all others."""
        return {
            COMPACT: {shown: self._compact[name] for shown, name in OF_LAYOUTS.items()},
            OTHERS: {shown: getattr(self, name) - self._compact[name] for shown, name in OF_LAYOUTS.items()},
        }

    def policies(self, names: Iterable[str]) -> dict[str, dict[str, int]]:
        """Return the counts of each policy, including policies without threads."""
        return {
            policy: {name: self._policies[policy][name] for name in OF_POLICIES}
            for policy in sorted({*names, *self._policies})
        }

    def keep(self, threads: Mapping[str, int]) -> None:
        """Count threads that stay, by the names of their policies."""
        for policy, number in threads.items():
            self.threads_kept += number
            self._policies[policy]["threads_kept"] += number

    def add_over_limits(self, threads: Sequence[OverLimit]) -> None:
        """Count threads that still exceed a limit, and keep the first."""
        self.over_limit_count += len(threads)
        self.over_limits += threads[: NAMED_OVER_LIMITS - len(self.over_limits)]

    def add_thread(self, thread: ThreadReport) -> None:
        """Remember a deleted thread as one of the largest."""
        self._reported += 1
        # The second number keeps two reports from being compared.
        self.largest.add((thread.keys, -self._reported, thread))

    def is_large(self, keys: int) -> bool:
        """Return whether a thread of so many keys is among the largest so far."""
        threshold = self.largest.threshold
        return threshold is None or keys > threshold[0]

    def add_whole(self, threads: WholeThreads) -> None:
        """Count threads of which all keys were deleted."""
        numbers = Counter(threads.policies)
        # A pass over the threads for each of many policies would take longer than the decisions.
        sizes: Counter[str] = Counter()
        if len(numbers) > 1:
            for policy, size in zip(threads.policies, threads.sizes, strict=True):
                sizes[policy] += size
        for policy, number in numbers.items():
            keys = sizes[policy] if len(numbers) > 1 else sum(threads.sizes)
            self.deleted += keys
            self.spent += keys
            self.threads_deleted += number
            self._policies[policy]["deleted_count"] += keys
            self._policies[policy]["threads_deleted"] += number

    def add_unfixable(self, keys: Sequence[bytes]) -> None:
        """Count keys that stay because their age or kind is unknown."""
        self.unfixable += len(keys)
        room = NAMED_KEYS - len(self.unfixable_names)
        self.unfixable_names += [repr(key[:SHOWN_KEY_BYTES])[1:] for key in keys[:room]]

    def add_outcome(self, deletion: Deletion | CompactDeletion, outcome: Outcome) -> None:
        """Count the outcome of a deletion."""
        self.deleted += outcome.deleted
        self.spent += outcome.deleted + outcome.trimmed
        of_policy = self._policies[deletion.policy]
        of_policy["deleted_count"] += outcome.deleted
        if outcome.wrong_type:
            self.add_unfixable(outcome.wrong_type)
        if outcome.changed:
            self.changed += 1
            if deletion.reason is Reason.EXPIRED:
                self.keep({deletion.policy: 1})
        elif deletion.reason is Reason.EXPIRED:
            if outcome.deleted:
                self.threads_deleted += 1
                of_policy["threads_deleted"] += 1
            # If another process has deleted the thread meanwhile, it does not stay either.
            elif outcome.wrong_type:
                self.keep({deletion.policy: 1})
        elif deletion.reason is Reason.TRIMMED:
            trimmed = outcome.trimmed or min(deletion.checkpoints, outcome.deleted)
            self.trimmed += trimmed
            of_policy["checkpoints_trimmed"] += trimmed
        else:
            self.orphans += outcome.deleted
