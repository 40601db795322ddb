"""The end of a run: sample clips, the exported adapter, and the evaluation in a file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from safetensors.torch import load_file

from reward_tuning.lora.formats.tensor_file import read_header
from reward_tuning.progress import silent
from reward_tuning.runs.folder import RunFolder
from reward_tuning.tuning.evaluation import evaluation_seed
from reward_tuning.tuning.finish import finish, write_samples
from reward_tuning.tuning.parts import load_parts
from tests.reward_tuning.tiny_run import HELD_OUT, tiny_recipe, write_world


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_world(tmp_path_factory.mktemp("world"))


def test_samples_have_the_evaluations_noise(world: Path, tmp_path: Path) -> None:
    recipe = tiny_recipe(world, tmp_path / "run")
    parts = load_parts(recipe, torch.device("cpu"), 2, silent)
    folder = RunFolder(tmp_path / "run")
    write_samples(recipe, parts, folder, 7, None, silent)
    clips = sorted(path.name for path in folder.samples(7).glob("*.mp4"))
    assert clips == ["00.mp4", "01.mp4", "02.mp4"]
    written = json.loads((folder.samples(7).parent / "prompts.json").read_text())
    assert [{key: row[key] for key in ("prompt", "seed")} for row in written] == [
        {"prompt": text, "seed": evaluation_seed(recipe.seed, i, 0)}
        for i, text in enumerate(HELD_OUT)
    ]


def test_the_evaluation_compares_the_given_adapter_with_the_base(
    world: Path, tmp_path: Path
) -> None:
    recipe = tiny_recipe(world, tmp_path / "run", "evaluation.prompts=2", "evaluation.seeds=1")
    parts = load_parts(recipe, torch.device("cpu"), 2, silent)
    folder = RunFolder(tmp_path / "run")
    draw = torch.Generator().manual_seed(0)
    tuned = {
        name: torch.randn(tensor.shape, generator=draw)
        for name, tensor in parts.trained.state().items()
    }
    found = finish(recipe, parts, Accelerator(), folder, tuned, silent)
    assert json.loads(folder.evaluation.read_text()) == found
    assert (found["start"], found["prompts"], found["seeds"]) == ("base", 2, 1)
    assert (found["trained_on"], found["never_trained_on"]) == (["clip"], ["clip_held_out"])
    assert found["primary"] == "clip_held_out"
    assert found["base"]["clip"] != found["tuned"]["clip"]
    told = read_header(folder.lora / "original.safetensors")
    assert told["modelspec.title"] == "generator tuned on clip"
    base = json.loads(told["reward_tuning.base"])
    assert base == {"checkpoint": "generator", "fingerprint": parts.fingerprints["generator"]}
    scaled_down = load_file(next(folder.lora.rglob("adapter_model.safetensors")))
    assert sorted(tensor.sum().item() for tensor in scaled_down.values()) == pytest.approx(
        sorted(tensor.sum().item() for tensor in tuned.values())
    )
