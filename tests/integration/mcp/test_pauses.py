"""The pause between two rounds of a check: an argument, which no operator can shorten."""

from __future__ import annotations

import pytest
from nautobot.extras.models import JobResult

from ai_ops.config import AiOpsSettings
from ai_ops.exceptions import RunOptionsError
from ai_ops.jobs.mcp_health_check import MCPServerHealthCheckJob
from ai_ops.mcp.check import check_servers
from ai_ops.mcp.health_run import check_due_servers
from ai_ops.runs.context import current_request, request_of_job
from ai_ops.runs.options import checked_options
from tests.fakes.runs import FreeHold, with_pauses
from tests.fakes.servers import add

pytestmark = pytest.mark.django_db


def test_a_check_waits_as_long_as_it_is_told_between_two_rounds_and_says_so(down, caplog):
    caplog.set_level("INFO", logger="celery.task")
    hold = FreeHold()
    report = check_servers([add("ill", down.url)], hold, pause=7)
    assert (report.changed_count, hold.waited) == (1, [7, 7])
    assert "1 server(s) differ from their status, checking them again in 7 s" in caplog.messages


@pytest.mark.parametrize(("pause", "expected"), [(None, [5, 5]), (0.5, [0.5, 0.5]), (0, [0, 0])])
def test_a_run_waits_five_seconds_unless_the_code_around_it_says_otherwise(down, pause, expected):
    add("ill", down.url)
    hold = FreeHold()
    hold.pause = pause
    assert check_due_servers(hold, None)["changed_count"] == 1
    assert hold.waited == expected


@pytest.mark.parametrize(("pause", "asked"), [(29, 1), (30, 3)])
def test_a_server_that_asks_to_wait_no_longer_than_the_pause_is_probed_again_in_the_run(down, pause, asked):
    server = add("busy", down.url, health_check="/429", probe="http")
    check_servers([server], FreeHold(), pause=pause)
    assert len(down.requests) == asked


class MessageOfAJob:
    """A Job as a worker has it, whose message has a pause wherever one could stand."""

    def __init__(self) -> None:
        self.request = self
        self.properties = dict.fromkeys(("pause", "ai_ops_pause"), 0.0)
        self.job_result = JobResult(name="A check", celery_kwargs={"pause": 0.0}, task_kwargs={"pause": 0.0})


def test_the_job_of_a_process_that_sets_no_pause_has_none(settings):
    with with_pauses(None):
        assert request_of_job(MessageOfAJob()).pause is None
    with with_pauses(3.0):
        assert request_of_job(MessageOfAJob()).pause == 3.0, "of the code around it"
        assert current_request().pause == 3.0


def test_no_option_and_no_setting_shortens_the_pause():
    for kind in ("health", "server"):
        with pytest.raises(RunOptionsError, match="has no option pause"):
            checked_options(kind, {"pause": 0}, None)
    assert set(MCPServerHealthCheckJob._get_vars()) == {"server", "shard"}
    assert not [name for name in AiOpsSettings.__dataclass_fields__ if "pause" in name]
