"""The demo: both Jobs on real conversations and real MCP servers. ``make demo`` runs this.

It exits with 0 only if it has confirmed all its statements.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from typing import Any

import httpx

from development.services import STATE, Service, ServiceError, Settings, Supervisor, state_lock, telling
from development.stack import (
    api_token,
    mcp_servers,
    stack_environment,
    start_servers,
    web,
    web_url,
    worker,
)

RETENTION_DAYS = 30

EXPECTED_STATUS = {
    "Demo recovered": ("Unhealthy", "Healthy"),
    "Demo dead": ("Healthy", "Unhealthy"),
    "Demo steady": ("Healthy", "Healthy"),
    "Demo vulnerable": ("Vulnerable", "Vulnerable"),
    "Demo stdio": ("Unhealthy", "Unhealthy"),
}


class Checks:
    """The results of the checks, right or wrong."""

    def __init__(self) -> None:
        self.failed = 0

    def see(self, good: bool, sentence: str) -> None:
        """Print the sentence with a mark, and record a failure."""
        print(f"  {'ok  ' if good else 'FAIL'}  {sentence}", flush=True)
        self.failed += not good


# --------------------------------------------------------------------------------------------
# Nautobot's REST API


class Nautobot:
    """The calls of Nautobot's REST API that the demo needs."""

    def __init__(self, client: httpx.Client) -> None:
        self._client = client

    def call(self, method: str, path: str, **arguments: Any) -> Any:
        """Make a call and return its JSON; raise ServiceError with the answer if it is refused."""
        response = self._client.request(method, f"/api/{path}", **arguments)
        if response.is_error:
            raise ServiceError(f"{method} /api/{path} answered {response.status_code}: {response.text[:1000]}")
        return response.json() if response.content else None

    def put_server(self, name: str, **values: Any) -> None:
        """Create or reset an MCP server."""
        found = self.call("GET", "plugins/ai-ops/mcp-servers/", params={"name": name})["results"]
        if found:
            self.call("PATCH", f"plugins/ai-ops/mcp-servers/{found[0]['id']}/", json=values)
        else:
            self.call("POST", "plugins/ai-ops/mcp-servers/", json={"name": name} | values)

    def statuses(self) -> dict[str, str]:
        """Return the status name of each MCP server."""
        found = self.call("GET", "plugins/ai-ops/mcp-servers/", params={"depth": 1, "limit": 0})["results"]
        return {server["name"]: server["status"]["name"] for server in found}

    def server_id(self, name: str) -> str:
        """Return the id of an MCP server."""
        (found,) = self.call("GET", "plugins/ai-ops/mcp-servers/", params={"name": name})["results"]
        return str(found["id"])

    def run_job(self, module: str, job_class: str, data: dict[str, Any]) -> str:
        """Queue a Job and return its JobResult's id."""
        query = {"module_name": f"ai_ops.jobs.{module}", "job_class_name": job_class}
        (job,) = self.call("GET", "extras/jobs/", params=query)["results"]
        return str(self.call("POST", f"extras/jobs/{job['id']}/run/", json={"data": data})["job_result"]["id"])

    def wait(self, result_id: str, timeout: float = 120) -> dict[str, Any]:
        """Wait for the end of the JobResult and return it."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            result: dict[str, Any] = self.call("GET", f"extras/job-results/{result_id}/")
            if result["status"]["value"] not in ("PENDING", "RECEIVED", "STARTED", "RETRY"):
                return result
            time.sleep(0.2)
        raise ServiceError(f"The JobResult {result_id} had not ended after {timeout} s.")

    def log_lines(self, result_id: str) -> list[str]:
        """Return the lines of a JobResult's log."""
        entries = self.call("GET", f"extras/job-results/{result_id}/logs/")
        return [f"{entry['log_level']:>8}  {entry['message']}" for entry in entries]


def show(nautobot: Nautobot, title: str, result_id: str, checks: Checks, as_json: bool) -> dict[str, Any]:
    """Print a Job's outcome, log and result, optionally also as JSON; return the result."""
    job_result = nautobot.wait(result_id)
    status = job_result["status"]["value"]
    print(f"\n{title}: {status}")
    for line in nautobot.log_lines(result_id):
        print(f"  {line}")
    result = job_result["result"] or {}
    if as_json:
        print("RESULT", json.dumps(job_result["result"], ensure_ascii=False), flush=True)
    for sentence in in_words(result):
        print(f"  {sentence}", flush=True)
    checks.see(status == "SUCCESS", f"{title} succeeded")
    return result


