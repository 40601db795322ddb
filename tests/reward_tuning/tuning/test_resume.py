"""Stopped at any point, a run resumes into the bytes of the run that was never stopped.

Each run is a process of its own, really killed. A server process imports everything once and forks
them, so that a run takes about a second.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from reward_tuning.cli.stopping import Stopped, stop_signals
from reward_tuning.cli.training import stops_explained
from reward_tuning.errors import TuningError
from reward_tuning.progress import ProgressEvent
from reward_tuning.runs.checkpoints import checkpoint_steps
from reward_tuning.runs.folder import RunFolder
from reward_tuning.runs.resumable import versions
from reward_tuning.schema.loading import load_recipe
from reward_tuning.tuning.fingerprints import fingerprints_of
from reward_tuning.tuning.replay_clips import keep
from reward_tuning.tuning.trainer import run
from tests.reward_tuning.tiny_run import tiny_recipe, write_world

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        sys.platform == "win32" or torch.cuda.is_available(), reason="runs are forked, on the CPU"
    ),
]
FORK = multiprocessing.get_context("forkserver")
FORK.set_forkserver_preload(["tests.reward_tuning.tuning.test_resume"])
OVERRIDES = ("evaluation.prompts=2", "evaluation.seeds=1")
DEADLINE = 600  # seconds that a run may take, on a machine that is busy with others


def train(
    world: Path,
    output: Path,
    resume: bool,
    kill_at: tuple[str, int, str] | str,
    number: signal.Signals = signal.SIGKILL,
    overrides: tuple[str, ...] = (),
) -> None:
    """What the process does: run, and kill itself at a stage, count and phase, or in a rename."""
    torch.set_num_threads(1)
    told = set()

    def progress(event: ProgressEvent) -> None:
        place = event.stage, event.done, event.phase
        again = event.stage, event.done, f"{event.phase} again"
        if (again if place in told else place) == kill_at:
            os.kill(os.getpid(), number)
        told.add(place)

    if isinstance(kill_at, str) and kill_at:
        kill_in_write(kill_at)
    recipe = tiny_recipe(world, output, *OVERRIDES, *overrides)
    try:
        with stop_signals(), stops_explained(output):
            run(recipe, resume=resume, progress=progress)
    except Stopped as stop:
        sys.exit(stop.exit_code)


def kill_in_write(name: str) -> None:
    """Let this process kill itself before a file of that name takes its place."""
    for method in ("rename", "replace"):
        move = getattr(Path, method)

        def killed(path: Path, target: Path, move: Callable[..., Path] = move) -> Path:
            if name in str(path):
                os.kill(os.getpid(), signal.SIGKILL)
            return move(path, target)

        setattr(Path, method, killed)


def start(
    world: Path,
    output: Path,
    *,
    resume: bool = False,
    kill_at: tuple[str, int, str] | str = "",
    number: signal.Signals = signal.SIGKILL,
    overrides: tuple[str, ...] = (),
) -> BaseProcess:
    arguments = (world, output, resume, kill_at, number, overrides)
    process = FORK.Process(target=train, args=arguments)
    process.start()
    return process


def finish(
    world: Path, output: Path, *, resume: bool = False, overrides: tuple[str, ...] = ()
) -> None:
    process = start(world, output, resume=resume, overrides=overrides)
    process.join(DEADLINE)
    assert process.exitcode == 0


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REWARD_TUNING_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield write_world(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module")
def uninterrupted(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("whole") / "run"
    finish(world, output)
    return output


def assert_same(output: Path, expected: Path, without: str = "") -> None:
    """Adapter in every format, evaluation, checkpoints and rows, to the byte; no litter."""
    for path in sorted(expected.rglob("*")):
        name = path.relative_to(expected)
        if without and without in name.parts:
            continue
        same = ("lora", "evaluation.json")
        if name.parts[0] in same or name.name in ("adapter.safetensors", "ema.safetensors"):
            assert (output / name).is_file() == path.is_file()
            assert path.is_dir() or (output / name).read_bytes() == path.read_bytes(), name
    rows = [
        [(row["step"], row["loss"], row["grad_norm"]) for row in map(json.loads, text.splitlines())]
        for text in ((folder / "metrics.jsonl").read_text() for folder in (output, expected))
    ]
    assert rows[0] == rows[1]
    assert [p.name for p in (output / "checkpoints").iterdir() if p.name.startswith(".")] == []


KILLS = [
    ("samples", 0, "step 2 of 4"),  # begun, no checkpoint yet
    ("training", 2, "rollout"),  # right after the first checkpoint
    ".step-000004.tmp",  # while the second one is renamed
    ("evaluation of tuned", 0, "step 1 of 4"),
    ("loading", 0, "judges"),  # before the folder is begun
    ("training", 1, "sweep"),  # before the first checkpoint
    ("training", 3, "update"),
    ("training", 5, "reward"),
    ".lora.tmp",  # while the adapter is exported
]


@pytest.mark.parametrize("kill_at", KILLS, ids=str)
def test_killed(
    world: Path, tmp_path: Path, uninterrupted: Path, kill_at: tuple[str, int, str] | str
) -> None:
    output = tmp_path / "run"
    process = start(world, output, kill_at=kill_at)
    process.join(DEADLINE)
    assert process.exitcode == -signal.SIGKILL
    assert not (output / "evaluation.json").exists()
    begun = (output / "recipe.yaml").exists()
    assert begun == (kill_at != ("loading", 0, "judges"))
    finish(world, output, resume=begun)
    assert_same(output, uninterrupted)


def test_killed_at_any_moment_again_and_again(
    world: Path, tmp_path: Path, uninterrupted: Path
) -> None:
    """By the clock: each attempt is killed a little later than the one before got along."""
    output, patience, kills = tmp_path / "run", 0.3, 0
    while True:
        process = start(world, output, resume=(output / "recipe.yaml").exists())
        process.join(patience)
        process.kill()  # leaves one that has ended by then as it is
        process.join(DEADLINE)
        if process.exitcode != -signal.SIGKILL:
            break
        patience, kills = patience * 1.5, kills + 1
    assert process.exitcode == 0
    assert kills >= 2
    assert_same(output, uninterrupted)


WITH_EVERYTHING = (
    "train.steps=2",
    "train.checkpoint_every=1",
    "guards.every=1",
    "train.replay={weight: 0.5, clips: 2}",
)
WRITES = (  # in the order of the run
    "run/.recipe.yaml.",
    ".replay.safetensors.",
    "samples/step-000000/.01.",
    "samples/.prompts.json.",
    ".guards-base.safetensors.",
    "checkpoints/.best-000001.",
    ".guards.jsonl.",
    "checkpoints/.step-000001.",
    "checkpoints/.step-000002.",
    "/.original.safetensors.",
    "run/.lora.",
    "evaluation/step-000002/tuned/.01.",
    "samples/before-after/.00.",
    "run/.evaluation.json.",
    "run/.report.html.",
)


def test_killed_in_each_write_one_after_the_other(world: Path, tmp_path: Path) -> None:
    whole, output = tmp_path / "whole", tmp_path / "run"
    finish(world, whole, overrides=WITH_EVERYTHING)
    for name in WRITES:
        begun = (output / "recipe.yaml").exists()
        process = start(world, output, resume=begun, kill_at=name, overrides=WITH_EVERYTHING)
        process.join(DEADLINE)
        assert process.exitcode == -signal.SIGKILL, name
    finish(world, output, resume=True, overrides=WITH_EVERYTHING)
    assert_same(output, whole)
    files = [{p.relative_to(f) for p in f.rglob("*") if p.is_file()} for f in (output, whole)]
    assert {name for name in files[0] ^ files[1] if "events.out" not in name.name} == set()


@pytest.mark.parametrize(
    ("phase", "number", "code", "steps"),
    [
        ("sweep", signal.SIGTERM, 143, [2, 3]),  # the fourth step is given up
        ("update", signal.SIGINT, 130, [2, 4]),  # the fourth step is made to its end
        ("rollout", signal.SIGINT, 130, [2, 3]),
        ("reward", signal.SIGTERM, 143, [2, 3]),
    ],
)
def test_stopped_by_a_signal_with_a_checkpoint_of_the_last_step_made(
    world: Path,
    tmp_path: Path,
    uninterrupted: Path,
    phase: str,
    number: signal.Signals,
    code: int,
    steps: list[int],
) -> None:
    output = tmp_path / "run"
    process = start(world, output, kill_at=("training", 3, phase), number=number)
    process.join(DEADLINE)
    assert process.exitcode == code
    assert checkpoint_steps(output / "checkpoints") == steps
    finish(world, output, resume=True)
    # One more checkpoint, so that the oldest has gone.
    assert_same(output, uninterrupted, without="step-000002" if 3 in steps else "")


MATCHED = (
    "method={kind: nft, draws: 2}",
    "train.clips_per_prompt=2",
    "train.updates_per_rollout=2",
    "train.steps=3",
    "train.checkpoint_every=1",
)


@pytest.mark.parametrize(
    "kill_at",
    [("training", 2, "matching"), ("training", 1, "reward")],
    ids=str,
)
def test_killed_while_clips_are_matched(
    world: Path, tmp_path: Path, kill_at: tuple[str, int, str]
) -> None:
    finish(world, tmp_path / "whole", overrides=MATCHED)
    process = start(world, tmp_path / "run", kill_at=kill_at, overrides=MATCHED)
    process.join(DEADLINE)
    assert process.exitcode == -signal.SIGKILL
    finish(world, tmp_path / "run", resume=True, overrides=MATCHED)
    assert_same(tmp_path / "run", tmp_path / "whole")


REPLAY = ("train.replay={weight: 0.5, clips: 3, every: 2}",)


@pytest.mark.parametrize(
    "kill_at", [("replay clips", 0, "step 3 of 4"), ("training", 3, "replay")], ids=str
)
def test_killed_with_a_replay(
    world: Path, tmp_path: Path, kill_at: tuple[str, int, str], uninterrupted: Path
) -> None:
    """While its clips are sampled, and while they are replayed: the same clips, the same end."""
    whole, output = tmp_path / "whole", tmp_path / "run"
    finish(world, whole, overrides=REPLAY)
    process = start(world, output, kill_at=kill_at, overrides=REPLAY)
    process.join(DEADLINE)
    assert process.exitcode == -signal.SIGKILL
    kept = output / "replay.safetensors"
    assert kept.exists() == (kill_at[0] == "training")
    finish(world, output, resume=True, overrides=REPLAY)
    assert kept.read_bytes() == (whole / "replay.safetensors").read_bytes()
    assert_same(output, whole)
    lora = "lora/adapter_model.safetensors"
    with_replay, without = (load_file(folder / lora) for folder in (whole, uninterrupted))
    assert any(not torch.equal(tensor, without[name]) for name, tensor in with_replay.items())


def test_killed_between_two_updates_on_a_rollout(
    world: Path, tmp_path: Path, uninterrupted: Path
) -> None:
    """With a group, whose choice depends on the adapter, and a moving average of every update."""
    more = (
        "train.updates_per_rollout=2",
        "train.reuse_limit=null",
        "train.clips_per_prompt=2",
        "train.group={clips: 3, steps: 2}",
        "train.steps=4",
    )
    whole, output = tmp_path / "whole", tmp_path / "run"
    finish(world, whole, overrides=more)
    process = start(world, output, kill_at=("training", 2, "sweep again"), overrides=more)
    process.join(DEADLINE)
    assert process.exitcode == -signal.SIGKILL
    finish(world, output, resume=True, overrides=more)
    assert_same(output, whole)
    rows = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
    assert [row["further"]["updates"] for row in rows] == [1, 1, 1, 1]
    lora = "lora/adapter_model.safetensors"
    found, plain = (load_file(folder / lora) for folder in (output, uninterrupted))
    assert any(not torch.equal(tensor, plain[name]) for name, tensor in found.items())


def test_other_clips_than_the_checkpoint_saw_are_refused(world: Path, tmp_path: Path) -> None:
    """Whole, of the right origin, and yet not those that the run was trained on."""
    output = tmp_path / "run"
    process = start(world, output, kill_at=("training", 4, "reward"), overrides=REPLAY)
    process.join(DEADLINE)
    file = output / "replay.safetensors"
    with safe_open(file, "pt") as opened:
        made_of = json.loads(opened.metadata()["about"])["made_of"]
        latents = opened.get_tensor("latents")
    keep(file, latents + 1, made_of)
    with pytest.raises(TuningError, match=r"replay clips: was sha256:\w+, is sha256:"):
        run(tiny_recipe(world, output, *OVERRIDES, *REPLAY), resume=True)


@pytest.fixture
def interrupted(world: Path, tmp_path: Path) -> Path:
    """A run that was killed after its second checkpoint."""
    output = tmp_path / "run"
    process = start(world, output, kill_at=("training", 4, "reward"))
    process.join(DEADLINE)
    assert process.exitcode == -signal.SIGKILL
    return output


def test_a_changed_recipe_is_refused(world: Path, interrupted: Path) -> None:
    """Also where the run's own recipe.yaml was edited."""
    other = tiny_recipe(world, interrupted, "train.learning_rate=0.5", *OVERRIDES)
    with pytest.raises(TuningError, match=r"learning_rate: was 0.01, is 0.5"):
        run(other, resume=True)
    kept = interrupted / "recipe.yaml"
    kept.write_text(kept.read_text().replace("learning_rate: 0.01", "learning_rate: 0.5"))
    with pytest.raises(TuningError, match=r"learning_rate: was 0.01, is 0.5"):
        run(other, resume=True)


