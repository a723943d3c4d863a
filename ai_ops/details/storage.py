"""The page "Checkpoint storage": sentences, panels and buttons over the last snapshot."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import date, datetime, timedelta
from typing import Any, NamedTuple

from django.template.defaultfilters import filesizeformat
from django.urls import reverse
from django.utils import timezone
from django.utils.html import format_html
from nautobot.apps.ui import (
    Button,
    ButtonColorChoices,
    DataTablePanel,
    EChartsBase,
    EChartsTypeChoices,
    PostButton,
    SectionChoices,
)
from nautobot.extras.choices import JobResultStatusChoices
from nautobot.extras.models import JobResult

from ai_ops.checkpoints.logic.trend import SOON_DAYS, days_to_limit, limit_sentence
from ai_ops.checkpoints.snapshots import in_redis, latest_snapshots, trend
from ai_ops.choices import MaintenanceKindChoices, RunStateChoices
from ai_ops.kinds import DEFAULT_SCHEDULES
from ai_ops.models import CheckpointStorageSnapshot, MaintenanceRun, PinnedThread
from ai_ops.runs.installed_jobs import find_job
from ai_ops.runs.permissions import may_run
from ai_ops.ui.charts import READABLE_NAME, ReadableChartPanel
from ai_ops.ui.panels import FactsPanel
from ai_ops.ui.time_markup import ago, plain_ago

SHOWN_PINS = 10
SHOWN_CLEANUPS = 60
# The schedule is hourly; one run may be late or lost.
STALE = timedelta(hours=3)
# A killed worker leaves its run unfinished for ever. No sampling takes longer than this.
RUNNING = timedelta(minutes=10)


class Notice(NamedTuple):
    """A sentence at the top of the page, with its urgency as a Bootstrap colour."""

    level: str
    sentence: str


class RunJobButton(Button):
    """A link to the form of a Job, for users who may run it."""

    kind = ""
    link_includes_pk = False

    def should_render(self, context):
        """Show the button to users who may run the Job."""
        return super().should_render(context) and may_run(self.kind, context["request"].user)

    def get_link(self, context):
        """Return the address of the Job's form."""
        return reverse("extras:job_run_by_class_path", kwargs={"class_path": DEFAULT_SCHEDULES[self.kind].class_path})


class SampleNowButton(PostButton):
    """A button that samples the storage in the background, for users who may run that Job."""

    link_includes_pk = False

    def should_render(self, context):
        """Show the button to users who may run the Job."""
        return super().should_render(context) and may_run("storage", context["request"].user)


class PlainKeysPanel(FactsPanel):
    """Names and values, with the spelling of the names unchanged."""

    def render_key(self, key, value, context):
        """Keep the capital letters of the label."""
        return key


class AgesChart(EChartsBase):
    """A chart of keys or threads by age. They have separate charts, since a thread has many keys."""

    def get_config(self, context=None):
        """Name the axis in the unit of the snapshot."""
        config = super().get_config(context)
        unit = context["snapshot"].data["age_unit"]
        config["xAxis"] |= {"name": f"Age in {unit}s", "nameLocation": "middle", "nameGap": 30} | READABLE_NAME
        config["yAxis"] |= READABLE_NAME
        config["legend"] = {"show": False}
        return config


def _ages_panel(counted: str, section: SectionChoices, description: str) -> ReadableChartPanel:
    def bars(context) -> dict[str, Any]:
        ages = context["snapshot"].data["ages"]
        return {
            "x": [bar["label"] for bar in ages],
            "series": [{"name": counted, "data": [bar[counted.lower()] for bar in ages]}],
        }

    return ReadableChartPanel(
        weight=50,
        section=section,
        label=f"{counted} by age",
        chart_class=AgesChart,
        chart_kwargs={
            "chart_type": EChartsTypeChoices.BAR,
            "data": bars,
            "description": description,
            "y_label": counted,
        },
        chart_height="20rem",
    )


BUTTONS = (
    SampleNowButton(
        weight=100,
        label="Refresh",
        icon="mdi-refresh",
        color=ButtonColorChoices.BLUE,
        link_name="plugins:ai_ops:checkpointstorage_sample",
    ),
    RunJobButton(weight=200, label="Clean up…", icon="mdi-broom", kind="cleanup"),
)


