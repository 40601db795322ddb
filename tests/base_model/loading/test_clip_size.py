"""The size that a checkpoint is made for goes wherever its weights go."""

import json
import logging
import shutil
from pathlib import Path
from typing import Any

import pytest
from diffusers import FlowMatchEulerDiscreteScheduler

from base_model.convert.conversion import convert_checkpoint
from base_model.core.family import FAMILY
from base_model.errors import GeneratorError
from base_model.files.shipped import WEIGHTS
from base_model.loading.clip_size import check_clip_size, own_clip_size
from base_model.loading.key_map import Layout
from tests.goldens import write_checkpoint

TINY = WEIGHTS / "tiny"


def test_the_embedded_generator_says_its_own() -> None:
    assert own_clip_size(TINY) == (9, 64, 64)


def test_a_published_checkpoint_says_nothing(tmp_path: Path) -> None:
    write_checkpoint(tmp_path)
    assert own_clip_size(tmp_path) == FAMILY.clip_size == (49, 384, 672)
    shutil.rmtree(tmp_path / "scheduler")
    assert own_clip_size(tmp_path) == (49, 384, 672)


@pytest.mark.slow
def test_conversion_keeps_it(tmp_path: Path) -> None:
    layouts: tuple[Layout, ...] = ("original", "diffusers")
    source = TINY
    for layout in layouts:
        source = convert_checkpoint(source, tmp_path / layout, layout).folder
        assert own_clip_size(source) == (9, 64, 64)


def test_diffusers_reads_over_it(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        scheduler = FlowMatchEulerDiscreteScheduler.from_pretrained(TINY / "scheduler")
    assert scheduler.config.shift == 3.0
    assert not caplog.records


@pytest.mark.parametrize(
    ("entry", "told"),
    [
        ([9, 64, 64], r"_clip_size is \[9, 64, 64\]. It must hold frames, height, width as whole"),
        ({"frames": 9, "height": 64}, "It must hold frames, height, width"),
        ({"frames": 9, "height": 64, "width": 64.0}, "as whole numbers"),
        ({"frames": True, "height": 64, "width": 64}, "as whole numbers"),
        ({"frames": 8, "height": 64, "width": 64}, r"_clip_size \(8, 64, 64\): .*4k \+ 1"),
        ({"frames": 9, "height": 64, "width": 0}, "width must be a multiple of 16, got 0. Use 16"),
    ],
)
def test_a_wrong_entry_is_told(tmp_path: Path, entry: Any, told: str) -> None:
    (tmp_path / "scheduler").mkdir()
    config = tmp_path / "scheduler" / "scheduler_config.json"
    config.write_text(json.dumps({"_clip_size": entry}))
    with pytest.raises(GeneratorError, match=told):
        own_clip_size(tmp_path)


@pytest.mark.parametrize("size", [(1, 16, 16), (5, 16, 32), (49, 384, 672)])
def test_sizes_that_fit(size: tuple[int, int, int]) -> None:
    check_clip_size(*size)


@pytest.mark.parametrize(
    ("size", "told"),
    [
        ((0, 16, 16), "got 0. Use 1 or 5"),
        ((-3, 16, 16), "got -3. Use 1 or 5"),
        ((48, 16, 16), "got 48. Use 45 or 49"),
        ((1, 8, 16), "height must be a multiple of 16, got 8. Use 16 or 32"),
        ((1, 16, -16), "width must be a multiple of 16, got -16. Use 16 or 32"),
    ],
)
def test_sizes_that_do_not(size: tuple[int, int, int], told: str) -> None:
    with pytest.raises(GeneratorError, match=told):
        check_clip_size(*size)
