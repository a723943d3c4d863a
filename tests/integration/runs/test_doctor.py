"""The doctor: every check gives both answers, on real servers and rows, and one that fails stops no other."""

from __future__ import annotations

from contextlib import ExitStack
from datetime import timedelta

import pytest
from django.conf import settings as django_settings
from django.core.cache import cache
from django.db import connection
from django.db.migrations.recorder import MigrationRecorder
from django.utils import timezone
from nautobot.extras.choices import JobExecutionType
from nautobot.extras.models import Job, ScheduledJob, SecretsGroup

from ai_ops.doctor import CHECKS, Outcome, examination
from ai_ops.doctor.examination import Surroundings, examined
from ai_ops.mcp.logic.verdicts import Reason
from ai_ops.models import MaintenanceRun, MCPServerHealth
from ai_ops.schedules import find_job, service_user
from ai_ops.schedules.beat import ALIVE_KEY, SEEN_KEY, Heartbeat
from tests.integration.checkpoints.test_checkpoint_acl import DOCUMENTED, acl_user
from tests.integration.pages.test_overview import make_all_well, make_server

pytestmark = pytest.mark.django_db

CHECKPOINT = "checkpoint:{a thread}::1f0a4d9e-5d9c-6b3a-8000-0123456789ab"


class Place:
    """An installation in which all is well, as far as the checks can see."""

    def __init__(self, redis, server, monkeypatch, settings, stack):
        self.redis, self.server, self.monkeypatch, self.stack = redis, server, monkeypatch, stack
        self.settings = settings
        self.mcp_server = make_all_well()
        self.queues = {"default": 1}
        redis.set(CHECKPOINT, "{}")
        redis.config_set("maxmemory", 0)
        Heartbeat()._write_heartbeat()
        self.schedule_logs_cleanup()

    def schedule_logs_cleanup(self):
        job = Job.objects.get(module_name="nautobot.core.jobs.cleanup", job_class_name="LogsCleanup")
        ScheduledJob.objects.create(
            name="logs", task=job.class_path, job_model=job, interval=JobExecutionType.TYPE_CUSTOM,
            crontab="0 4 * * *", start_time=timezone.now(), user=service_user(), enabled=True,
        )  # fmt: skip

    def set(self, **values):
        self.settings.PLUGINS_CONFIG = {"ai_ops": {**django_settings.PLUGINS_CONFIG["ai_ops"], **values}}

    def use_database(self, number):
        self.monkeypatch.setenv("LANGGRAPH_REDIS_URL", self.server.url(number))

    def limit_memory(self, bytes_, policy):
        self.stack.callback(self.redis.config_set, "maxmemory", 0)
        self.stack.callback(self.redis.config_set, "maxmemory-policy", "noeviction")
        self.redis.config_set("maxmemory-policy", policy)
        self.redis.config_set("maxmemory", bytes_)


@pytest.fixture
def place(checkpoint_redis, checkpoint_server, monkeypatch, settings):
    with ExitStack() as stack:
        yield Place(checkpoint_redis, checkpoint_server, monkeypatch, settings, stack)
    cache.delete_many([ALIVE_KEY, SEEN_KEY])


def share_with_cache(place):
    place.monkeypatch.setenv("LANGGRAPH_REDIS_URL", django_settings.CACHES["default"]["LOCATION"])


def refuse(*rules):
    def change(place):
        kept = [rule for rule in DOCUMENTED if rule not in rules]
        assert len(kept) == len(DOCUMENTED) - len(rules)
        place.stack.enter_context(acl_user(place.server, place.redis, place.monkeypatch, *kept))

    return change


def documented_user(place):
    place.stack.enter_context(acl_user(place.server, place.redis, place.monkeypatch, *DOCUMENTED))


def forget_migration(place):
    names = MigrationRecorder(connection).applied_migrations()
    last = max(name for app, name in names if app == "ai_ops")
    MigrationRecorder(connection).record_unapplied("ai_ops", last)


def ask_for_packages(*lines):
    return lambda place: place.monkeypatch.setattr(examination.metadata, "requires", lambda name: list(lines))


def fill(place):
    place.limit_memory(int(place.redis.info("memory")["used_memory"] * 1.05), "noeviction")


def health(**values):
    return lambda place: MCPServerHealth.objects.filter(server=place.mcp_server).update(**values)


def unusable_secrets(place):
    place.mcp_server.secrets_group = SecretsGroup.objects.create(name="empty")
    place.mcp_server.save()


def no_sign_of_beat(place):
    cache.delete_many([ALIVE_KEY, SEEN_KEY])
    long_ago = timezone.now() - timedelta(days=3)
    ScheduledJob.objects.update(start_time=long_ago, last_run_at=long_ago)


def long_run(place):
    MaintenanceRun.objects.filter(kind="cleanup").update(execution_time_ms=3_500_000)


def many_servers(place):
    place.set(probe_concurrency=1, check_timeout=60, time_limits={"health": 60})
    ScheduledJob.objects.filter(name__contains="check MCP").update(celery_kwargs={"soft_time_limit": 60})


def short_certificate(place):
    ends = timezone.now() + timedelta(days=5)
    health(certificate_ends=ends)(place)


