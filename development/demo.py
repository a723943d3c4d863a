"""The demo: both Jobs on real conversations and real MCP servers. ``make demo`` runs this.

It exits with 0 only if it has confirmed all its statements.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from datetime import timedelta
from typing import Any

import httpx

from development import conversations, other_savers
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
from langgraph_checkpoint_compact import AsyncCompactRedisSaver

RETENTION_DAYS = 30
FIRST = "Which switches run old firmware?"
QUESTIONS = [FIRST, "And which of them are at the edge?", "Draft the change."]
# Typical thread ids: with colons, and one that is the start of another.
OLD_THREADS = {"demo:site": 31, "demo:audit-2026": 45, "demo:upgrade:draft": 400}  # age in days
LIVE_THREAD = "demo:site:berlin"
TAIL_THREAD = "demo:upgrade"  # live, with an old tail
WAITING_THREAD = "demo:rollout"  # waits for a user's answer
HELD_THREAD = "demo:held:case"  # old, under a policy that keeps it for ever
ERASED_THREAD = "demo:person:42"  # from today, and erased

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
# Conversations


async def fill(redis_url: str) -> dict[str, Any]:
    """Write the demo's conversations again; return the state of each live thread."""
    async with AsyncCompactRedisSaver.from_url(redis_url) as saver:
        graph = conversations.build_graph(saver)
        for thread_id in (*OLD_THREADS, LIVE_THREAD, TAIL_THREAD, WAITING_THREAD):
            await saver.adelete_thread(thread_id)
        for thread_id, days in OLD_THREADS.items():
            await conversations.hold_in_the_past(saver, thread_id, QUESTIONS, timedelta(days=days))
        for thread_id, days in ((HELD_THREAD, 400), (ERASED_THREAD, 0)):
            await saver.adelete_thread(thread_id)
            await conversations.hold_in_the_past(saver, thread_id, QUESTIONS, timedelta(days=days))
        await conversations.hold_in_the_past(saver, TAIL_THREAD, QUESTIONS, timedelta(days=40))
        for question in QUESTIONS:
            await conversations.ask(graph, LIVE_THREAD, question)
        await conversations.ask(graph, TAIL_THREAD, "Is it done?")
        await conversations.ask(graph, WAITING_THREAD, FIRST)
        await conversations.ask(graph, WAITING_THREAD, "Deploy it to all of them.")
        return await live_state(graph)


async def live_state(graph: Any) -> dict[str, Any]:
    """Return the state from which each live thread would resume."""
    found = {}
    for thread_id in (LIVE_THREAD, TAIL_THREAD, WAITING_THREAD):
        state = await graph.aget_state(conversations.thread(thread_id))
        found[thread_id] = (state.values, state.next, state.config, state.interrupts)
    return found


async def count_checkpoints(redis_url: str) -> dict[str, int]:
    """Count each demo thread's checkpoints, in its root namespace."""
    async with AsyncCompactRedisSaver.from_url(redis_url) as saver:
        counts = {}
        for thread_id in (*OLD_THREADS, LIVE_THREAD, TAIL_THREAD, WAITING_THREAD):
            config = conversations.thread(thread_id)
            config["configurable"]["checkpoint_ns"] = ""
            counts[thread_id] = len([each async for each in saver.alist(config)])
        return counts


async def inspect(redis_url: str, before: dict[str, Any], had: dict[str, int], checks: Checks) -> None:
    """Check every thread after the cleanup, and take the next turn of the live ones."""
    has = await count_checkpoints(redis_url)
    async with AsyncCompactRedisSaver.from_url(redis_url) as saver:
        graph = conversations.build_graph(saver)
        for thread_id, days in OLD_THREADS.items():
            checks.see(
                has[thread_id] == 0 < had[thread_id],
                f"deleted: {thread_id} ({had[thread_id]} checkpoints, last active {days} days ago)",
            )
        after = await live_state(graph)
        for thread_id, state in before.items():
            checks.see(
                after[thread_id] == state and has[thread_id] > 0,
                f"kept: {thread_id} resumes from the same state ({had[thread_id]} -> {has[thread_id]} checkpoints)",
            )
        checks.see(has[TAIL_THREAD] < had[TAIL_THREAD], f"trimmed: the old tail of {TAIL_THREAD} is gone")
        for thread_id, number in ((LIVE_THREAD, 4), (TAIL_THREAD, 5)):
            answer = await conversations.ask(graph, thread_id, "What did I ask first?")
            wanted = conversations.remembering([FIRST] * number)
            checks.see(answer == wanted, f"{thread_id} answers its next turn: {answer!r}")
        answer = await conversations.resume(graph, WAITING_THREAD)
        checks.see(answer == conversations.APPROVED, f"{WAITING_THREAD} takes its approval: {answer!r}")


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
# The whole


