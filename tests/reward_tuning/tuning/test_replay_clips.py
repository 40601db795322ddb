"""The replay in runs: clips of the base and of files, kept, told apart, resumed to the byte."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from safetensors.torch import load_file

from reward_tuning.errors import TuningError
from reward_tuning.files.clips import read_clip, write_clip
from reward_tuning.lora.adapter import load_adapter_state
from reward_tuning.progress import ProgressEvent, silent
from reward_tuning.schema.recipe import Recipe
from reward_tuning.seeds import derive_seed
from reward_tuning.tuning.parts import RunParts, load_parts, with_replay
from reward_tuning.tuning.replay_clips import keep, latents_hash, read_kept
from reward_tuning.tuning.sigma_tables import evaluation_sigmas
from reward_tuning.tuning.trainer import optimiser_step, run, start
from tests.reward_tuning.tiny_run import tiny_recipe, write_world

CPU = torch.device("cpu")
BASE = "train.replay={weight: 0.5, clips: 3}"
SHORT = ("train.steps=2", "evaluation.prompts=2", "evaluation.seeds=1")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REWARD_TUNING_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield write_world(tmp_path_factory.mktemp("world"))


def prepared(world: Path, folder: Path, *overrides: str) -> tuple[Recipe, RunParts]:
    recipe = tiny_recipe(world, folder, *overrides)
    parts = load_parts(recipe, CPU, 4, silent)
    return recipe, with_replay(recipe, parts, folder / "replay", Accelerator(), silent)


def write_clips(folder: Path, count: int = 2) -> Path:
    """A file of clips, 5 frames of 32 x 32."""
    rows = []
    for i in range(count):
        frames = torch.rand(5, 3, 32, 32, generator=torch.Generator().manual_seed(i))
        write_clip(frames, folder / f"{i}.gif")
        rows.append({"prompt": f"a new prompt {i}", "video": f"{i}.gif", "source": "ours"})
    path = folder / "clips.jsonl"
    path.write_text("\n\n".join(map(json.dumps, rows)), encoding="utf-8")
    return path


# --- clips of the base


def test_clips_of_the_base(world: Path, tmp_path: Path) -> None:
    """As the evaluation draws them, for the stream's first prompts, and with the adapter off."""
    recipe = tiny_recipe(world, tmp_path, BASE, "sampling.shift=2", "evaluation.steps=3")
    parts = load_parts(recipe, CPU, 4, silent)
    before = parts.sampler.generator.transformer
    sigmas = evaluation_sigmas(recipe)
    assert len(sigmas) == 4
    texts = [parts.stream.prompt_at(i).text for i in range(3)]
    seeds = [derive_seed(recipe.seed, "replay", "clip", i) for i in range(3)]
    expected = [
        parts.sampler.latents(texts[:2], seeds[:2], sigmas),
        parts.sampler.latents(texts[2:], seeds[2:], sigmas),
    ]
    batched = tiny_recipe(
        world, tmp_path, BASE, "sampling.shift=2", "evaluation.steps=3", "evaluation.batch_size=2"
    )
    spoiled = {name: tensor + 1 for name, tensor in adapter(parts).items()}
    load_adapter_state(before, spoiled)
    events: list[ProgressEvent] = []
    made = with_replay(batched, parts, tmp_path / "kept", Accelerator(), events.append)
    assert made.replay is not None
    assert made.replay.prompts == tuple(texts)
    assert torch.equal(made.replay.latents, torch.cat(expected))
    assert [(e.done, e.total, e.phase) for e in events] == [
        *((done, 3, f"step {i} of 3") for done in (0, 2) for i in (1, 2, 3)),
        (3, 3, ""),
    ]
    assert made.fingerprints["replay clips"] == latents_hash(made.replay.latents)
    again = with_replay(batched, parts, tmp_path / "kept", Accelerator(), unasked)
    assert again.replay is not None
    assert torch.equal(again.replay.latents, made.replay.latents)


def adapter(parts: RunParts) -> dict[str, torch.Tensor]:
    from reward_tuning.lora.adapter import adapter_state

    return adapter_state(parts.sampler.generator.transformer)


def unasked(event: ProgressEvent) -> None:
    raise AssertionError(f"nothing was to be made: {event}")


def test_more_clips_than_prompts_have_noise_of_their_own(world: Path, tmp_path: Path) -> None:
    _, parts = prepared(world, tmp_path, "train.replay={weight: 1, clips: 7}")
    assert parts.replay is not None
    assert len(set(parts.replay.prompts)) == 5
    assert len({latents_hash(one) for one in parts.replay.latents}) == 7


# --- clips of files