def in_words(result: dict[str, Any]) -> list[str]:
    """Return the result of a Job in sentences."""
    said = [result["error"]] if result.get("error") else []
    if "threads_deleted" in result:
        said.append(
            f"Of {result['processed_count']:,} keys {result['deleted_count']:,} were deleted: "
            f"{result['threads_deleted']:,} whole threads, {result['checkpoints_trimmed']:,} old checkpoints of live "
            f"threads. {result['threads_kept']:,} threads stayed."
        )
    elif "thread_count" in result:
        said.append(f"{result['checkpoint_keys']:,} checkpoint keys of {result['thread_count']:,} threads are left.")
    elif "checked_count" in result:
        said.append(
            f"{result['checked_count']:,} servers checked, {result['failed_count']:,} failed, "
            f"{result['changed_count']:,} changed their status."
        )
    return said


def put_servers(nautobot: Nautobot, ports: list[int]) -> None:
    """Register the demo's MCP servers, some with wrong statuses."""
    names = ("Demo recovered", "Demo steady", "Demo vulnerable", "Demo dead")
    urls = {name: f"http://127.0.0.1:{port}" for name, port in zip(names, ports, strict=True)}
    for name, (status, _) in EXPECTED_STATUS.items():
        url = urls.get(name, "")
        nautobot.put_server(name, status={"name": status}, protocol="http" if url else "stdio", server_url=url)


# --------------------------------------------------------------------------------------------
# The complete demo


def clean_up(nautobot: Nautobot, checks: Checks, as_json: bool) -> None:
    """Run the cleanup, and the sampling, on the Celery worker; show their results."""
    cleanup = nautobot.run_job(
        "checkpoint_cleanup", "CleanupCheckpointsJob", {"retention_days": RETENTION_DAYS, "dryrun": False}
    )
    report = show(nautobot, "Cleanup Old Checkpoints", cleanup, checks, as_json)
    checks.see(report.get("deleted_count", 0) > 0, "old checkpoint keys were deleted")
    storage = nautobot.run_job("checkpoint_storage", "SampleCheckpointStorageJob", {})
    report = show(nautobot, "Sample Checkpoint Storage", storage, checks, as_json)
    checks.see(report.get("thread_count", 0) >= 3, "the page Checkpoint Storage shows the threads that are left")


def show_health(nautobot: Nautobot, health: str, checks: Checks, as_json: bool) -> None:
    """Show the result of the health check, and the statuses of the servers."""
    report = show(nautobot, "MCP Server Health Check", health, checks, as_json)
    checks.see(report.get("checked_count", 0) >= 3, "the three HTTP servers that are not Vulnerable were checked")
    statuses = nautobot.statuses()
    print("\nMCP servers", flush=True)
    for name, (was, wanted) in EXPECTED_STATUS.items():
        checks.see(statuses.get(name) == wanted, f"{name}: {was} -> {statuses.get(name)}")


def put_policy(nautobot: Nautobot) -> None:
    """Keep the threads of one class for ever."""
    path = "plugins/ai-ops/retention-policies/"
    for known in nautobot.call("GET", path, params={"name": "Demo hold"})["results"]:
        nautobot.call("DELETE", f"{path}{known['id']}/")
    nautobot.call("POST", path, json={"name": "Demo hold", "thread_patterns": "demo:held*", "retention": "forever"})


def show_threads(nautobot: Nautobot, held_thread: str, erased_thread: str, checks: Checks) -> None:
    """Explain a held conversation, and erase another."""
    print("\nA held conversation, an erasure and an explanation", flush=True)
    path = "plugins/ai-ops/threads/"
    held = nautobot.call("GET", f"{path}explain/", params={"thread_id": held_thread})
    checks.see(
        held["found"] and held["policy"] == "Demo hold",
        f"{held_thread} is 400 days old and still there: {held['decision']} (policy {held['policy']})",
    )
    query = {"module_name": "ai_ops.jobs.erasure", "job_class_name": "EraseConversationsJob"}
    (job,) = nautobot.call("GET", "extras/jobs/", params=query)["results"]
    # Nautobot installs Jobs disabled, and this Job has no schedule that enables it.
    nautobot.call("PATCH", f"extras/jobs/{job['id']}/", json={"enabled": True})
    body = {"thread_ids": [erased_thread], "reason": "The demo's request to be forgotten"}
    run = nautobot.call("POST", f"{path}erase/", json=body)
    deadline = time.monotonic() + 60
    while run["state"] in ("pending", "running") and time.monotonic() < deadline:
        time.sleep(0.5)
        run = nautobot.call("GET", f"plugins/ai-ops/runs/{run['id']}/")
    erasures = nautobot.call("GET", "plugins/ai-ops/thread-erasures/", params={"limit": 1})["results"]
    record = erasures[0] if erasures else {}
    checks.see(
        bool(record.get("verified")) and record["deleted_count"] > 0,
        f"{erased_thread} is erased: {record.get('deleted_count')} keys, verified {record.get('verified')}",
    )
    gone = nautobot.call("GET", f"{path}explain/", params={"thread_id": erased_thread})
    checks.see(not gone["found"], f"{erased_thread}: {gone['decision']}")


