"""OpenTelemetry: a run with its phases and probes as spans of one trace, metrics of runs, and nothing unless set up."""

from __future__ import annotations

import pytest
from django.test import Client
from django.urls import reverse
from nautobot.extras.models import Job
from nautobot.users.models import Token, User
from opentelemetry import metrics, trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from ai_ops.celery_tasks import cleanup_old_checkpoints, perform_mcp_health_checks
from ai_ops.models import MaintenanceRun, MCPServer
from ai_ops.runs.tracing import trace_parent
from tests.fakes.conversations import old_id
from tests.fakes.mcp_server import FakeMCPServer
from tests.integration.pages.test_overview import make_server

pytestmark = pytest.mark.django_db


@pytest.fixture
def exporter(monkeypatch):
    """A provider of traces for the time of the test; the one that is set globally can't be taken back."""
    found = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(found))
    monkeypatch.setattr(trace, "get_tracer_provider", lambda: provider)
    yield found
    provider.shutdown()


@pytest.fixture
def reader(monkeypatch):
    found = InMemoryMetricReader()
    provider = MeterProvider([found])
    monkeypatch.setattr(metrics, "get_meter_provider", lambda: provider)
    yield found
    provider.shutdown()


def by_name(exporter):
    return {span.name: span for span in exporter.get_finished_spans()}


def measured(reader):
    (resource,) = reader.get_metrics_data().resource_metrics
    found = {}
    for each in (each for scope in resource.scope_metrics for each in scope.metrics):
        points = each.data.data_points
        found[each.name] = [
            (dict(point.attributes), getattr(point, "value", None) or point_count(point)) for point in points
        ]
    return found


def point_count(point):
    return getattr(point, "count", 0)


def test_a_cleanup_is_a_span_with_its_phases(exporter, checkpoint_redis):
    checkpoint_redis.set(f"checkpoint:plain:{old_id(90)}", "{}")
    result = cleanup_old_checkpoints(30)
    spans = by_name(exporter)
    run = spans["ai_ops.run cleanup"]
    assert run.attributes["ai_ops.run.name"] == result["run"]["name"]
    assert run.attributes["ai_ops.run.state"] == "succeeded"
    for name in ("ai_ops.scan", "ai_ops.deletion"):
        assert spans[name].parent.span_id == run.context.span_id


def test_a_health_check_has_a_span_for_each_round_and_each_probe(exporter):
    with FakeMCPServer().running() as well, FakeMCPServer().running() as refused:
        for name, fake in (("well", well), ("also well", refused)):
            server = make_server(name, checked=None)
            MCPServer.objects.filter(pk=server.pk).update(url=fake.url)
        assert perform_mcp_health_checks()["success"]
    spans = by_name(exporter)
    probes = [span for span in exporter.get_finished_spans() if span.name == "ai_ops.probe"]
    assert {span.attributes["ai_ops.server.name"] for span in probes} == {"well", "also well"}
    for span in probes:
        assert span.parent.span_id == spans["ai_ops.round"].context.span_id
        assert span.attributes["http.response.status_code"] == 200
        assert 0 < span.end_time - span.start_time < 10**10
    assert spans["ai_ops.round"].parent.span_id == spans["ai_ops.run health"].context.span_id
    assert {"ai_ops.history", "ai_ops.incidents", "ai_ops.tools"} <= set(spans)


def test_a_run_that_fails_is_an_error_and_quotes_nothing(exporter, monkeypatch):
    monkeypatch.setenv("LANGGRAPH_REDIS_URL", "redis://:secret@127.0.0.1:1/0")
    assert not cleanup_old_checkpoints(30)["success"]
    run = by_name(exporter)["ai_ops.run cleanup"]
    assert run.status.status_code.name == "ERROR"
    assert "secret" not in "".join(span.to_json() for span in exporter.get_finished_spans())


def test_an_error_of_the_program_ends_the_spans_it_went_through(exporter, checkpoint_redis, monkeypatch):
    def fail(*_):
        raise ZeroDivisionError("with a secret")

    monkeypatch.setattr("ai_ops.checkpoints.cleanup.CleanupRun._report_progress", fail)
    checkpoint_redis.set(f"checkpoint:plain:{old_id(90)}", "{}")
    with pytest.raises(ZeroDivisionError):
        cleanup_old_checkpoints(30)
    spans = by_name(exporter)
    for name in ("ai_ops.scan", "ai_ops.run cleanup"):
        assert spans[name].attributes["error.type"] == "ZeroDivisionError"
        assert not spans[name].events
    assert spans["ai_ops.run cleanup"].attributes["ai_ops.run.state"] == "failed"


def test_a_run_joins_the_trace_of_the_code_that_calls_it(exporter, checkpoint_redis):
    with trace.get_tracer("a test").start_as_current_span("caller") as caller:
        cleanup_old_checkpoints(30)
    run = by_name(exporter)["ai_ops.run cleanup"]
    assert run.parent.span_id == caller.get_span_context().span_id


def test_a_run_that_is_asked_for_by_rest_joins_the_trace_of_the_caller(
    exporter, checkpoint_redis, monkeypatch, django_capture_on_commit_callbacks
):
    monkeypatch.setattr("ai_ops.runs.requests.has_worker", lambda queue: True)
    Job.objects.filter(job_class_name="CleanupCheckpointsJob").update(enabled=True)
    user = User.objects.create(username="ada", is_superuser=True, is_active=True)
    token = Token.objects.create(user=user)
    parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    with trace.use_span(remote_span(parent)), django_capture_on_commit_callbacks() as sent:
        answer = Client().post(
            reverse("plugins-api:ai_ops-api:maintenancerun-list"),
            {"kind": "cleanup"},
            content_type="application/json",
            headers={"Authorization": f"Token {token.key}"},
        )
    assert answer.status_code in (201, 202), answer.content
    run = MaintenanceRun.objects.get(kind="cleanup")
    assert run.trace_parent == parent
    # The message is taken by a process that knows nothing of the request.
    assert trace_parent() == ""
    for send in sent:
        send()
    span = by_name(exporter)["ai_ops.run cleanup"]
    assert span.attributes["ai_ops.run.name"] == run.name
    assert f"{span.context.trace_id:032x}" == "0af7651916cd43dd8448eb211c80319c"
    assert f"{span.parent.span_id:016x}" == "b7ad6b7169203331"


def remote_span(parent):
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    return trace.get_current_span(TraceContextTextMapPropagator().extract({"traceparent": parent}))


def test_runs_are_measured(reader, checkpoint_redis, monkeypatch):
    cleanup_old_checkpoints(30)
    monkeypatch.setenv("LANGGRAPH_REDIS_URL", "redis://127.0.0.1:1/0")
    cleanup_old_checkpoints(30)
    found = measured(reader)
    assert found["ai_ops.run.successes"] == [({"kind": "cleanup"}, 1)]
    assert found["ai_ops.run.active"] == [({"kind": "cleanup"}, 0)]
    ((attributes, count),) = found["ai_ops.run.failures"]
    assert (attributes["kind"], count) == ("cleanup", 1)
    assert sum(count for _, count in found["ai_ops.run.duration"]) == 2


def test_without_a_provider_nothing_is_made(checkpoint_redis):
    assert not trace.get_tracer("ai_ops").start_span("a test").is_recording()
    result = cleanup_old_checkpoints(30)
    assert result["success"]
    assert MaintenanceRun.objects.get(pk=result["run"]["id"]).trace_parent == ""
