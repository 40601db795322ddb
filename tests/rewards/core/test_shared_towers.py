"""Equal towers are held once, and image features of the same frames are computed once a call."""

import gc
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from rewards import FrameReward, load_reward
from rewards.core.shared_towers import TowerPool, derived, frames_shared, unique_bytes
from rewards.networks.laion_head import build_head
from tests.rewards.tiny_clip import ARCHITECTURE, PROMPTS, flat_file, frames, random_state
from tests.rewards.tiny_hf import SIGLIP, saved, siglip_model

RELATIVE = {"positive": "a clean picture: {prompt}", "negative": "a torn picture: {prompt}"}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return flat_file(tmp_path, random_state(ARCHITECTURE), architecture=json.dumps(ARCHITECTURE))


def passes(judge: Any) -> list[int]:
    """Grows by the images of each pass of the judge's image tower."""
    counted: list[int] = []
    judge.tower.model.visual.register_forward_pre_hook(lambda _, args: counted.append(len(args[0])))
    return counted


def aesthetic_on(path: Path) -> Path:
    torch.manual_seed(1)
    head = path.parent / "head.safetensors"
    save_file(build_head(24).state_dict(), head, {"tower": path.name})
    return head


def test_one_file_under_three_judges_is_held_once(path: Path) -> None:
    pool = TowerPool()
    judges: list[Any] = [
        load_reward("clip", path, pool=pool),
        load_reward("hps", path, pool=pool),
        load_reward("clip", path, relative=RELATIVE, pool=pool),
        load_reward("aesthetic", aesthetic_on(path), pool=pool),
    ]
    assert len({id(judge.tower.model) for judge in judges}) == 1
    alone = load_reward("clip", path)
    head = sum(p.numel() * p.element_size() for p in judges[3].head.parameters())
    held = unique_bytes([module for judge in judges for module in judge.modules])
    assert held == unique_bytes(alone.modules) + head


def test_towers_that_differ_in_their_texts_share_the_image_side(tmp_path: Path) -> None:
    state = random_state(ARCHITECTURE)
    other = {**state, "text_projection": state["text_projection"] + 0.1}
    options: dict[str, Any] = {"architecture": ARCHITECTURE, "pool": TowerPool()}
    first: Any = load_reward("clip", flat_file(tmp_path, state), **options)
    (tmp_path / "b").mkdir()
    second: Any = load_reward("clip", flat_file(tmp_path / "b", other), **options)
    assert first.tower.model is not second.tower.model
    assert first.tower.model.visual is second.tower.model.visual
    x = frames(2, 2)
    alone = load_reward("clip", tmp_path / "b" / "flat.safetensors", architecture=ARCHITECTURE)
    assert torch.equal(second(x, PROMPTS[:2]), alone(x, PROMPTS[:2]))
    assert not torch.equal(first(x, PROMPTS[:2]), second(x, PROMPTS[:2]))


@pytest.mark.parametrize(
    "change",
    [
        {"weights": 1e-6},
        {"dtype": torch.bfloat16},
        {"gradient_checkpointing": True},
        {"architecture": {**ARCHITECTURE, "quick_gelu": True}},
    ],
)
def test_what_is_not_equal_is_not_shared(change: dict[str, Any], tmp_path: Path) -> None:
    state = random_state(ARCHITECTURE)
    options: dict[str, Any] = {"architecture": ARCHITECTURE, "pool": TowerPool()}
    first: Any = load_reward("clip", flat_file(tmp_path, state), **options)
    state["visual.proj"] = state["visual.proj"] + change.pop("weights", 0.0)
    second: Any = load_reward("clip", flat_file(tmp_path, state), **{**options, **change})
    assert first.tower.model.visual is not second.tower.model.visual


def test_a_network_goes_with_its_last_judge(path: Path) -> None:
    pool = TowerPool()
    judge: Any = load_reward("clip", path, pool=pool)
    assert load_reward("clip", path, pool=pool).tower.model is judge.tower.model  # type: ignore[attr-defined]
    assert len(pool._held) == 2  # the model, and its image side
    del judge
    gc.collect()
    assert len(pool._held) == 0


def test_siglips_are_shared_too(tmp_path: Path) -> None:
    from rewards.kinds.aesthetic_v2_5 import build_head as head_v2_5

    saved(siglip_model(), tmp_path / "siglip.safetensors")
    pool = TowerPool()
    judges: list[Any] = []
    for seed in range(2):
        torch.manual_seed(seed)
        save_file(head_v2_5(24).state_dict(), tmp_path / f"{seed}.safetensors")
        options: dict[str, Any] = {"tower": tmp_path / "siglip.safetensors", "pool": pool}
        judges.append(
            load_reward(
                "aesthetic_v2_5", tmp_path / f"{seed}.safetensors", architecture=SIGLIP, **options
            )
        )
    assert judges[0].tower.model is judges[1].tower.model
    counted: list[int] = []
    judges[0].tower.model.register_forward_pre_hook(lambda *_: counted.append(1))
    x = frames(1, 2)
    with frames_shared(x):
        together = [judge(x, ["x"]) for judge in judges]
    assert len(counted) == 1
    assert all(torch.equal(a, judge(x, ["x"])) for a, judge in zip(together, judges, strict=True))


