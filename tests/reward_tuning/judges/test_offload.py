"""Judges and VAE at rest: where their weights are in each phase, and that no number changes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from safetensors.torch import load_file
from torch import Tensor, nn

from base_model.memory.offload import Offload
from reward_tuning.errors import TuningError
from reward_tuning.judges.judge import FramedJudge, LatentJudge
from reward_tuning.judges.offload import judge_modules
from reward_tuning.progress import silent
from reward_tuning.runs.folder import RunFolder
from reward_tuning.runs.update import PhaseClock
from reward_tuning.tuning.finish import write_samples
from reward_tuning.tuning.parts import load_parts
from reward_tuning.tuning.trainer import optimiser_step, run, start
from rewards import load_latent_reward
from rewards.kinds.aesthetic import AestheticReward
from rewards.networks.laion_head import build_head
from tests.reward_tuning.tiny_run import tiny_recipe, write_world
from tests.rewards.small_latent import latent_file
from tests.rewards.small_latent import random_state as latent_state

CPU = torch.device("cpu")
OVERRIDES = ("generator.memory=offload",)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REWARD_TUNING_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield write_world(tmp_path_factory.mktemp("world"))


class Copies:
    """Stands for the way to a device: real copies of real weights, counted."""

    def __init__(self) -> None:
        self.made = 0

    def __call__(self, tensor: Tensor, device: torch.device) -> Tensor:
        self.made += 1
        return tensor.to(device, copy=True)


def with_copies(monkeypatch: pytest.MonkeyPatch, copies: Copies) -> None:
    """Every offload made from here on copies its weights by `copies`."""
    create = Offload.__init__

    def counted(self: Offload, modules: Any, device: torch.device, *ways: Any) -> None:
        create(self, modules, device, copies)

    monkeypatch.setattr(Offload, "__init__", counted)


def places(modules: list[nn.Module]) -> list[int]:
    return [t.data_ptr() for m in modules for t in (*m.parameters(), *m.buffers())]


def test_modules_of_judges(world: Path, tmp_path: Path) -> None:
    """Of every kind, all of its weights; an unknown class is told."""
    recipe = tiny_recipe(world, tmp_path)
    (clip,) = load_parts(recipe, CPU, 2, silent).judges
    assert isinstance(clip, FramedJudge)
    tower: Any = clip.reward.tower  # type: ignore[attr-defined]
    assert judge_modules([clip]) == [tower.model]
    scored = AestheticReward(tower, build_head(8))
    assert judge_modules([replace(clip, reward=scored)]) == [tower.model, scored.head]
    latent = load_latent_reward(latent_file(tmp_path, latent_state()))
    assert judge_modules([LatentJudge(latent, "latent")]) == [latent.model]  # type: ignore[attr-defined]
    foreign: Any = SimpleNamespace(name="own")
    with pytest.raises(TuningError, match=r"generator.memory: clip is of a class.*SimpleNamespace"):
        judge_modules([replace(clip, reward=foreign)])


@pytest.mark.parametrize(
    ("overrides", "moves"),
    [
        (OVERRIDES, {"judge", "vae"}),
        (("generator.memory=block-offload",), {"judge", "vae"}),
        ((), set()),
    ],
)
def test_at_work_in_the_reward_phase_alone(
    world: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    overrides: tuple[str, ...],
    moves: set[str],
) -> None:
    """The real judge, VAE and update: where the weights lie as each phase ends."""
    recipe = tiny_recipe(world, tmp_path, *overrides)
    with_copies(monkeypatch, Copies())
    parts = load_parts(recipe, CPU, 4, silent)
    modules = {"judge": judge_modules(parts.judges), "vae": [parts.sampler.generator.vae]}
    resting = {name: places(of) for name, of in modules.items()}
    seen: list[tuple[str, set[str]]] = []

    def moved() -> set[str]:
        return {name for name, of in modules.items() if not set(places(of)) & set(resting[name])}

    enter = PhaseClock.__call__

    @contextmanager
    def watched(self: PhaseClock, name: str) -> Iterator[None]:
        with enter(self, name):
            yield
            seen.append((name, moved()))

    at_the_judge: list[set[str]] = []
    reward: Any = parts.judges[0].reward
    score = type(reward).score_images

    def scoring(self: Any, images: Tensor, condition: Tensor | None) -> Tensor:
        at_the_judge.append(moved())
        return score(self, images, condition)

    monkeypatch.setattr(type(reward), "score_images", scoring)
    monkeypatch.setattr(PhaseClock, "__call__", watched)
    row = optimiser_step(recipe, parts, start(recipe, parts), Accelerator())
    assert at_the_judge
    assert all(one == moves for one in at_the_judge)
    assert seen == [(name, set()) for name in ("rollout", "reward", "sweep", "update")]
    assert set(row["memory"]) == {"rollout", "reward", "sweep", "update"}
    decode, decoding = type(parts.sampler.generator).decode, []

    def decoded(self: Any, *arguments: Any, **options: Any) -> Tensor:
        decoding.append(moved())
        return decode(self, *arguments, **options)

    monkeypatch.setattr(type(parts.sampler.generator), "decode", decoded)
    write_samples(recipe, parts, RunFolder(tmp_path / "run"), 0, None, silent)
    assert decoding == [moves]
    assert moved() == set()


@pytest.mark.slow
def test_runs_with_and_without_are_the_same(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With every weight really copied to and fro, and scored through the copies."""
    short = (
        "train.steps=2",
        "evaluation.prompts=2",
        "evaluation.seeds=1",
        "train.replay={weight: 1, clips: 2}",
    )
    left = {}
    for name, memory in (("without", "resident"), ("with", "offload"), ("blocks", "block-offload")):
        overrides = (f"generator.memory={memory}", "train.gradient_checkpointing=true")
        with monkeypatch.context() as patch:
            copies = Copies()
            with_copies(patch, copies)
            folder = run(tiny_recipe(world, tmp_path / name, *short, *overrides)).folder
        found = json.loads((folder / "evaluation.json").read_text(encoding="utf-8"))
        # The headers of the LoRA files hold the recipe, which differs; the tensors do not.
        tensors = [
            {key: tensor.tolist() for key, tensor in load_file(path).items()}
            for path in sorted((folder / "lora").glob("*.safetensors"))
        ]
        metrics = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        for row in metrics:
            del row["seconds"], row["memory"]
        left[name] = found, tensors, metrics
        assert (copies.made > 0) == (name != "without")
    assert left["with"] == left["without"]
    assert left["blocks"] == left["without"]