def test_changed_weights_are_refused(world: Path, interrupted: Path) -> None:
    file = world / "judge" / "flat.safetensors"
    before = file.read_bytes()
    try:
        with safe_open(file, "pt") as opened:
            metadata = opened.metadata()
        state = load_file(file)
        state["logit_scale"] = state["logit_scale"] + 1
        save_file(state, file, metadata)
        with pytest.raises(TuningError, match=r"weights of.clip: was sha256:\w+, is sha256:"):
            run(tiny_recipe(world, interrupted, *OVERRIDES), resume=True)
    finally:
        file.write_bytes(before)


def test_a_judge_that_changed_before_the_first_checkpoint_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The hashes in the head of recipe.yaml say what the run began with."""
    monkeypatch.setenv("REWARD_TUNING_CACHE", str(tmp_path / "cached"))
    world = write_world(tmp_path / "world")
    mine = world / "mine.py"
    text = "class Mine:\n    def __call__(self, frames, prompts):\n        return frames{}\n"
    mine.write_text(text.format(".mean((1, 2, 3, 4))"))
    judge = f"rewards.0={{kind: python, checkpoint: {mine}, name: my own}}"
    recipe = tiny_recipe(world, tmp_path / "run", judge, *OVERRIDES)
    folder = RunFolder(tmp_path / "run")
    folder.root.mkdir()
    folder.begin(recipe, fingerprints_of(recipe))
    begun = folder.initial_fingerprints()
    assert begun["my own"] == f"sha256:{hashlib.sha256(mine.read_bytes()).hexdigest()}"
    prompts = {"text encoder", "prompts.train", "prompts.held_out"}
    assert set(begun) == {"generator", "my own", "clip_held_out", *prompts}
    mine.write_text(text.format(".amax((1, 2, 3, 4))"))
    with pytest.raises(TuningError, match=r"weights of.my own: was sha256:\w+, is sha256:"):
        run(recipe, resume=True)


def notes_of(world: Path, output: Path, *overrides: str) -> list[str]:
    """Resume in this process; the lines that were left standing."""
    notes: list[str] = []
    run(
        tiny_recipe(world, output, *OVERRIDES, *overrides),
        resume=True,
        progress=lambda event: notes.append(event.note),
    )
    return [note for note in notes if note]


def test_a_damaged_checkpoint_is_told_and_the_one_before_it_serves(
    world: Path, interrupted: Path, uninterrupted: Path
) -> None:
    file = interrupted / "checkpoints" / "step-000004" / "optimiser.pt"
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    notes = notes_of(world, interrupted)
    assert "step-000004 is damaged (optimiser.pt:" in notes[0]
    assert notes[0].endswith("using the one before it")
    assert "continuing after step 2" in notes
    assert_same(interrupted, uninterrupted)


def test_where_every_checkpoint_is_damaged_nothing_is_guessed(
    world: Path, interrupted: Path
) -> None:
    for folder in (interrupted / "checkpoints").iterdir():
        (folder / "rng.pt").write_bytes(b"")
    with pytest.raises(
        TuningError, match=r"no other checkpoint is intact.*delete .*checkpoints and"
    ):
        run(tiny_recipe(world, interrupted, *OVERRIDES), resume=True)


@pytest.mark.parametrize("key", ["train", "held_out"])
def test_changed_prompts_are_refused_by_the_file(world: Path, interrupted: Path, key: str) -> None:
    file = world / {"train": "train.txt", "held_out": "held.txt"}[key]
    before = file.read_text(encoding="utf-8")
    try:
        file.write_text(before.replace("ball", "bell"), encoding="utf-8")
        with pytest.raises(TuningError) as refused:
            run(tiny_recipe(world, interrupted, *OVERRIDES), resume=True)
    finally:
        file.write_text(before, encoding="utf-8")
    assert f"prompts.{key} ({file}): was sha256:" in str(refused.value)
    assert str(refused.value).count(": was ") == 1


def test_another_version_of_a_library_is_told(
    world: Path, interrupted: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    others = {**versions(), "torch": "99.0"}
    monkeypatch.setattr("reward_tuning.runs.resuming.versions", lambda: others)
    notes = notes_of(world, interrupted)
    assert f"torch {versions()['torch']} -> 99.0" in notes[0]
    assert sum("library versions changed" in note for note in notes) == 1


def test_a_finished_run_goes_on_to_more_steps(
    world: Path, tmp_path: Path, uninterrupted: Path
) -> None:
    """Four steps and then two more end in the bytes of six."""
    output = tmp_path / "run"
    finish(world, output, overrides=("train.steps=4",))
    before = (output / "evaluation.json").read_bytes()
    assert notes_of(world, output, "train.steps=4", "train.log_every=3") == []  # finished
    with pytest.raises(TuningError, match=r"train\.steps: got 3, but the run has made 4"):
        run(tiny_recipe(world, output, *OVERRIDES, "train.steps=3"), resume=True)
    assert (output / "evaluation.json").read_bytes() == before
    finish(world, output, resume=True)
    assert_same(output, uninterrupted)
    assert (output / "evaluation-step-000004.json").read_bytes() == before
    assert load_recipe(output / "recipe.yaml").train.steps == 6


@pytest.mark.parametrize("removed", [False, True])
def test_a_folder_that_goes_away_ends_the_run(world: Path, tmp_path: Path, removed: bool) -> None:
    """And no half one is left in its place; one that was moved goes on where it is."""
    output, moved = tmp_path / "run", tmp_path / "moved"

    def progress(event: ProgressEvent) -> None:
        if (event.stage, event.done, event.phase) == ("training", 2, "sweep"):
            if removed:
                shutil.rmtree(output)
            else:
                output.rename(moved)

    with pytest.raises(TuningError, match=f"{output} was moved or removed while the run"):
        run(tiny_recipe(world, output, *OVERRIDES), progress=progress)
    assert not output.exists()
    if not removed:
        assert "continuing after step 2" in notes_of(world, moved)


def test_killed_with_kept_graphs(world: Path, tmp_path: Path) -> None:
    """How many are kept is measured anew by the resumed run, and comes to the same."""
    whole, output = tmp_path / "whole", tmp_path / "run"
    overrides = ("train.keep_graphs=auto",)
    finish(world, whole, overrides=overrides)
    process = start(world, output, kill_at=("training", 3, "reward"), overrides=overrides)
    process.join(DEADLINE)
    assert process.exitcode == -signal.SIGKILL
    finish(world, output, resume=True, overrides=overrides)
    assert_same(output, whole)
    kept = [
        json.loads(row)["rollout"]["kept_steps"]
        for row in (output / "metrics.jsonl").read_text().splitlines()
    ]
    assert min(kept) > 0
