"""Distillation of a small decoder on random models in the real classes: lessons, file, resume."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from base_model.loading.small_decoder import find_small_decoder, load_small_decoder
from reward_tuning.errors import TuningError
from reward_tuning.gradient.engine import rollout
from reward_tuning.pretrain.small_decoder import (
    NOISE,
    Distillation,
    distil_decoder,
    draw_rows,
    judge_cotangent,
    shown_latents,
)
from reward_tuning.progress import silent
from reward_tuning.tuning.parts import RunParts, load_parts
from tests.reward_tuning.tiny_run import tiny_recipe, write_world

SIZE = Distillation(width=32, rollouts=2, windows=2, steps=3, batch=2)
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REWARD_TUNING_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield write_world(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module")
def parts(world: Path) -> RunParts:
    return load_parts(tiny_recipe(world, Path("unused")), CPU, 2, silent)


@pytest.fixture(scope="module")
def done(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("distilled") / "a"
    recipe = tiny_recipe(world, Path("unused"))
    return distil_decoder(recipe, output=output, command="a command", size=SIZE)


def test_the_file_is_that_of_the_recipes_vae(done: Path, parts: RunParts) -> None:
    assert find_small_decoder(done, parts.sampler.generator.vae) == done
    assert load_small_decoder(done).config.widths == (32, 24, 8)
    with safe_open(done, framework="pt") as file:
        assert file.metadata()["command"] == "a command"


def test_lessons_of_a_rollout(done: Path) -> None:
    files = sorted((done.parent / "lessons").glob("*.safetensors"))
    assert [path.name for path in files] == ["00000.safetensors", "00001.safetensors"]
    rows = load_file(files[0])
    assert len(rows["first"]) == 3 * 2 * 2  # levels, latents of a clip of 5 frames, clips
    assert sorted(rows["first"].tolist()) == [0] * 6 + [1] * 6
    assert rows["group"].shape == (12, 3, 16, 4, 4)
    first = rows["first"].bool()
    assert not rows["cotangent"][first, :3].any()
    assert rows["cotangent"][first, 3].flatten(1).any(dim=1).all()
    assert rows["gradient"][:, 1].flatten(1).any(dim=1).all()


def test_a_resumed_distillation_ends_in_the_same_bytes(
    done: Path, world: Path, tmp_path: Path
) -> None:
    recipe = tiny_recipe(world, Path("unused"))
    distil_decoder(recipe, output=tmp_path, command="a command", size=SIZE)
    assert (tmp_path / done.name).read_bytes() == done.read_bytes()
    lessons = sorted((tmp_path / "lessons").glob("*.safetensors"))
    lessons[1].unlink()
    times = lessons[0].stat().st_mtime_ns
    again = distil_decoder(recipe, output=tmp_path, command="a command", size=SIZE)
    assert again.read_bytes() == done.read_bytes()
    assert lessons[0].stat().st_mtime_ns == times
    assert lessons[1].read_bytes() == (done.parent / "lessons" / lessons[1].name).read_bytes()


def test_a_folder_of_another_distillation_is_refused(done: Path, world: Path) -> None:
    other = tiny_recipe(world, Path("unused"), "sampling.guidance_scale=2.0")
    with pytest.raises(TuningError, match="holds lessons of another recipe"):
        distil_decoder(other, output=done.parent, command="a command", size=SIZE)


def test_shown_latents_are_the_posterior_means_of_the_velocity(parts: RunParts) -> None:
    sampler, sigmas = parts.sampler, parts.sigmas
    velocity = sampler.velocity(sampler.condition(parts.stream.batch_at(0, 2)), sigmas)
    states = rollout(velocity, sampler.noise([1, 2]), sigmas, 4)
    shown = shown_latents(states, sigmas)
    assert len(shown) == 5
    for i, x in enumerate(states[:-1]):
        with torch.no_grad():
            mean = x - sigmas[i] * velocity(x, i)
        torch.testing.assert_close(shown[i], mean, rtol=1e-4, atol=1e-4)
    assert torch.equal(shown[-1], states[-1])


def test_the_cotangent_is_the_judges_gradient_of_unit_size(
    parts: RunParts, monkeypatch: pytest.MonkeyPatch
) -> None:
    judge = parts.judges[0]
    frames = torch.rand(2, 4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    texts = ["a red ball", "a cat"]
    x = frames.clone().requires_grad_()
    (expected,) = torch.autograd.grad(judge.reward(x, texts).sum(), x)
    noisy = judge_cotangent(judge, texts, torch.Generator(), 1, frames, 1)  # type: ignore[arg-type]
    monkeypatch.setattr("reward_tuning.pretrain.small_decoder.NOISE", 0.0)
    found = judge_cotangent(judge, texts, torch.Generator(), 1, frames, 1)  # type: ignore[arg-type]
    for clip in range(2):
        size = expected[clip].square().mean().sqrt()
        torch.testing.assert_close(found[clip], expected[clip] / size, rtol=1e-3, atol=1e-4)
    assert (noisy - found).std().item() == pytest.approx(NOISE, rel=0.05)


def test_rows_are_drawn_from_all_files(done: Path) -> None:
    files = sorted((done.parent / "lessons").glob("*.safetensors"))
    rows = draw_rows(files, 40, torch.Generator().manual_seed(0))
    every = torch.cat([load_file(path)["gradient"] for path in files]).flatten(1)
    seen = {int((every == row.flatten()).all(dim=1).nonzero()[0]) for row in rows["gradient"]}
    assert len(seen) > 12  # of 24, from both files
    assert min(seen) < 12 <= max(seen)
    again = draw_rows(files, 40, torch.Generator().manual_seed(0))
    assert all(torch.equal(rows[name], again[name]) for name in rows)
