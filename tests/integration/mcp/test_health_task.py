"""Runs of the health check against real servers on loopback and rows in a real PostgreSQL."""

from __future__ import annotations

import contextlib
import logging
import os
import resource
import signal
import threading
import time
import uuid

import pytest
from celery.exceptions import SoftTimeLimitExceeded
from django.contrib.auth import get_user_model
from django.contrib.contenttypes.models import ContentType
from django.db import connection, transaction
from django.db.models.signals import post_save
from django.utils import timezone
from nautobot.apps.change_logging import web_request_context
from nautobot.extras.choices import ObjectChangeEventContextChoices
from nautobot.extras.models import ObjectChange, Status

from ai_ops.agents import current_generation
from ai_ops.celery_tasks import check_mcp_server_health, perform_mcp_health_checks
from ai_ops.choices import MCPProtocolChoices
from ai_ops.mcp.http.tls import ssl_context
from ai_ops.mcp.logic.pauses import PAUSE_SECONDS
from ai_ops.mcp.logic.probe_threads import MAX_AT_ONE_PORT
from ai_ops.models import MCPServer, MCPServerCheck
from ai_ops.models.runs import MaintenanceLease
from tests.fakes.certificates import CertificateAuthority
from tests.fakes.mcp_server import FakeMCPServer
from tests.fakes.servers import NOBODY_LISTENS, add, status_of
from tests.waiting import until

pytestmark = pytest.mark.django_db
# For tests in which another process changes rows at the same time, in a connection of their own.
committed = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def long_enough_to_act_in(pauses):
    """Let the pauses be long enough for another thread to change rows in one."""
    pauses(0.3)


@pytest.fixture(autouse=True)
def _health_alone(settings):
    """Tools are listed after the checks, and have tests of their own; here requests are counted."""
    ours = settings.PLUGINS_CONFIG["ai_ops"] | {"tool_check_interval_minutes": 0}
    settings.PLUGINS_CONFIG = settings.PLUGINS_CONFIG | {"ai_ops": ours}


@pytest.fixture(autouse=True)
def _every_line(caplog):
    caplog.set_level(logging.DEBUG, logger="celery.task")


def status(name: str) -> Status:
    found, created = Status.objects.get_or_create(name=name)
    if created:
        found.content_types.add(ContentType.objects.get_for_model(MCPServer))
    return found


@contextlib.contextmanager
def meanwhile(fake: FakeMCPServer, act):
    """Do something in a database connection of its own once `fake` has been asked for the first time."""

    def wait_and_act():
        try:
            until(lambda: fake.requests, "the first request")
            act()
        finally:
            connection.close()

    thread = threading.Thread(target=wait_and_act)
    thread.start()
    yield
    thread.join()


def test_servers_become_what_three_checks_agree_on(up, caplog):
    down, back, well = (
        add("down", NOBODY_LISTENS, "Healthy"),
        add("back", up.url, "Unhealthy"),
        add("well", up.url, "Healthy"),
    )
    dead = add("dead", NOBODY_LISTENS, "Unhealthy")
    before = current_generation()
    result = perform_mcp_health_checks()
    assert result.pop("run")["state"] == "succeeded"
    assert result == {
        "success": True,
        "checked_count": 4,
        "changed_count": 2,
        "failed_count": 2,
        "worker_count": 4,
        "cache_cleared": True,
        "error": None,
        "errors": [],
    }
    assert [status_of(server) for server in (down, back, well, dead)] == [
        "Unhealthy",
        "Healthy",
        "Healthy",
        "Unhealthy",
    ]
    assert current_generation() != before
    lines = caplog.messages
    assert "Starting MCP server health checks..." in lines
    assert any(line.startswith("down was Healthy and is now Unhealthy, as 3 checks agree. GET") for line in lines)
    assert any(line.startswith("back was Unhealthy and is now Healthy, as 3 checks agree. GET") for line in lines)
    assert any(line.startswith("dead stays Unhealthy: the check agrees with it. GET") for line in lines)
    assert "✅ MCP client cache cleared due to status changes" in lines
    assert (
        "✅ MCP health check completed: 4 server(s) checked using 4 worker(s), 2 status change(s), 2 failure(s)"
        in lines
    )


