"""The tally of a cleanup: the count that each deletion adds to, and the few names that it keeps."""

from __future__ import annotations

import pytest

from ai_ops.checkpoints.logic.deletion import Deletion, Outcome, Reason
from ai_ops.checkpoints.logic.keys import Family
from ai_ops.checkpoints.logic.reports import ThreadReport
from ai_ops.checkpoints.logic.tally import LARGEST_THREADS, NAMED_KEYS, SHOWN_KEY_BYTES, Tally
from ai_ops.checkpoints.logic.whole_threads import Share, WholeThreads

COUNTS = ("deleted", "spent", "threads_deleted", "threads_kept", "trimmed", "orphans", "changed", "unfixable")


def counted(tally: Tally) -> dict[str, int]:
    return {name: getattr(tally, name) for name in COUNTS if getattr(tally, name)}


def deletion(reason: Reason, checkpoints: int = 0) -> Deletion:
    keys = {Family.DOCUMENT: tuple(b"checkpoint:a:%d" % number for number in range(checkpoints))}
    return Deletion(b"a", reason, (), (), (), keys, 1, None)


@pytest.mark.parametrize(
    ("made", "outcome", "counts"),
    [
        (deletion(Reason.EXPIRED), Outcome(deleted=7), {"deleted": 7, "spent": 7, "threads_deleted": 1}),
        # The conversation went on meanwhile.
        (deletion(Reason.EXPIRED), Outcome(0, changed=True), {"threads_kept": 1, "changed": 1}),
        # Another process has deleted it meanwhile.
        (deletion(Reason.EXPIRED), Outcome(0), {}),
        (deletion(Reason.EXPIRED), Outcome(0, wrong_type=(b"checkpoint:a:b",)), {"threads_kept": 1, "unfixable": 1}),
        (deletion(Reason.TRIMMED, 3), Outcome(deleted=9), {"deleted": 9, "spent": 9, "trimmed": 3}),
        # Of three checkpoints one key was left.
        (deletion(Reason.TRIMMED, 3), Outcome(deleted=1), {"deleted": 1, "spent": 1, "trimmed": 1}),
        # From a key that stays, as CompactRedisSaver has them.
        (deletion(Reason.TRIMMED, 3), Outcome(0, trimmed=2), {"spent": 2, "trimmed": 2}),
        (deletion(Reason.ORPHANED), Outcome(deleted=4), {"deleted": 4, "spent": 4, "orphans": 4}),
    ],
)
def test_an_outcome_is_counted_where_it_belongs(made, outcome, counts):
    tally = Tally()
    tally.add_outcome(made, outcome)
    assert counted(tally) == counts
    assert tally.layouts()["others"]["deleted_count"] == counts.get("deleted", 0)
    assert not any(tally.layouts()["compact"].values())


def test_threads_that_went_whole_are_counted_as_each_of_them_would_be():
    names = [b"a", b"b", b"c"]
    keys = [
        b"checkpoint:%b:1efa0e4e-8b5c-6000-8000-%012d" % (name, number)
        for name, many in zip(names, (2, 1, 3), strict=True)
        for number in range(many)
    ]
    threads = WholeThreads(names, ["p", "", "p"], [], (Share(Family.DOCUMENT, keys, [0, 2, 3, 6]),))
    together, apart = Tally(), Tally()
    together.add_whole(threads)
    for each in threads:
        apart.add_outcome(each, Outcome(each.size))
    assert counted(together) == counted(apart) == {"deleted": 6, "spent": 6, "threads_deleted": 3}
    assert together.policies(()) == apart.policies(())
    assert together.policies(())["p"]["deleted_count"] == 5


def test_only_the_first_few_keys_are_named_and_none_of_them_at_length():
    tally = Tally()
    tally.add_unfixable([b"checkpoint:" + b"x" * 500])
    tally.add_unfixable([b"checkpoint:%d" % number for number in range(20)])
    assert tally.unfixable == 21
    assert len(tally.unfixable_names) == NAMED_KEYS
    assert max(map(len, tally.unfixable_names)) <= SHOWN_KEY_BYTES + 2


def test_the_largest_threads_are_kept_whatever_their_order():
    tally = Tally()
    for keys in (*range(30, 60), *range(30)):
        tally.add_thread(ThreadReport(str(keys), 1, keys, None, ""))
        tally.threads_deleted += 1
    assert sorted(entry[0] for entry in tally.largest) == list(range(60 - LARGEST_THREADS, 60))
    assert tally.is_large(51)
    assert not tally.is_large(50)
