"""Two real processes through the command line: together to the end, and together out of it."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from reward_tuning.finetune.trainer import finetune
from reward_tuning.tuning.trainer import run
from tests.reward_tuning.finetune.clip_folder import small_recipe, write_world_of_clips
from tests.reward_tuning.tiny_run import tiny_recipe, write_world

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        sys.platform == "win32" or torch.cuda.is_available(), reason="two processes on the CPU"
    ),
]
TOGETHER = (sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2")
CLI = ("-m", "reward_tuning.cli")
RATE = "train.learning_rate=1e-3"  # AdamW makes of a gradient that is rounding a step of that size
PROPORTIONAL = ("train.learning_rate=1.0", "train.adam_eps=1.0")  # steps as long as gradients
RUN = (
    RATE,
    "train.steps=3",
    "train.checkpoint_every=1",
    "method={kind: draft_k, active_steps: 2}",
    "evaluation.prompts=2",
    "evaluation.seeds=1",
)
FINETUNE = (RATE, "train.steps=2", "samples.count=0")
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}
DEADLINE = 300


def launched(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        words, env=ENVIRONMENT, capture_output=True, text=True, check=False, timeout=DEADLINE
    )


def largest_gap(one: Path, two: Path) -> float:
    a, b = (load_file(folder / "lora" / "adapter_model.safetensors") for folder in (one, two))
    assert a.keys() == b.keys()
    assert max(float(a[name].abs().max()) for name in a if "lora_B" in name) > 1e-3  # it has learnt
    return max(float((a[name] - b[name]).abs().max()) for name in a)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with pytest.MonkeyPatch.context() as patch:
        cache = str(tmp_path_factory.mktemp("cache"))
        patch.setenv("REWARD_TUNING_CACHE", cache)
        patch.setitem(ENVIRONMENT, "REWARD_TUNING_CACHE", cache)
        yield write_world(tmp_path_factory.mktemp("world"))


def made_by_one(world: Path, steps: int) -> Path:
    """A run that draws the same clips: twice the batches a step, one after the other."""
    folder, keys = world / f"one-{steps}", (f"train.steps={steps}", "train.gradient_accumulation=2")
    if not folder.exists():
        run(tiny_recipe(world, folder, *RUN, *keys))
    return folder


def assert_as_one_process(world: Path, folder: Path, keys: tuple[str, ...], whole: str) -> None:
    """Two processes make the adapter of one with the whole batch, which the key `whole` gives."""
    one, two = folder / "one", folder / "two"
    run(tiny_recipe(world, one, *keys, whole))
    recipe = str(world / "recipe.yaml")
    done = launched(*TOGETHER, *CLI, "run", recipe, f"output={two}", *keys)
    assert done.returncode == 0, done.stderr
    assert largest_gap(one, two) < 1e-6


@pytest.fixture(scope="module")
def of_one_process(world: Path) -> Path:
    return made_by_one(world, 3)


def test_run_ends_well_and_as_one_process_would(world: Path, of_one_process: Path) -> None:
    output = world / "two"
    done = launched(*TOGETHER, *CLI, "run", str(world / "recipe.yaml"), f"output={output}", *RUN)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("held-out prompts") == 1  # the main process alone tells
    assert "error" not in done.stderr
    assert largest_gap(of_one_process, output) < 1e-6
    found, expected = (
        json.loads((folder / "evaluation.json").read_text()) for folder in (output, of_one_process)
    )
    assert found["tuned"] == pytest.approx(expected["tuned"], abs=1e-5)


def test_gradients_are_estimated_as_one_process_would(world: Path, tmp_path: Path) -> None:
    """Each process has whole groups and the near clips of its own; beside an exact judge."""
    judge = world / "judge" / "flat.safetensors"
    keys = (
        *PROPORTIONAL,
        "train.steps=2",
        "method={kind: drtune, active_steps: 2}",
        f"rewards=[{{kind: clip, checkpoint: {judge}}},"
        " {kind: sharpness, gradient: group, weight: 0.5},"
        f" {{kind: clip, name: pairs, checkpoint: {judge}, gradient: paired}}]",
        "train.clips_per_prompt=2",
        "evaluation.prompts=2",
        "evaluation.seeds=1",
    )
    # Twice the batch: accumulated batches would draw a plan each, and processes share one.
    assert_as_one_process(world, tmp_path, keys, "train.batch_size=4")


def test_what_judges_see_is_drawn_as_one_process_would(world: Path, tmp_path: Path) -> None:
    """Frames with the seed of the first clip of all that is drawn, which every process knows;
    augmentations with each clip's own.
    """
    judge = world / "judge" / "flat.safetensors"
    keys = (
        *PROPORTIONAL,
        "train.steps=2",
        "method={kind: drtune, active_steps: 2}",
        f"rewards=[{{kind: clip, checkpoint: {judge}, over_frames: {{kind: random, count: 1}},"
        " augmentation: {crop: 0.3, flip: true, noise: 0.05}}]",
        "train.group={clips: 3, keep: best}",
        "train.anchor=0.5",
        "train.anchor_steps=1",
        "evaluation.prompts=2",
        "evaluation.seeds=1",
    )
    assert_as_one_process(world, tmp_path, keys, "train.batch_size=4")


def test_prompt_groups_are_matched_as_one_process_would(world: Path, tmp_path: Path) -> None:
    """Each process has whole groups; levels, noise and the scores' deviation are common."""
    keys = (
        RATE,
        "train.steps=2",
        "method={kind: nft, draws: 2, normalise: batch}",
        "train.clips_per_prompt=2",
        "train.updates_per_rollout=2",
        "evaluation.prompts=2",
        "evaluation.seeds=1",
    )
    assert_as_one_process(world, tmp_path, keys, "train.gradient_accumulation=2")