def run_jobs(nautobot: Nautobot, checks: Checks, as_json: bool) -> None:
    """Run both Jobs at the same time, and the sampling, on the Celery worker; show their results."""
    cleanup = nautobot.run_job(
        "checkpoint_cleanup", "CleanupCheckpointsJob", {"retention_days": RETENTION_DAYS, "dryrun": False}
    )
    health = nautobot.run_job("mcp_health_check", "MCPServerHealthCheckJob", {})
    report = show(nautobot, "Cleanup Old Checkpoints", cleanup, checks, as_json)
    checks.see(report.get("deleted_count", 0) > 0, "old checkpoint keys were deleted")
    storage = nautobot.run_job("checkpoint_storage", "SampleCheckpointStorageJob", {})
    report = show(nautobot, "Sample Checkpoint Storage", storage, checks, as_json)
    checks.see(report.get("thread_count", 0) >= 3, "the page Checkpoint Storage shows the threads that are left")
    report = show(nautobot, "MCP Server Health Check", health, checks, as_json)
    checks.see(report.get("checked_count", 0) >= 3, "the three HTTP servers that are not Vulnerable were checked")


def put_policy(nautobot: Nautobot) -> None:
    """Keep the threads of one class for ever."""
    path = "plugins/ai-ops/retention-policies/"
    for known in nautobot.call("GET", path, params={"name": "Demo hold"})["results"]:
        nautobot.call("DELETE", f"{path}{known['id']}/")
    nautobot.call("POST", path, json={"name": "Demo hold", "thread_patterns": "demo:held*", "retention": "forever"})


def show_threads(nautobot: Nautobot, checks: Checks) -> None:
    """Explain a held conversation, and erase another."""
    print("\nA held conversation, an erasure and an explanation", flush=True)
    path = "plugins/ai-ops/threads/"
    held = nautobot.call("GET", f"{path}explain/", params={"thread_id": HELD_THREAD})
    checks.see(
        held["found"] and held["policy"] == "Demo hold",
        f"{HELD_THREAD} is 400 days old and there: {held['decision']} (policy {held['policy']})",
    )
    query = {"module_name": "ai_ops.jobs.erasure", "job_class_name": "EraseConversationsJob"}
    (job,) = nautobot.call("GET", "extras/jobs/", params=query)["results"]
    # Nautobot installs Jobs disabled, and this Job has no schedule that enables it.
    nautobot.call("PATCH", f"extras/jobs/{job['id']}/", json={"enabled": True})
    body = {"thread_ids": [ERASED_THREAD], "reason": "The demo's request to be forgotten"}
    run = nautobot.call("POST", f"{path}erase/", json=body)
    deadline = time.monotonic() + 60
    while run["state"] in ("pending", "running") and time.monotonic() < deadline:
        time.sleep(0.5)
        run = nautobot.call("GET", f"plugins/ai-ops/runs/{run['id']}/")
    erasures = nautobot.call("GET", "plugins/ai-ops/thread-erasures/", params={"limit": 1})["results"]
    record = erasures[0] if erasures else {}
    checks.see(
        bool(record.get("verified")) and record["deleted_count"] > 0,
        f"{ERASED_THREAD} is erased: {record.get('deleted_count')} keys, verified {record.get('verified')}",
    )
    gone = nautobot.call("GET", f"{path}explain/", params={"thread_id": ERASED_THREAD})
    checks.see(not gone["found"], f"{ERASED_THREAD}: {gone['decision']}")


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
    checks.see(names == ["device_count"], f"Demo steady describes a tool otherwise than was approved: {names}")
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
    redis_url = env["LANGGRAPH_REDIS_URL"]
    before = asyncio.run(fill(redis_url))
    had = asyncio.run(count_checkpoints(redis_url))
    with telling("Waiting for Nautobot"):
        supervisor.wait_ready(*processes)
    print(f"Nautobot is ready after {time.monotonic() - started:.0f} s: {web_url(settings)}", flush=True)

    headers = {"Authorization": f"Token {api_token(settings)}"}
    with httpx.Client(base_url=web_url(settings), headers=headers, timeout=60) as client:
        nautobot = Nautobot(client)
        put_servers(nautobot, settings.mcp_ports)
        put_policy(nautobot)
        run_jobs(nautobot, checks, as_json)
        show_threads(nautobot, checks)
        statuses = nautobot.statuses()
        show_drift(nautobot, f"http://127.0.0.1:{settings.mcp_ports[1]}", checks)
    print("\nMCP servers", flush=True)
    for name, (was, wanted) in EXPECTED_STATUS.items():
        checks.see(statuses.get(name) == wanted, f"{name}: {was} -> {statuses.get(name)}")
    print("\nConversations, on database 2 of a plain Redis", flush=True)
    asyncio.run(inspect(redis_url, before, had, checks))
    print("\nConversations of other savers, each on a server of its own", flush=True)
    for good, sentence in other_savers.conversations_kept(RETENTION_DAYS, QUESTIONS):
        checks.see(good, sentence)
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
        print(f"{checks.failed} of the things above are not as they should be. Logs are in {STATE / 'logs'}.")
        return 1
    print("Everything is as it should be. `make start` keeps it running, for you to look at.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
