"""One browser for all tests of pages: a process cannot run two of Playwright's loops at once."""

from tests.reward_tuning.browser import browser, open_page

__all__ = ["browser", "open_page"]
