"""MPS's network: names, shapes, and files that do not fit."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from rewards import RewardError
from rewards.kinds.mps import MpsReward, load_mps
from rewards.networks.mps import PUBLISHED_ARCHITECTURE, MpsNetwork
from tests.rewards.options import taken
from tests.rewards.tiny_clip import frames
from tests.rewards.tiny_cross import mps_file, mps_state


def load(folder: Path, state: dict[str, Tensor] | None = None, **options: Any) -> MpsReward:
    return load_mps(mps_file(folder, state), taken(options), **options)


@pytest.fixture(scope="module")
def state() -> dict[str, Tensor]:
    state = mps_state()
    state["model.logit_scale"] = torch.tensor(math.log(20.0))
    return state


def test_the_published_layout_at_full_size() -> None:
    with torch.device("meta"):
        network = MpsNetwork(PUBLISHED_ARCHITECTURE)
    state = network.state_dict()
    cross = {k.removeprefix("cross_model."): v for k, v in state.items() if "cross_model" in k}
    assert {name: tuple(t.shape) for name, t in cross.items()} == _published_cross()
    assert sum(p.numel() for p in network.cross_model.parameters()) == 118_497_280
    assert sum(p.numel() for p in network.model.parameters()) == 986_109_441


def _published_cross() -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {}
    for i in range(4):
        text, around = f"layers.{i}.0.fn", f"layers.{i}.1.fn"
        for part in (text, around):
            shapes[f"{part}.norm.weight"] = shapes[f"{part}.norm.bias"] = (1024,)
        shapes[f"{text}.to_q.weight"] = shapes[f"{text}.to_out.weight"] = (1024, 1024)
        shapes[f"{text}.to_kv.weight"] = (128, 1024)
        shapes[f"{text}.ff.0.weight"] = (8192, 1024)
        shapes[f"{text}.ff.2.weight"] = (1024, 4096)
        shapes[f"{around}.rotary_emb.inv_freq"] = (32,)
        shapes[f"{around}.fused_attn_ff_proj.weight"] = (9344, 1024)
        shapes[f"{around}.attn_out.weight"] = (1024, 1024)
        shapes[f"{around}.ff_out.1.weight"] = (1024, 4096)
    return shapes


def _without(state: dict[str, Tensor]) -> None:
    del state["cross_model.layers.1.0.fn.to_kv.weight"]


def _renamed(state: dict[str, Tensor]) -> None:
    state["model.vision_model.pre_layernorm.bias"] = state.pop(
        "model.vision_model.pre_layrnorm.bias"
    )


def _clip_alone(state: dict[str, Tensor]) -> None:
    for name in [name for name in state if name.startswith("cross_model.")]:
        del state[name]


def _wide(state: dict[str, Tensor]) -> None:
    state["cross_model.layers.0.1.fn.attn_out.weight"] = torch.ones(24, 25)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_without, r"1 missing: cross_model\.layers\.1\.0\.fn\.to_kv\.weight"),
        (_renamed, r"missing: model\.vision_model\.pre_layrnorm\.bias.*unknown: .*pre_layernorm"),
        (_clip_alone, r"26 missing: cross_model"),
        (_wide, r"layers\.0\.1\.fn\.attn_out\.weight is \(24, 25\), not \(24, 24\)"),
    ],
)
def test_other_files_are_refused_by_name(
    tmp_path: Path,
    state: dict[str, Tensor],
    change: Callable[[dict[str, Tensor]], None],
    message: str,
) -> None:
    changed = dict(state)
    change(changed)
    with pytest.raises(RewardError, match=message):
        load(tmp_path, changed)


def test_counters_of_older_files_may_be_there(tmp_path: Path, state: dict[str, Tensor]) -> None:
    counters = {
        "model.text_model.embeddings.position_ids": torch.arange(77)[None],
        "model.vision_model.embeddings.position_ids": torch.arange(17)[None],
    }
    x = frames(1, 1)
    old, new = load(tmp_path, {**state, **counters})(x, ["red"]), load(tmp_path, state)(x, ["red"])
    torch.testing.assert_close(old, new, rtol=1e-6, atol=1e-5)
