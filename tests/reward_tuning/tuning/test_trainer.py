"""Whole runs on tiny random models in the real classes: what they leave, and that they repeat."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from safetensors.torch import load_file

from reward_tuning.errors import TuningError
from reward_tuning.files.clips import read_clip
from reward_tuning.lora.adapter import adapter_state
from reward_tuning.lora.export import import_adapter
from reward_tuning.progress import ProgressEvent, silent
from reward_tuning.runs.checkpoints import state_sha256
from reward_tuning.schema.loading import load_recipe
from reward_tuning.schema.recipe import Recipe
from reward_tuning.tuning import trainer
from reward_tuning.tuning.draws import draw_batch, draw_guidance
from reward_tuning.tuning.parts import load_parts
from reward_tuning.tuning.step import BatchReport, complete_batch, reward_step
from reward_tuning.tuning.trainer import RunResult, optimiser_step, run, start
from tests.reward_tuning.tiny_run import HELD_OUT, TRAIN, tiny_recipe, write_world

DEVICE = torch.device("cpu")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_world(tmp_path_factory.mktemp("world"))


@pytest.fixture(autouse=True, scope="module")
def text_cache(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REWARD_TUNING_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def done(
    world: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[RunResult, Recipe, list[ProgressEvent]]:
    """One run, looked at by many tests."""
    events: list[ProgressEvent] = []
    recipe = tiny_recipe(world, tmp_path_factory.mktemp("runs") / "a")
    return run(recipe, progress=events.append), recipe, events


def rows(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def adapter_bytes(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((folder / "lora").iterdir())}


def test_the_run_folder(done: tuple[RunResult, Recipe, list[ProgressEvent]]) -> None:
    result, recipe, _ = done
    folder = result.folder
    assert folder == Path(recipe.output)
    assert load_recipe(folder / "recipe.yaml") == recipe
    names = {path.name.split(".tfevents")[0] for path in folder.iterdir()}
    assert names == {
        ".lock",
        "recipe.yaml",
        "metrics.jsonl",
        "machine.jsonl",
        "status.json",
        "report.html",
        "events.out",
        "samples",
        "checkpoints",
        "lora",
        "evaluation",
        "evaluation.json",
    }
    kept = sorted(path.name for path in (folder / "checkpoints").iterdir())
    assert kept == ["step-000002", "step-000004", "step-000006"]
    samples = sorted(
        str(p.relative_to(folder / "samples")) for p in (folder / "samples").rglob("*.mp4")
    )
    assert samples == [
        f"{place}/{i:02d}.mp4"
        for place in ("before-after", "step-000000", "step-000006")
        for i in range(3)
    ]
    about = json.loads((folder / "samples" / "prompts.json").read_text())
    assert [line["prompt"] for line in about] == HELD_OUT


def test_metrics(done: tuple[RunResult, Recipe, list[ProgressEvent]]) -> None:
    result, recipe, _ = done
    found = rows(result.folder)
    assert [row["step"] for row in found] == [1, 2, 3, 4, 5, 6]
    rate = recipe.train.learning_rate
    assert [row["learning_rate"] for row in found] == pytest.approx([rate / 2, *[rate] * 5])
    for row in found:
        assert row["loss"] == pytest.approx(-row["reward"]["clip"])
        assert len(row["active_steps"]) == 2
        assert row["grad_norm"] > 0
        assert row["motion"] > 0
        assert row["bad_steps"] == 0
        assert set(row["seconds"]) == {"rollout", "reward", "sweep", "update", "step"}
        assert all(seen["rerun_error"] < 1e-4 for seen in row["active_steps"])


def test_evaluation(done: tuple[RunResult, Recipe, list[ProgressEvent]]) -> None:
    result, _, _ = done
    found = json.loads((result.folder / "evaluation.json").read_text())
    assert found == result.evaluation
    assert (found["prompts"], found["seeds"]) == (3, 2)
    looks = {"motion", "brightness", "contrast", "saturation", "diversity"}
    names = {"clip", "clip_held_out", *looks}
    assert set(found["base"]) == set(found["tuned"]) == set(found["difference"]) == names
    for name in names:
        change = found["difference"][name]
        assert change["mean"] == pytest.approx(found["tuned"][name] - found["base"][name])
        assert change["low"] <= change["mean"] <= change["high"]
        assert change["mean"] != 0.0


def test_the_export_is_the_moving_average_in_all_formats(
    world: Path, done: tuple[RunResult, Recipe, list[ProgressEvent]]
) -> None:
    folder = done[0].folder
    last = folder / "checkpoints" / "step-000006"
    average, weights = load_file(last / "ema.safetensors"), load_file(last / "adapter.safetensors")
    assert any(not torch.equal(average[name], weights[name]) for name in weights)
    parts = load_parts(done[1], DEVICE, 1, silent)
    for name in ("", "pytorch_lora_weights.safetensors", "original.safetensors"):
        found = import_adapter(folder / "lora" / name, parts.sampler.generator.transformer)
        assert found.rank == 2
        assert {f"{path}.lora_A.weight" for path in found.state} <= set(average)
        for path, (down, up) in found.state.items():
            assert torch.equal(down, average[f"{path}.lora_A.weight"])
            assert torch.equal(up, average[f"{path}.lora_B.weight"])


def test_samples_show_base_and_tuned(done: tuple[RunResult, Recipe, list[ProgressEvent]]) -> None:
    samples = done[0].folder / "samples"
    before = read_clip(samples / "step-000000" / "00.mp4")
    after = read_clip(samples / "step-000006" / "00.mp4")
    pair = read_clip(samples / "before-after" / "00.mp4")
    assert before.shape == after.shape == (5, 3, 256, 256)
    assert pair.shape[3] > 512
    assert float((pair[..., :256] - before).abs().mean()) < 0.02
    assert float((pair[..., -256:] - after).abs().mean()) < 0.02


def test_progress_is_told_all_the_time(
    done: tuple[RunResult, Recipe, list[ProgressEvent]],
) -> None:
    events = done[2]
    stages = list(dict.fromkeys(event.stage for event in events))
    assert stages == [
        "loading",
        "text states",
        "training",
        "samples",
        "evaluation of base",
        "evaluation of tuned",
    ]
    phases = [event.phase for event in events if event.stage == "training" and event.phase]
    assert phases == ["rollout", "reward", "sweep", "update"] * 6
    notes = [event.note for event in events if event.note]
    assert "sigma" in notes[0]
    assert notes[0].count("active") == 2


@pytest.mark.slow
def test_the_same_seed_gives_the_same_bytes(
    world: Path, tmp_path: Path, done: tuple[RunResult, Recipe, list[ProgressEvent]]
) -> None:
    again = run(tiny_recipe(world, tmp_path / "b"))
    assert adapter_bytes(again.folder) == adapter_bytes(done[0].folder)
    assert again.evaluation == done[0].evaluation
    other = run(tiny_recipe(world, tmp_path / "c", "seed=4"))
    weights = "adapter_model.safetensors"
    assert adapter_bytes(other.folder)[weights] != adapter_bytes(again.folder)[weights]


def test_a_second_run_in_the_folder_is_refused(
    done: tuple[RunResult, Recipe, list[ProgressEvent]],
) -> None:
    with pytest.raises(TuningError, match="holds a run already"):
        run(done[1])


def test_resume_of_a_finished_run_changes_nothing(
    done: tuple[RunResult, Recipe, list[ProgressEvent]],
) -> None:
    before = {p: p.stat().st_mtime_ns for p in done[0].folder.rglob("*")}
    assert run(done[1], resume=True).evaluation == done[0].evaluation
    assert {p: p.stat().st_mtime_ns for p in done[0].folder.rglob("*")} == before


@pytest.mark.parametrize(
    ("override", "error"),
    [
        ("evaluation.prompts=4", "at most 3"),
        ("evaluation.prompts=1", "at least 2"),
        ("method.active_steps=4", "method.active_steps is 4"),
    ],
)
def test_a_mistake_leaves_no_folder(world: Path, tmp_path: Path, override: str, error: str) -> None:
    with pytest.raises(TuningError, match=error):
        run(tiny_recipe(world, tmp_path / "b", override))
    assert not (tmp_path / "b").exists()


# --- one step


def prepared(world: Path, folder: Path, *overrides: str) -> Any:
    recipe = tiny_recipe(world, folder, *overrides)
    parts = load_parts(recipe, DEVICE, 40, silent)
    return recipe, parts, start(recipe, parts)


def test_a_step_is_adamw_on_the_clipped_gradient(world: Path, tmp_path: Path) -> None:
    """The first step of AdamW moves each weight by rate * g / (|g| + eps), plus decay."""
    overrides = ("train.max_grad_norm=0.001", "train.weight_decay=0.1", "train.warmup_steps=4")
    recipe, parts, state = prepared(world, tmp_path, *overrides)
    accelerator = Accelerator()
    batch = draw_batch(recipe, parts.stream, parts.sigmas, state, accelerator, 0)
    reward_step(
        parts.sampler,
        parts.judges,
        batch,
        parts.sigmas,
        parameters=parts.parameters,
    )
    grads = [p.grad.clone() for p in parts.parameters]
    before = [p.detach().clone() for p in parts.parameters]
    norm = math.sqrt(sum(float(g.double().square().sum()) for g in grads))
    row = optimiser_step(recipe, parts, state, accelerator)
    assert row["grad_norm"] == pytest.approx(norm, rel=1e-5)
    assert norm > 0.001
    rate = 1e-2 / 4
    for grad, old, new in zip(grads, before, parts.parameters, strict=True):
        g = grad * (0.001 / norm)
        expected = old * (1 - rate * 0.1) - rate * g / (g.abs() + 1e-10)
        assert torch.allclose(new, expected, atol=1e-6)
    assert (state.step, state.position) == (1, 2)


def test_accumulated_batches_equal_one_large_batch(world: Path, tmp_path: Path) -> None:
    method = "method={kind: draft_k, active_steps: 2}"  # the same plan for every batch
    gradients = []
    for overrides in (
        ("train.batch_size=4",),
        ("train.batch_size=2", "train.gradient_accumulation=2"),
    ):
        recipe, parts, state = prepared(world, tmp_path, method, "train.anchor=0.1", *overrides)
        optimiser_step(recipe, parts, state, Accelerator())
        assert state.position == 4
        gradients.append(torch.cat([p.grad.flatten() for p in parts.parameters]))
    assert float((gradients[0] - gradients[1]).norm() / gradients[0].norm()) < 1e-4


def test_prompts_and_noise_follow_the_stream(world: Path, tmp_path: Path) -> None:
    recipe, parts, state = prepared(world, tmp_path)
    accelerator = Accelerator()
    texts, seeds = [], []
    for step in range(5):
        state.step, state.position = step, 2 * step
        batch = draw_batch(recipe, parts.stream, parts.sigmas, state, accelerator, 0)
        texts += [prompt.text for prompt in batch.prompts]
        seeds += list(batch.noise_seeds)
    assert sorted(texts[:5]) == sorted(texts[5:]) == sorted(TRAIN)
    assert len(set(seeds)) == 10


def test_clips_of_one_prompt_lie_side_by_side(world: Path, tmp_path: Path) -> None:
    overrides = ("train.batch_size=4", "train.clips_per_prompt=2", "train.repulsion=0.1")
    recipe, parts, state = prepared(world, tmp_path, *overrides)
    accelerator = Accelerator()
    first = draw_batch(recipe, parts.stream, parts.sigmas, state, accelerator, 0)
    row = optimiser_step(recipe, parts, state, accelerator)
    second = draw_batch(recipe, parts.stream, parts.sigmas, state, accelerator, 0)
    texts = [prompt.text for prompt in (*first.prompts, *second.prompts)]
    assert texts[::2] == texts[1::2] == [parts.stream.prompt_at(i).text for i in range(4)]
    assert len({*first.noise_seeds, *second.noise_seeds}) == 8
    assert -1.0 <= row["reward"]["likeness"] <= 1.0


def test_the_raw_gradient_is_longer_by_the_guidance_scale(world: Path, tmp_path: Path) -> None:
    norms = []
    for override in ("seed=3", "sampling.divide_by_guidance=false"):
        recipe, parts, state = prepared(world, tmp_path, override)
        norms.append(optimiser_step(recipe, parts, state, Accelerator())["grad_norm"])
    assert norms[1] == pytest.approx(3.0 * norms[0], rel=1e-5)


def test_guidance_is_drawn_for_each_batch(world: Path, tmp_path: Path) -> None:
    recipe = tiny_recipe(world, tmp_path, "sampling.guidance_range=[2, 4]")
    drawn = [draw_guidance(recipe, step=step, batch=0) for step in range(200)]
    assert drawn == [draw_guidance(recipe, step=step, batch=0) for step in range(200)]
    assert 2.0 <= min(drawn) < 2.1
    assert 3.9 < max(drawn) <= 4.0
    assert draw_guidance(recipe, step=1, batch=1) != drawn[1]
    fixed = tiny_recipe(world, tmp_path)
    assert draw_guidance(fixed, step=1, batch=0) == fixed.sampling.guidance_scale
    recipe, parts, state = prepared(world, tmp_path, "sampling.guidance_range=[2, 4]")
    batch = draw_batch(recipe, parts.stream, parts.sigmas, state, Accelerator(), 0)
    assert batch.guidance_scale == drawn[1]


def test_a_run_with_cheap_steps(world: Path, tmp_path: Path) -> None:
    """The recipe's keys reach the rollout, and the row says what they saved."""
    recipe, parts, state = prepared(world, tmp_path, "rollout.cache=1000.0")
    row = optimiser_step(recipe, parts, state, Accelerator())
    assert row["rollout"]["steps"] == 4
    assert row["rollout"]["full_steps"] in (2, 3)  # the active ones, and the first
    assert all(seen["rerun_error"] < 1e-4 for seen in row["active_steps"])