def _lines(
    label: str, section: SectionChoices, names: Mapping[str, str], axis: str, unit: int = 1
) -> ReadableChartPanel:
    """Return chart series over the days of the trend; `names` has the label of each of its numbers."""

    def lines(context) -> dict[str, Any]:
        days = context["trend"]
        series = [
            {"name": shown, "data": [None if day[name] is None else day[name] / unit for day in days]}
            for name, shown in names.items()
        ]
        return {"x": [day["day"] for day in days], "series": series}

    return ReadableChartPanel(
        weight=60,
        section=section,
        label=label,
        chart_class=TrendChart,
        chart_kwargs={"chart_type": EChartsTypeChoices.LINE, "data": lines, "y_label": axis},
        chart_height="18rem",
    )


class TrendChart(EChartsBase):
    """A line chart over days."""

    def get_config(self, context=None):
        """Make the names of the axes readable."""
        config = super().get_config(context)
        config["yAxis"] |= READABLE_NAME
        return config


class DeletionsPanel(ReadableChartPanel):
    """A chart of the keys that the last cleanups deleted."""

    def should_render(self, context):
        """Show the chart once a cleanup has run."""
        return bool(context["cleanups"]) and super().should_render(context)


def _deletions(context) -> dict[str, Any]:
    runs = context["cleanups"]
    return {
        "x": [f"{timezone.localtime(run.created):%Y-%m-%d %H:%M}" for run in runs],
        "series": [{"name": "Keys", "data": [run.counters.get("deleted_count", 0) for run in runs]}],
    }


THREAD_COLUMNS = ["thread", "keys", "age"]
PANELS = {
    SectionChoices.LEFT_HALF: (
        _ages_panel("Keys", SectionChoices.LEFT_HALF, "A key is as old as its checkpoint"),
        # A thread has many keys: on the same axis the line of threads would be flat.
        _lines("Trend of keys", SectionChoices.LEFT_HALF, {"keys": "Keys"}, "Keys"),
        _lines("Trend of threads", SectionChoices.LEFT_HALF, {"threads": "Threads"}, "Threads"),
        DeletionsPanel(
            weight=70,
            section=SectionChoices.LEFT_HALF,
            label="Keys deleted by the last cleanups",
            chart_class=TrendChart,
            chart_kwargs={"chart_type": EChartsTypeChoices.BAR, "data": _deletions, "y_label": "Keys"},
            chart_height="18rem",
        ),
        PlainKeysPanel(weight=100, label="Redis", context_data_key="redis_facts"),
        DataTablePanel(
            weight=200,
            label="Oldest threads",
            context_data_key="oldest_threads",
            columns=THREAD_COLUMNS,
            column_headers=["Thread", "Keys", "Last active"],
        ),
    ),
    SectionChoices.RIGHT_HALF: (
        _ages_panel("Threads", SectionChoices.RIGHT_HALF, "A thread is as old as its newest checkpoint"),
        _lines(
            "Trend of memory",
            SectionChoices.RIGHT_HALF,
            {"memory": "Used", "max_memory": "maxmemory"},
            "MiB",
            1024 * 1024,
        ),
        PlainKeysPanel(weight=100, label="A cleanup now would delete", context_data_key="cleanup_facts"),
        PlainKeysPanel(weight=110, label="Threads by state, policy and saver", context_data_key="thread_facts"),
        DataTablePanel(
            weight=200,
            label="Largest threads (sampled)",
            context_data_key="largest_threads",
            columns=["thread", "keys", "size", "age"],
            column_headers=["Thread", "Keys", "Memory", "Last active"],
        ),
        DataTablePanel(
            weight=300,
            label="Pinned threads",
            context_data_key="pinned_threads",
            columns=["thread", "note", "in_redis"],
            column_headers=["Thread", "Note", "In Redis"],
            required_permissions=["ai_ops.view_pinnedthread"],
        ),
    ),
}


