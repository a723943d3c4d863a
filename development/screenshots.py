"""Takes the pictures of the documentation from the running local Nautobot; ``invoke screenshots`` runs this.

Needs ``make start`` in another terminal, after ``make demo``, and a Chromium (Debian's package ``chromium``).
It adds conversations to the demo's checkpoint Redis, and a month of checks to one of its servers, for the pictures.
"""

from __future__ import annotations

import asyncio
import shutil
import sys
import tempfile
from datetime import timedelta
from pathlib import Path

import httpx
from playwright.sync_api import FloatRect, Locator, Page, sync_playwright

from development import conversations, database
from development.demo import Nautobot, drift
from development.demo_conversations import QUESTIONS
from development.services import PROJECT, Settings
from development.stack import PASSWORD, USER, api_token, stack_environment, web_url
from langgraph_checkpoint_compact import AsyncCompactRedisSaver

IMAGES = PROJECT / "docs" / "images"
# A browser without requests to the internet.
ARGUMENTS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
PAGES = {
    "overview": "/plugins/ai-ops/",
    "jobs": "/extras/jobs/",
    "mcp-servers": "/plugins/ai-ops/mcp-servers/",
    "checkpoint-storage": "/plugins/ai-ops/checkpoint-storage/",
    "runs": "/plugins/ai-ops/runs/",
    "schedules": "/plugins/ai-ops/schedules/",
    "server-charts": "/plugins/ai-ops/mcp-servers/{recovered}/?window=7d",
    "tool-drift": "/plugins/ai-ops/mcp-servers/{steady}/",
    "tools": "/plugins/ai-ops/mcp-server-tools/?server={steady}",
    "incident": "/plugins/ai-ops/mcp-server-incidents/{incident}/",
    "retention-policy": "/plugins/ai-ops/retention-policies/{policy}/",
    "thread": "/plugins/ai-ops/threads/?thread_id=site:audit-22-1",
}
# Pages with important parts below the window.
WHOLE_PAGES = ("checkpoint-storage",)
# For these pages, only the panels whose headers begin with these texts.
PANELS = {"server-charts": ("LATENCY, LAST", "CHECKS, LAST"), "tool-drift": ("TOOLS THAT DIFFER",)}
# Margin around them in pixels.
MARGIN = 12
# The animation of a chart takes a second.
MOST_FRAMES = 50
# Conversations for the picture of the storage: age in days, and the number of conversations.
AGES = {0: 9, 1: 7, 2: 8, 4: 5, 7: 6, 9: 4, 13: 5, 18: 3, 22: 4, 27: 2, 33: 2, 41: 3, 60: 1}
PINS = {"site:audit-41-0": "Evidence of the audit, until March", "site:migration": "Starts next week"}
# A check every ten minutes: faster at night, sometimes slow, and two outages.
MONTH_OF_CHECKS = """
INSERT INTO ai_ops_mcpservercheck (id, server_id, time, ok, reason, latency_ms, http_status, flipped, probes, failures,
                                   protocol_version, server_name, server_version)
SELECT gen_random_uuid(), server.id, time, NOT down, CASE WHEN down THEN 'TIMEOUT' ELSE '' END,
       CASE WHEN down THEN 10000
            ELSE 65 - 25 * cos(extract(epoch FROM time) / 86400 * 2 * pi()) - 8 * ln(1 - random())
                 + CASE WHEN random() < 0.02 THEN 150 ELSE 0 END END,
       CASE WHEN NOT down THEN 200 END, false, 1, down::int, '', '', ''
FROM ai_ops_mcpserver server,
     generate_series(now() - interval '30 days', now() - interval '1 hour', interval '10 minutes') AS time,
     LATERAL (SELECT now() - time BETWEEN interval '9 hours' AND interval '10 hours'
                  OR now() - time BETWEEN interval '100 hours' AND interval '105 hours' AS down) AS outage
WHERE server.id = %s AND NOT EXISTS (SELECT FROM ai_ops_mcpservercheck known
                                     WHERE known.server_id = server.id AND known.time < now() - interval '1 day')
"""


def log_in(page: Page, base: str) -> None:
    """Log in as the local superuser."""
    page.goto(f"{base}/login/")
    page.fill("input[name=username]", USER)
    page.fill("input[name=password]", PASSWORD)
    page.press("input[name=password]", "Enter")
    page.wait_for_load_state("networkidle")