# --- steps that are not finite

Spoil = Callable[[int], bool]


def spoiled(monkeypatch: pytest.MonkeyPatch, bad: Spoil, how: str) -> None:
    """Steps (counted from 1) for which `bad` holds have a NaN loss or an infinite gradient."""
    count = 0

    def step(*arguments: Any, **options: Any) -> BatchReport:
        nonlocal count
        count += 1
        report = complete_batch(*arguments, **options)
        if bad(count):
            if how == "loss":
                return BatchReport(math.nan, {}, report.motion)
            options["parameters"][0].grad[0, 0] = math.inf
        return report

    monkeypatch.setattr(trainer, "complete_batch", step)


@pytest.mark.parametrize("how", ["loss", "gradient"])
def test_a_bad_step_is_skipped_and_counted(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    recipe, parts, state = prepared(world, tmp_path, "train.max_bad_steps=2")
    spoiled(monkeypatch, lambda count: count == 2, how)
    accelerator, seen, notes = Accelerator(), [], []

    def note(event: ProgressEvent) -> None:
        if event.note:
            notes.append(event.note)

    adapters = []
    for _ in range(3):
        seen.append(optimiser_step(recipe, parts, state, accelerator, note))
        own = adapter_state(parts.sampler.generator.transformer)
        adapters.append(torch.cat([t.flatten() for t in own.values()]))
    assert [row["bad_steps"] for row in seen] == [0, 1, 1]
    assert torch.equal(adapters[0], adapters[1])
    assert not torch.equal(adapters[1], adapters[2])
    assert state.position == 6  # the bad prompts are not drawn again
    assert state.bad_in_a_row == 0
    what = "the loss is nan" if how == "loss" else "the gradient's norm is inf"
    assert notes == [f"step 2 skipped: {what}"]


def test_too_many_bad_steps_in_a_row_stop_the_run(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoiled(monkeypatch, lambda count: count in (2, 4, 5), "gradient")
    recipe = tiny_recipe(world, tmp_path / "b", "train.max_bad_steps=2")
    with pytest.raises(TuningError, match=r"2 steps in a row .up to step 5.*learning_rate"):
        run(recipe)
    found = rows(tmp_path / "b")
    assert [row["bad_steps"] for row in found] == [0, 1, 1, 2, 3]
    assert found[1]["grad_norm"] is None
    assert not (tmp_path / "b" / "lora").exists()


@pytest.mark.slow
def test_a_resumed_run_says_where_it_goes_on(world: Path, tmp_path: Path) -> None:
    recipe = tiny_recipe(world, tmp_path / "run", "train.checkpoint_every=1")
    told: list[str] = []

    def listen(event: ProgressEvent, stop_at: int) -> None:
        told.append(event.note)
        if event.stage == "training" and event.done == stop_at:
            raise KeyboardInterrupt

    for resume, stop_at in ((False, 0), (True, 2), (True, -1)):
        try:
            run(recipe, resume=resume, progress=partial(listen, stop_at=stop_at))
        except KeyboardInterrupt:
            told.append("stopped")
    told = [note for note in told if note == "stopped" or note.startswith("continuing")]
    assert told == [
        "stopped",
        "continuing from the beginning: no checkpoint",
        "stopped",
        "continuing after step 1",
    ]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::reward_tuning.schema.judge_roles.RenamedKeyWarning")
def test_a_run_that_began_with_old_names_of_keys_resumes(world: Path, tmp_path: Path) -> None:
    """`unit` and `flatten` in recipe.yaml and in the checkpoint, as older versions wrote them."""
    overrides = ("train.steps=2", "train.checkpoint_every=1", "rewards.0.std=0.5")
    recipe = tiny_recipe(world, tmp_path / "run", *overrides)

    def stop(event: ProgressEvent) -> None:
        if event.stage == "training" and event.done == 2:  # the checkpoint of step 1 is written
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(recipe, progress=stop)
    kept = tmp_path / "run" / "recipe.yaml"
    text = kept.read_text()
    old = text.replace("  std: 0.5", "  unit: 0.5").replace("  robust_radius:", "  flatten:")
    assert old.count("unit: 0.5") == old.count("flatten: 0.0") == 1
    kept.write_text(old)
    path = tmp_path / "run" / "checkpoints" / "step-000001" / "state.json"
    state = json.loads(path.read_text())
    judge = state["recipe"]["rewards"][0]
    judge["unit"], judge["flatten"] = judge.pop("std"), judge.pop("robust_radius")
    del state["sha256"]
    path.write_text(json.dumps(state | {"sha256": state_sha256(state)}))
    resumed = run(load_recipe(kept), resume=True)
    straight = run(tiny_recipe(world, tmp_path / "straight", *overrides))
    assert adapter_bytes(resumed.folder) == adapter_bytes(straight.folder)
