"""The command line: sentences and tables for people, JSON and exit codes for scripts."""

from __future__ import annotations

import io
import json
import re
from datetime import timedelta

import pytest
from django.core.management import CommandError, call_command
from django.utils import timezone
from nautobot.extras.models import ObjectChange, ScheduledJob
from nautobot.users.models import User

from ai_ops import doctor
from ai_ops.choices import RunStateChoices
from ai_ops.command_line.answers import Answer, Table, as_text, print_tables
from ai_ops.doctor import Finding, Outcome
from ai_ops.management.commands.ai_ops import Command
from ai_ops.models import MaintenanceRun, MCPServer, PinnedThread
from ai_ops.runs import lease
from development.services import PROJECT
from langgraph_checkpoint_compact import CompactRedisSaver
from tests.fakes.conversations import days_ago, graph, old_id, on
from tests.fakes.jobs import delete_schedules
from tests.fakes.mcp_server import FakeMCPServer
from tests.integration.pages.test_overview import make_all_well, make_run, make_server, make_trouble

pytestmark = pytest.mark.django_db
# Those that Django or argparse adds to every command.
PLAIN_OPTIONS = {"-h", "--help"}


def run(*arguments):
    """Return the exit code and what was printed."""
    out = io.StringIO()
    try:
        call_command("ai_ops", *arguments, stdout=out)
    except SystemExit as stop:
        return stop.code, out.getvalue()
    return 0, out.getvalue()


def run_json(*arguments):
    code, said = run(*arguments, "--json")
    return code, json.loads(said)


def test_status_says_that_all_is_well():
    make_all_well()
    code, said = run("status")
    assert code == 0
    assert said.startswith("All well.")
    assert "On time" in said


def test_status_counts_what_needs_the_operator_as_the_overview_does():
    make_all_well()
    make_trouble()
    code, data = run_json("status")
    assert code == 1
    assert data["answer"].endswith("things need you")
    assert data["needs"]["down"] == 3


def test_status_that_is_not_known_has_a_code_of_its_own():
    make_server("new", checked=None)
    delete_schedules()
    MaintenanceRun.objects.all().delete()
    code, said = run("status")
    assert (code, said.splitlines()[0]) == (2, "Not known: no health check has finished yet.")


def test_a_dry_run_of_the_cleanup_deletes_nothing(checkpoint_redis):
    checkpoint_redis.set(f"checkpoint:plain:{old_id(90)}", "{}")
    code, data = run_json("cleanup", "--dry-run", "--retention-days", "30", "--quiet")
    assert (code, data["dryrun"], data["deleted_count"], checkpoint_redis.dbsize()) == (0, True, 1, 1)


def test_the_cleanup_deletes_with_the_options_that_are_given(checkpoint_redis, capsys):
    for thread in ("mine", "other"):
        checkpoint_redis.set(f"checkpoint:{thread}:{old_id(90)}", "{}")
    code, said = run("cleanup", "--thread-pattern", "mine", "--retention-days", "60")
    assert code == 0
    assert "The cleanup deleted 1 of 2 keys" in said
    assert [key.split(b":")[1] for key in checkpoint_redis.scan_iter("checkpoint:*")] == [b"other"]
    assert "Starting checkpoint cleanup task..." in capsys.readouterr().err


def test_a_cleanup_that_fails_needs_the_operator(checkpoint_redis, monkeypatch):
    monkeypatch.setenv("LANGGRAPH_REDIS_URL", "redis://127.0.0.1:1/0")
    code, said = run("cleanup", "--quiet")
    assert code == 1
    assert "127.0.0.1" in said or "could not be reached" in said


def test_an_option_out_of_its_range_is_named(checkpoint_redis):
    code, said = run("cleanup", "--retention-days", "0", "--quiet")
    assert code == 1
    assert "retention_days must be" in said


def test_a_cleanup_beside_another_says_that_nothing_was_done(checkpoint_redis):
    held = lease.acquire("cleanup", "another process", make_run("the other", RunStateChoices.RUNNING).pk, 60)
    try:
        code, said = run("cleanup", "--quiet")
    finally:
        held.release()
    assert code == 2
    assert said.startswith("The run did no work:")


def test_servers_are_checked_by_name():
    with FakeMCPServer().running() as server:
        make_server("Tickets", checked=None)
        MCPServer.objects.filter(name="Tickets").update(url=server.url)
        code, data = run_json("check", "Tickets", "--quiet")
    assert (code, [(each["server"], each["ok"]) for each in data]) == (0, [("Tickets", True)])


def test_a_server_that_none_known_is_not_known():
    code, said = run("check", "No such server", "--quiet")
    assert code == 2
    assert 'There is no MCP server called "No such server".' in said


def test_all_servers_are_checked_without_a_name():
    with FakeMCPServer().running() as server:
        make_server("Tickets", checked=None)
        MCPServer.objects.filter(name="Tickets").update(url=server.url)
        code, said = run("check", "--quiet")
    assert (code, said.strip()) == (0, "1 servers checked, 0 failed, 0 changed their status.")


def test_runs_are_listed_and_dead_letters_need_the_operator():
    make_run("a run")
    assert run("runs")[0] == 0
    make_run("a dead run", RunStateChoices.DEAD, kind="cleanup", error="Redis was away.")
    code, said = run("runs", "--kind", "cleanup")
    assert code == 1
    assert "1 dead letter to redrive or discard." in said
    assert "a dead run" in said
    assert "a run " not in said


