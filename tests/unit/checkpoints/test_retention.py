"""Decisions on keys, without a Redis: delete or keep."""

from __future__ import annotations

from itertools import count

import pytest

from ai_ops.checkpoints.logic.deletion import Reason
from ai_ops.checkpoints.logic.keys import Family, KeyParser
from ai_ops.checkpoints.logic.lookups import Facts, Lineage, trimmable
from ai_ops.checkpoints.logic.plan import CleanupPlan, make_plan
from ai_ops.checkpoints.logic.retention import DAY, RetentionPolicy
from ai_ops.checkpoints.logic.threads import Document, group_threads

NOW = 1_780_000_000.0
_sequence = count()


def uuid6(days_old: float) -> bytes:
    """An id of version 6 made `days_old` days before NOW; later calls sort later."""
    ticks = int((NOW - days_old * DAY) * 1e7) + 0x01B21DD213814000 + next(_sequence)
    text = f"{ticks:015x}"
    return f"{text[:8]}-{text[8:12]}-6{text[12:]}-8000-000000000000".encode()


def plan(keys: list[bytes], facts: Facts | None = None, **options: object) -> CleanupPlan:
    parser = KeyParser(NOW)
    policy = RetentionPolicy(**{"retention": 30 * DAY, "pending_retention": 30 * DAY, **options})  # type: ignore[arg-type]
    parsed = [key for key in map(parser.parse, keys) if key is not None]
    return make_plan(group_threads(parsed), facts or Facts(), policy, NOW)


def gone(result: CleanupPlan) -> set[bytes]:
    guards = {guard.key for deletion in result.deletions for guard in deletion.guards}
    return guards | {key for deletion in result.deletions for keys in deletion.keys.values() for key in keys}


def thread(name: bytes, *days: float, namespace: bytes = b"__empty__") -> list[bytes]:
    """The keys of a RedisSaver's thread with checkpoints of these ages, oldest first, each with a write."""
    stem, keys = name + b":" + namespace, []
    for each in days:
        checkpoint_id = uuid6(each)
        keys += [
            b"checkpoint:" + stem + b":" + checkpoint_id,
            b"checkpoint_write:" + stem + b":" + checkpoint_id + b":task:0",
            b"write_keys_zset:" + stem + b":" + checkpoint_id,
        ]
    return [*keys, b"checkpoint_latest:" + stem]


@pytest.mark.parametrize(
    ("ages", "reasons"),
    [
        ((29.9,), []),
        ((30.1,), [Reason.EXPIRED]),
        ((90, 60, 31), [Reason.EXPIRED]),
        ((90, 60, 29), [Reason.TRIMMED]),
        ((20, 10), []),
    ],
)
def test_age_decides(ages: tuple[float, ...], reasons: list[Reason]) -> None:
    assert [deletion.reason for deletion in plan(thread(b"t", *ages)).deletions] == reasons


def test_a_whole_thread_goes_with_everything_pointer_first() -> None:
    keys = thread(b"t", 50, 40) + thread(b"t", 45, namespace=b"child")
    (deletion,) = plan(keys).deletions
    assert gone(plan(keys)) == set(keys)
    assert [guard.key for guard in deletion.guards] == [
        b"checkpoint_latest:t:__empty__",
        b"checkpoint_latest:t:child",
    ]
    assert list(deletion.keys) == [Family.DOCUMENT, Family.WRITE, Family.REGISTRY, Family.BLOB]
    assert deletion.last_activity == pytest.approx(NOW - 40 * DAY, abs=1)


def test_a_live_namespace_keeps_the_whole_thread() -> None:
    keys = thread(b"t", 40) + thread(b"t", 1, namespace=b"child")
    assert not gone(plan(keys))


def test_threads_whose_names_begin_alike_are_different() -> None:
    old, live = thread(b"a:b", 40), thread(b"a", 1)
    old += thread(b"a:b", 40, namespace=b"child:0d3b4d3e-7c1f-5a10-9a3e-2d1b0c9f8e7d")
    assert gone(plan(old + live)) == set(old)


def test_trimming_keeps_the_newest_of_each_namespace() -> None:
    root, child = thread(b"t", 60, 1), thread(b"t", 60, 50, namespace=b"child")
    assert gone(plan(root + child)) == set(root[:3] + child[:3])


