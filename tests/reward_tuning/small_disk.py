"""Runs on a small file system that fills up, or becomes read-only, at a given moment.

    unshare --map-root-user --mount python -m tests.reward_tuning.small_disk WORLD PLACE

In a mount namespace of its own, so that the file system goes with the process. Each run must end in
an error that names the file, and resume, once there is space again, into the bytes of a run that
had enough. Prints one JSON object: moment to message, or to what is wrong.
"""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch

from reward_tuning.errors import TuningError
from reward_tuning.progress import ProgressEvent
from reward_tuning.tuning import finish
from reward_tuning.tuning.finish import export_every_format
from reward_tuning.tuning.trainer import run
from tests.reward_tuning.tiny_run import tiny_recipe

SIZE = 4_000_000
SHORT = (
    "train.steps=2",
    "train.checkpoint_every=1",
    "train.sample_every=1",
    "evaluation.prompts=2",
    "evaluation.seeds=1",
    "tracking=[]",  # whose file would fill up first
)
MOMENTS = {
    "samples": ("samples", 1, ""),
    "checkpoint": ("training", 1, "update"),
    "export": ("", 0, ""),  # no event comes between the last checkpoint and the export
    "evaluation": ("evaluation of tuned", 1, ""),
    "read-only": ("training", 1, "update"),
}


def fill(place: Path) -> Callable[[], None]:
    """Leave no free block; return what frees them."""
    filler = place / "filler"
    with filler.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError as error:
            assert error.errno == errno.ENOSPC
    return filler.unlink


def make_read_only(folder: Path) -> Callable[[], None]:
    """Let nothing be written in a folder, not even by root."""
    folder.mkdir(exist_ok=True)
    mount("--bind", folder, folder)
    mount("-o", "remount,bind,ro", folder)

    def writable_again() -> None:
        subprocess.run(["umount", str(folder)], check=True)

    return writable_again


def mount(*words: str | Path) -> None:
    subprocess.run(["mount", *map(str, words)], check=True)


def same(one: Path, two: Path) -> bool:
    names = ("lora/adapter_model.safetensors", "lora/original.safetensors", "evaluation.json")
    return all((one / name).read_bytes() == (two / name).read_bytes() for name in names)


def outcome(world: Path, place: Path, moment: str, whole: Path) -> str:
    """Run until the moment, free the space, resume; return the message of the error."""
    output, free = place / moment, list[Callable[[], None]]()

    def strike() -> None:
        if not free:
            read_only = moment == "read-only"
            free.append(make_read_only(output / "checkpoints") if read_only else fill(place))

    def progress(event: ProgressEvent) -> None:
        stage, done, phase = MOMENTS[moment]
        if event.stage == stage and event.done >= done and phase in ("", event.phase):
            strike()

    def export(*given: Any) -> None:
        if moment == "export":
            strike()
        export_every_format(*given)

    with patch.object(finish, "export_every_format", export):
        try:
            run(tiny_recipe(world, output, *SHORT), progress=progress)
            return "WRONG: nothing has failed"
        except TuningError as error:
            text = str(error)
    free[0]()
    run(tiny_recipe(world, output, *SHORT), resume=True)
    if not same(output, whole):
        return "WRONG: the resumed run ends in other bytes"
    if litter := [str(path) for path in output.rglob(".*") if path.name != ".lock"]:
        return f"WRONG: left behind: {litter}"
    return text


def main() -> None:
    world, place = map(Path, sys.argv[1:])
    torch.set_num_threads(1)
    os.environ["REWARD_TUNING_CACHE"] = str(world / "cache")
    run(tiny_recipe(world, world / "whole", *SHORT))
    mount("-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", place)
    found = {moment: outcome(world, place, moment, world / "whole") for moment in MOMENTS}
    print(json.dumps(found))


if __name__ == "__main__":
    main()
