"""A run folder as a training leaves it while it works, without a training."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import psutil

from reward_tuning.runs.status import FORMAT


def write_status(root: Path, **changes: Any) -> None:
    """A run of this process in the middle of step 3 of 9."""
    status = {
        "format": FORMAT,
        "state": "running",
        "message": "",
        "stage": "training",
        "phase": "sweep",
        "done": 2,
        "total": 9,
        "step": 2,
        "steps": 9,
        "seconds_per_step": 10.0,
        "left": 70.0,
        "began": time.time() - 30,
        "time": time.time(),
        "pid": os.getpid(),
        "started": psutil.Process().create_time(),
    }
    root.mkdir(parents=True, exist_ok=True)
    (root / "status.json").write_text(json.dumps(status | changes))


def append(path: Path, row: dict[str, Any] | str) -> None:
    text = row if isinstance(row, str) else json.dumps(row) + "\n"
    with path.open("a") as file:
        file.write(text)


def metrics_row(step: int, reward: float = 0.5) -> dict[str, Any]:
    seconds = {"rollout": 1.0, "step": 3.0}
    return {"step": step, "loss": -reward, "reward": {"hps": reward}, "seconds": seconds}


def write_run(root: Path, steps: int = 2, prompt: str = "a red ball") -> Path:
    """Recipe, status, rows of the first steps, and a clip of the base that no browser can play."""
    write_status(root)
    (root / "recipe.yaml").write_text("# torch 2.15.0\n# processes 2\nseed: 3\n")
    for step in range(1, steps + 1):
        append(root / "metrics.jsonl", metrics_row(step))
    write_clip(root, 0, b"clip of the base")
    (root / "samples" / "prompts.json").write_text(
        json.dumps([{"file": "00.mp4", "prompt": prompt, "seed": 1}])
    )
    return root


def write_clip(root: Path, step: int, content: bytes, name: str = "00.mp4") -> Path:
    path = root / "samples" / f"step-{step:06d}" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path