def disable_job(place):
    Job.objects.filter(pk=find_job("cleanup").pk).update(enabled=False)


def nothing(place):
    pass


# Of each check what makes it well, and everything that makes it a problem with a word of what it says then.
CASES = {
    "settings": (nothing, [(lambda place: place.set(retention_days=0), "retention_days must be")]),
    "migrations": (nothing, [(forget_migration, "The database lacks")]),
    "versions": (
        nothing,
        [
            (ask_for_packages("redis>=999"), "redis>=999 ("),
            (ask_for_packages("no-such-package>1"), "no-such-package>1 (none)"),
        ],
    ),
    "redis": (
        nothing,
        [(lambda place: place.monkeypatch.setenv("LANGGRAPH_REDIS_URL", "redis://127.0.0.1:1/0"), "127.0.0.1")],
    ),
    "database": (
        nothing,
        [(lambda place: place.use_database(3), "database 0 of the same server does"), (share_with_cache, "cache")],
    ),
    "saver": (
        lambda place: place.set(checkpoint_saver="compact"),
        [(lambda place: (place.set(checkpoint_saver="redis"), place.use_database(2)), "Agents have no saver")],
    ),
    "commands": (
        documented_user,
        [(refuse("+unlink"), "UNLINK"), (refuse("+eval"), "EVAL"), (refuse("~thread:{*"), "UNLINK thread:{*")],
    ),
    "memory": (
        lambda place: place.limit_memory(10**9, "noeviction"),
        [(lambda place: place.limit_memory(10**9, "allkeys-lru"), "allkeys-lru"), (fill, "percent of its maxmemory")],
    ),
    "jobs": (nothing, [(disable_job, "disabled")]),
    "workers": (
        nothing,
        [
            (lambda place: setattr(place, "queues", {}), "No Celery worker answers"),
            (lambda place: setattr(place, "queues", {"other": 2}), "listens to default"),
        ],
    ),
    "beat": (nothing, [(no_sign_of_beat, "Beat has not started a schedule that was due")]),
    "schedules": (
        nothing,
        [
            (lambda place: ScheduledJob.objects.filter(name__contains="clean up").delete(), "Nothing starts cleanup"),
            (lambda place: ScheduledJob.objects.filter(name__contains="clean up").update(enabled=False), "Paused"),
            (no_sign_of_beat, "did not start"),
        ],
    ),
    "time limits": (nothing, [(long_run, "cleanup took 58 min"), (many_servers, "health may take")]),
    "credentials": (
        nothing,
        [(health(reason=Reason.AUTH_REQUIRED), "other credentials: Tickets"), (unusable_secrets, "Tickets can't be")],
    ),
    "certificates": (
        lambda place: health(certificate_ends=timezone.now() + timedelta(days=60))(place),
        [(short_certificate, "Tickets (4 d)")],
    ),
    "logs cleanup": (
        nothing,
        [(lambda place: ScheduledJob.objects.filter(name="logs").update(enabled=False), "Logs Cleanup is not")],
    ),
}  # fmt: skip

PROBLEMS = [(check, change, words) for check, (_, problems) in CASES.items() for change, words in problems]


def found(check, place):
    around = Surroundings(timezone.now())
    around.queues = place.queues
    return examined(check, around)


def test_every_check_has_cases_for_both_answers():
    assert list(CASES) == list(CHECKS)


@pytest.mark.parametrize("check", CASES)
def test_what_is_well_is_said_to_be_well(check, place):
    make_well, _ = CASES[check]
    make_well(place)
    finding = found(check, place)
    assert (finding.check, finding.outcome, finding.advice) == (check, Outcome.WELL, ""), finding


@pytest.mark.parametrize(
    ("check", "change", "words"), PROBLEMS, ids=[f"{check}: {words}" for check, _, words in PROBLEMS]
)
def test_what_is_wrong_is_named_with_what_to_do(check, change, words, place):
    change(place)
    finding = found(check, place)
    assert finding.outcome == Outcome.PROBLEM, finding
    assert words in finding.message
    assert finding.advice.endswith(".")


def test_a_redis_that_is_away_leaves_the_other_checks_their_answers(place):
    place.monkeypatch.setenv("LANGGRAPH_REDIS_URL", "redis://127.0.0.1:1/0")
    answers = {check: found(check, place).outcome for check in CHECKS}
    assert {check for check, outcome in answers.items() if outcome != Outcome.WELL} == {
        "redis", "database", "saver", "commands", "memory",
    }  # fmt: skip
    assert answers["redis"] == Outcome.PROBLEM
    assert answers["memory"] == Outcome.UNKNOWN


def test_a_password_is_in_no_finding(place):
    place.monkeypatch.setenv("LANGGRAPH_REDIS_URL", place.server.url(0, "the wrong one"))
    said = " ".join(f"{found(check, place).message} {found(check, place).advice}" for check in CHECKS)
    assert "the wrong one" not in said
    assert "wrong%20one" not in said


def test_a_server_named_in_many_findings_is_bounded(place):
    for number in range(30):
        make_server(f"server {number:02}", "Unhealthy", ok=False, reason=Reason.AUTH_REQUIRED)
    finding = found("credentials", place)
    assert "and 25 more" in finding.message
