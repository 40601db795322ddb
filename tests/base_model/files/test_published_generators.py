"""Records of the published generators, against their configs and the recipes' own words."""

import json
import re
from pathlib import Path

import pytest
from diffusers import EasyAnimateTransformer3DModel

from base_model.files.published_generators import (
    SIZES,
    PublishedSize,
    published_generators,
    published_size,
)
from base_model.loading.checkpoint import empty_model
from base_model.loading.model_configs import transformer_arguments
from tests.published_layout import published

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize("size", SIZES, ids=lambda size: size.name)
def test_numbers_are_those_of_the_published_network(size: PublishedSize, tmp_path: Path) -> None:
    from reward_tuning.lora.adapter import linear_modules, select_targets

    config = published(f"transformer-{size.name}-control")
    (tmp_path / "config.json").write_text(json.dumps(config))
    kind = EasyAnimateTransformer3DModel
    network = empty_model(kind, transformer_arguments(tmp_path, kind))
    assert sum(weight.numel() for weight in network.parameters()) == size.transformer
    layers = linear_modules(network)
    for preset, numbers in size.adapter.items():
        paths = select_targets(network, preset)
        assert sum(layers[p].in_features + layers[p].out_features for p in paths) == numbers


def test_hub_ids_are_those_of_the_documentation() -> None:
    text = (ROOT / "docs/generator.md").read_text(encoding="utf-8")
    (line,) = [line for line in text.splitlines() if line.startswith("| hub ids")]
    assert "alibaba-pai/EasyAnimateV5.1-7b-zh" in line
    names = [name for size in SIZES for name in published_generators(size)]
    assert len(names) == len(set(names)) == 12
    for ending in re.findall(r"`-(\d+b-zh[\w-]*)`", line.partition("ending")[2]):
        assert f"alibaba-pai/EasyAnimateV5.1-{ending}-diffusers" in names
    for name in names:
        assert published_size(name) is not None
        assert published_size(f"{name}@main") is published_size(name)
    assert published_size("alibaba-pai/EasyAnimateV5-7b-zh") is None


def test_sizes_are_those_that_the_recipes_state() -> None:
    for size in SIZES:
        header = (ROOT / f"recipes/easyanimate-v5.1-{size.name}-hps.yaml").read_text()
        assert f"about {size.bytes / 1e9:.0f} GB of disk for the checkpoint" in header
        assert size.bytes > 2 * size.transformer
