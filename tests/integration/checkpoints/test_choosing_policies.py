"""The worked examples of the page "Choosing Policies", read from it and tried with the real saver."""

from __future__ import annotations

import re
import time

import pytest

from ai_ops.celery_tasks import cleanup_old_checkpoints
from ai_ops.models import RetentionPolicy
from development.services import PROJECT
from tests.fakes.conversations import DAY, days_ago, graph, on

pytestmark = pytest.mark.django_db

PAGE = PROJECT / "docs" / "user" / "choosing_policies.md"
FIELDS = {
    "name": "name",
    "weight": "weight",
    "thread patterns": "thread_patterns",
    "retention": "retention",
    "pending retention": "pending_retention",
    "keep last": "keep_last",
    "max checkpoints": "max_checkpoints",
    "max thread size (MiB)": "max_thread_mb",
}
NUMBERS = ("weight", "keep_last", "max_checkpoints", "max_thread_mb")


def example(number):
    """Make the policy of an example as its table has it."""
    section = re.search(rf"^## {number}\. .*?(?=^## )", PAGE.read_text(), re.MULTILINE | re.DOTALL)[0]
    rows = dict(re.findall(r"^\| (?!field|---)(.+?) \| (.+?) \|$", section, re.MULTILINE))
    values = {FIELDS[name]: value for name, value in rows.items()}
    values["thread_patterns"] = "\n".join(re.findall(r"`(.+?)`", values["thread_patterns"]))
    policy = RetentionPolicy(**{name: int(text) if name in NUMBERS else text for name, text in values.items()})
    policy.validated_save()
    return policy


@pytest.fixture
def talk(saver):
    def hold(thread, *ages, said="hello", asks=False):
        app = graph(saver, asks=asks)
        for age in ages:
            with days_ago(age):
                app.invoke({"said": [said]}, on(thread))
        return app

    return hold


def count(app, thread):
    return len(list(app.get_state_history(on(thread))))


def test_smoke_tests_leave_after_an_hour(talk):
    example(1)
    gone = [(talk(name, 1.5 / 24), name) for name in ("smoke-1", "probe-x")]
    kept = [(talk(name, age), name) for name, age in (("smoke-2", 0.5 / 24), ("user-1", 1.5 / 24))]
    cleanup_old_checkpoints(30)
    assert [count(app, name) for app, name in gone] == [0, 0]
    assert all(count(app, name) for app, name in kept)


def test_cases_under_a_legal_hold_stay(talk):
    example(2)
    RetentionPolicy.objects.create(name="All", weight=50, thread_patterns="*", retention="1 day")
    app, other = talk("case-1", 900, 400), talk("user-1", 400)
    before = count(app, "case-1")
    cleanup_old_checkpoints(30)
    assert (count(app, "case-1"), count(other, "user-1")) == (before, 0)


def test_a_busy_thread_keeps_its_last_twenty_checkpoints(talk):
    example(3)
    app = talk("bot-1", *[1 / 24] * 8)
    assert count(app, "bot-1") > 20
    before = app.get_state(on("bot-1"))
    cleanup_old_checkpoints(30)
    assert count(app, "bot-1") == 20
    assert app.get_state(on("bot-1")) == before


def test_no_conversation_takes_more_than_a_mebibyte(talk, checkpoint_redis):
    example(4)
    app = talk("user-1", *[0.1] * 4, said="x" * 60_000)
    before = app.get_state(on("user-1"))

    def size():
        return sum(checkpoint_redis.memory_usage(key) for key in checkpoint_redis.scan_iter("*user-1*"))

    assert size() > 1024 * 1024
    report = cleanup_old_checkpoints(30)
    assert report["checkpoints_trimmed"] > 0
    assert size() <= 1024 * 1024
    assert count(app, "user-1") > 1, "no more went than had to"
    assert app.get_state(on("user-1")) == before
    large = talk("user-2", 0.1, said="x" * 1_200_000)
    report = cleanup_old_checkpoints(30)
    assert [(each["thread"], each["limit"]) for each in report["over_limits"]] == [("user-2", "max_thread_mb")]
    assert large.get_state(on("user-2")).values


def test_approvals_wait_for_a_quarter(talk):
    example(5)
    waits, forgotten = talk("approval-1", 80, asks=True), talk("approval-2", 95, asks=True)
    done, recent = talk("approval-3", 8), talk("approval-4", 20, 10, 1)
    cleanup_old_checkpoints(30)
    assert count(waits, "approval-1")
    assert not count(forgotten, "approval-2")
    assert not count(done, "approval-3")
    times = [each.created_at for each in recent.get_state_history(on("approval-4"))]
    assert len(times) >= 3
    assert all(text > time.strftime("%Y-%m-%d", time.gmtime(time.time() - 7 * DAY)) for text in times)


def test_the_policy_that_is_tried_is_told_apart(talk):
    policy = example(3)
    RetentionPolicy.objects.filter(pk=policy.pk).update(enabled=False)
    app = talk("bot-1", *[1 / 24] * 8)
    report = cleanup_old_checkpoints(30, dryrun=True, trial_policy="Bots")
    assert report["policies"]["Bots"]["checkpoints_trimmed"] == count(app, "bot-1") - 20
    assert cleanup_old_checkpoints(30, dryrun=True)["policies"] == {}
    refused = cleanup_old_checkpoints(30, trial_policy="Bots")
    assert "dry runs" in refused["error"]
    assert "no retention policy" in cleanup_old_checkpoints(30, dryrun=True, trial_policy="none")["error"]