def test_a_run_that_changes_nothing_asks_once_and_leaves_the_agents_clients_alone(up, caplog):
    add("well", up.url, "Healthy")
    before = current_generation()
    result = perform_mcp_health_checks()
    assert (result["changed_count"], result["cache_cleared"]) == (0, False)
    assert len(up.requests) == 1
    assert current_generation() == before
    assert not any("cache cleared" in line for line in caplog.messages)


def test_without_servers_there_is_nothing_to_do():
    result = perform_mcp_health_checks()
    assert (result["success"], result["checked_count"], result["worker_count"]) == (True, 0, 0)


def test_vulnerable_and_stdio_servers_are_not_asked(up):
    add("vulnerable", up.url, "Vulnerable")
    add("local", up.url, "Healthy", protocol=MCPProtocolChoices.STDIO)
    assert perform_mcp_health_checks()["checked_count"] == 0
    assert up.requests == []


@pytest.mark.parametrize("status_name", ["Maintenance", "Being moved"])
def test_a_server_in_any_other_status_is_asked_once_logged_and_left_alone(up, caplog, status_name):
    server = add("moving", up.url, status(status_name).name)
    up.health_status = 500
    result = perform_mcp_health_checks()
    assert (result["checked_count"], result["changed_count"], result["failed_count"]) == (1, 0, 1)
    assert len(up.requests) == 1
    assert status_of(server) == status_name
    assert f"moving stays {status_name}: checks change only Healthy and Unhealthy. GET" in caplog.text


@pytest.mark.parametrize("answers", [[500, 500, 200], [500, 200]])
def test_two_of_three_checks_change_nothing(up, caplog, answers):
    server = add("flaky", up.url, "Healthy")
    up.script = list(answers)
    result = perform_mcp_health_checks()
    assert (result["changed_count"], result["failed_count"]) == (0, 0)
    assert len(up.requests) == len(answers)
    assert status_of(server) == "Healthy"
    assert "flaky stays Healthy: the checks did not agree with each other. GET" in caplog.text
    assert "answered 500" in caplog.text


def test_many_servers_going_down_at_once_take_two_pauses_and_no_more(up, pauses):
    assert PAUSE_SECONDS == 5, "as the documentation says"
    pauses(1)
    for number in range(40):
        add(f"down-{number}", up.url, "Healthy")
    up.health_status = 500
    started = time.monotonic()
    result = perform_mcp_health_checks()
    elapsed = time.monotonic() - started
    assert (result["changed_count"], result["worker_count"]) == (40, 4)
    assert len(up.requests) == 3 * 40
    assert up.open_most <= MAX_AT_ONE_PORT
    assert 2 <= elapsed < 40, "a pause for each server would take 80 s"
    first, second, third = (up.requests[start : start + 40] for start in (0, 40, 80))
    assert second[0][0] - first[-1][0] >= 0.98
    assert third[0][0] - second[-1][0] >= 0.98


def test_only_those_that_differ_are_asked_again(up):
    with FakeMCPServer(health_status=500).running() as ill:
        add("well", up.url, "Healthy")
        add("ill", ill.url, "Healthy")
        perform_mcp_health_checks()
        assert (len(up.requests), len(ill.requests)) == (1, 3)


@committed
def test_an_operators_change_during_the_pauses_is_kept(up, caplog):
    server = add("repaired", up.url, "Healthy")
    up.health_status = 500
    with meanwhile(up, lambda: MCPServer.objects.filter(pk=server.pk).update(status=status("Maintenance"))):
        result = perform_mcp_health_checks()
    assert (result["success"], result["changed_count"], result["cache_cleared"]) == (True, 0, False)
    assert status_of(server) == "Maintenance"
    assert "repaired is now Maintenance: it was changed by someone else during the check" in caplog.messages


@committed
def test_what_was_found_at_an_old_address_is_not_held_against_the_new_one(up, caplog):
    server = add("moved", up.url, "Healthy")
    up.health_status = 500
    with meanwhile(up, lambda: MCPServer.objects.filter(pk=server.pk).update(url="http://127.0.0.1:9")):
        result = perform_mcp_health_checks()
    assert result["changed_count"] == 0
    assert status_of(server) == "Healthy"
    assert "changed by someone else" in caplog.text


