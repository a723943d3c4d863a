"""Searches for threads by a pattern: they find what the pattern matches, in every layout, within their bounds."""

from __future__ import annotations

import fnmatch

import pytest

from ai_ops.celery_tasks import explain_thread, find_threads, pin_thread
from tests.integration.checkpoints.test_checkpoint_recorded import LIVE, OLD, PREFIXED, PREFIXES, RECORDED, restore

pytestmark = pytest.mark.django_db


@pytest.mark.parametrize(("name", "saver"), RECORDED[::4])
def test_the_threads_of_each_layout_are_found_by_any_pattern(checkpoint_redis, monkeypatch, name, saver):
    monkeypatch.setattr("django.conf.settings.PLUGINS_CONFIG", {"ai_ops": PREFIXES if saver == PREFIXED else {}})
    restore(checkpoint_redis, name, saver)
    explanations = {thread: explain_thread(thread) for thread in OLD | LIVE}
    for pattern in ("*", "old*", "*:1", "{*", "asked:???", "[al]*", "nothing"):
        report = find_threads(pattern)
        found = {each["thread"]: each for each in report["threads"]}
        assert set(found) == {each for each in OLD | LIVE if fnmatch.fnmatchcase(each, pattern)}, pattern
        assert (report["complete"], report["looked_at"]) == (True, checkpoint_redis.dbsize())
        assert report["thread_count"] == len(found)
        for thread, row in found.items():
            explained = explanations[thread]
            assert row["state"] == ("waiting" if explained["waits"] else "idle")
            for column, key in (("saver", "layout"), ("last_activity", "last_activity"), ("keys", "keys")):
                assert row[column] == explained[key], (thread, column)


@pytest.mark.parametrize(("bound", "value"), [("MAX_FOUND", 500), ("MAX_SCAN_SECONDS", 0.0)])
def test_a_search_that_has_seen_enough_says_how_much_it_has_looked_at(checkpoint_redis, monkeypatch, bound, value):
    with checkpoint_redis.pipeline(transaction=False) as pipeline:
        for number in range(3000):
            pipeline.set(f"checkpoint:user-{number}:x", "{}")
        pipeline.execute()
    monkeypatch.setattr(f"ai_ops.checkpoints.search.{bound}", value)
    report = find_threads("user-*")
    assert (report["success"], report["complete"], report["database_keys"]) == (True, False, 3000)
    assert 1000 <= report["looked_at"] < 3000
    assert 0 < report["thread_count"] < 3000
    assert len(report["threads"]) == min(200, report["thread_count"]), "of the others the page says how many there are"


def test_a_pattern_in_a_pin_and_one_that_is_no_glob(checkpoint_redis):
    checkpoint_redis.set("checkpoint:user-1:x", "{}")
    pin_thread("user-*", is_glob=True)
    assert [each["state"] for each in find_threads("*1")["threads"]] == ["pinned"]
    for pattern in ("", "*a" * 11, "a\nb", None):
        report = find_threads(pattern)
        assert (report["success"], report["threads"]) == (False, []), pattern
        assert report["error"].endswith("."), pattern
