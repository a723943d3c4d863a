"""A schedule of one MCP server ends with the server, however the server goes."""

from __future__ import annotations

import pytest
from django.test import Client
from django.urls import reverse
from nautobot.extras.models import ScheduledJob

from ai_ops.exceptions import ConfigurationError
from ai_ops.models import MCPServer
from ai_ops.schedules.control import resume_schedule, schedule_runs
from ai_ops.schedules.status import get_schedule_status
from ai_ops.supervision.supervisor import SUB_CHECKS
from tests.fakes.jobs import enable_jobs
from tests.fakes.runs import FreeHold

pytestmark = pytest.mark.django_db

SENTENCE = 'its MCP server "Tickets" was deleted'


@pytest.fixture
def server(db):
    enable_jobs()
    return MCPServer.objects.create(name="Tickets", url="http://mcp.example.com")


@pytest.fixture
def schedule(server):
    return schedule_runs("server", {"server": str(server.pk)}, name="Check Tickets", crontab="*/5 * * * *")


def deleted_raw(server):
    queryset = MCPServer.objects.filter(pk=server.pk)
    queryset._raw_delete(queryset.db)


@pytest.mark.parametrize(
    ("delete", "sentence"),
    [
        (lambda server: server.delete(), SENTENCE),
        (lambda server: MCPServer.objects.all().delete(), SENTENCE),
        (deleted_raw, "its MCP server was deleted"),
    ],
    ids=["by its page", "in bulk", "raw"],
)
def test_it_ends_with_a_line_in_the_log_and_on_its_page(server, schedule, delete, sentence, admin, caplog):
    others = schedule_runs("health"), schedule_runs("storage")
    delete(server)
    SUB_CHECKS["schedules"](FreeHold())
    schedule.refresh_from_db()
    assert schedule.enabled is False
    assert f'The schedule "Check Tickets" ended: {sentence}' in caplog.messages
    assert all(ScheduledJob.objects.get(pk=other.pk).enabled for other in others)
    (row,) = get_schedule_status(ScheduledJob.objects.filter(pk=schedule.pk), ask_workers=False)
    assert (row["standing"], row["late"], row["next_run"]) == ("finished", False, None)
    assert row["why"] == "The MCP server that it checks was deleted: remove it."

    browser = Client()
    browser.force_login(admin)
    for page in (schedule.get_absolute_url(), reverse("plugins:ai_ops:schedules")):
        text = browser.get(page).content.decode()
        assert f"Ended: {sentence}".replace('"', "&quot;") in text or row["why"] in text


def test_it_is_not_resumed(server, schedule):
    server.delete()
    with pytest.raises(ConfigurationError, match="was deleted: remove the schedule"):
        resume_schedule("Check Tickets")


def test_a_pass_with_nothing_to_end_counts_nothing(server, schedule):
    assert SUB_CHECKS["schedules"](FreeHold()).fixed == 0
    schedule.refresh_from_db()
    assert schedule.enabled is True
    assert "Ended" not in schedule.description


def test_one_that_was_written_by_hand_with_no_id_ends_too(server, schedule):
    ScheduledJob.objects.filter(pk=schedule.pk).update(kwargs={"server": "no id"})
    assert SUB_CHECKS["schedules"](FreeHold()).fixed == 1
