"""The documentation's example of a new kind of maintenance, put into a copy of the app and run."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from django.db import connection

PROJECT = Path(__file__).parents[3]

ASKED = """
import gc, json
# What is imported stays: to look through it for garbage takes a third of the time.
gc.disable()
from development.late_import import import_kubernetes_later
import_kubernetes_later()
import nautobot
nautobot.setup()
from django.contrib.auth import get_user_model
from django.core.cache import cache
from nautobot.apps.utils import construct_cache_key
from nautobot.extras.jobs import get_job
from nautobot.extras.models import Job, JobQueue
from nautobot.extras.utils import get_celery_queues, refresh_job_model_from_job_class
from ai_ops import forms, kinds, metrics
from ai_ops.api.serializers import RunRequestSerializer
from ai_ops.config import AiOpsSettings
from ai_ops.models import MaintenanceRun
from ai_ops.runs.requests import request_run
from ai_ops.schedules import ensure_schedule
refresh_job_model_from_job_class(Job, get_job(kinds.KINDS["pins"].job), JobQueue)
schedule = ensure_schedule("pins")
cache.set(construct_cache_key(get_celery_queues, branch_aware=False), {"default": 1}, timeout=60)
run = request_run("pins", {"days": 30}, get_user_model().objects.create(username="ann", is_superuser=True))
run.refresh_from_db()
AiOpsSettings(time_limits={"pins": 60})
print(json.dumps({
    "run": [str(run), run.get_kind_display(), run.state, run.options, run.counters],
    "schedule": [schedule.name, schedule.crontab],
    "filter": "pins" in dict(forms.MaintenanceRunFilterForm().fields["kind"].choices),
    "REST": "pins" in RunRequestSerializer().fields["kind"].choices,
}))
"""


def blocks() -> list[str]:
    page = (PROJECT / "docs/dev/extending.md").read_text()
    section = page[page.index("## Add a kind of maintenance") :]
    return re.findall(r"```python\n(.*?)```", section[: section.index("\n## ", 5)], re.DOTALL)


@pytest.fixture
def copy_with_the_kind(tmp_path):
    shutil.copytree(PROJECT / "ai_ops", tmp_path / "ai_ops", ignore=shutil.ignore_patterns("docs"))
    entry, task, job = blocks()
    for name, before, after in (
        ("kinds.py", "ALL_KINDS = (\n", "ALL_KINDS = (\n" + entry),
        (
            "celery_tasks.py",
            "from ai_ops.runs.hold import Hold\n",
            "from datetime import timedelta\nfrom ai_ops.models import PinnedThread\n"
            "from ai_ops.runs.hold import Hold\n",
        ),
        (
            "jobs/__init__.py",
            "jobs = [\n",
            "from ai_ops.jobs.old_pins import ReviewOldPinsJob\n\njobs = [\n    ReviewOldPinsJob,\n",
        ),
    ):
        file = tmp_path / "ai_ops" / name
        text = file.read_text()
        assert before in text, f"{name} has not the line that the example follows"
        file.write_text(text.replace(before, after, 1))
    with (tmp_path / "ai_ops" / "celery_tasks.py").open("a") as file:
        file.write(f"\n\n{task}")
    (tmp_path / "ai_ops" / "jobs" / "old_pins.py").write_text(job)
    return tmp_path


@pytest.mark.django_db(transaction=True)
def test_a_kind_is_an_entry_a_task_and_a_job(copy_with_the_kind):
    env = os.environ | {
        "PYTHONPATH": f"{copy_with_the_kind}{os.pathsep}{PROJECT}",
        "NAUTOBOT_DB_NAME": connection.settings_dict["NAME"],
    }
    asked = subprocess.run(
        [sys.executable, "-c", ASKED], env=env, cwd=copy_with_the_kind, capture_output=True, text=True, timeout=120
    )
    assert asked.returncode == 0, asked.stderr[-2000:]
    found = json.loads(asked.stdout.splitlines()[-1])
    name, label, state, options, counters = found.pop("run")
    assert "pins" in name
    assert (label, state, options) == ("Review of old pins", "succeeded", {"days": 30})
    assert counters == {"success": True, "old_pins": 0}
    assert found == {"schedule": ["AI Ops: review old pins", "5 4 * * 1"], "filter": True, "REST": True}
