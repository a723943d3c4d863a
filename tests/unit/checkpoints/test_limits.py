"""Limits of policies: how many checkpoints a namespace keeps, how much memory a thread takes, and what stays above."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from ai_ops.checkpoints.logic.deletion import NEEDED, UNKNOWN_SIZE, WAITING
from ai_ops.checkpoints.logic.keys import KeyParser
from ai_ops.checkpoints.logic.lookups import Facts, Lineage
from ai_ops.checkpoints.logic.plan import CleanupPlan, make_plan
from ai_ops.checkpoints.logic.retention import DAY, RetentionPolicy
from ai_ops.checkpoints.logic.threads import group_threads
from tests.unit.checkpoints.test_retention import NOW, gone, thread, uuid6

AGES = (40, 20, 5, 1, 0.1)


def plan(keys: Iterable[bytes], facts: Facts | None = None, **options: object) -> CleanupPlan:
    parser = KeyParser(NOW)
    policy = RetentionPolicy(30 * DAY, 30 * DAY, name="p", **options)  # type: ignore[arg-type]
    return make_plan(group_threads([key for key in map(parser.parse, keys) if key]), facts or Facts(), policy, NOW)


def documents(keys: Iterable[bytes]) -> list[bytes]:
    return [key for key in keys if key.startswith(b"checkpoint:")]


@pytest.mark.parametrize(("limit", "left"), [(1, 1), (3, 3), (4, 4), (5, 4), (9, 4)])
def test_each_namespace_keeps_so_many_whatever_their_age(limit, left):
    keys = thread(b"t", *AGES)
    stay = [key for key in documents(keys) if key not in gone(plan(keys, max_checkpoints=limit))]
    assert stay == documents(keys)[-left:], "the oldest go first, and one is past its retention"


def test_a_limit_is_stronger_than_keep_last_and_holds_where_live_threads_are_not_trimmed():
    keys = thread(b"t", *AGES)
    for options in ({"keep_last": 4}, {"trim_live_threads": False}):
        result = plan(keys, max_checkpoints=2, **options)
        assert len([key for key in documents(keys) if key not in gone(result)]) == 2
    assert not gone(plan(keys, trim_live_threads=False))


def test_each_namespace_is_counted_by_itself():
    keys = thread(b"t", 3, 2, 1) + thread(b"t", 3, 2, namespace=b"child")
    left = [key for key in documents(keys) if key not in gone(plan(keys, max_checkpoints=2))]
    assert left == [*documents(keys)[1:3], *documents(keys)[3:]]


def test_ancestors_of_a_delta_channel_stay_and_the_thread_is_named():
    keys = thread(b"t", *AGES)
    names = documents(keys)
    ids = [key.rpartition(b":")[2] for key in names]
    lineage = {name: Lineage(parent, frozenset({"said"})) for name, parent in zip(names[1:], ids, strict=False)}
    lineage[names[0]] = Lineage(b"", frozenset())
    result = plan(keys, Facts(lineage=lineage), max_checkpoints=2)
    assert not gone(result)
    assert [tuple(each) for each in result.over_limits] == [(b"t", "p", "max_checkpoints", 5, NEEDED)]


def test_an_ancestor_that_the_scan_has_missed_keeps_all_that_it_may_need():
    keys = thread(b"t", *AGES)
    names = documents(keys)
    missed = uuid6(0.05)
    newest = names[-1].rpartition(b":")[2]
    unseen = names[-1].removesuffix(newest) + missed
    facts = Facts(lineage={names[-1]: Lineage(missed, frozenset({"said"}))}, unseen=frozenset({unseen}))
    assert not gone(plan(keys, facts, max_checkpoints=1))
    assert gone(plan(keys, Facts(lineage=facts.lineage), max_checkpoints=1)), "one that is gone needs nothing"


def test_a_thread_that_waits_is_left_as_it_is_and_named():
    keys = thread(b"t", *AGES)
    newest = documents(keys)[-1].rpartition(b":")[2]
    keys.append(b"checkpoint_write:t:__empty__:" + newest + b":task:-3")
    result = plan(keys, Facts(sizes=dict.fromkeys(keys, 100)), max_checkpoints=2, max_bytes=100)
    assert not gone(result)
    assert [(each.limit, each.has, each.why) for each in result.over_limits] == [
        ("max_checkpoints", 5, WAITING),
        ("max_thread_mb", 100 * len(keys), WAITING),
    ]


@pytest.mark.parametrize(("limit", "left"), [(1600, 4), (1000, 3), (700, 2), (699, 1), (400, 1), (399, 1)])
def test_the_oldest_go_until_a_thread_takes_no_more_than_it_may(limit, left):
    """A checkpoint takes 300 bytes with its write and registry, the pointer 100; one of five is past its retention."""
    keys = thread(b"t", *AGES)
    result = plan(keys, Facts(sizes=dict.fromkeys(keys, 100)), max_bytes=limit, keep_last=2)
    assert [key for key in documents(keys) if key not in gone(result)] == documents(keys)[-left:]
    assert [each.has for each in result.over_limits] == ([400] if limit < 400 else [])


def test_the_size_of_a_thread_is_that_of_all_its_namespaces():
    keys = thread(b"t", 4, 2) + thread(b"t", 3, 1, namespace=b"child")
    result = plan(keys, Facts(sizes=dict.fromkeys(keys, 100)), max_bytes=1100)
    assert [key for key in documents(keys) if key in gone(result)] == [documents(keys)[0]], "the oldest of all"


def test_without_sizes_nothing_goes_for_them_and_the_thread_is_named():
    keys = thread(b"t", 3, 2, 1)
    result = plan(keys, Facts(sizes=None), max_bytes=1)
    assert not gone(result)
    assert [each.why for each in result.over_limits] == [UNKNOWN_SIZE]
