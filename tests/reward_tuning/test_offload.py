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
from torch import Tensor, nn

from reward_tuning.errors import TuningError
from reward_tuning.finish import write_samples
from reward_tuning.judges import FramedJudge, LatentJudge
from reward_tuning.metrics import PhaseClock
from reward_tuning.offload import Offload, judge_modules
from reward_tuning.progress import silent
from reward_tuning.run_folder import RunFolder
from reward_tuning.run_parts import load_parts
from reward_tuning.run_state import start
from reward_tuning.trainer import optimiser_step, run
from rewards import load_latent_reward
from rewards.aesthetic import AestheticReward, build_head
from tests.reward_tuning.tiny_run import tiny_recipe, write_world
from tests.rewards.test_latent import latent_file
from tests.rewards.test_latent import random_state as latent_state

CPU = torch.device("cpu")
OVERRIDES = ("train.offload_judges=true", "train.offload_vae=true")


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


def places(modules: list[nn.Module]) -> list[int]:
    return [t.data_ptr() for m in modules for t in (*m.parameters(), *m.buffers())]


def test_copies_are_there_only_at_work() -> None:
    module = nn.BatchNorm1d(3).requires_grad_(False)
    module.weight.data = torch.tensor([1.0, 2.0, 3.0])
    resting, copies = places([module]), Copies()
    offload = Offload([module], CPU, copies)
    assert places([module]) == resting
    with pytest.raises(ZeroDivisionError), offload.at_work():
        assert not set(places([module])) & set(resting)
        assert module.weight.tolist() == [1.0, 2.0, 3.0]
        with offload.at_work():
            working = places([module])
        assert places([module]) == working
        raise ZeroDivisionError
    assert places([module]) == resting
    assert copies.made == len(resting) == 5
    other = nn.Linear(2, 2).requires_grad_(False)
    with offload.joined([other]).at_work():
        assert copies.made == 5 + 7
    with Offload([module], CPU).at_work():  # the device is the CPU: nothing moves
        assert places([module]) == resting


def test_what_is_trained_is_refused() -> None:
    with pytest.raises(TuningError, match="only frozen modules can be offloaded"):
        Offload([nn.Linear(2, 2)], CPU)


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
    with pytest.raises(TuningError, match=r"offload_judges: clip is of a class.*SimpleNamespace"):
        judge_modules([replace(clip, reward=foreign)])


@pytest.mark.parametrize(
    ("overrides", "moves"),
    [
        (OVERRIDES, {"judge", "vae"}),
        (OVERRIDES[:1], {"judge"}),
        (OVERRIDES[1:], {"vae"}),
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
    parts = load_parts(recipe, CPU, 4, silent)
    modules = {"judge": judge_modules(parts.judges), "vae": [parts.sampler.generator.vae]}
    resting = {name: places(of) for name, of in modules.items()}
    monkeypatch.setattr(parts.offload, "_copied", Copies())
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
    copies = Copies()
    create = Offload.__init__

    def counted(self: Offload, modules: Any, device: torch.device, copied: Any = None) -> None:
        create(self, modules, device, copies)

    left = {}
    for name, overrides in (("without", ()), ("with", OVERRIDES)):
        with monkeypatch.context() as patch:
            patch.setattr(Offload, "__init__", counted)
            folder = run(tiny_recipe(world, tmp_path / name, *short, *overrides)).folder
        files = [folder / "evaluation.json", *sorted((folder / "lora").iterdir())]
        metrics = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        for row in metrics:
            del row["seconds"], row["memory"]
        left[name] = [path.read_bytes() for path in files], metrics
        assert (copies.made > 0) == (name == "with")
    assert left["with"] == left["without"]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_memory_of_the_device() -> None:
    device = torch.device("cuda")
    module = nn.Linear(1024, 1024).requires_grad_(False).to(device)
    x = torch.randn(2, 1024, device=device)
    expected, before = module(x), torch.cuda.memory_allocated()
    offload = Offload([module], device)
    assert torch.cuda.memory_allocated() <= before - 4 * 1024 * 1024
    assert module.weight.device.type == "cpu"
    with offload.at_work():
        assert module.weight.device.type == "cuda"
        assert torch.equal(module(x), expected)
    assert torch.cuda.memory_allocated() <= before - 4 * 1024 * 1024
