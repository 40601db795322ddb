"""Checkpoints: exact, whole or absent, pruned only when replaced."""

import json
import multiprocessing
import os
import random
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from reward_tuning.errors import TuningError
from reward_tuning.runs import checkpoints as checkpointing
from reward_tuning.runs.checkpoints import (
    DamagedCheckpointError,
    RunCheckpoint,
    complete_checkpoints,
    read_checkpoint,
    rng_state,
    save_checkpoint,
    set_rng_state,
)
from reward_tuning.runs.folder import RunFolder
from tests.reward_tuning.full_disk import largest_file

FORK = multiprocessing.get_context("forkserver")
FORK.set_forkserver_preload(["tests.reward_tuning.runs.test_checkpoints"])
KILLED = 9


def trained(steps: int = 3) -> tuple[nn.Parameter, torch.optim.AdamW]:
    parameter = nn.Parameter(torch.linspace(-1, 1, 6))
    optimiser = torch.optim.AdamW([parameter], lr=0.1, eps=1e-10)
    for step in range(steps):
        parameter.grad = torch.sin(parameter.detach() * 7 + step)
        optimiser.step()
    return parameter, optimiser


def checkpoint(step: int, **changes: Any) -> RunCheckpoint:
    parameter, optimiser = trained()
    values: dict[str, Any] = {
        "step": step,
        "position": 8 * step,
        "bad_steps": 2,
        "bad_in_a_row": 1,
        "adapter": {"a.lora_A.weight": parameter.detach()},
        "optimiser": optimiser.state_dict(),
        "rng": rng_state(),
        "recipe": {"seed": 3, "train": {"betas": [0.9, 0.999]}},
        "fingerprints": {"generator": "sha256:ab"},
        "ema": {"a.lora_A.weight": parameter.detach() / 3},
        "ema_updates": 3,
        **changes,
    }
    return RunCheckpoint(**values)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_everything_comes_back_bit_for_bit(tmp_path: Path) -> None:
    saved = checkpoint(20)
    found = read_checkpoint(save_checkpoint(tmp_path, saved, keep=3))
    for name in ("step", "position", "bad_steps", "bad_in_a_row", "ema_updates", "recipe"):
        assert getattr(found, name) == getattr(saved, name)
    assert found.fingerprints == saved.fingerprints
    assert torch.equal(found.adapter["a.lora_A.weight"], saved.adapter["a.lora_A.weight"])
    assert found.ema is not None
    assert saved.ema is not None
    assert torch.equal(found.ema["a.lora_A.weight"], saved.ema["a.lora_A.weight"])


def test_the_optimiser_goes_on_as_if_nothing_had_happened(tmp_path: Path) -> None:
    whole, _ = trained(6)
    path = save_checkpoint(tmp_path, checkpoint(3), keep=3)
    found = read_checkpoint(path)
    parameter = nn.Parameter(found.adapter["a.lora_A.weight"].clone())
    optimiser = torch.optim.AdamW([parameter], lr=0.1, eps=1e-10)
    optimiser.load_state_dict(dict(found.optimiser))
    for step in range(3, 6):
        parameter.grad = torch.sin(parameter.detach() * 7 + step)
        optimiser.step()
    assert torch.equal(parameter, whole)


def test_without_a_moving_average(tmp_path: Path) -> None:
    assert read_checkpoint(save_checkpoint(tmp_path, checkpoint(1, ema=None), keep=1)).ema is None


def test_random_generators_go_on(tmp_path: Path) -> None:
    before = rng_state()
    try:
        path = save_checkpoint(tmp_path, checkpoint(1), keep=1)
        drawn = [random.random(), float(np.random.rand()), float(torch.rand(()))]
        set_rng_state(read_checkpoint(path).rng)
        assert [random.random(), float(np.random.rand()), float(torch.rand(()))] == drawn
    finally:
        set_rng_state(before)


def test_keeps_the_newest(tmp_path: Path) -> None:
    for step in (5, 10, 15, 1_000_000):
        save_checkpoint(tmp_path, checkpoint(step), keep=2)
    assert names(tmp_path) == ["step-000015", "step-1000000"]
    assert [read_checkpoint(p).step for p in complete_checkpoints(tmp_path)] == [15, 1_000_000]


def test_a_half_written_checkpoint_is_ignored_and_swept_away(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, checkpoint(5), keep=2)
    half = tmp_path / ".step-000010.tmp-1"
    half.mkdir()
    (half / "adapter.safetensors").touch()
    assert [path.name for path in complete_checkpoints(tmp_path)] == ["step-000005"]
    save_checkpoint(tmp_path, checkpoint(10), keep=2)
    assert names(tmp_path) == ["step-000005", "step-000010"]


@pytest.mark.parametrize("size", [16, 200, 900, 2500])
def test_a_full_disk_leaves_the_earlier_checkpoint(tmp_path: Path, size: int) -> None:
    """Full in the adapter, in the average, in the optimiser, in the generators' state."""
    earlier = save_checkpoint(tmp_path, checkpoint(5), keep=1)
    before = {path.name: path.read_bytes() for path in earlier.iterdir()}
    with (
        largest_file(size),
        pytest.raises(TuningError, match=r"step-000010 could not be written.*free some space"),
    ):
        save_checkpoint(tmp_path, checkpoint(10), keep=1)
    assert names(tmp_path) == ["step-000005"]
    assert {path.name: path.read_bytes() for path in earlier.iterdir()} == before


