"""A real browser for the tests of the pages: the system's Chromium, one for all of them."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

NAMES = ("chromium", "chromium-browser", "google-chrome")
ARGUMENTS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
VIOLATIONS = """
window.violations = [];
document.addEventListener("securitypolicyviolation", (event) =>
  window.violations.push(`${event.effectiveDirective} ${event.blockedURI} ${event.sample}`));
"""


@dataclass
class Opened:
    """A page in the browser, and everything that it complained about.

    Attributes:
        page: Playwright's page.
        complaints: Errors and warnings of the console, and exceptions.
        requests: Addresses that the page asked for besides its own.
    """

    page: Page
    complaints: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def wait_until(self, expression: str) -> None:
        """Wait until a JavaScript expression holds; the policy forbids Playwright's own waiting."""
        for _ in range(200):
            if self.page.evaluate(expression):
                return
            self.page.wait_for_timeout(50)
        raise AssertionError(f"not within 10 seconds: {expression}")

    def check_quiet(self) -> None:
        """Fail where the page complained, broke its policy or asked the network for anything."""
        assert self.complaints == []
        assert self.page.evaluate("window.violations") == []
        assert self.requests == []


class Pages:
    """Opens pages of a browser, and closes them at the end of a test."""

    def __init__(self, browser: Browser) -> None:
        self._browser = browser
        self._opened: list[Any] = []

    def __call__(self, where: Path | str, *, script: str = "", **options: Any) -> Opened:
        """Open a file or an address, after a script; options are Playwright's for a context."""
        address = where.resolve().as_uri() if isinstance(where, Path) else where
        context = self._browser.new_context(**options)
        self._opened.append(context)
        context.add_init_script(VIOLATIONS + script)
        page = context.new_page()
        page.set_default_timeout(10_000)
        opened = Opened(page)
        page.on(
            "console",
            lambda message: (
                message.type in ("error", "warning") and opened.complaints.append(message.text)
            ),
        )
        page.on("pageerror", lambda error: opened.complaints.append(str(error)))
        page.on(
            "request",
            lambda request: (
                request.url.partition("#")[0] == address
                or request.url.startswith(("data:", "blob:"))
                or opened.requests.append(request.url)
            ),
        )
        page.goto(address)
        return opened

    def close(self) -> None:
        for context in self._opened:
            context.close()


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    program = next(filter(None, map(shutil.which, NAMES)), None)
    if program is None:
        pytest.skip(f"no browser: none of {', '.join(NAMES)} is installed")
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=program, args=list(ARGUMENTS))
        yield running
        running.close()


@pytest.fixture
def open_page(browser: Browser) -> Iterator[Pages]:
    pages = Pages(browser)
    yield pages
    pages.close()