@committed
def test_other_fields_an_operator_edits_during_the_pauses_survive_the_flip(up):
    server = add("described", up.url, "Healthy")
    up.health_status = 500
    with meanwhile(up, lambda: MCPServer.objects.filter(pk=server.pk).update(description="call Ann first")):
        assert perform_mcp_health_checks()["changed_count"] == 1
    server.refresh_from_db()
    assert (server.status.name, server.description) == ("Unhealthy", "call Ann first")


@committed
def test_a_flip_waits_for_an_edit_that_is_being_saved_and_then_gives_way(up):
    server = add("edited", up.url, "Healthy")
    up.health_status = 500

    def edit_slowly():
        with transaction.atomic():
            MCPServer.objects.select_for_update().get(pk=server.pk)
            time.sleep(1)
            MCPServer.objects.filter(pk=server.pk).update(status=status("Vulnerable"))

    with meanwhile(up, edit_slowly):
        result = perform_mcp_health_checks()
    assert result["changed_count"] == 0
    assert status_of(server) == "Vulnerable"


@committed
def test_a_server_deleted_during_the_pauses_ends_with_a_line(up, caplog):
    server = add("gone", up.url, "Healthy")
    other = add("other", up.url, "Healthy")
    up.health_status = 500
    with meanwhile(up, lambda: MCPServer.objects.filter(pk=server.pk).delete()):
        result = perform_mcp_health_checks()
    assert (result["success"], result["checked_count"], result["changed_count"]) == (True, 2, 1)
    assert status_of(other) == "Unhealthy"
    assert "gone was deleted during the check" in caplog.messages


@committed
def test_two_runs_at_once_flip_a_server_once(up):
    server = add("contended", up.url, "Unhealthy")
    results = []

    def other_run():
        results.append(perform_mcp_health_checks())
        connection.close()

    thread = threading.Thread(target=other_run)
    thread.start()
    results.append(perform_mcp_health_checks())
    thread.join()
    assert sorted(result["changed_count"] for result in results) == [0, 1]
    assert status_of(server) == "Healthy"


def test_a_status_that_can_not_be_saved_fails_that_server_alone(up, caplog):
    broken, fine = add("broken", up.url, "Healthy"), add("fine", up.url, "Unhealthy")
    MCPServer.objects.filter(pk=broken.pk).update(url="ftp://127.0.0.1")
    result = perform_mcp_health_checks()
    assert (result["success"], result["changed_count"], result["cache_cleared"]) == (False, 1, True)
    assert result["error"].startswith("broken: The status Unhealthy could not be saved: ")
    assert status_of(fine) == "Healthy"
    assert "⚠️ MCP health check completed" in caplog.text


def test_a_deleted_status_is_named_with_the_way_to_get_it_back(up):
    server = add("well", up.url, "Unhealthy")
    healthy = status("Healthy")
    healthy.content_types.clear()
    try:
        result = check_mcp_server_health(server.pk)
    finally:
        healthy.content_types.add(ContentType.objects.get_for_model(MCPServer))
    assert result["success"] is False
    assert "no status Healthy any more: run nautobot-server migrate" in result["error"]


@committed
def test_when_the_database_fails_between_the_rounds_the_run_says_so(up):
    server = add("down", up.url, "Healthy")
    up.health_status = 500
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        (backend,) = cursor.fetchone()

    def end_the_connection():
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_terminate_backend(%s)", [backend])

    with meanwhile(up, end_the_connection):
        result = perform_mcp_health_checks()
    connection.close()
    assert (result["success"], result["changed_count"]) == (False, 0)
    assert "Nautobot's database or cache failed" in result["error"]
    assert status_of(server) == "Healthy"


def _broken_cache(settings):
    return {"default": {**settings.CACHES["default"], "LOCATION": "redis://127.0.0.1:1/0"}}


def test_when_the_shared_cache_is_down_nothing_is_flipped_and_the_run_says_so(up, settings):
    server = add("back", up.url, "Unhealthy")
    settings.CACHES = _broken_cache(settings)
    result = perform_mcp_health_checks()
    assert (result["success"], result["changed_count"], result["cache_cleared"]) == (False, 0, False)
    assert "back: The status Healthy could not be saved. Nautobot's database or cache failed" in result["error"]
    assert status_of(server) == "Unhealthy"


