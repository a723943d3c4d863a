"""A schedule ends with the MCP server or the retention policy that it needs, however that goes."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from django.db.models import Model
from django.test import Client
from django.urls import reverse
from nautobot.apps.jobs import ObjectVar
from nautobot.extras.models import ScheduledJob

from ai_ops import jobs
from ai_ops.exceptions import ConfigurationError
from ai_ops.models import MCPServer, RetentionPolicy
from ai_ops.schedules.control import resume_schedule, schedule_runs
from ai_ops.schedules.status import get_schedule_status
from ai_ops.schedules.subjects import SUBJECTS
from ai_ops.supervision.supervisor import SUB_CHECKS
from tests.fakes.jobs import enable_jobs
from tests.fakes.runs import FreeHold

pytestmark = pytest.mark.django_db

EVERY_FIVE_MINUTES = "*/5 * * * *"


@dataclass
class Case:
    """A schedule, what it needs, and what is said of it.

    Attributes:
        schedule: Its name is the subject's with "Schedule of " in front.
        subject: Without it each run would fail.
        variable: The variable of the Job that names the subject.
        noun: The subject in a sentence.
        needed_for: What the schedule does with it.
    """

    schedule: ScheduledJob
    subject: Model
    variable: str
    noun: str
    needed_for: str


def of_server():
    server = MCPServer.objects.create(name="Tickets", url="http://mcp.example.com")
    schedule = schedule_runs(
        "server", {"server": str(server.pk)}, name="Schedule of Tickets", crontab=EVERY_FIVE_MINUTES
    )
    return Case(schedule, server, "server", "MCP server", "checks")


def of_policy():
    policy = RetentionPolicy.objects.create(name="Bots", thread_patterns="bot-*", enabled=False)
    tried = {"dryrun": True, "trial_policy": "Bots"}
    schedule = schedule_runs("cleanup", tried, name="Schedule of Bots", crontab=EVERY_FIVE_MINUTES)
    return Case(schedule, policy, "trial_policy", "retention policy", "tries")


@pytest.fixture(params=[of_server, of_policy])
def case(request, db):
    enable_jobs()
    return request.param()


def deleted_raw(subject):
    rows = type(subject).objects.filter(pk=subject.pk)
    rows._raw_delete(rows.db)


@pytest.mark.parametrize(
    ("delete", "is_named"),
    [
        (lambda subject: subject.delete(), True),
        (lambda subject: type(subject).objects.all().delete(), True),
        (deleted_raw, False),
    ],
    ids=["by its page", "in bulk", "raw"],
)
def test_it_ends_with_a_line_in_the_log_and_on_its_page(case, delete, is_named, admin, caplog):
    caplog.set_level("INFO")
    schedule, name = case.schedule, case.subject.name
    others = schedule_runs("health"), schedule_runs("storage")
    delete(case.subject)
    SUB_CHECKS["schedules"](FreeHold())
    schedule.refresh_from_db()
    assert schedule.enabled is False
    sentence = f'its {case.noun} "{name}" was deleted' if is_named else f"its {case.noun} was deleted"
    assert f'The schedule "{schedule.name}" ended: {sentence}' in caplog.messages
    # What the supervisor deals with has its line: the name, the state, the age, the action.
    drained = f'The schedule "{schedule.name}", active, '
    assert is_named or [line for line in caplog.messages if line.startswith(drained) and line.endswith(" old: ended")]
    assert all(ScheduledJob.objects.get(pk=other.pk).enabled for other in others)
    (row,) = get_schedule_status(ScheduledJob.objects.filter(pk=schedule.pk), ask_workers=False)
    assert (row["standing"], row["late"], row["next_run"]) == ("finished", False, None)
    assert row["why"] == f"The {case.noun} that it {case.needed_for} was deleted: remove it."

    browser = Client()
    browser.force_login(admin)
    for page in (schedule.get_absolute_url(), reverse("plugins:ai_ops:schedules")):
        text = browser.get(page).content.decode()
        assert f"Ended: {sentence}".replace('"', "&quot;") in text or row["why"] in text


def test_it_is_not_resumed(case):
    case.subject.delete()
    with pytest.raises(ConfigurationError, match=f"{case.needed_for} was deleted: remove the schedule"):
        resume_schedule(case.schedule.name)


def test_a_pass_with_nothing_to_end_counts_nothing(case):
    assert SUB_CHECKS["schedules"](FreeHold()).fixed == 0
    case.schedule.refresh_from_db()
    assert case.schedule.enabled is True
    assert "Ended" not in case.schedule.description


def test_one_that_was_written_by_hand_with_no_id_ends_too(case):
    ScheduledJob.objects.filter(pk=case.schedule.pk).update(kwargs={case.variable: "no id"})
    assert SUB_CHECKS["schedules"](FreeHold()).fixed == 1


def test_the_deletion_of_another_ends_nothing(case):
    others = {
        MCPServer: lambda: MCPServer.objects.create(name="Other", url="http://other.example.com"),
        RetentionPolicy: lambda: RetentionPolicy.objects.create(name="Other", thread_patterns="other-*"),
    }
    for make in others.values():
        make().delete()
    case.schedule.refresh_from_db()
    assert case.schedule.enabled is True


def test_every_variable_that_names_an_object_is_watched():
    named = {
        name: variable.field_attrs["queryset"].model
        for job in jobs.jobs
        for name, variable in job._get_vars().items()
        if isinstance(variable, ObjectVar)
    }
    assert named == {name: subject.model for name, subject in SUBJECTS.items()}