def test_clips_of_a_file(world: Path, tmp_path: Path) -> None:
    path = write_clips(tmp_path)
    recipe, parts = prepared(
        world, tmp_path / "run", f"train.replay={{weight: 1.0, source: {path}}}"
    )
    assert parts.replay is not None
    assert parts.replay.prompts == ("a new prompt 0", "a new prompt 1")
    for i in range(2):
        clip = read_clip(tmp_path / f"{i}.gif")
        with torch.no_grad():
            expected = parts.sampler.generator.encode(clip[None])[0]
        assert torch.equal(parts.replay.latents[i], expected)
    assert recipe.train.replay is not None
    row = optimiser_step(recipe, parts, start(recipe, parts), Accelerator())
    assert row["replay"] > 0.1
    assert "replay" in row["seconds"]


# --- what is kept


def test_what_is_kept_is_checked(tmp_path: Path) -> None:
    file, latents = tmp_path / "replay.safetensors", torch.rand(2, 16, 1, 2, 2)
    (tmp_path / ".replay.safetensors.tmp-1").write_bytes(b"half")
    keep(file, latents, "sha256:a")
    assert [path.name for path in tmp_path.iterdir()] == [file.name]
    assert torch.equal(read_kept(file, "sha256:a"), latents)
    with pytest.raises(TuningError, match=r"made from other clips, prompts, weights or sampling"):
        read_kept(file, "sha256:b")
    whole = file.read_bytes()
    file.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(TuningError, match=r"is damaged .its content.*delete this file and resume"):
        read_kept(file, "sha256:a")
    file.write_bytes(whole[:40])
    with pytest.raises(TuningError, match=r"is damaged"):
        read_kept(file, "sha256:a")


def test_another_clip_in_the_place_of_one_is_refused(world: Path, tmp_path: Path) -> None:
    path = write_clips(tmp_path)
    override = f"train.replay={{weight: 1.0, source: {path}}}"
    prepared(world, tmp_path / "run", override)
    prepared(world, tmp_path / "run", override)
    shutil.copy(tmp_path / "0.gif", tmp_path / "1.gif")
    with pytest.raises(TuningError, match=r"replay was made from other clips"):
        prepared(world, tmp_path / "run", override)


# --- runs


def weights(folder: Path) -> dict[str, bytes]:
    """Bytes of the tensors of each export; the headers hold the recipe."""
    files = {path.name: path.read_bytes() for path in (folder / "lora").glob("*.safetensors")}
    assert len(files) == 3
    return {name: file[8 + int.from_bytes(file[:8], "little") :] for name, file in files.items()}


def rows(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.slow
def test_off_and_measured_only_are_the_same_run(world: Path, tmp_path: Path) -> None:
    """Weight 0 tells the loss and moves nothing; any weight above 0 does."""
    folders = {}
    for name, override in (
        ("off", "train.replay=null"),
        ("zero", "train.replay={weight: 0, clips: 3}"),
        ("on", "train.replay={weight: 0.5, clips: 3, every: 2}"),
    ):
        folders[name] = run(tiny_recipe(world, tmp_path / name, override, *SHORT)).folder
    assert weights(folders["off"]) == weights(folders["zero"]) != weights(folders["on"])
    evaluations = [(folders[name] / "evaluation.json").read_bytes() for name in ("off", "zero")]
    assert evaluations[0] == evaluations[1]
    assert not (folders["off"] / "replay.safetensors").exists()
    assert [row["replay"] for row in rows(folders["off"])] == [None, None]
    assert all(row["replay"] > 0.1 for row in rows(folders["zero"]))
    every = rows(folders["on"])
    assert [row["replay"] is None for row in every] == [True, False]
    assert ["replay" in row["seconds"] for row in every] == [False, True]
    kept = load_file(folders["on"] / "replay.safetensors")["latents"]
    assert latents_hash(kept) == latents_hash(
        load_file(folders["zero"] / "replay.safetensors")["latents"]
    )


def test_accumulated_batches_equal_one_large_batch(world: Path, tmp_path: Path) -> None:
    gradients, losses = [], []
    for overrides in (
        ("train.batch_size=4",),
        ("train.batch_size=2", "train.gradient_accumulation=2", "evaluation.batch_size=4"),
    ):
        method = "method={kind: draft_k, active_steps: 2}"
        recipe, parts = prepared(
            world, tmp_path, method, "train.replay={weight: 5, clips: 3}", *overrides
        )
        row = optimiser_step(recipe, parts, start(recipe, parts), Accelerator())
        losses.append(row["replay"])
        gradients.append(torch.cat([p.grad.flatten() for p in parts.parameters]))  # type: ignore[union-attr]
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)
    assert float((gradients[0] - gradients[1]).norm() / gradients[0].norm()) < 1e-4
