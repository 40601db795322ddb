"""What every judge of images on a tower must do, on tiny random weights."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from rewards import load_reward
from rewards.clip_towers.hf_keys import to_transformers
from rewards.kinds import aesthetic, aesthetic_v2_5
from tests.rewards.tiny_clip import ARCHITECTURE, flat_file, frames, random_state
from tests.rewards.tiny_hf import SIGLIP, saved, siglip_model

KINDS = ("hps", "clip", "pickscore", "aesthetic", "aesthetic_v2_5")
PROMPTS = ["a red circle", "a blue star"]
Load = Callable[..., Any]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One tiny CLIP in both layouts, one tiny SigLIP, and a head on each."""
    folder = tmp_path_factory.mktemp("judges")
    state = random_state(ARCHITECTURE)
    flat_file(folder, state, architecture=json.dumps(ARCHITECTURE))
    says = {"architecture": json.dumps(ARCHITECTURE)}
    save_file(to_transformers(state), folder / "pickscore.safetensors", says)
    saved(siglip_model(), folder / "siglip.safetensors")
    torch.manual_seed(2)
    for name, build, tower in (
        ("aesthetic", aesthetic.build_head, "flat.safetensors"),
        ("aesthetic_v2_5", aesthetic_v2_5.build_head, "siglip.safetensors"),
    ):
        head = {k: 2 * v for k, v in build(24).state_dict().items()}
        save_file(head, folder / f"{name}.safetensors", {"tower": tower})
    return folder


@pytest.fixture(params=KINDS)
def load(request: pytest.FixtureRequest, folder: Path) -> Load:
    kind: str = request.param

    def loaded(**options: Any) -> Any:
        own = folder / f"{kind}.safetensors"
        if kind == "aesthetic_v2_5":
            options["architecture"] = SIGLIP
        path = own if own.is_file() else folder / "flat.safetensors"
        return load_reward(kind, path, **options)

    return loaded


def gradient(judge: Any, x: Tensor) -> Tensor:
    weights = torch.tensor([1.0, -2.0])
    (found,) = torch.autograd.grad((judge(x, PROMPTS) * weights).sum(), x)
    return found


def test_clips_do_not_mix(load: Load) -> None:
    judge, x = load(), frames(2, 3, 40, 56)
    alone = torch.cat([judge(x[i : i + 1], [PROMPTS[i]]) for i in range(2)])
    together = judge(x, PROMPTS)
    scale = float(alone.abs().max())
    torch.testing.assert_close(together, alone, rtol=0, atol=2e-6 * scale)
    assert float((alone[0] - alone[1]).abs()) > 1e-3 * scale


@pytest.mark.parametrize("chunk", [1, 2, 5])
def test_chunks_give_the_same_gradient(load: Load, chunk: int) -> None:
    x = frames(2, 3, 40, 56).requires_grad_()
    whole, chunked = load(), load(chunk=chunk)
    expected = gradient(whole, x)
    assert float((gradient(chunked, x) - expected).norm() / expected.norm()) < 1e-5
    scores = whole(x, PROMPTS)
    torch.testing.assert_close(chunked(x, PROMPTS), scores, rtol=1e-5, atol=1e-6)


def test_recomputing_blocks_changes_no_gradient(load: Load) -> None:
    x = frames(2, 2).requires_grad_()
    expected = gradient(load(), x)
    found = gradient(load(gradient_checkpointing=True), x)
    assert float((found - expected).norm() / expected.norm()) < 1e-6


def test_bf16_is_close_and_its_score_is_fp32(load: Load) -> None:
    x = frames(2, 2)
    half, full = load(dtype=torch.bfloat16)(x, PROMPTS), load()(x, PROMPTS)
    assert half.dtype == torch.float32
    spread = float((full[0] - full[1]).abs())
    assert float((half - full).abs().max()) < max(0.3 * spread, 0.03 * float(full.abs().max()))


def test_twenty_steps_up_its_gradient_raise_the_score(load: Load) -> None:
    judge, x = load(), frames(2, 2)
    before = judge(x, PROMPTS)
    for _ in range(20):
        x.requires_grad_()
        (g,) = torch.autograd.grad(judge(x, PROMPTS).sum(), x)
        step = g / g.flatten(1).norm(dim=1)[:, None, None, None, None]
        x = (x.detach() + 0.1 * step).clamp(0, 1)
    assert bool((judge(x, PROMPTS) > before + 0.05 * before.abs()).all())


def test_it_is_frozen_and_tells_its_networks(load: Load) -> None:
    judge = load()
    assert judge.modules
    for module in judge.modules:
        assert not module.training
        assert not any(p.requires_grad for p in module.parameters())
