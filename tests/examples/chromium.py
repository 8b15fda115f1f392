"""The installed Chromium, headless: one process, with as many profiles as a test wants.

A browser that crashed takes one test with it, not all that follow.
"""

from __future__ import annotations

import os
import shutil
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import sync_playwright

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Browser, BrowserContext, Playwright

PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
"""What it is called here and there."""

LAUNCH_MS = 60_000
"""Longest wait for it to start, on a busy machine."""


def require_chromium() -> str:
    """Return where it is; without it, skip, or with CI set fail."""
    found = next(filter(None, map(shutil.which, PROGRAMS)), None)
    if found is None and os.environ.get("CI"):
        pytest.fail("no browser is installed: apt-get install chromium")
    if found is None:
        pytest.skip("no browser is installed")
    return found


class Chromium:
    """The browser; it is started again when it is not there any more."""

    def __init__(self, playwright: Playwright, program: str) -> None:
        self._playwright = playwright
        self._program = program
        self._browser = self._launch()

    def profile(self, base_url: str) -> BrowserContext:
        """Return a new profile: cookies and tabs of its own."""
        if not self._browser.is_connected():
            self._browser = self._launch()
        return self._browser.new_context(base_url=base_url)

    def close(self) -> None:
        """End it."""
        self._browser.close()

    def _launch(self) -> Browser:
        """Start it, with nothing of the network but what the tests open."""
        return self._playwright.chromium.launch(
            executable_path=self._program,
            # Its sandbox refuses root, which containers run tests as.
            chromium_sandbox=os.geteuid() != 0,
            args=["--disable-background-networking", "--disable-component-update", "--disable-gpu"],
            timeout=LAUNCH_MS,
        )


@contextmanager
def running_chromium() -> Iterator[Chromium]:
    """Run it."""
    program = require_chromium()
    with sync_playwright() as playwright:
        chromium = Chromium(playwright, program)
        try:
            yield chromium
        finally:
            chromium.close()
