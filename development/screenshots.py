"""Takes the pictures of the documentation from the running local Nautobot; ``invoke screenshots`` runs this.

Needs ``make start`` in another terminal, after ``make demo``, and a Chromium (Debian's package ``chromium``).
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

from development.services import PROJECT, Settings
from development.stack import PASSWORD, USER, web_url

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
}


def log_in(page: Page, base: str) -> None:
    """Log in as the local superuser."""
    page.goto(f"{base}/login/")
    page.fill("input[name=username]", USER)
    page.fill("input[name=password]", PASSWORD)
    page.press("input[name=password]", "Enter")
    page.wait_for_load_state("networkidle")


def main() -> int:
    """Take all pictures; give the exit code."""
    browser_path = shutil.which("chromium") or shutil.which("google-chrome")
    if browser_path is None:
        print("No Chromium found: install one (Debian: apt-get install chromium).", file=sys.stderr)
        return 1
    base = web_url(Settings.load())
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
            page.screenshot(path=IMAGES / f"{name}.png")
            print(Path(IMAGES / f"{name}.png").relative_to(PROJECT))
        context.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
