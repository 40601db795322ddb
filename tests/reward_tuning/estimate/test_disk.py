"""Disk and downloads of a run."""

from __future__ import annotations

from reward_tuning.estimate.disk import disk_of
from reward_tuning.schema.loading import load_recipe


def test_the_embedded_demo_downloads_nothing() -> None:
    found = disk_of(load_recipe("tiny-demo"))
    assert found["download"] == 0
    assert 5e6 < found["written"] < 50e6


def test_a_published_recipe_downloads_generator_and_judges() -> None:
    found = disk_of(load_recipe("easyanimate-v5.1-12b-hps", check_files=False))
    assert 41e9 < found["download"] < 60e9
