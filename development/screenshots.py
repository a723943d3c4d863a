"""Takes the pictures of the documentation from the running local Nautobot; ``invoke screenshots`` runs this.

Needs ``make start`` in another terminal, after ``make demo``, and a Chromium (Debian's package ``chromium``).
It adds conversations to the demo's checkpoint Redis, so that there is something to see.
"""

from __future__ import annotations

import asyncio
import shutil
import sys
import tempfile
from datetime import timedelta
from pathlib import Path

import httpx
from langgraph.checkpoint.redis.aio import AsyncRedisSaver
from playwright.sync_api import Page, sync_playwright

from development import conversations
from development.demo import QUESTIONS, Nautobot
from development.services import PROJECT, Settings
from development.stack import PASSWORD, USER, api_token, stack_environment, web_url

IMAGES = PROJECT / "docs" / "images"
# A browser that asks nothing of the internet.
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
    "jobs": "/extras/jobs/",
    "mcp-servers": "/plugins/ai-ops/mcp-servers/",
    "job-results": "/extras/job-results/",
    "checkpoint-storage": "/plugins/ai-ops/checkpoint-storage/",
    "runs": "/plugins/ai-ops/runs/",
    "schedules": "/plugins/ai-ops/schedules/",
}
# More than fits into the window is worth seeing.
WHOLE_PAGES = ("checkpoint-storage",)
# Conversations for the picture of the storage: age in days, and how many were that long ago.
AGES = {0: 9, 1: 7, 2: 8, 4: 5, 7: 6, 9: 4, 13: 5, 18: 3, 22: 4, 27: 2, 33: 2, 41: 3, 60: 1}
PINS = {"site:audit-41-0": "Evidence of the audit, until March", "site:migration": "Starts next week"}


def log_in(page: Page, base: str) -> None:
    """Log in as the local superuser."""
    page.goto(f"{base}/login/")
    page.fill("input[name=username]", USER)
    page.fill("input[name=password]", PASSWORD)
    page.press("input[name=password]", "Enter")
    page.wait_for_load_state("networkidle")


async def hold_conversations(redis_url: str) -> None:
    """Save conversations of many ages."""
    async with AsyncRedisSaver.from_conn_string(redis_url) as saver:
        await saver.asetup()
        for days, count in AGES.items():
            for number in range(count):
                thread_id = f"site:audit-{days}-{number}"
                await saver.adelete_thread(thread_id)
                questions = QUESTIONS[: 1 + (days + number) % len(QUESTIONS)]
                await conversations.hold_in_the_past(saver, thread_id, questions, timedelta(days=days))


def sample_storage(settings: Settings) -> None:
    """Pin two threads, and have the storage sampled."""
    headers = {"Authorization": f"Token {api_token(settings)}"}
    with httpx.Client(base_url=web_url(settings), headers=headers, timeout=60) as client:
        nautobot = Nautobot(client)
        for thread_id, note in PINS.items():
            if not nautobot.call("GET", "plugins/ai-ops/pinned-threads/", params={"thread_id": thread_id})["results"]:
                nautobot.call("POST", "plugins/ai-ops/pinned-threads/", json={"thread_id": thread_id, "note": note})
        nautobot.wait(nautobot.run_job("checkpoint_storage", "SampleCheckpointStorageJob", {}))


def main() -> int:
    """Take all pictures; give the exit code."""
    browser_path = shutil.which("chromium") or shutil.which("google-chrome")
    if browser_path is None:
        print("No Chromium found: install one (Debian: apt-get install chromium).", file=sys.stderr)
        return 1
    settings = Settings.load()
    base = web_url(settings)
    asyncio.run(hold_conversations(stack_environment(settings)["LANGGRAPH_REDIS_URL"]))
    sample_storage(settings)
    IMAGES.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as profile, sync_playwright() as playwright:
        context = playwright.chromium.launch_persistent_context(
            profile, executable_path=browser_path, args=ARGUMENTS, viewport={"width": 1400, "height": 800}
        )
        page = context.pages[0]
        log_in(page, base)
        for name, path in PAGES.items():
            page.goto(base + path)
            page.wait_for_load_state("networkidle")
            page.screenshot(path=IMAGES / f"{name}.png", full_page=name in WHOLE_PAGES)
            print(Path(IMAGES / f"{name}.png").relative_to(PROJECT))
        context.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
