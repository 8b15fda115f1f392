"""The installed Chromium, headless: one process, with as many profiles as a test wants."""

from __future__ import annotations

import os
import shutil
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import sync_playwright

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Browser

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


@contextmanager
def running_chromium() -> Iterator[Browser]:
    """Run it, with nothing of the network but what the tests open."""
    program = require_chromium()
    arguments = ["--disable-background-networking", "--disable-component-update", "--disable-gpu"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=program,
            # Its sandbox refuses root, which containers run tests as.
            chromium_sandbox=os.geteuid() != 0,
            args=arguments,
            timeout=LAUNCH_MS,
        )
        try:
            yield browser
        finally:
            browser.close()
