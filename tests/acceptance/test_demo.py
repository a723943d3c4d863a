"""``make demo`` and ``make start``, from nothing, as a newcomer runs them."""

import json
import signal

import httpx
import pytest

from development import services
from tests.acceptance import local_processes

CLEANUP_CONTRACT = {"success", "processed_count", "deleted_count", "retention_days", "error"}
HEALTH_CONTRACT = {
    "success",
    "checked_count",
    "changed_count",
    "failed_count",
    "worker_count",
    "cache_cleared",
    "error",
}


@pytest.fixture(scope="module")
def state(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo") / "state"
    yield folder
    local_processes.remove(folder)


@pytest.fixture(scope="module")
def demo_output(state):
    """What the demo printed, from an empty state folder; it must have ended well."""
    demo = local_processes.start("development.demo", state)
    output, _ = demo.communicate(timeout=300)
    logs = {path.name: path.read_text(errors="replace")[-2000:] for path in (state / "logs").glob("*.log")}
    assert demo.returncode == 0, f"{output}\n{logs if demo.returncode else ''}"
    return output


def test_both_jobs_report_their_contract(demo_output):
    cleanup, health = (
        json.loads(line.removeprefix("RESULT ")) for line in demo_output.splitlines() if line.startswith("RESULT ")
    )
    assert set(cleanup) >= CLEANUP_CONTRACT
    assert cleanup["success"] is True
    assert cleanup["deleted_count"] > 0
    assert set(health) >= HEALTH_CONTRACT
    assert (health["checked_count"], health["changed_count"], health["failed_count"]) == (3, 2, 1)
    assert health["cache_cleared"] is True


@pytest.mark.parametrize(
    "line",
    [
        "Starting checkpoint cleanup task...",
        "✅ Checkpoint cleanup completed: processed",
        "Deleted",
        "Starting MCP server health checks...",
        "✅ MCP health check completed: 3 server(s) checked using 3 worker(s), 2 status change(s), 1 failure(s)",
        "✅ MCP client cache cleared due to status changes",
        "⚠️ 2 server(s) changed status - check logs for details",
    ],
)
def test_job_logs_have_the_lines_that_operators_search_for(demo_output, line):
    assert line in demo_output


def test_nothing_was_seen_to_be_wrong(demo_output):
    assert "FAIL" not in demo_output
    assert "Everything is as it should be." in demo_output


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGKILL])
def test_start_serves_and_leaves_no_process_behind(demo_output, state, signum):
    stack = local_processes.start("development.stack", state)
    lines = []
    for line in stack.stdout:
        lines.append(line)
        if "Ctrl-C stops" in line:
            break
    assert stack.poll() is None, "".join(lines)
    processes = local_processes.descendants(stack.pid)
    assert len(processes) >= 6, "PostgreSQL, two Redis, web, worker, beat"
    url = next(word for line in lines for word in line.split() if word.startswith("http://"))
    assert "AI Ops" in _plugin_names(url, state)
    stack.send_signal(signum)
    stack.wait(60)
    stack.stdout.close()
    local_processes.assert_gone(processes)


def _plugin_names(url, state):
    settings = services.Settings(**json.loads((state / "settings.json").read_text()))
    from development.stack import api_token

    response = httpx.get(
        f"{url}/api/plugins/installed-plugins/", headers={"Authorization": f"Token {api_token(settings)}"}
    )
    return [each["name"] for each in response.raise_for_status().json()]
