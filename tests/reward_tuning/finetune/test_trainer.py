"""Whole fine-tunings on small random weights and real files."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from base_model.generator import load_generator
from reward_tuning.cli.show import show
from reward_tuning.cli.summary import print_summary
from reward_tuning.errors import TuningError
from reward_tuning.files.clips import read_clip
from reward_tuning.finetune.rendered import write_rendered_clips
from reward_tuning.finetune.trainer import finetune
from reward_tuning.lora.adapter import adapter_state
from reward_tuning.lora.export import import_adapter
from reward_tuning.lora.init import attach_adapter
from reward_tuning.progress import ProgressEvent, ProgressFn, silent
from reward_tuning.runs.checkpoints import checkpoint_steps, state_sha256
from reward_tuning.runs.out_of_memory import OutOfMemory
from reward_tuning.schema.sections import LoraSection
from reward_tuning.tuning.evaluation import evaluate
from reward_tuning.tuning.parts import load_parts
from reward_tuning.tuning.trainer import run
from tests.reward_tuning.finetune.clip_folder import small_recipe, write_world_of_clips
from tests.reward_tuning.signalled import stopped_by
from tests.reward_tuning.tiny_run import tiny_recipe, write_world

pytestmark = pytest.mark.slow


class StoppedError(Exception):
    pass


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_world_of_clips(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module")
def whole_run(world: Path) -> Path:
    output = world / "whole"
    finetune(small_recipe(world, output))
    return output


def rows(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def what_matters(folder: Path) -> list[dict]:
    """The rows without clocks and memory."""
    return [{k: v for k, v in r.items() if k not in ("seconds", "memory")} for r in rows(folder)]


def stop_after(step: int, phase: str) -> ProgressFn:
    def progress(event: ProgressEvent) -> None:
        if (event.stage, event.done, event.phase) == ("training", step, phase):
            raise StoppedError

    return progress


@pytest.mark.parametrize(("step", "phase"), [(1, "gradient"), (4, "update")])
def test_a_stopped_run_ends_in_the_bytes_of_one_that_was_not(
    world: Path, whole_run: Path, tmp_path: Path, step: int, phase: str
) -> None:
    recipe = small_recipe(world, tmp_path / "run")
    with pytest.raises(StoppedError):
        finetune(recipe, progress=stop_after(step, phase))
    assert not (tmp_path / "run" / "finetune.json").exists()
    finetune(recipe, resume=True)
    for name in ("adapter_model.safetensors", "original.safetensors"):
        assert (tmp_path / "run/lora" / name).read_bytes() == (
            whole_run / "lora" / name
        ).read_bytes()
    for name in ("adapter.safetensors", "ema.safetensors"):
        place = f"checkpoints/step-000006/{name}"
        assert (tmp_path / "run" / place).read_bytes() == (whole_run / place).read_bytes()
    assert what_matters(tmp_path / "run") == what_matters(whole_run)
    found, expected = ((f / "finetune.json").read_text() for f in (tmp_path / "run", whole_run))
    assert found == expected


def test_a_signal_stops_after_the_last_step_made(
    world: Path, whole_run: Path, tmp_path: Path
) -> None:
    recipe = small_recipe(world, tmp_path / "run", "train.checkpoint_every=99")
    stop = stopped_by(
        signal.SIGINT,
        ("training", 1, "clips"),
        tmp_path / "run",
        lambda progress: finetune(recipe, progress=progress),
    )
    assert stop.exit_code == 130
    assert f"stopped after step 1 of {recipe.train.steps}, as Ctrl-C asked; " in stop.message()
    assert [one.name for one in (tmp_path / "run/checkpoints").iterdir()] == ["step-000001"]
    finetune(recipe, resume=True)
    found, expected = (
        load_file(folder / "lora/adapter_model.safetensors")
        for folder in (tmp_path / "run", whole_run)
    )
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


@pytest.mark.parametrize("stage", ["samples", "held-out clips"])
def test_memory_that_runs_out_after_a_step_costs_nothing_of_the_run(
    world: Path, tmp_path: Path, stage: str
) -> None:
    """Meanwhile the weights are those of the moving average; they come back first."""
    keys = ("train.steps=3", "train.sample_every=2", "train.checkpoint_every=99")
    whole, cut = (
        small_recipe(world, tmp_path / name, *keys, "train.ema_decay=0.9")
        for name in ("whole", "cut")
    )
    finetune(whole)
    step = 0

    def run_out(event: ProgressEvent) -> None:
        nonlocal step
        if event.stage == "training":
            step = event.done
        elif step == 2 and event.stage == stage:
            raise torch.OutOfMemoryError("tried in vain")

    with pytest.raises(OutOfMemory, match=f"out of memory in {stage}"):
        finetune(cut, progress=run_out)
    assert checkpoint_steps(tmp_path / "cut/checkpoints") == [2]
    finetune(cut, resume=True)
    assert what_matters(tmp_path / "cut") == what_matters(tmp_path / "whole")
    assert "held_out" in str(rows(tmp_path / "cut")[1])
    names = ("checkpoints/step-000003/*.safetensors", "lora/*", "samples/*/*", "finetune.json")
    files = [path for name in names for path in sorted((tmp_path / "whole").glob(name))]
    assert len(files) > 6
    for path in files:
        same = tmp_path / "cut" / path.relative_to(tmp_path / "whole")
        assert same.read_bytes() == path.read_bytes(), same


def test_broken_files_are_counted_and_named(whole_run: Path) -> None:
    report = json.loads((whole_run / "clips.json").read_text())
    assert report["usable"] == 5
    names = {Path(entry["file"]).name: entry["reason"] for entry in report["broken"]}
    assert set(names) == {"cut.mp4", "text.mp4", "missing.mp4"}
    assert "no such file" in names["missing.mp4"]
    summary = json.loads((whole_run / "finetune.json").read_text())
    assert [Path(path).name for path in summary["broken"]] == list(names)


def test_every_batch_has_one_shape_and_fits_its_clips(whole_run: Path) -> None:
    shapes = {tuple(shape) for row in rows(whole_run) for shape in row["batches"]}
    # 40 x 40 is the square bucket; 32 x 64 at 32^2 pixels is floored to 16 x 32
    assert shapes <= {(2, 5, 32, 32), (2, 5, 16, 32)}
    assert len(rows(whole_run)) == 6


def test_the_lora_loads_back_and_is_the_moving_average(world: Path, whole_run: Path) -> None:
    generator = load_generator(world / "generator", text_encoder=False)
    weights = import_adapter(whole_run / "lora", generator.transformer)
    ema = load_file(whole_run / "checkpoints/step-000006/ema.safetensors")
    assert weights.rank == 2
    for path, (down, up) in weights.state.items():
        assert torch.equal(down, ema[f"{path}.lora_A.weight"])
        assert torch.equal(up, ema[f"{path}.lora_B.weight"])
        assert up.abs().max() > 0
    section = LoraSection(rank=2, alpha=2.0, targets="attention", init=str(whole_run / "lora"))
    attach_adapter(generator.transformer, section, seed=1)
    own = adapter_state(generator.transformer)
    assert own.keys() == ema.keys()
    assert all(torch.equal(own[name], ema[name]) for name in ema)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"rank": 4}, "lora.rank=2 lora.alpha=2"),
        ({"alpha": 1.0}, "lora.rank=2 lora.alpha=2"),
        ({"targets": "attention+mlp"}, "lora.targets"),
    ],
)
def test_a_lora_of_another_kind_is_no_start(
    world: Path, whole_run: Path, change: dict, told: str
) -> None:
    generator = load_generator(world / "generator", text_encoder=False)
    values = {"rank": 2, "alpha": 2.0, "targets": "attention", **change}
    section = LoraSection(**values, init=str(whole_run / "lora"))
    with pytest.raises(TuningError, match=told):
        attach_adapter(generator.transformer, section, seed=1)


def test_another_recipe_or_other_clips_do_not_resume(world: Path, tmp_path: Path) -> None:
    recipe = small_recipe(world, tmp_path / "run")
    with pytest.raises(StoppedError):
        finetune(recipe, progress=stop_after(3, "update"))
    changed = small_recipe(world, tmp_path / "run", "train.learning_rate=0.5")
    with pytest.raises(TuningError, match=r"train.learning_rate: was 0.01, is 0.5"):
        finetune(changed, resume=True)
    text = (world / "metadata.csv").read_text(encoding="utf-8")
    (tmp_path / "other.csv").write_text(text.replace("number 0", "number 7"), encoding="utf-8")
    kept = (world / "metadata.csv").rename(tmp_path / "kept.csv")
    try:
        (tmp_path / "other.csv").rename(world / "metadata.csv")
        with pytest.raises(TuningError, match=r"content of.clips"):
            finetune(recipe, resume=True)
    finally:
        kept.rename(world / "metadata.csv")


def test_full_fine_tuning_learns_and_leaves_a_checkpoint(world: Path, tmp_path: Path) -> None:
    recipe = small_recipe(
        world,
        tmp_path / "run",
        "lora=null",
        "train.steps=12",
        "train.learning_rate=2e-3",
        "train.ema_decay=null",
        "data.held_out=0",
        "dropout.text=0",
        "flow.motion_share=0",
    )
    finetune(recipe)
    losses = [row["loss"] for row in rows(tmp_path / "run")]
    assert sum(losses[-3:]) < 0.95 * sum(losses[:3])
    tuned = load_generator(tmp_path / "run/generator")
    base = load_generator(world / "generator")
    index = json.loads((tmp_path / "run/generator/model_index.json").read_text())  # diffusers'
    assert index["_class_name"] == tuned.kind.pipeline
    state = load_file(tmp_path / "run/checkpoints/step-000012/adapter.safetensors")
    for name, p in tuned.transformer.named_parameters():
        assert torch.equal(p, state[name])
    assert not torch.equal(tuned.transformer.proj.weight, base.transformer.proj.weight)
    assert torch.equal(
        tuned.encode_prompts(["a"], [""]).positive, base.encode_prompts(["a"], [""]).positive
    )


FRESH = (
    "lora=null",
    "generator.fresh=true",
    "dropout.text=0",
    "train.steps=12",
    "train.learning_rate=6e-3",
    "train.ema_decay=0.5",
    "train.gradient_accumulation=1",
    "train.checkpoint_every=6",
)


def test_a_model_from_random_weights_learns_rendered_clips(world: Path, tmp_path: Path) -> None:
    """Stage one's start: nothing of the checkpoint's transformer but its configuration is used."""
    path = write_rendered_clips(tmp_path / "clips", 4, words=["red", "left"])
    more = (*FRESH, f"data.metadata={path}", "flow.motion_share=0", "samples.count=0")
    recipe = small_recipe(world, tmp_path / "run", *more)
    with pytest.raises(StoppedError):
        finetune(recipe, progress=stop_after(7, "update"))
    finetune(recipe, resume=True)
    losses = [row["loss"] for row in rows(tmp_path / "run")]
    assert sum(losses[-4:]) < 0.95 * sum(losses[:4])
    summary = json.loads((tmp_path / "run/finetune.json").read_text())
    assert summary["tuned"]["loss"] < 0.9 * summary["base"]["loss"]

    finetune(small_recipe(world, tmp_path / "again", *more))
    for name in ("adapter.safetensors", "ema.safetensors"):
        found, expected = (
            (tmp_path / run / "checkpoints/step-000012" / name).read_bytes()
            for run in ("run", "again")
        )
        assert found == expected


def test_an_inpaint_model_from_a_text_model(world: Path, tmp_path: Path) -> None:
    recipe = small_recipe(
        world,
        tmp_path / "run",
        "lora=null",
        "generator.channels=33",
        "train.steps=2",
        "dropout.zeroed=0",
    )
    finetune(recipe)
    tuned = load_generator(tmp_path / "run/generator", text_encoder=False)
    assert tuned.kind.name == "inpaint"
    assert tuned.transformer.proj.weight[:, 16:].abs().max() > 0


def test_a_reward_tuning_starts_from_the_lora_of_a_run(
    world: Path, whole_run: Path, tmp_path: Path
) -> None:
    write_world(tmp_path)  # its generator is the same checkpoint
    recipe = tiny_recipe(tmp_path, tmp_path / "out", f"lora.init={whole_run}")
    parts = load_parts(recipe, torch.device("cpu"), 2, silent)
    ema = load_file(whole_run / "checkpoints/step-000006/ema.safetensors")
    own = adapter_state(parts.sampler.generator.transformer)
    assert all(torch.equal(own[name], ema[name]) for name in ema)
    assert "lora.init" in parts.fingerprints  # a resume with another LoRA is refused


def test_show_tells_of_a_run_folder(
    world: Path, whole_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    summary = json.loads((whole_run / "finetune.json").read_text())
    show(str(whole_run))
    told = capsys.readouterr().out
    assert "6 steps on 5 clips" in told
    assert "3 files could not be used" in told
    assert f"{summary['base']['loss']:.4f} before, {summary['tuned']['loss']:.4f} after" in told
    assert f"samples:       {whole_run / 'samples'}" in told
    with pytest.raises(StoppedError):
        finetune(small_recipe(world, tmp_path / "run"), progress=stop_after(3, "update"))
    show(str(tmp_path / "run"))
    told = capsys.readouterr().out
    assert f"step 3 of 6, loss {rows(tmp_path / 'run')[-1]['loss']:.4f}" in told
    assert f"reward-tuning resume {tmp_path / 'run'}" in told


def test_a_run_on_more_processes_is_not_resumed_on_fewer(world: Path, tmp_path: Path) -> None:
    recipe = small_recipe(world, tmp_path / "run")
    with pytest.raises(StoppedError):
        finetune(recipe, progress=stop_after(3, "update"))
    kept = tmp_path / "run/checkpoints/step-000002/state.json"
    state = json.loads(kept.read_text())
    del state["sha256"]
    state["position"] *= 2  # as of two processes
    kept.write_text(json.dumps({**state, "sha256": state_sha256(state)}))
    with pytest.raises(TuningError, match="batches a step on all processes: was 4, is 2"):
        finetune(recipe, resume=True)


def test_a_fine_tuning_knows_no_reward() -> None:
    code = "import sys, reward_tuning.finetune.trainer; print('rewards' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_a_reward_tuning_is_compared_with_what_it_started_from(
    whole_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where nothing is learnt both sides are the base with the LoRA, and not the base."""
    write_world(tmp_path)
    change = ("train.steps=1", "train.learning_rate=1e-30", f"lora.init={whole_run}")
    recipe = tiny_recipe(tmp_path, tmp_path / "out", *change)
    found = run(recipe).evaluation
    assert found["start"] == "base with lora.init"
    assert found["base"] == pytest.approx(found["tuned"], rel=1e-6)
    parts = load_parts(recipe, torch.device("cpu"), 2, silent)
    prompts, judges = dict(enumerate(parts.held_out)), parts.judges
    base, start = (
        evaluate(parts.sampler, side, prompts, judges, parts.sigmas, seed=recipe.seed, seeds=2)
        for side in (None, load_file(whole_run / "checkpoints/step-000006/ema.safetensors"))
    )
    assert start.means().items() <= found["base"].items()  # there is a held-out judge besides
    assert base.means() != pytest.approx(start.means(), rel=1e-4)
    samples = tmp_path / "out/samples"
    before, after = (read_clip(samples / f"step-00000{i}/00.mp4") for i in (0, 1))
    assert torch.equal(before, after)
    print_summary(tmp_path / "out", as_json=False)
    assert "Base with lora.init against tuned" in capsys.readouterr().out