def test_when_agents_can_not_be_told_of_a_flip_the_run_says_so(up, settings):
    server = add("back", up.url, "Unhealthy")

    def cache_goes_down(**_):
        settings.CACHES = _broken_cache(settings)

    post_save.connect(cache_goes_down, sender=MCPServer)
    try:
        result = perform_mcp_health_checks()
    finally:
        post_save.disconnect(cache_goes_down, sender=MCPServer)
    assert (result["success"], result["changed_count"], result["cache_cleared"]) == (False, 1, False)
    assert "agents may notice the changes up to 30 s late: check Nautobot's Redis" in result["error"]
    assert status_of(server) == "Healthy"


def test_when_this_machine_can_not_check_nothing_is_flipped_and_the_run_says_so(up):
    server = add("well", up.url, "Healthy")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    ssl_context()
    with open(os.devnull) as next_file:
        resource.setrlimit(resource.RLIMIT_NOFILE, (next_file.fileno(), hard))
    try:
        result = perform_mcp_health_checks()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert (result["success"], result["changed_count"], result["failed_count"]) == (False, 0, 1)
    assert "which says nothing about the server" in result["error"]
    assert status_of(server) == "Healthy"


@contextlib.contextmanager
def soft_limit():
    """Raise what Celery raises in a task whose soft time limit is over, by another signal."""

    def over(signum, frame):
        raise SoftTimeLimitExceeded

    previous = signal.signal(signal.SIGALRM, over)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)


@contextlib.contextmanager
def time_limit(seconds: float):
    with soft_limit():
        signal.setitimer(signal.ITIMER_REAL, seconds)
        yield


def exceed_soft_limit():
    signal.pthread_kill(threading.main_thread().ident, signal.SIGALRM)


def test_the_time_limit_ends_a_run_in_a_pause_and_nothing_undecided_is_flipped(up, caplog, pauses):
    pauses(60)
    server = add("down", up.url, "Healthy")
    up.health_status = 500

    def end_the_pause():
        time.sleep(1)  # for the answer to be counted
        exceed_soft_limit()

    with meanwhile(up, end_the_pause), soft_limit(), pytest.raises(SoftTimeLimitExceeded):
        perform_mcp_health_checks()
    assert status_of(server) == "Healthy"
    assert "stopped by the time limit: 1 of 1 server(s) probed, 0 status change(s) made" in caplog.text


@committed
def test_the_time_limit_keeps_what_three_checks_agreed_on_before_it(up, caplog, settings):
    # The end of the run waits for the probe that hangs.
    settings.PLUGINS_CONFIG = {"ai_ops": settings.PLUGINS_CONFIG["ai_ops"] | {"check_timeout": 4}}
    before = current_generation()
    with FakeMCPServer(health_status=500).running() as slow:
        quick, hangs = add("a-quick", up.url, "Healthy"), add("b-hangs", slow.url, "Healthy")
        up.health_status = 500

        def hang_at_the_third_check():
            until(lambda: len(slow.requests) == 2, "the second check")
            slow.delay = 30
            until(lambda: len(up.requests) == 3, "the third check of the other server")
            time.sleep(1)  # for its answer to be counted
            exceed_soft_limit()

        with meanwhile(slow, hang_at_the_third_check), soft_limit(), pytest.raises(SoftTimeLimitExceeded):
            perform_mcp_health_checks()
    assert (status_of(quick), status_of(hangs)) == ("Unhealthy", "Healthy")
    assert current_generation() != before
    assert "1 status change(s) made" in caplog.text


def test_dead_servers_flip_after_some_runs_none_of_which_has_the_time_for_two_rounds(settings, pauses):
    pauses(0.02)
    settings.PLUGINS_CONFIG = {"ai_ops": settings.PLUGINS_CONFIG["ai_ops"] | {"check_timeout": 1}}
    with FakeMCPServer(delay=60).running() as silent:
        servers = [add(f"dead {number}", f"{silent.url}/{number}", "Healthy") for number in range(24)]
        for _ in range(10):
            # Three at the most are at it at once: with one host and port of eight, three rounds of a second each.
            with time_limit(4.0), contextlib.suppress(SoftTimeLimitExceeded):
                perform_mcp_health_checks()
            MaintenanceLease.objects.update(expires=timezone.now())
            if all(status_of(server) == "Unhealthy" for server in servers):
                break
    assert {status_of(server) for server in servers} == {"Unhealthy"}
    assert MCPServerCheck.objects.filter(flipped=True).count() == 24