def page_context(user) -> dict[str, Any]:
    """Return the content of the page for `user`. Reads only Nautobot's database."""
    now = timezone.now()
    visible = CheckpointStorageSnapshot.objects.restrict(user, "view")
    good, failed = latest_snapshots(visible)
    sampling = _is_sampling(now)
    context: dict[str, Any] = {
        "snapshot": good,
        "notices": [*_state(good, failed), *(() if sampling else _run_notices(good, now))],
        "following": "A sampling is running." if sampling else None,
        "buttons": BUTTONS,
        "left_half_panels": PANELS[SectionChoices.LEFT_HALF],
        "right_half_panels": PANELS[SectionChoices.RIGHT_HALF],
    }
    if good:
        data = good.data
        context |= {
            "redis_facts": redis_facts(data),
            "cleanup_facts": cleanup_facts(data["cleanup"]),
            "thread_facts": thread_facts(data),
            "trend": (days := trend(visible)),
            "cleanups": _cleanups(user),
            "oldest_threads": _rows(data["oldest_threads"], now),
            "largest_threads": _rows(data["largest_threads"], now),
            "pinned_threads": _pinned_rows(user, good),
        }
        memory = [(date.fromisoformat(day["day"]), day["memory"]) for day in days]
        sentence = limit_sentence(memory, data.get("max_memory_bytes"))
        context["redis_facts"]["Trend"] = sentence
        left = days_to_limit(memory, data.get("max_memory_bytes"))
        if left is not None and left <= SOON_DAYS:
            context["notices"].append(Notice("warning", f"{sentence} Shorten a retention, or give Redis more memory."))
    return context