def two_on_one(path: Path) -> tuple[FrameReward, FrameReward]:
    pool = TowerPool()
    first: Any = load_reward("clip", path, pool=pool)
    second: Any = load_reward("aesthetic", aesthetic_on(path), pool=pool)
    return first, second


def test_features_are_computed_once_and_gradients_are_exact(path: Path) -> None:
    """One backward through both judges, and one through each, against judges alone."""
    first, second = two_on_one(path)
    counted = passes(first)
    prompts = PROMPTS[:2]

    def scored(x: Tensor, *, together: bool) -> tuple[Tensor, Tensor]:
        if not together:
            return first(x, prompts), second(x, prompts)
        with frames_shared(x):
            return first(x, prompts), second(x, prompts)

    x = frames(2, 3).double().float().requires_grad_()
    alone = scored(x, together=False)
    assert counted == [6, 6]
    counted.clear()
    shared = scored(x, together=True)
    assert counted == [6]
    assert all(torch.equal(a, b) for a, b in zip(alone, shared, strict=True))
    weights = torch.tensor([1.0, -0.5])
    for rows in ((0, 1), (0,), (1,)):
        found, expected = (
            torch.autograd.grad(
                sum((scores[i] * weights).sum() for i in rows), x, retain_graph=True
            )[0]
            for scores in (shared, alone)
        )
        assert float((found - expected).norm() / expected.norm()) < 1e-6


def test_in_double_the_gradient_of_the_shared_graph_is_finite_differences(path: Path) -> None:
    pool = TowerPool()
    judges = [
        load_reward("clip", path, dtype=torch.float64, pool=pool),
        load_reward("aesthetic", aesthetic_on(path), dtype=torch.float64, pool=pool),
    ]

    def total(x: Tensor) -> Tensor:
        with frames_shared(x):
            scores = [judge(x, ["a cat"]) for judge in judges]
        return scores[0] * 2 + scores[1] * scores[0]

    x = frames(1, 2).double().requires_grad_()
    assert torch.autograd.gradcheck(total, x, fast_mode=True)


def test_other_frames_and_other_preprocessings_are_computed_apart(path: Path) -> None:
    pool = TowerPool()
    first: Any = load_reward("clip", path, pool=pool)
    hps: Any = load_reward("hps", path, pool=pool)  # pads where clip crops
    counted = passes(first)
    x = frames(1, 2, 32, 48)
    with frames_shared(x):
        first(x, ["a cat"])
        hps(x, ["a cat"])
        first(x.clone(), ["a cat"])  # such as an augmentation would give
        first(x, ["a dog"])
    assert counted == [2, 2, 2]


def test_chunks_are_computed_apart_and_nothing_of_them_is_kept(path: Path) -> None:
    first, second = two_on_one(path)
    first.chunk = second.chunk = 2
    counted = passes(first)
    x, prompts = frames(1, 4).requires_grad_(), ["a cat"]
    with frames_shared(x):
        scores = first(x, prompts) + second(x, prompts)
        assert counted == [2, 2, 2, 2]
        (found,) = torch.autograd.grad(scores.sum(), x)
    first.chunk = second.chunk = None
    (expected,) = torch.autograd.grad((first(x, prompts) + second(x, prompts)).sum(), x)
    assert float((found - expected).norm() / expected.norm()) < 1e-5


def test_with_gradient_is_another_tensor_than_without(path: Path) -> None:
    first, _ = two_on_one(path)
    x = frames(1, 2).requires_grad_()
    with frames_shared(x):
        with torch.no_grad():
            assert not first(x, ["a cat"]).requires_grad
        assert first(x, ["a cat"]).requires_grad


def test_a_change_in_place_is_seen(path: Path) -> None:
    first, _ = two_on_one(path)
    x = frames(1, 2)
    with frames_shared(x):
        before = first(x, ["a cat"])
        x.mul_(0.5)
        assert torch.equal(first(x, ["a cat"]), first(x.clone(), ["a cat"]))
        assert not torch.equal(first(x, ["a cat"]), before)


def test_everything_is_let_go_at_the_end() -> None:
    import weakref

    x = torch.ones(2)
    with frames_shared(x):
        made = weakref.ref(derived(x, "twice", lambda: 2 * x))
        assert made() is derived(x, "twice", lambda: nn.Parameter(x))
        nested = torch.ones(3)
        with frames_shared(nested), pytest.raises(ZeroDivisionError):
            derived(nested, "bad", lambda: torch.ones(1 // 0))
        assert made() is derived(x, "twice", lambda: nn.Parameter(x))
    gc.collect()
    assert made() is None
    assert derived(x, "twice", lambda: 3 * x)[0] == 3