def test_one_server_is_checked_by_the_same_rules(up):
    server = add("alpha", up.url, "Unhealthy")
    result = check_mcp_server_health(str(server.pk))
    latency, checked_at = result.pop("latency_ms"), result.pop("checked_at")
    assert checked_at.endswith("+00:00")
    assert result.pop("run")["state"] == "succeeded"
    assert result == {
        "success": True,
        "server": "alpha",
        "server_id": str(server.pk),
        "status_before": "Unhealthy",
        "status_after": "Healthy",
        "changed": True,
        "ok": True,
        "reason": None,
        "message": f"GET {up.url}/health answered 200",
        "http_status": 200,
        "remedy": None,
        "phase": None,
        "protocol_version": None,
        "server_name": None,
        "server_version": None,
        "retry_after": None,
        "certificate_ends": None,
        "error": None,
        "errors": [],
        "inconclusive": False,
        "verdicts": "111",
    }
    assert 0 < latency < 10_000
    assert len(up.requests) == 3
    assert status_of(server) == "Healthy"


def test_a_server_that_is_down_was_checked_successfully():
    server = add("dead", NOBODY_LISTENS, "Unhealthy")
    result = check_mcp_server_health(server.pk)
    assert (result["success"], result["ok"], result["reason"], result["changed"]) == (True, False, "CONNECT", False)
    assert "check that the server runs" in result["message"]


def test_what_can_not_be_checked_is_refused_in_a_sentence(up):
    vulnerable = add("risky", up.url, "Vulnerable")
    local = add("local", "", "Healthy", protocol=MCPProtocolChoices.STDIO)
    unknown = uuid.uuid4()
    for asked, named, sentence in [
        (unknown, (str(unknown), None), f"There is no MCP server with the id {unknown}: it may have been deleted."),
        ("alpha", ("alpha", None), '"alpha" is not the id of an MCP server: give its UUID.'),
        (None, ("nothing", None), "server_id must be the UUID of an MCP server, not nothing."),
        (
            local.pk,
            ("local", str(local.pk)),
            "local is not checked: a STDIO server runs inside the agent and has no address.",
        ),
        (
            str(vulnerable.pk),
            ("risky", str(vulnerable.pk)),
            "risky is not checked while its status is Vulnerable: give it another status first.",
        ),
    ]:
        result = check_mcp_server_health(asked)
        assert (result["success"], result["changed"], result["error"]) == (False, False, sentence)
        assert (result["server"], result["server_id"]) == named
    assert up.requests == []


def test_a_flip_from_a_shell_is_in_the_change_log_of_whoever_asked_for_it(up):
    server = add("alpha", up.url, "Unhealthy")
    user = get_user_model().objects.create(username="ann")
    with web_request_context(user, context_detail="checked by hand"):
        perform_mcp_health_checks()
    change = ObjectChange.objects.get(changed_object_id=server.pk)
    assert (change.user_name, change.change_context) == ("ann", ObjectChangeEventContextChoices.CONTEXT_ORM)


@committed
def test_a_check_inside_a_transaction_is_refused_since_its_flips_could_be_rolled_back(up):
    server = add("alpha", up.url, "Unhealthy")
    with pytest.raises(RuntimeError, match="durable"), transaction.atomic():
        check_mcp_server_health(server.pk)
    assert status_of(server) == "Unhealthy"


@committed
def test_flips_and_edits_of_the_same_servers_in_whatever_order_do_not_wait_for_each_other(up):
    """Both take the agents' generation first; with the rows first, PostgreSQL would have to end one of them."""
    servers = [add(f"contended-{number}", up.url, "Unhealthy") for number in range(6)]

    def edit_all_in_one_transaction():
        for _ in range(3):
            with transaction.atomic():
                for server in reversed(servers):
                    fresh = MCPServer.objects.get(pk=server.pk)
                    fresh.description = f"edited {time.monotonic()}"
                    fresh.save(update_fields=["description"])
                    time.sleep(0.05)

    with meanwhile(up, edit_all_in_one_transaction):
        result = perform_mcp_health_checks()
    assert (result["success"], result["error"]) == (True, None)
    for server in servers:
        server.refresh_from_db()
        assert (server.status.name, server.description[:6]) == ("Healthy", "edited")