def test_nothing_is_pruned_before_the_new_one_is_in_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_checkpoint(tmp_path, checkpoint(5), keep=1)

    def stop(path: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(checkpointing, "_sync_folder", stop)
    with pytest.raises(KeyboardInterrupt):
        save_checkpoint(tmp_path, checkpoint(10), keep=1)
    assert names(tmp_path) == ["step-000005"]


def save_and_die(folder: Path, step: int, before: int) -> None:
    """Save a checkpoint, and end without a word before the n-th thing that is done to the disk."""
    torch.set_num_threads(1)
    done = 0

    def look(event: str, of: tuple[Any, ...]) -> None:
        nonlocal done
        if event.startswith(("os.", "shutil.")) or event == "open":
            at = of[0] if of else None
            # Deletions name their files relative to an open folder.
            inside = isinstance(at, str | Path) and str(folder) in str(at)
            if inside or event in ("os.remove", "os.rmdir"):
                if done == before:
                    os._exit(KILLED)
                done += 1

    saved = checkpoint(step, bad_steps=7)
    sys.addaudithook(look)
    save_checkpoint(folder, saved, keep=1)
    os._exit(0)


def die_at_each_point(root: Path, step: int) -> None:
    """Save after a checkpoint of step 5, in a folder and a process for each point of the save."""
    torch.set_num_threads(1)
    for before in range(99):
        folder = RunFolder(root / f"{before:02d}").checkpoints
        save_checkpoint(folder, checkpoint(5), keep=1)
        child = os.fork()
        if not child:
            save_and_die(folder, step, before)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if code != KILLED:
            os._exit(code)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="processes are forked")
@pytest.mark.parametrize("step", [5, 6])
def test_killed_at_any_point_of_a_save_there_is_a_whole_checkpoint(
    tmp_path: Path, step: int
) -> None:
    """Also of the step that is saved once more, and that is the only one."""
    process = FORK.Process(target=die_at_each_point, args=(tmp_path, step))
    process.start()
    process.join()
    assert process.exitcode == 0
    seen: list[tuple[int, int]] = []
    for place in sorted(tmp_path.iterdir()):
        run = RunFolder(place)
        run.remove_leftovers()
        found = [read_checkpoint(path) for path in complete_checkpoints(run.checkpoints)]
        assert len(found) == len(names(run.checkpoints))
        seen.append((found[-1].step, found[-1].bad_steps))
    assert len(seen) > 20
    assert seen == sorted(seen)
    assert {*seen} == {(5, 2), (step, 7)}


def test_a_save_that_fails_puts_the_checkpoint_of_its_step_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_checkpoint(tmp_path, checkpoint(5), keep=1)
    rename = Path.rename

    def refused(path: Path, to: Path) -> Path:
        if ".tmp-" in path.name:
            raise OSError("no space")
        return rename(path, to)

    monkeypatch.setattr(Path, "rename", refused)
    with pytest.raises(TuningError, match="no space"):
        save_checkpoint(tmp_path, checkpoint(5, bad_steps=7), keep=1)
    assert names(tmp_path) == ["step-000005"]
    assert read_checkpoint(tmp_path / "step-000005").bad_steps == 2


@pytest.mark.parametrize(
    "name", ["adapter.safetensors", "ema.safetensors", "optimiser.pt", "rng.pt"]
)
@pytest.mark.parametrize("share", [0.0, 0.5])
def test_a_truncated_checkpoint_is_told(tmp_path: Path, name: str, share: float) -> None:
    path = save_checkpoint(tmp_path, checkpoint(5), keep=1)
    data = (path / name).read_bytes()
    (path / name).write_bytes(data[: int(len(data) * share)])
    with pytest.raises(TuningError, match=r"step-000005 is damaged"):
        read_checkpoint(path)


@pytest.mark.parametrize(
    "name", ["adapter.safetensors", "ema.safetensors", "optimiser.pt", "rng.pt", "state.json"]
)
def test_one_flipped_bit_is_told(tmp_path: Path, name: str) -> None:
    path = save_checkpoint(tmp_path, checkpoint(5), keep=1)
    data = bytearray((path / name).read_bytes())
    # of state.json a digit of the position, 40, which makes it 50
    place = data.index(b'"position": 4') + 12 if name == "state.json" else len(data) * 3 // 4
    data[place] ^= 1
    (path / name).write_bytes(data)
    with pytest.raises(DamagedCheckpointError, match=f"{name}: .* checksum"):
        read_checkpoint(path)


def test_every_flipped_bit_of_the_state_is_damage(tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path, checkpoint(5), keep=1)
    whole = (path / "state.json").read_bytes()
    for place in range(8 * len(whole)):
        data = bytearray(whole)
        data[place // 8] ^= 1 << place % 8
        try:
            if json.loads(data) == json.loads(whole):  # 1e-05 and 1E-05
                continue
        except ValueError:
            pass
        (path / "state.json").write_bytes(data)
        with pytest.raises(DamagedCheckpointError):
            read_checkpoint(path)


def test_a_checkpoint_without_checksums_is_no_damaged_one(tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path, checkpoint(5), keep=1)
    state = json.loads((path / "state.json").read_text())
    del state["sha256"], state["files"]
    (path / "state.json").write_text(json.dumps(state))
    with pytest.raises(TuningError, match="an older reward-tuning wrote it") as found:
        read_checkpoint(path)
    assert not isinstance(found.value, DamagedCheckpointError)


@pytest.mark.parametrize("text", ["", "{}", '{"step": 5, "sha256": ""}', "[1]"])
def test_a_damaged_state_is_told(tmp_path: Path, text: str) -> None:
    path = save_checkpoint(tmp_path, checkpoint(5), keep=1)
    (path / "state.json").write_text(text)
    with pytest.raises(TuningError, match="is damaged"):
        read_checkpoint(path)