def test_runs_of_the_supervisor_are_shown_when_asked_for():
    make_run("quiet one", kind="supervisor")
    assert "quiet one" not in run("runs")[1]
    assert "quiet one" in run("runs", "--all")[1]


def test_schedules_that_are_paused_need_the_operator():
    make_all_well()
    assert run("schedules")[1].count("AI Ops:") == 5
    ScheduledJob.objects.filter(name__contains="clean up").update(enabled=False)
    code, data = run_json("schedules")
    assert code == 1
    assert {each["standing"] for each in data["schedules"]} == {"active", "paused"}


def test_storage_is_not_known_until_it_was_sampled(checkpoint_redis):
    assert run("storage")[0] == 2
    checkpoint_redis.set(f"checkpoint:plain:{old_id(1)}", "{}")
    code, said = run("storage", "--sample", "--quiet")
    assert code == 0
    assert "1 threads in 1 keys" in said
    assert run_json("storage")[1]["thread_count"] == 1


def test_a_thread_is_pinned_in_the_name_of_a_user():
    User.objects.create(username="ada")
    assert run("threads", "pin", "user-42-a", "--note", "evidence", "--user", "ada")[0] == 0
    change = ObjectChange.objects.get(changed_object_id=PinnedThread.objects.get(thread_id="user-42-a").pk)
    assert change.user_name == "ada"
    assert run_json("threads", "unpin", "user-42-a")[1]["was_pinned"] is True
    assert not PinnedThread.objects.exists()


def test_a_thread_is_explained(checkpoint_redis):
    with days_ago(90):
        graph(CompactRedisSaver(checkpoint_redis)).invoke({"said": ["hello"]}, on("old"))
    code, said = run("threads", "explain", "old", "--quiet")
    assert code == 0
    assert "deletes" in said
    assert run("threads", "explain", "no such thread", "--quiet")[0] == 2


def test_threads_are_found_by_a_pattern(checkpoint_redis):
    checkpoint_redis.set(f"checkpoint:user-1:{old_id(1)}", "{}")
    checkpoint_redis.set(f"checkpoint:other:{old_id(1)}", "{}")
    code, said = run("threads", "find", "user-*", "--quiet")
    assert code == 0
    assert "1 threads match, with 1 keys; all 2 of 2 keys were scanned." in " ".join(said.split())
    assert "user-1" in said
    assert "other" not in said
    assert run("threads", "find", "*a" * 11, "--quiet")[0] == 1


def test_a_thread_is_erased_with_a_reason(checkpoint_redis):
    checkpoint_redis.set(f"checkpoint:mine:{old_id(1)}", "{}")
    checkpoint_redis.set(f"checkpoint:other:{old_id(1)}", "{}")
    assert (
        run_json("threads", "erase", "mine", "--reason", "asked for", "--dry-run", "--quiet")[1]["deleted_count"] == 1
    )
    assert len(checkpoint_redis.keys("checkpoint:*")) == 2
    code, said = run("threads", "erase", "mine", "--reason", "asked for", "--quiet")
    assert code == 0
    assert "A final scan found no keys left." in said
    assert [key.split(b":")[1] for key in checkpoint_redis.keys("checkpoint:*")] == [b"other"]


def test_a_user_that_does_not_exist_is_refused():
    with pytest.raises(CommandError, match='There is no user "eve"') as refused:
        run("threads", "pin", "a", "--user", "eve")
    assert refused.value.returncode == 2


@pytest.mark.parametrize(
    ("outcomes", "code"),
    [
        ([Outcome.WELL], 0),
        ([Outcome.WELL, Outcome.PROBLEM, Outcome.UNKNOWN], 1),
        ([Outcome.WELL, Outcome.UNKNOWN], 2),
    ],
)
def test_the_doctor_ends_with_the_code_of_its_worst_finding(outcomes, code):
    assert doctor.exit_code([Finding(outcome, "said") for outcome in outcomes]) == code


def test_the_doctor_prints_every_check_once(checkpoint_redis):
    _, data = run_json("doctor")
    assert [each["check"] for each in data["checks"]] == list(doctor.CHECKS)


HOSTILE = "\x1b[31mred [bold]name[/bold] \u202eevil\n"


def test_text_of_others_reaches_no_terminal_as_a_command():
    answer = Answer(0, {}, (HOSTILE,), (Table(("name",), ((HOSTILE,),)),))
    drawn = io.StringIO()
    assert print_tables(answer, drawn)
    for text in (as_text(answer, 80), drawn.getvalue()):
        assert "\x1b[31m" not in text
        assert "\u202e" not in text
        assert "[bold]name[/bold]" in text


def test_a_schedule_that_is_late_needs_the_operator():
    make_all_well()
    long_ago = timezone.now() - timedelta(days=3)
    ScheduledJob.objects.update(start_time=long_ago, last_run_at=long_ago)
    code, said = run("schedules")
    assert code == 1
    assert "late" in said


def test_the_documentation_names_every_command():
    page = (PROJECT / "docs/user/command_line.md").read_text()
    parser = Command().create_parser("nautobot-server", "ai_ops")
    (commands,) = (each for each in parser._actions if each.dest == "command")
    documented = set(re.findall(r"^\| `([a-z]+)", page, flags=re.MULTILINE))
    assert documented == set(commands.choices)
    for name, command in commands.choices.items():
        for option in command._option_string_actions:
            is_own = name not in ("cleanup", "threads", "notify") and option not in PLAIN_OPTIONS
            assert not is_own or f"`{option}" in page, f"{name} {option}"