def drift(nautobot: Nautobot, server_url: str) -> str:
    """Make a server list other tools, and check it; return its id."""
    httpx.post(f"{server_url}/drift").raise_for_status()
    server = nautobot.server_id("Demo steady")
    requested = nautobot.call("POST", f"plugins/ai-ops/mcp-servers/{server}/check/")
    nautobot.wait(requested["job_result"]["id"])
    return server


def show_drift(nautobot: Nautobot, server_url: str, checks: Checks) -> None:
    """Change the description of a server's tool, and confirm that the next check finds the change."""
    server = drift(nautobot, server_url)
    changed = nautobot.call("GET", "plugins/ai-ops/mcp-server-tools/", params={"server": server, "state": "changed"})
    query = {"servers": server, "kind": "drift", "is_open": "true"}
    incidents = nautobot.call("GET", "plugins/ai-ops/mcp-server-incidents/", params=query)
    names = [tool["name"] for tool in changed["results"]]
    print("\nTools", flush=True)
    checks.see(names == ["device_count"], f"Demo steady lists another description for an approved tool: {names}")
    checks.see(incidents["count"] == 1, "an incident is open until the tools are approved")


def demonstrate(settings: Settings, supervisor: Supervisor, mine: bool, checks: Checks, as_json: bool) -> None:
    """Start everything, run both Jobs, and check their results."""
    started = time.monotonic()
    processes: list[Service] = []
    if mine:
        env = start_servers(supervisor, settings)
        print("Starting Nautobot, its Celery worker and the MCP servers ...", flush=True)
        processes = [web(settings, env), worker(env), mcp_servers(settings, env)]
    else:
        print(f"Using the Nautobot that runs at {web_url(settings)}.", flush=True)
        env = stack_environment(settings)
    supervisor.start(*processes, wait=False)
    print("Holding conversations with a LangGraph agent ...", flush=True)
    # Imported here, because the import of LangGraph takes two seconds, during which the processes start.
    from development import demo_conversations as talks
    from development import other_savers

    redis_url = env["LANGGRAPH_REDIS_URL"]
    before = asyncio.run(talks.fill(redis_url))
    had = asyncio.run(talks.count_checkpoints(redis_url))
    with telling("Waiting for Nautobot"):
        supervisor.wait_ready(*processes)
    print(f"Nautobot is ready after {time.monotonic() - started:.0f} s: {web_url(settings)}", flush=True)

    headers = {"Authorization": f"Token {api_token(settings)}"}
    with httpx.Client(base_url=web_url(settings), headers=headers, timeout=60) as client:
        nautobot = Nautobot(client)
        put_servers(nautobot, settings.mcp_ports)
        put_policy(nautobot)
        # The health check pauses twice for five seconds. Meanwhile the worker's other process runs the next Jobs.
        health = nautobot.run_job("mcp_health_check", "MCPServerHealthCheckJob", {})
        clean_up(nautobot, checks, as_json)
        show_threads(nautobot, talks.HELD_THREAD, talks.ERASED_THREAD, checks)
        print("\nConversations, on database 2 of a plain Redis", flush=True)
        asyncio.run(talks.inspect(redis_url, before, had, checks))
        print("\nConversations of other savers, each on a server of its own", flush=True)
        for good, sentence in other_savers.conversations_kept(RETENTION_DAYS, talks.QUESTIONS):
            checks.see(good, sentence)
        show_health(nautobot, health, checks, as_json)
        show_drift(nautobot, f"http://127.0.0.1:{settings.mcp_ports[1]}", checks)
    print(f"\nTook {time.monotonic() - started:.0f} s in all.", flush=True)


def main() -> int:
    """Run the demo; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print the results of the Jobs as JSON too")
    as_json = parser.parse_args().json
    checks = Checks()
    try:
        with state_lock() as mine, Supervisor() as supervisor:
            demonstrate(Settings.load(), supervisor, mine, checks, as_json)
    except KeyboardInterrupt:
        print("Stopped.")
        return 130
    except ServiceError as error:
        print(f"FAIL  {error}", file=sys.stderr)
        return 1
    if checks.failed:
        print(f"{checks.failed} of the statements above are wrong. Logs are in {STATE / 'logs'}.")
        return 1
    print("All statements above are right. `make start` starts everything again and keeps it running.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
