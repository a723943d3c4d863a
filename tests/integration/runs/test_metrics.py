"""Metrics for Prometheus: names by its conventions, counters that outlive their rows, few queries, rules that fit."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from datetime import timedelta

import pytest
import yaml
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from nautobot.apps.testing import TestCase
from nautobot.extras.registry import registry
from prometheus_client import CollectorRegistry, generate_latest

from ai_ops import metrics
from ai_ops.celery_tasks import check_mcp_server_health, cleanup_old_checkpoints
from ai_ops.choices import RunStateChoices, RunTriggerChoices
from ai_ops.models import CheckpointStorageSnapshot, MaintenanceRun, MCPServer, Total
from ai_ops.models.health import MCPServerHealth
from ai_ops.runs import records, requests, totals, transitions
from ai_ops.runs.context import RunRequest
from development.services import PROJECT
from tests.fakes.conversations import old_id
from tests.fakes.mcp_server import FakeMCPServer
from tests.fakes.runs import recorded
from tests.integration.pages.test_homepage import make_trouble, make_trouble_many
from tests.integration.pages.test_overview import make_run, make_server

MONITORING = PROJECT / "docs/assets/monitoring"
PROMTOOL = shutil.which("promtool")
MOST_QUERIES = 15
needs_promtool = pytest.mark.skipif(PROMTOOL is None, reason="promtool is not installed (Debian: prometheus)")
# Units that are not base units, and what other tools put into names: https://prometheus.io/docs/practices/naming/
BAD_PARTS = {"ms", "milliseconds", "minutes", "hours", "days", "kb", "mb", "mib", "percent", "gauge", "counter", "info"}


class Collector:
    """Collects the app's metrics as Nautobot's does."""

    def collect(self):
        for metric in metrics.metrics:
            yield from metric()


def collected():
    found = CollectorRegistry()
    found.register(Collector())
    return found


def value(name, **labels):
    return collected().get_sample_value(f"nautobot_ai_ops_{name}", {key: str(of) for key, of in labels.items()})


def promtool(*arguments, **options):
    return subprocess.run([PROMTOOL, *arguments], capture_output=True, text=True, check=False, timeout=60, **options)


class MetricsTest(TestCase):
    @classmethod
    def setUpTestData(cls):
        make_trouble()

    def test_nautobot_knows_them(self):
        assert set(metrics.metrics) <= set(registry["app_metrics"])

    def test_they_count_what_needs_the_operator(self):
        for name, labels, count in (
            ("dead_letters", {}, 1),
            ("open_incidents", {"kind": "outage"}, 1),
            ("open_incidents", {"kind": "drift"}, 0),
            ("mcp_servers", {"state": "down"}, 0),
        ):
            with self.subTest(name):
                assert value(name, **labels) == count

    def test_servers_are_counted_by_the_states_of_the_overview(self):
        make_server("down", "Unhealthy", ok=False)
        make_server("up", flapping=True)
        make_server("in the agent", protocol="stdio", checked=None)
        make_server("set aside", "Maintenance")
        expected = {"up": 1, "down": 1, "never_checked": 1, "maintenance": 1}
        assert {state: value("mcp_servers", state=state) for state in expected} == expected
        assert value("mcp_flapping_servers") == 1

    def test_the_last_success_of_a_kind_has_an_age(self):
        MaintenanceRun.objects.all().delete()
        assert value("seconds_since_last_success", kind="cleanup") is None
        for name, minutes in (("old", 90), ("new", 60)):
            make_run(name, kind="cleanup", age=timedelta(minutes=minutes))
        make_run("of a part", kind="cleanup", subject="1/2")
        assert value("seconds_since_last_success", kind="cleanup") // 60 == 60
        assert value("seconds_since_last_success", kind="health") is None

    def test_runs_that_are_not_over_are_active(self):
        make_run("at work", RunStateChoices.RUNNING, kind="cleanup")
        make_run("waits", RunStateChoices.PENDING, kind="cleanup")
        assert value("active_runs", kind="cleanup", state="running") == 1
        assert value("active_runs", kind="cleanup", state="pending") == 1
        assert value("active_runs", kind="health", state="running") == 0

    def test_certificates_have_the_time_of_their_end(self):
        ends = timezone.now() + timedelta(days=5)
        make_server("Tickets", certificate_ends=ends)
        assert value("mcp_certificate_expiry_timestamp_seconds", server="Tickets") == pytest.approx(ends.timestamp())

    def test_the_last_sampling_that_succeeded_tells_of_redis(self):
        data = {"success": True, "checkpoint_keys": 70, "thread_count": 7, "evicted_keys": 3, "memory_bytes": 2**20}
        CheckpointStorageSnapshot.objects.create(data=data | {"checkpoint_bytes": None})
        CheckpointStorageSnapshot.objects.create(data={"success": False, "error": "It was away."})
        names = ("checkpoint_keys", "checkpoint_threads", "redis_evicted_keys_total", "redis_memory_bytes")
        assert [value(name) for name in names] == [70, 7, 3, 2**20]
        assert value("checkpoint_bytes") is None

    def test_they_take_few_queries_and_no_more_for_more_of_everything(self):
        with CaptureQueriesContext(connection) as few:
            list(Collector().collect())
        make_trouble_many()
        for number in range(20):
            make_server(f"one more {number}", certificate_ends=timezone.now())
            totals.count_run("cleanup", "succeeded", 1)
        CheckpointStorageSnapshot.objects.create(data={"success": True})
        with CaptureQueriesContext(connection) as many:
            list(Collector().collect())
        assert len(many) == len(few) <= MOST_QUERIES

    def test_without_the_tables_there_are_metrics_without_values(self):
        with connection.cursor() as cursor:
            cursor.execute("ALTER TABLE ai_ops_maintenancerun RENAME TO ai_ops_gone")
        assert value("dead_letters") is None
        assert b"# TYPE nautobot_ai_ops_dead_letters gauge" in generate_latest(collected())


class CountersTest(TestCase):
    def ended(self, outcome, kind="cleanup"):
        return value("runs_total", kind=kind, outcome=outcome)

    def test_what_has_not_happened_yet_is_nothing(self):
        assert self.ended("succeeded") == 0
        assert value("mcp_checks_total", reason="TIMEOUT") == 0
        assert value("run_duration_seconds_count", kind="cleanup") == 0

    def test_each_way_to_end_counts_once(self):
        def run(state=RunStateChoices.RUNNING, **fields):
            return recorded("cleanup", RunTriggerChoices.SCHEDULE, state=state, **fields)

        transitions.end(run(), RunStateChoices.SUCCEEDED, execution_time_ms=1)
        transitions.end_attempt(run(), RunStateChoices.INTERRUPTED, "Stopped.")
        again = run()
        transitions.end_failed_attempt(again, RunStateChoices.LOST, "It died.")  # it is tried again, and counts nothing
        transitions.end_failed_attempt(run(attempt=5), RunStateChoices.LOST, "It died.")
        transitions.end_without_work(RunRequest(RunTriggerChoices.REST, run_id=run(RunStateChoices.PENDING).pk), "No.")
        requests.cancel_run(run(RunStateChoices.PENDING))
        skipped = records.new_record("cleanup", "", {}, RunRequest(RunTriggerChoices.JOB))
        skipped.state = RunStateChoices.SKIPPED
        assert records.saved(skipped) is None
        over = run()
        assert transitions.end(over, RunStateChoices.FAILED)
        over.state = RunStateChoices.RUNNING
        assert not transitions.end(over, RunStateChoices.FAILED)

        expected = {"succeeded": 1, "interrupted": 2, "dead": 1, "failed": 2, "skipped": 1, "lost": 0}
        assert {outcome: self.ended(outcome) for outcome in expected} == expected
        in_rows = MaintenanceRun.objects.filter(state__in=RunStateChoices.FINAL).count()
        assert in_rows == sum(expected.values())

    def test_they_outlive_the_rows_that_they_counted(self):
        run = recorded("cleanup", RunTriggerChoices.SCHEDULE, state=RunStateChoices.RUNNING)
        counters = {"deleted_count": 12, "threads_deleted": 3}
        transitions.end(run, RunStateChoices.SUCCEEDED, execution_time_ms=2_000, counters=counters)
        MaintenanceRun.objects.all().delete()
        assert self.ended("succeeded") == 1
        assert value("deleted_keys_total", kind="cleanup") == 12
        assert value("deleted_threads_total", kind="cleanup") == 3

    def test_a_histogram_adds_its_ranges_up(self):
        for seconds in (0.05, 0.1, 2, 7_000):
            totals.count_run("cleanup", "succeeded", round(seconds * 1000))
        totals.count_run("cleanup", "skipped", 0)
        found = {
            end: value("run_duration_seconds_bucket", kind="cleanup", le=end) for end in ("0.1", "1.0", "5.0", "+Inf")
        }
        assert found == {"0.1": 2, "1.0": 2, "5.0": 3, "+Inf": 4}
        assert value("run_duration_seconds_sum", kind="cleanup") == pytest.approx(7_002.15)

    def test_a_key_of_every_kind_fits_and_is_read_back(self):
        totals.count_checks([("", 40.0), ("TIMEOUT", 10_000.0), ("TIMEOUT", 10_500.0)])
        assert value("mcp_checks_total", reason="OK") == 1
        assert value("mcp_checks_total", reason="TIMEOUT") == 2
        assert value("mcp_check_latency_seconds_count") == 1
        assert Total.objects.count() == 2


@pytest.mark.django_db
def test_a_real_cleanup_is_counted_and_a_dry_run_deletes_nothing(checkpoint_redis):
    for _ in range(2):
        checkpoint_redis.set(f"checkpoint:plain:{old_id(90)}", "{}")
        cleanup_old_checkpoints(30, dryrun=True)
        cleanup_old_checkpoints(30)
    assert value("runs_total", kind="cleanup", outcome="succeeded") == 4
    assert value("deleted_keys_total", kind="cleanup") == 2
    assert value("run_duration_seconds_count", kind="cleanup") == 4


@pytest.mark.django_db
def test_a_real_check_is_counted_by_its_result():
    with FakeMCPServer().running() as fake:
        server = make_server("Tickets", checked=None)
        MCPServer.objects.filter(pk=server.pk).update(url=fake.url)
        check_mcp_server_health(server.pk)
    assert value("mcp_checks_total", reason="OK") == 1
    assert value("mcp_check_latency_seconds_count") == 1


# What has a value of every metric, so that nothing escapes the lint.
def make_all():
    make_server("Tickets", certificate_ends=timezone.now())
    make_run("cleanup")
    keys = (*metrics.SAMPLED.values(), "success")
    CheckpointStorageSnapshot.objects.create(
        data=dict.fromkeys(keys, True) | dict.fromkeys(metrics.SAMPLED.values(), 1)
    )


def exposition():
    make_all()
    assert MCPServerHealth.objects.exists()
    return generate_latest(collected()).decode()


@pytest.mark.django_db
def test_every_metric_has_a_value_in_the_text_that_is_checked():
    samples = {line.partition("{")[0].partition(" ")[0] for line in exposition().splitlines() if line[:1] != "#"}
    for name, kind in metrics.KINDS.items():
        suffix = {"counter": "_total", "histogram": "_bucket", "gauge": ""}[kind.type]
        assert f"nautobot_ai_ops_{name}{suffix}" in samples


@pytest.mark.django_db
@needs_promtool
def test_promtool_finds_nothing_to_say_of_the_metrics():
    checked = promtool("check", "metrics", input=exposition())
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")


@pytest.mark.parametrize("name", metrics.KINDS)
def test_names_and_units_follow_the_conventions(name):
    kind = metrics.KINDS[name]
    assert re.fullmatch(r"[a-z][a-z0-9_]*[a-z0-9]", name)
    assert not BAD_PARTS & set(name.split("_"))
    assert not name.endswith(("_total", "_count", "_sum", "_bucket"))
    assert kind.what.endswith(".")
    assert kind.type != "histogram" or name.endswith("_seconds")
    assert "timestamp" not in name or name.endswith("_timestamp_seconds")
    assert all(re.fullmatch(r"[a-z_]+", label) and label != "le" for label in kind.labels)


def dashboard_queries():
    dashboard = json.loads((MONITORING / "dashboard.json").read_text())
    return [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]


def alert_rules():
    (group,) = yaml.safe_load((MONITORING / "alerts.yml").read_text())["groups"]
    return group["rules"]


def queries():
    return [*dashboard_queries(), *(rule["expr"] for rule in alert_rules())]


@pytest.mark.parametrize("query", queries())
def test_every_query_of_the_dashboard_and_the_alerts_asks_for_what_is_there(query):
    known = {}
    for name, kind in metrics.KINDS.items():
        own = {*kind.labels, "instance", "pod"}
        suffixes = {"counter": ("_total",), "gauge": ("",), "histogram": ("_bucket", "_sum", "_count")}[kind.type]
        known |= {
            f"nautobot_ai_ops_{name}{suffix}": own | ({"le"} if suffix == "_bucket" else set()) for suffix in suffixes
        }
    used = re.findall(r"(nautobot_ai_ops_\w+)(?:\{([^}]*)\})?", query)
    assert used
    labels = set()
    for name, matchers in used:
        assert name in known
        labels |= known[name]
        assert set(re.findall(r"(\w+)\s*[=!]~?", matchers)) <= known[name]
    for group in re.findall(r"(?:by|without) \(([^)]*)\)", query):
        assert {label.strip() for label in group.split(",")} <= labels


def test_the_dashboard_and_the_alerts_leave_no_metric_out():
    used = set(re.findall(r"nautobot_ai_ops_\w+", " ".join(queries())))
    for name in metrics.KINDS:
        assert any(each.startswith(f"nautobot_ai_ops_{name}") for each in used), name


@needs_promtool
def test_promtool_takes_every_query_of_the_dashboard(tmp_path):
    rules = [
        {"record": f"panel:{number}", "expr": query.replace("$__rate_interval", "5m")}
        for number, query in enumerate(dashboard_queries())
    ]
    path = tmp_path / "rules.yml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}))
    checked = promtool("check", "rules", str(path))
    assert checked.returncode == 0, checked.stdout + checked.stderr


@needs_promtool
def test_the_alerts_fire_when_they_are_to_and_else_are_silent():
    checked = promtool("check", "rules", "alerts.yml", cwd=MONITORING)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    tested = promtool("test", "rules", "alerts_test.yml", cwd=MONITORING)
    assert tested.returncode == 0, tested.stdout + tested.stderr


def test_every_alert_has_a_test_of_both_answers():
    silent, loud, gone = yaml.safe_load((MONITORING / "alerts_test.yml").read_text())["tests"]
    names = {rule["alert"] for rule in alert_rules()}
    assert {each["alertname"] for each in silent["alert_rule_test"] if "exp_alerts" not in each} == names
    fired = [*loud["alert_rule_test"], *gone["alert_rule_test"]]
    assert {each["alertname"] for each in fired if each.get("exp_alerts")} == names
