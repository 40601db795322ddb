"""Memory of the libraries."""

from __future__ import annotations

import psutil

from reward_tuning.estimate.process_memory import LOADED, imported_bytes


def test_it_is_this_process_and_what_a_run_adds() -> None:
    here = psutil.Process().memory_info().rss
    assert abs(imported_bytes() - LOADED - here) < 50e6
    assert here > LOADED
