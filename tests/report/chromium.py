"""A headless Chromium for the tests and the screenshots of the site; nothing here runs without one."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from typing import Any

ARGUMENTS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)

NAMES = ("chromium", "chromium-browser", "google-chrome")
AGAIN = "python -m pytest tests/report/test_site_browser.py"


def executable() -> str | None:
    """Return the path of a Chromium, None where there is none."""
    return next(filter(None, map(shutil.which, NAMES)), None)


def missing() -> str:
    """Return why there is no browser, with the remedy, or "" where there is one."""
    if executable() is None:
        return f"no {NAMES[0]} on the path: apt-get install chromium, then {AGAIN}"
    try:
        import playwright.sync_api  # noqa: F401
    except ImportError:
        return f"Playwright is not installed: pip install '.[browser]', then {AGAIN}"
    return ""


@contextlib.contextmanager
def browser() -> Iterator[Any]:
    """Start a browser, and end it."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=executable(), args=list(ARGUMENTS))
        try:
            yield found
        finally:
            found.close()
