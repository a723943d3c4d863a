"""Results of a pass of the supervisor, and the ages of orphans."""

from __future__ import annotations

import pytest

from ai_ops.checkpoints.logic.keys import KeyParser
from ai_ops.checkpoints.logic.lookups import Facts
from ai_ops.checkpoints.logic.plan import make_plan
from ai_ops.checkpoints.logic.retention import RetentionPolicy
from ai_ops.checkpoints.logic.threads import group_threads
from ai_ops.runs.findings import Findings, summary
from ai_ops.runs.heartbeat import is_lost

NOW = 1_790_000_000.0


def test_findings_add_up():
    assert Findings(3, 1, 1) + Findings(4, 0, 2) == Findings(7, 1, 3)
    assert sum([Findings(1, 1), Findings(2, 0, 2)], Findings()).as_dict() == {
        "checked": 3, "fixed": 1, "unfixable": 2,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("findings", "line"),
    [
        ({}, "nothing to do"),
        ({"rescue": Findings(7)}, "nothing to do"),
        ({"rescue": Findings(7, 2), "history": Findings(9, 2000)}, "rescue: 2 fixed; history: 2,000 fixed"),
        (
            {"rescue": Findings(2, 1, 1), "orphans": Findings(0, 0, 1)},
            "rescue: 1 fixed, 1 unfixable; orphans: 1 unfixable",
        ),
    ],
)
def test_a_summary_names_what_was_done_and_what_could_not_be(findings, line):
    assert summary(findings) == line


@pytest.mark.parametrize(
    ("silent", "age", "known_alive", "lost"),
    [
        (31, 61, False, True),
        (30, 61, False, False),  # three heartbeats of 10 s may just be late
        (31, 60, False, False),  # too young
        (3600, 7200, True, False),  # stopped, not gone
    ],
)
def test_silence_alone_is_no_death(silent, age, known_alive, lost):
    assert is_lost(silent_seconds=silent, age_seconds=age, lease_seconds=30, known_alive=known_alive) is lost


def plan_of(*keys, undated_blobs):
    policy = RetentionPolicy(NOW, NOW, trim_live_threads=False, undated_blobs=undated_blobs)
    parse = KeyParser(NOW).parse
    return make_plan(group_threads(filter(None, map(parse, keys))), Facts(), policy, NOW)


def test_blobs_without_a_checkpoint_have_no_age_and_stay_where_that_decides():
    blob = b"checkpoint_blob:thread:__empty__:messages:00000000000000000000000000000001.0.5"
    assert plan_of(blob, undated_blobs=False).unfixable == (blob,)
    assert plan_of(blob, undated_blobs=False).ownerless_blobs == {}
    assert plan_of(blob, undated_blobs=True).ownerless_blobs == {b"thread": (blob,)}
