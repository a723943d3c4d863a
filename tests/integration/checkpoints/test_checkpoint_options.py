"""The options of the cleanup, as function arguments and as settings."""

from __future__ import annotations

import pytest
from django.test import override_settings

from ai_ops.celery_tasks import cleanup_old_checkpoints, cleanup_user_checkpoints
from tests.fakes.conversations import old_id

pytestmark = pytest.mark.django_db


@pytest.fixture
def threads(checkpoint_redis):
    """Plain threads by name, with checkpoints of the given ages in days."""

    def make(**ages):
        for thread, days in ages.items():
            for each in days:
                checkpoint_redis.set(f"checkpoint:{thread.replace('_', '-')}:{old_id(each)}", "x" * 100)

    return make


def left(client):
    return sorted({key.decode().split(":")[1] for key in client.scan_iter()})


def test_thread_pattern(threads, checkpoint_redis):
    threads(user_1_a=[40], user_12_a=[40], other=[40])
    report = cleanup_old_checkpoints(30, thread_pattern="user-1-*")
    assert left(checkpoint_redis) == ["other", "user-12-a"]
    assert (report["threads_deleted"], report["threads_kept"]) == (1, 2)
    assert "user-1-*" in report["policy"]


def test_cleanup_of_one_user_takes_glob_characters_literally(checkpoint_redis):
    for thread in ("user-*-a", "user-1-a", "user-[1]-a", "user-?-a"):
        checkpoint_redis.set(f"checkpoint:{thread}:{old_id(0)}", "{}")
    assert cleanup_user_checkpoints("*") == 1, "whatever its age"
    assert cleanup_user_checkpoints("[1]") == 1
    assert left(checkpoint_redis) == ["user-1-a", "user-?-a"]


def test_trim_live_threads_and_keep_last(threads, checkpoint_redis):
    threads(live=[90, 80, 70, 60, 1])
    assert cleanup_old_checkpoints(30, trim_live_threads=False)["checkpoints_trimmed"] == 0
    assert cleanup_old_checkpoints(30, keep_last=3)["checkpoints_trimmed"] == 2
    with override_settings(PLUGINS_CONFIG={"ai_ops": {"keep_last": 2}}):
        assert cleanup_old_checkpoints(30)["checkpoints_trimmed"] == 1
    assert cleanup_old_checkpoints(30)["checkpoints_trimmed"] == 1


def test_pinned_threads_stay(threads, checkpoint_redis):
    threads(a=[40], b=[40])
    report = cleanup_old_checkpoints(30, pinned_threads={"a"})
    assert left(checkpoint_redis) == ["a"]
    assert "1 pinned" in report["policy"]


def test_over_the_memory_limit_the_shorter_retention_applies(threads, checkpoint_redis):
    threads(week=[8], month=[40], today=[0.1])
    for key in checkpoint_redis.scan_iter():
        # More than the scripts of a cleanup take.
        checkpoint_redis.append(key, b" " * 2**20)
    roomy = cleanup_old_checkpoints(30, dryrun=True, memory_limit_mb=10**6, memory_retention_days=7)
    tight = cleanup_old_checkpoints(30, memory_limit_mb=1, memory_retention_days=7)
    assert (roomy["applied_retention_days"], roomy["threads_deleted"]) == (30, 1)
    assert (tight["applied_retention_days"], tight["threads_deleted"]) == (7, 2)
    assert "over the limit of 1" in tight["policy"]
    assert "within the limit" in roomy["policy"]
    assert tight["memory_before_bytes"] > tight["memory_after_bytes"] > 0


def test_max_deletions_ends_the_run_with_a_warning(threads, checkpoint_redis, caplog):
    threads(**{f"t{number}": [50, 40] for number in range(10)})
    report = cleanup_old_checkpoints(30, max_deletions=7)
    assert report["success"] is True
    assert report["limit_reached"] is True
    assert report["deleted_count"] == 6
    assert len(left(checkpoint_redis)) == 7
    assert any("max_deletions" in record.message and record.levelname == "WARNING" for record in caplog.records)


def test_a_dry_run_names_the_ten_largest(threads, checkpoint_redis):
    threads(**{f"t{number}": [40 + each for each in range(number)] for number in range(1, 13)})
    report = cleanup_old_checkpoints(30, dryrun=True)
    assert [each["keys"] for each in report["largest_threads"]] == list(range(12, 2, -1))
    assert report["largest_threads"][0]["thread"] == "t12"


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("keep_last", 0),
        ("keep_last", "2"),
        ("pending_retention_days", -1),
        ("memory_limit_mb", 10),
        ("memory_retention_days", 7),
        ("max_deletions", 0),
        ("thread_pattern", ""),
        ("thread_pattern", 7),
        ("trim_live_threads", "yes"),
    ],
)
def test_an_option_out_of_range__a_sentence_that_names_it(threads, checkpoint_redis, option, value):
    threads(old=[40])
    report = cleanup_old_checkpoints(30, **{option: value})
    assert report["success"] is False
    assert option in report["error"]
    assert left(checkpoint_redis) == ["old"]


def test_an_option_none_known_is_a_programming_error(checkpoint_redis):
    with pytest.raises(TypeError, match="keep_lats"):
        cleanup_old_checkpoints(30, keep_lats=3)


def test_a_thread_larger_than_max_deletions_does_not_keep_the_others(threads, checkpoint_redis):
    threads(large=[60, 59, 58, 57, 56, 55], small=[50])
    report = cleanup_old_checkpoints(30, max_deletions=4)
    assert (report["limit_reached"], report["threads_deleted"]) == (True, 1)
    assert left(checkpoint_redis) == ["large"]


def test_a_limit_below_the_smallest_thread_says_what_to_do(threads, checkpoint_redis, caplog):
    threads(one=[60, 59, 58], two=[60, 59])
    report = cleanup_old_checkpoints(30, max_deletions=1)
    assert (report["success"], report["limit_reached"], report["deleted_count"]) == (True, True, 0)
    (warning,) = [record.message for record in caplog.records if "max_deletions" in record.message]
    assert "the smallest thread to delete has 2 keys" in warning
    assert "Raise max_deletions" in warning


def test_a_memory_retention_longer_than_the_one_asked_for_gives_way(threads, checkpoint_redis):
    threads(week=[8], today=[0.1])
    report = cleanup_old_checkpoints(5, memory_limit_mb=1, memory_retention_days=7)
    assert (report["success"], report["applied_retention_days"], report["threads_deleted"]) == (True, 5, 1)


def test_no_retention_is_the_configured_one(threads, checkpoint_redis):
    threads(old=[12])
    with override_settings(PLUGINS_CONFIG={"ai_ops": {"retention_days": 10}}):
        report = cleanup_old_checkpoints(None)
    assert (report["retention_days"], report["threads_deleted"]) == (10, 1)