def test_guards_measure_and_decide_alike_on_every_process(world: Path, tmp_path: Path) -> None:
    """Shared prompts, one decision: the ranks roll back together, or they would part."""
    guards = (
        "train.steps=2",
        "guards.every=1",
        "guards.rollbacks=9",
        "guards.drift={action: rollback, high: 1.0e-7}",
        "guards.diversity.prompts=1",
    )
    one, two = tmp_path / "one", tmp_path / "two"
    run(tiny_recipe(world, one, *RUN, *guards, "train.gradient_accumulation=2"))
    recipe = str(world / "recipe.yaml")
    done = launched(*TOGETHER, *CLI, "run", recipe, f"output={two}", *RUN, *guards)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("back to the start") == 1  # the main process alone tells
    rows = [
        [json.loads(line) for line in (folder / "guards.jsonl").read_text().splitlines()]
        for folder in (one, two)
    ]
    assert [row["fired"][0]["action"] for row in rows[1]] == ["rollback", "stop"]
    for expected, found in zip(*rows, strict=True):
        assert (found["best"], found.get("back_to")) == (expected["best"], expected.get("back_to"))
        assert found["reward"]["now"] == pytest.approx(expected["reward"]["now"], abs=1e-5)
        for key in ("motion", "diversity", "drift"):
            assert found[key] == pytest.approx(expected[key], abs=1e-4)
        judge = found["measures"]["clip_held_out"]
        assert judge["each"] == pytest.approx(
            expected["measures"]["clip_held_out"]["each"], abs=1e-5
        )
    a, b = (load_file(folder / "lora" / "adapter_model.safetensors") for folder in (one, two))
    assert any(float(a[name].abs().max()) > 1e-4 for name in a if "lora_B" in name)
    assert max(float((a[name] - b[name]).abs().max()) for name in a) < 1e-6