async def hold_conversations(redis_url: str) -> None:
    """Save conversations of many ages."""
    async with AsyncCompactRedisSaver.from_url(redis_url) as saver:
        for days, count in AGES.items():
            for number in range(count):
                thread_id = f"site:audit-{days}-{number}"
                await saver.adelete_thread(thread_id)
                questions = QUESTIONS[: 1 + (days + number) % len(QUESTIONS)]
                await conversations.hold_in_the_past(saver, thread_id, questions, timedelta(days=days))


def sample_storage(nautobot: Nautobot) -> None:
    """Pin two threads, and sample the storage."""
    for thread_id, note in PINS.items():
        if not nautobot.call("GET", "plugins/ai-ops/pinned-threads/", params={"thread_id": thread_id})["results"]:
            nautobot.call("POST", "plugins/ai-ops/pinned-threads/", json={"thread_id": thread_id, "note": note})
    nautobot.wait(nautobot.run_job("checkpoint_storage", "SampleCheckpointStorageJob", {}))


def policy(nautobot: Nautobot) -> str:
    """Create a retention policy that matches some of the conversations; return its id."""
    known = nautobot.call("GET", "plugins/ai-ops/retention-policies/", params={"name": "Audits"})["results"]
    body = {"name": "Audits", "thread_patterns": "site:audit-*", "retention": "20 days", "keep_last": 2}
    made = known[0] if known else nautobot.call("POST", "plugins/ai-ops/retention-policies/", json=body)
    return str(made["id"])


def prepare(settings: Settings) -> dict[str, str]:
    """Create the data for the pictures; return the ids for the addresses of pages."""
    env = stack_environment(settings)
    asyncio.run(hold_conversations(env["LANGGRAPH_REDIS_URL"]))
    headers = {"Authorization": f"Token {api_token(settings)}"}
    with httpx.Client(base_url=web_url(settings), headers=headers, timeout=60) as client:
        nautobot = Nautobot(client)
        policy_id = policy(nautobot)
        sample_storage(nautobot)
        query = {"servers": nautobot.server_id("Demo dead"), "is_open": "true"}
        incidents = nautobot.call("GET", "plugins/ai-ops/mcp-server-incidents/", params=query)["results"]
        ids = {
            "recovered": nautobot.server_id("Demo recovered"),
            "steady": drift(nautobot, f"http://127.0.0.1:{settings.mcp_ports[1]}"),
            "incident": incidents[0]["id"],
            "policy": policy_id,
        }
    with database.connect(env, env["NAUTOBOT_DB_NAME"]) as connection, connection.cursor() as cursor:
        cursor.execute(MONTH_OF_CHECKS, [ids["recovered"]])
    return ids


def around(panels: list[Locator]) -> FloatRect:
    """Return the part of a page with these panels."""
    boxes = [box for panel in panels if (box := panel.bounding_box())]
    left, top = min(box["x"] for box in boxes), min(box["y"] for box in boxes)
    right, bottom = max(box["x"] + box["width"] for box in boxes), max(box["y"] + box["height"] for box in boxes)
    return {
        "x": left - MARGIN,
        "y": top - MARGIN,
        "width": right - left + 2 * MARGIN,
        "height": bottom - top + 2 * MARGIN,
    }


def picture(page: Page, name: str) -> bytes:
    """Take the picture of a page, or of its panels in PANELS, after all animations."""
    panels = [page.locator(".card", has=page.get_by_text(begin)).first for begin in PANELS.get(name, ())]
    clip = around(panels) if panels else None
    taken = b""
    for _ in range(MOST_FRAMES):
        before, taken = taken, page.screenshot(full_page=name in WHOLE_PAGES or clip is not None, clip=clip)
        if taken == before:
            break
    return taken


def main() -> int:
    """Take all pictures; return the exit code."""
    browser_path = shutil.which("chromium") or shutil.which("google-chrome")
    if browser_path is None:
        print("No Chromium found: install one (Debian: apt-get install chromium).", file=sys.stderr)
        return 1
    settings = Settings.load()
    base = web_url(settings)
    ids = prepare(settings)
    IMAGES.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as profile, sync_playwright() as playwright:
        context = playwright.chromium.launch_persistent_context(
            profile, executable_path=browser_path, args=ARGUMENTS, viewport={"width": 1400, "height": 800}
        )
        page = context.pages[0]
        log_in(page, base)
        for name, path in PAGES.items():
            page.goto(base + path.format(**ids))
            page.wait_for_load_state("networkidle")
            Path(IMAGES / f"{name}.png").write_bytes(picture(page, name))
            print(Path(IMAGES / f"{name}.png").relative_to(PROJECT))
        context.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
