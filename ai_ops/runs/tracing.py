"""OpenTelemetry: spans for runs, their phases and probes, and metrics of runs, with only its API.

Without a provider this does nothing. Nautobot sets up a provider if `OTEL_PYTHON_DJANGO_INSTRUMENT` is on; any other
set-up works too. No span has the message of an exception, which may contain an address or a secret.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

from opentelemetry import metrics, trace
from opentelemetry.context import Context
from opentelemetry.trace import SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from ai_ops.choices import RunStateChoices

if TYPE_CHECKING:
    # Imported late: the cleanup traces its phases too, and benchmarks and the demo run it without Django's models.
    from ai_ops.models.runs import MaintenanceRun

NAME = "ai_ops"
TRACE_PARENT = "traceparent"
BAD_ENDS = (RunStateChoices.FAILED, RunStateChoices.DEAD, RunStateChoices.LOST)
NANOSECONDS = 1_000_000_000

_propagator = TraceContextTextMapPropagator()


class Instruments(NamedTuple):
    """The metrics of runs, named after OpenTelemetry's conventions."""

    duration: Any
    succeeded: Any
    failed: Any
    active: Any


@lru_cache(maxsize=4)
def _instruments(provider: Any) -> Instruments:
    meter = metrics.get_meter(NAME, meter_provider=provider)
    return Instruments(
        meter.create_histogram("ai_ops.run.duration", "s", "Time for which maintenance runs worked"),
        meter.create_counter("ai_ops.run.successes", "{run}", "Maintenance runs that succeeded"),
        meter.create_counter("ai_ops.run.failures", "{run}", "Attempts of maintenance runs that failed"),
        meter.create_up_down_counter("ai_ops.run.active", "{run}", "Maintenance runs that are running"),
    )


def trace_parent() -> str:
    """Return the current trace as a W3C `traceparent`; empty without a trace."""
    carrier: dict[str, str] = {}
    _propagator.inject(carrier)
    return carrier.get(TRACE_PARENT, "")


@contextmanager
def run_span(run: MaintenanceRun) -> Iterator[None]:
    """Trace and measure one attempt of a run; the span ends with the state of its record.

    The span belongs to the current trace, which Celery's instrumentation propagates. Without a current trace it belongs
    to the trace of the request for the run.
    """
    kind = {"kind": run.kind}
    found = _instruments(metrics.get_meter_provider())
    attributes = {f"{NAME}.run.{name}": str(getattr(run, name)) for name in ("kind", "name", "trigger", "attempt")}
    started = time.monotonic()
    found.active.add(1, kind)
    try:
        with _span(f"{NAME}.run {run.kind}", _parent_of(run), SpanKind.INTERNAL, attributes) as span:
            try:
                yield
            finally:
                span.set_attribute(f"{NAME}.run.state", run.state)
                if run.state in BAD_ENDS:
                    span.set_status(Status(StatusCode.ERROR))
    finally:
        found.active.add(-1, kind)
        found.duration.record(time.monotonic() - started, kind | {"outcome": run.state})
        if run.state == RunStateChoices.SUCCEEDED:
            found.succeeded.add(1, kind)
        else:
            found.failed.add(1, kind | {"outcome": run.state})


@contextmanager
def phase(name: str, **attributes: Any) -> Iterator[None]:
    """Trace a part of a run."""
    with _span(f"{NAME}.{name}", None, SpanKind.INTERNAL, attributes):
        yield


def ended_span(name: str, seconds: float, attributes: Mapping[str, Any], *, ok: bool) -> None:
    """Record a span for work that has just ended in another thread, which has no trace context."""
    ended = time.time_ns()
    span = trace.get_tracer(NAME).start_span(
        f"{NAME}.{name}", kind=SpanKind.CLIENT, start_time=ended - round(seconds * NANOSECONDS)
    )
    if span.is_recording():
        span.set_attributes({key: value for key, value in attributes.items() if value is not None})
        if not ok:
            span.set_status(Status(StatusCode.ERROR))
    span.end(ended)


def _parent_of(run: MaintenanceRun) -> Context | None:
    if trace.get_current_span().get_span_context().is_valid or not run.trace_parent:
        return None
    return _propagator.extract({TRACE_PARENT: run.trace_parent})


@contextmanager
def _span(name: str, context: Context | None, kind: SpanKind, attributes: dict[str, Any]) -> Iterator[Any]:
    tracer = trace.get_tracer(NAME)
    with tracer.start_as_current_span(
        name, context, kind, attributes, record_exception=False, set_status_on_exception=False
    ) as span:
        try:
            yield span
        except BaseException as error:
            span.set_attribute("error.type", type(error).__name__)
            span.set_status(Status(StatusCode.ERROR))
            raise
