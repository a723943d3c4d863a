"""A Chromium of the machine that runs the tests."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, sync_playwright

from development.screenshots import ARGUMENTS

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
# The scripts of a page run for less than a second: to optimize them took a sixth of the browser's processor time. A new
# frame for each page of a tab, with a compositor of its own, took a tenth.
CHEAPER = [*ARGUMENTS, "--js-flags=--no-maglev --no-opt", "--enable-features=RenderDocument:level/crashed-frame"]
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed (Debian's package chromium)")


@contextlib.contextmanager
def running_chromium() -> Iterator[Browser]:
    """A browser that ends with the block. Its library runs a loop in this thread: no other may begin meanwhile."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=CHEAPER)
        try:
            yield browser
        finally:
            browser.close()