def test_the_time_for_a_probe_is_a_setting(settings):
    settings.PLUGINS_CONFIG = {"ai_ops": {"check_timeout": 1, "allow_loopback": True}}
    with FakeMCPServer(delay=30).running() as slow:
        server = add("slow", slow.url, "Unhealthy")
        result = check_mcp_server_health(server.pk)
    assert (result["reason"], result["phase"]) == ("TIMEOUT", "answer")
    assert 990 <= result["latency_ms"] < 10_000, "30 s without the setting"
    assert result["remedy"] == "The server accepts connections but does not answer, so check its log."


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("check_timeout", 0, "check_timeout must be a number of seconds from 1 to 60, not 0."),
        ("check_timeout", 61, "check_timeout must be a number of seconds from 1 to 60, not 61."),
        ("check_timeout", "10", 'check_timeout must be a number of seconds from 1 to 60, not "10".'),
        ("check_timeout", True, "check_timeout must be a number of seconds from 1 to 60, not true."),
        ("check_timeout", float("nan"), "check_timeout must be a number of seconds from 1 to 60, not nan."),
        ("allow_loopback", "yes", 'allow_loopback must be True or False, not "yes".'),
        ("ca_file", "ca.pem", 'ca_file must be the absolute path of a PEM file, not "ca.pem".'),
    ],
)
def test_a_setting_that_no_probe_could_use_fails_the_run_in_a_sentence(up, settings, name, value, words):
    server = add("well", up.url, "Unhealthy")
    settings.PLUGINS_CONFIG = {"ai_ops": {name: value}}
    for result in (perform_mcp_health_checks(), check_mcp_server_health(server.pk)):
        assert result["success"] is False
        assert words in result["error"]
    assert up.requests == []


def test_without_the_setting_servers_on_this_machine_are_not_asked(up, settings):
    server = add("here", up.url, "Healthy")
    settings.PLUGINS_CONFIG = {}
    result = check_mcp_server_health(server.pk)
    assert (result["reason"], result["status_after"], up.requests) == ("POLICY", "Unhealthy", [])


def test_a_server_without_a_health_page_is_asked_over_mcp_and_says_who_it_is(up):
    server = add("sdk", up.url, "Unhealthy")
    up.health_status = 404
    result = check_mcp_server_health(server.pk)
    assert (result["ok"], result["status_after"]) == (True, "Healthy")
    assert (result["server_name"], result["server_version"], result["protocol_version"]) == (
        "fake",
        "1.2",
        "2025-06-18",
    )
    MCPServer.objects.filter(pk=server.pk).update(probe="http")
    result = check_mcp_server_health(server.pk)
    assert (result["reason"], result["http_status"], result["status_after"]) == ("HTTP", 404, "Unhealthy")


@committed
def test_what_was_found_with_another_probe_is_not_held_against_this_one(up, caplog):
    server = add("reconfigured", up.url, "Healthy", probe="http")
    up.health_status = 500
    with meanwhile(up, lambda: MCPServer.objects.filter(pk=server.pk).update(probe="mcp")):
        assert perform_mcp_health_checks()["changed_count"] == 0
    assert status_of(server) == "Healthy"
    assert "changed by someone else" in caplog.text


def test_tls_settings_of_server_and_app_are_used(settings, tmp_path):
    authority = CertificateAuthority.make(tmp_path)
    with FakeMCPServer(tls=authority.server_context()).running() as secure:
        server = add("secure", secure.url, "Unhealthy")
        assert check_mcp_server_health(server.pk)["reason"] == "TLS"
        settings.PLUGINS_CONFIG = {"ai_ops": {"allow_loopback": True, "ca_file": authority.ca_file}}
        assert check_mcp_server_health(server.pk)["ok"]
        settings.PLUGINS_CONFIG = {"ai_ops": {"allow_loopback": True, "ca_directories": [str(tmp_path)]}}
        for fields in ({"ca_file": authority.ca_file}, {"verify_tls": False, "ca_file": ""}):
            MCPServer.objects.filter(pk=server.pk).update(**fields)
            assert check_mcp_server_health(server.pk)["ok"]
