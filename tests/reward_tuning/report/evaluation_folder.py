"""Folders as runs and `evaluate` leave them, with small clips whose frames can be told apart."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from reward_tuning.files.mp4_file import write_mp4

EVIL = "<img src=x onerror=\"document.title='run'\"> a star </script><b>bold</b>"
METRICS = {"clip_held_out": 0.5, "hps": 0.8, "motion": 0.01}
CATEGORIES = ("animals", "people")


def write_clip_file(
    path: Path, shade: int, *, frames: int = 9, fps: float = 8.0, size: int = 32
) -> None:
    """Write frames that brighten, from a shade that names the clip."""
    video = np.full((frames, size, size, 3), shade, np.uint8)
    for number in range(frames):
        video[number, :, :, 0] = 20 * number
    path.parent.mkdir(parents=True, exist_ok=True)
    write_mp4(path, video, fps)


def change(base: Sequence[float], now: Sequence[float]) -> dict[str, Any]:
    mean = sum(b - a for a, b in zip(base, now, strict=True)) / len(base)
    return {"mean": mean, "low": mean - 0.01, "high": mean + 0.01, "prompts": len(base)} | {
        "up": len(base),
        "down": 0,
        "p": 0.01,
        "p_adjusted": 0.02,
    }


def scores_of(prompt: int, metric: str, strength: float) -> float:
    """Score of a prompt: even prompts gain, odd ones lose, later ones more."""
    gain = strength * 0.01 * (prompt + 1) * (-1) ** prompt
    return METRICS[metric] * (1 + gain)


def write_evaluation(
    folder: Path,
    *,
    prompts: int = 6,
    strengths: Sequence[float] = (0.5, 1.0, 1.5),
    size: int = 32,
    other_steps: bool = False,
) -> Path:
    """Write evaluation.json of format 2 and its clips; return the folder."""
    sides: list[dict[str, Any]] = []

    def add(strength: float, against: int | None, steps: int = 16, *, clips: bool = True) -> None:
        name = f"strength {strength:g}, {steps} steps" if strength else f"base, {steps} steps"
        scores = {m: [scores_of(i, m, strength) for i in range(prompts)] for m in METRICS}
        side: dict[str, Any] = {
            "name": name,
            "adapter": "lora" if strength else None,
            "adapter_sha256": None,
            "strength": strength,
            "steps": steps,
            "guidance_scale": 5.0,
            "scores": scores,
            "means": {m: sum(of) / prompts for m, of in scores.items()},
            "against": against,
            "clips": {},
        }
        if against is not None:
            base = sides[against]["scores"]
            side["difference"] = {m: change(base[m], scores[m]) for m in METRICS}
        for index in range(prompts if clips else 0):
            relative = f"clips/{len(sides)}/{index:02d}.mp4"
            write_clip_file(folder / relative, (20 + 8 * index + 30 * len(sides)) % 256, size=size)
            side["clips"][str(index)] = relative
        sides.append(side)

    add(0.0, None)
    for strength in strengths:
        add(strength, 0)
    if other_steps:
        add(0.0, None, 8, clips=False)
        add(1.0, len(sides) - 1, 8, clips=False)
    questions = [
        {
            "prompt": f"a fox number {i}" if i != 1 else EVIL,
            "reward_prompt": "a fox",
            "category": CATEGORIES[i % 2],
            "seed": 100 + i,
        }
        for i in range(prompts)
    ]
    found = {
        "format": 2,
        "start": "base",
        "primary": "clip_held_out",
        "trained_on": ["hps"],
        "never_trained_on": ["clip_held_out"],
        "prompts": prompts,
        "seeds": 1,
        "questions": questions,
        "sides": sides,
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "evaluation.json").write_text(json.dumps(found))
    return folder


def metrics_rows(steps: int) -> list[dict[str, Any]]:
    """Rows of metrics.jsonl with two active steps of six."""
    return [
        {
            "step": step,
            "loss": -0.8,
            "reward": {"hps": 0.8 + 0.001 * step},
            "active_steps": [
                {"step": 1, "weight": 0.1, "grad_norm": 0.01, "adjoint_norm": 0.1},
                {"step": 2 + step % 2, "weight": 0.1, "grad_norm": 0.1, "adjoint_norm": 0.1},
            ],
            "motion": 0.3,
            "drift": None,
            "grad_norm": 0.1,
            "seconds": {"rollout": 1.0, "sweep": 0.5, "step": 1.5},
            "memory": {"rollout": 10**9, "sweep": 2 * 10**9},
        }
        for step in range(1, steps + 1)
    ]


def guard_rows() -> list[dict[str, Any]]:
    """Rows of guards.jsonl; the rule of motion warns at the second."""
    fired = [{"rule": "motion", "action": "warn", "text": "motion fell"}]
    return [
        {
            "step": step,
            "seconds": 1.0,
            "reward": {"before": 0.8, "now": 0.81},
            "measures": {
                name: {"base": 0.5, "now": 0.51, "mean": 0.01, "low": 0.0, "high": 0.02}
                for name in ("hps", "clip_held_out")
            },
            "motion": 0.9 - 0.01 * step,
            "diversity": 0.95,
            "drift": 0.1,
            "fired": fired if step == 20 else [],
            "best": 10,
        }
        for step in (10, 20)
    ]


def write_rows(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))


def write_run(folder: Path, recipe: str) -> Path:
    """Write a finished run with guards; return the folder."""
    write_evaluation(folder, other_steps=True)
    path = folder / "evaluation.json"
    found = json.loads(path.read_text())
    found["checkpoint"] = {"step": 10, "of": 20, "chosen_by": "clip_held_out", "text": "Chosen: 10"}
    path.write_text(json.dumps(found))
    write_rows(folder / "metrics.jsonl", metrics_rows(20))
    write_rows(folder / "guards.jsonl", guard_rows())
    (folder / "recipe.yaml").write_text(f"# torch 2.0\n# generator sha256:abc\n{recipe}")
    return folder