def test_trimming_keeps_as_many_as_asked() -> None:
    keys = thread(b"t", 70, 60, 50, 1)
    assert gone(plan(keys, keep_last=3)) == set(keys[:3])


def test_trimming_keeps_what_the_pointer_names() -> None:
    keys = thread(b"t", 70, 60, 50, 1)
    named = Document(keys[3], keys[3].rpartition(b":")[2], None)
    assert gone(plan(keys, Facts(heads={keys[-1]: named}))) == set(keys[:3] + keys[6:9])


def test_trimming_keeps_the_ancestors_of_delta_channels() -> None:
    keys = thread(b"t", 90, 80, 70, 60, 1)
    documents = keys[:-1:3]
    ids = [key.rpartition(b":")[2] for key in documents]
    channels = (set(), {"a"}, {"b"}, {"a", "b"}, {"b"})
    lineage = {
        key: Lineage(parent, frozenset(some))
        for key, parent, some in zip(documents, [b"", *ids], channels, strict=False)
    }
    assert gone(plan(keys, Facts(lineage=lineage))) == set(keys[:3]), "b is in the second, the parent of the third"


def test_trimming_keeps_the_ancestors_of_each_branch() -> None:
    keys = thread(b"t", 90, 80, 70, 60, 2, 1)
    documents = keys[:-1:3]
    ids = [key.rpartition(b":")[2] for key in documents]
    parents = [b"", ids[0], ids[0], ids[2], ids[1], ids[3]]
    delta = frozenset({"a"})
    lineage = {key: Lineage(parent, delta) for key, parent in zip(documents, parents, strict=True)}
    lineage[documents[1]] = lineage[documents[1]]._replace(open_channels=frozenset())
    lineage[documents[5]] = lineage[documents[5]]._replace(open_channels=frozenset())
    assert gone(plan(keys, Facts(lineage=lineage))) == set(keys[:3] + keys[6:12])


def test_a_checkpoint_that_cannot_be_read_may_have_any_ancestor() -> None:
    keys = thread(b"t", 90, 80, 70, 1)
    lineage = {keys[9]: Lineage(b"", frozenset(), is_known=False)}
    assert not gone(plan(keys, Facts(lineage=lineage)))


def test_trimming_can_be_switched_off() -> None:
    assert not gone(plan(thread(b"t", 60, 1), trim_live_threads=False))


def test_a_question_without_an_answer_keeps_the_thread_untrimmed_and_has_its_own_retention() -> None:
    keys = thread(b"t", 60, 20)
    newest = keys[3].rpartition(b":")[2]
    keys.append(b"checkpoint_write:t:__empty__:" + newest + b":task:-3")
    assert not gone(plan(keys))
    assert gone(plan(keys, pending_retention=10 * DAY)) == set(keys)
    answered = [*keys, *thread(b"t", 19)]
    assert gone(plan(answered)) == set(keys[:3])


def test_pinned_and_unmatched_threads_stay() -> None:
    keys = thread(b"user-1-x", 60, 40)
    assert not gone(plan(keys, pinned=frozenset({"user-1-x"})))
    assert not gone(plan(keys, thread_pattern="user-2-*"))
    assert gone(plan(keys, thread_pattern="user-1-*")) == set(keys)


def test_orphans_go_an_hour_after_their_time() -> None:
    old, young = thread(b"t", 2 / 24)[1:3], thread(b"t", 0.5 / 24)[1:3]
    result = plan(old + young)
    assert gone(result) == set(old)
    assert old[1].replace(b"write_keys_zset", b"checkpoint") in result.deletions[0].owners


def test_one_checkpoint_without_a_time_keeps_its_thread() -> None:
    keys = thread(b"t", 60, 40)
    result = plan([*keys, b"checkpoint:t:__empty__:strange"])
    assert not gone(result)
    assert result.unfixable == (b"checkpoint:t:__empty__:strange",)


def test_only_threads_with_old_and_new_checkpoints_are_read_for_trimming() -> None:
    parser = KeyParser(NOW)
    keys = thread(b"old", 60) + thread(b"new", 2, 1) + thread(b"both", 60, 1)
    threads = group_threads(filter(None, map(parser.parse, keys)))
    policy = RetentionPolicy(30 * DAY, 30 * DAY)
    (found,) = trimmable(threads, policy, NOW)
    assert {document.key for document in found.documents.values()} == {keys[-7], keys[-4]}