def started(world: Path, output: Path, *more: str) -> list[subprocess.Popen[str]]:
    """Two processes without a launcher that would look after them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    sizes = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    return [
        subprocess.Popen(
            [
                sys.executable,
                *CLI,
                "run",
                str(world / "recipe.yaml"),
                f"output={output}",
                *RUN,
                *more,
            ],
            env={**ENVIRONMENT, **sizes, **place, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]


def test_a_killed_process_ends_the_others_and_resume_goes_on(
    world: Path, of_one_process: Path, tmp_path: Path
) -> None:
    victim = 1
    output = tmp_path / "run"
    processes = started(world, output)
    try:
        deadline = time.monotonic() + DEADLINE
        while not (output / "checkpoints" / "step-000001").exists():
            assert time.monotonic() < deadline
            assert all(process.poll() is None for process in processes)
            time.sleep(0.05)
        processes[victim].send_signal(signal.SIGKILL)
        killed = time.monotonic()
        _, err = processes[1 - victim].communicate(timeout=60)
        assert time.monotonic() - killed < 30  # most of it Python's own end, on a busy machine
    finally:
        for process in processes:
            process.kill()
    assert processes[1 - victim].returncode == 2
    last = err.splitlines()[-1]
    assert last.startswith(f"error: process {victim} of 2 has ended")
    command = f"torchrun --nproc_per_node 2 -m reward_tuning.cli resume {output}"
    assert last.endswith(f"Resume with: {command}")
    assert "Traceback" not in err

    done = launched(*TOGETHER, *CLI, "resume", str(output))
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("held-out prompts") == 1
    assert largest_gap(of_one_process, output) < 1e-6


@pytest.mark.parametrize("receivers", [(1,), pytest.param((0, 1), marks=pytest.mark.slow)], ids=str)
def test_a_signal_to_one_process_stops_both_together(
    world: Path, of_one_process: Path, tmp_path: Path, receivers: tuple[int, ...]
) -> None:
    output = tmp_path / "run"
    # So many steps that the run is not over before the signal, however late this process looks.
    processes = started(world, output, "train.checkpoint_every=99", "train.steps=20")
    try:
        deadline = time.monotonic() + DEADLINE
        while not (output / "metrics.jsonl").exists():
            assert time.monotonic() < deadline
            assert all(process.poll() is None for process in processes)
            time.sleep(0.05)
        for rank in receivers:
            processes[rank].send_signal(signal.SIGTERM)
        told = [process.communicate(timeout=60)[1] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [143, 143]
    command = f"torchrun --nproc_per_node 2 -m reward_tuning.cli resume {output}"
    assert told[0].endswith(f"as SIGTERM asked; resume with: {command}\n")
    assert "stopped after" not in told[1]
    (kept,) = (output / "checkpoints").iterdir()
    at = int(kept.name.removeprefix("step-"))
    assert 1 <= at < 20

    steps = max(at + 1, 3)
    done = launched(*TOGETHER, *CLI, "resume", str(output), f"train.steps={steps}")
    assert done.returncode == 0, done.stderr
    expected = of_one_process if steps == 3 else made_by_one(world, steps)
    assert largest_gap(expected, output) < 1e-6


CHOSEN = ("train.group={clips: 4, keep: best}", "train.anchor=0.5", "train.anchor_steps=1")


@pytest.mark.parametrize(
    ("more", "answered"),
    [
        ((), 2),  # clips of each process and step
        # 4 candidates a step, and 2 of them again: ends while those of step 2 are scored, before
        # what both processes draw alike
        pytest.param(CHOSEN, 6, marks=pytest.mark.slow),
    ],
    ids=["all clips", "chosen clips"],
)
def test_a_judge_that_answers_one_process_no_more_ends_both_in_one_step(
    world: Path, tmp_path: Path, more: tuple[str, ...], answered: int
) -> None:
    """Each process asks for its own clips; here those of the second are refused from step 2 on."""
    refuse, output = tmp_path / "refuse", tmp_path / "run"
    (tmp_path / "judge.py").write_text(
        "import json, os, sys\n"
        "for line in sys.stdin:\n"
        "    row = json.loads(line)\n"
        "    if os.environ['RANK'] == '1' and os.path.exists(sys.argv[1]):\n"
        "        if int(open(sys.argv[1]).read()) < row['id']: sys.exit('out of credit')\n"
        "    size = os.path.getsize(row['clip'])\n"
        "    print(json.dumps({'id': row['id'], 'score': size / 1e4}), flush=True)\n"
    )
    refuse.write_text(str(answered))
    command = [sys.executable, str(tmp_path / "judge.py"), str(refuse)]
    judge = {"kind": "command", "command": command, "gradient": "group", "retries": 0}
    tiny_recipe(world, output)  # writes recipe.yaml
    judged = (
        f"rewards=[{json.dumps(judge)}]",
        "train.clips_per_prompt=2",
        *(text for text in RUN if "checkpoint_every" not in text),
        "train.checkpoint_every=9",
        *more,
    )
    recipe = str(world / "recipe.yaml")
    done = launched(*TOGETHER, *CLI, "run", recipe, f"output={output}", *judged)
    assert done.returncode != 0
    assert "its stderr ends with: out of credit" in done.stderr
    assert "error: process 1 of 2: the judge command" in done.stderr  # the main process says so
    again = f"torchrun --nproc_per_node 2 -m reward_tuning.cli resume {output}"
    assert f"`{again}`" in done.stderr  # a long message keeps its end
    assert done.stderr.count("Traceback") == 1  # the launcher's own
    assert [path.name for path in (output / "checkpoints").iterdir()] == ["step-000001"]
    assert sorted(path.name for path in (output / "answers").iterdir()) == [
        "command-rank0.jsonl",
        "command-rank1.jsonl",
    ]
    refuse.unlink()
    done = launched(*TOGETHER, *CLI, "resume", str(output))
    assert done.returncode == 0, done.stderr
    assert (output / "evaluation.json").exists()


def test_finetune_ends_well_and_as_one_process_would(world: Path, tmp_path: Path) -> None:
    clips = write_world_of_clips(tmp_path / "clips")
    finetune(small_recipe(clips, tmp_path / "one", *FINETUNE))
    two = (f"output={tmp_path / 'two'}", *FINETUNE, "train.gradient_accumulation=1")
    done = launched(*TOGETHER, *CLI, "finetune", str(clips / "recipe.yaml"), *two)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("2 steps on") == 1
    assert largest_gap(tmp_path / "one", tmp_path / "two") < 1e-6


def test_a_launcher_that_starts_fewer_than_asked_is_noticed(world: Path, tmp_path: Path) -> None:
    launch = (sys.executable, "-m", "accelerate.commands.launch", "--cpu", "--num_processes", "2")
    output = tmp_path / "run"
    done = launched(*launch, *CLI, "run", str(world / "recipe.yaml"), f"output={output}", *RUN)
    assert done.returncode != 0
    assert "error: the launcher was asked for 2 processes and started 1" in done.stderr
    assert "torchrun --nproc_per_node 2 -m reward_tuning.cli" in done.stderr
    assert not output.exists()