def thread_facts(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return the number of threads by state, by policy and by saver."""
    states = data.get("states") or {}
    facts = {name.capitalize(): f"{count:,}" for name, count in sorted(states.items())}
    for name, counts in (data.get("policies") or {}).items():
        to_delete, to_keep = counts["threads_deleted"], counts["threads_kept"]
        label = f"Policy {name}" if name else "No policy"
        facts[label] = f"{to_delete + to_keep:,}: {to_delete:,} to delete, {to_keep:,} to keep"
    facts |= {name: f"{count:,}" for name, count in sorted((data.get("savers") or {}).items())}
    return facts or {"Not known": "Press Refresh to count them."}


def _cleanups(user) -> list[MaintenanceRun]:
    """Return the last cleanups that deleted keys and that the user may view, the oldest first."""
    runs = MaintenanceRun.objects.restrict(user, "view").filter(
        kind=MaintenanceKindChoices.CLEANUP, state=RunStateChoices.SUCCEEDED
    )
    return [run for run in runs[:SHOWN_CLEANUPS] if not run.options.get("dryrun")][::-1]


def redis_facts(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return the facts about the Redis and its content, by name."""
    server = data["server"]
    facts: dict[str, Any] = {
        "Server": "The Redis user may not call INFO: grant +info to see the server's name and version."
    }
    if server:
        facts = {
            "Server": f"{server['software']} {server['version']}, database {server['database']} of {server['address']}",
            "Modules": ", ".join(server["modules"]) or "none",
        }
    # A sample of an older version of this app has no saver.
    if server and "saver" in server:
        facts["Saver of agents"] = f"{server['saver'] or 'None'}: {server['reason']}"
    memory, estimated = data["memory_bytes"], data["checkpoint_bytes"]
    facts["Memory used by the server"] = filesizeformat(memory) if memory is not None else "Not known: grant +info."
    if data["checkpoint_keys"]:
        facts["Memory of checkpoint keys"] = (
            f"about {filesizeformat(estimated)}, by {data['sized_keys']:,} measured keys"
            if estimated is not None
            else "Not known: grant +memory|usage."
        )
    facts["Keys in the database"] = f"{data['database_keys']:,}"
    facts["Checkpoint keys"] = _counted(data["families"], data["checkpoint_keys"])
    facts["Threads"] = _counted(data["savers"], data["thread_count"])
    if data["undated_keys"]:
        facts["Keys of unknown age"] = f"{data['undated_keys']:,}(no cleanup deletes them)"
    return facts


def cleanup_facts(cleanup: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the counts of a cleanup at the time of the sample, by name."""
    if cleanup is None:
        return {"Not known": "Not all keys were sampled. Run the cleanup as a dry run for the full count."}
    return {
        "Keys": f"{cleanup['deleted_count']:,}",
        "Whole threads": f"{cleanup['threads_deleted']:,} of {cleanup['threads_deleted'] + cleanup['threads_kept']:,}",
        "Checkpoints of live threads": f"{cleanup['checkpoints_trimmed']:,}",
        "Orphans": f"{cleanup['orphan_count']:,}",
        "By this policy": cleanup["policy"],
    }


def _state(good: CheckpointStorageSnapshot | None, failed: CheckpointStorageSnapshot | None) -> Iterator[Notice]:
    if failed:
        rest = f" The values below were sampled {plain_ago(good.taken)}." if good else ""
        yield Notice("danger", f"Sampling failed {plain_ago(failed.taken)}. {failed.data['error']}{rest}")
    elif not good:
        yield Notice("info", "Nothing has been sampled yet: press Refresh, or wait for the hourly schedule.")
    if good:
        yield from _findings(good.data)


def _findings(data: Mapping[str, Any]) -> Iterator[Notice]:
    """Yield the warnings about the snapshot."""
    where = (
        f"database {data['server']['database']} of {data['server']['address']}" if data["server"] else "the database"
    )
    if not data["database_keys"]:
        yield Notice(
            "warning",
            f"There are no keys in {where}. If agents have had conversations, they use another "
            "database: compare LANGGRAPH_REDIS_URL and LANGGRAPH_REDIS_DB with the agents' configuration.",
        )
    elif not data["checkpoint_keys"]:
        yield Notice(
            "warning",
            f"None of the {data['scanned_keys']:,} keys looked at in {where} belongs to a checkpoint. Agents may "
            "use another database (compare LANGGRAPH_REDIS_URL and LANGGRAPH_REDIS_DB), or other prefixes of keys: set "
            "checkpoint_prefix and checkpoint_write_prefix in PLUGINS_CONFIG to those of the saver.",
        )
    if not data["complete"]:
        yield Notice(
            "info",
            f"Only {data['scanned_keys']:,} of about {data['database_keys']:,} keys were sampled. The counts cover "
            "only those; threads may have more keys and may be younger than shown.",
        )


def _is_sampling(now: datetime) -> bool:
    runs = JobResult.objects.filter(job_model=find_job("storage"), date_created__gt=now - RUNNING)
    return runs.filter(status__in=JobResultStatusChoices.UNREADY_STATES).exists()


def _run_notices(good: CheckpointStorageSnapshot | None, now: datetime) -> Iterator[Notice]:
    """Yield sentences about the time since the snapshot."""
    if good and _cleaned_since(good.taken):
        yield Notice("info", "A cleanup has run since: press Refresh to see the result.")
    elif good and now - good.taken > STALE:
        yield Notice(
            "warning",
            f"The sample was taken {plain_ago(good.taken)}. Press Refresh; and look under Jobs, Scheduled Jobs whether "
            f'"{DEFAULT_SCHEDULES["storage"].name}" is enabled and whether Celery beat and a worker are running.',
        )


def _cleaned_since(moment: datetime) -> bool:
    finished = JobResult.objects.filter(job_model=find_job("cleanup"), date_done__gt=moment)
    return any((run.result or {}).get("deleted_count") and not run.result.get("dryrun") for run in finished[:20])


def _rows(threads: Sequence[Mapping[str, Any]], now: datetime) -> list[dict[str, Any]]:
    return [
        {
            "thread": _as_written(row["thread"]),
            "keys": f"{row['keys']:,}",
            "age": _ago(row["last_activity"], now),
            "size": filesizeformat(row["bytes"]) if row.get("bytes") is not None else None,
        }
        for row in threads
    ]


def _pinned_rows(user, snapshot: CheckpointStorageSnapshot) -> list[dict[str, Any]]:
    pins = PinnedThread.objects.restrict(user, "view")
    rows = [
        {
            "thread": format_html('<a href="{}">{}</a>', pin.get_absolute_url(), _as_written(pin.thread_id)),
            "note": pin.note,
            "in_redis": in_redis(pin, snapshot),
        }
        for pin in pins.order_by("-created")[:SHOWN_PINS]
    ]
    if (count := pins.count()) > SHOWN_PINS:
        address = reverse("plugins:ai_ops:pinnedthread_list")
        rows.append({"thread": format_html('<a href="{}">all {}</a>', address, count), "note": None, "in_redis": None})
    return rows


def _as_written(thread: str) -> str:
    return format_html('<span style="white-space: pre-wrap; word-break: break-all">{}</span>', thread)


def _ago(iso: str | None, now: datetime) -> str | None:
    if iso is None:
        return None
    then = datetime.fromisoformat(iso)
    return ago(then, now)


def _counted(parts: Mapping[str, int], total: int) -> str:
    named = ", ".join(f"{count:,} {name}" for name, count in sorted(parts.items(), key=lambda part: -part[1]))
    return f"{total:,}: {named}" if len(parts) > 1 else f"{total:,}{f' ({next(iter(parts))})' if parts else ''}"
