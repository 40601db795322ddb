"""A recipe in training, step by step against a clock, and measured whenever one wants."""

from __future__ import annotations

import resource
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from reward_tuning.judges.loading import load_judges
from reward_tuning.progress import silent
from reward_tuning.schema.loading import load_recipe
from reward_tuning.schema.recipe import Recipe
from reward_tuning.tuning.evaluation import SideScores, evaluate
from reward_tuning.tuning.parts import load_parts, with_replay
from reward_tuning.tuning.sigma_tables import evaluation_sigmas
from reward_tuning.tuning.trainer import optimiser_step, start

JUDGES = "tiny-drtune-hps"
"""The recipe whose judges and sampler measure every run, whatever it was trained on."""

CLOCKS: dict[str, Callable[[], float]] = {
    "wall": time.perf_counter,
    "process": time.process_time,
}


class Trainee:
    """One training on the embedded generator.

    Args:
        recipe: A shipped one.
        overrides: Of the recipe.
        seed: Of adapter, prompts and noise.
        clock: A key of `CLOCKS`; `process` runs on one thread.
        prompts: Held-out ones to measure on.
        measuring: The recipe whose judges and sampler measure; None is that of `JUDGES`.

    Attributes:
        seconds: Spent in optimiser steps, on the clock.
        peak_bytes: Most memory of the process, or of the device.
        curve: Seconds and mean training reward after each step, where the loop tells it.
    """

    def __init__(
        self,
        recipe: str,
        overrides: Sequence[str],
        *,
        seed: int,
        clock: str,
        prompts: int,
        measuring: Recipe | None = None,
    ) -> None:
        if clock == "process":
            torch.set_num_threads(1)
        self.clock = CLOCKS[clock]
        common = [f"seed={seed}", f"evaluation.prompts={prompts}"]
        self.recipe = load_recipe(recipe, [*overrides, *common])
        self.accelerator = Accelerator()
        device = self.accelerator.device
        parts = load_parts(self.recipe, device, sys.maxsize, silent)
        with tempfile.TemporaryDirectory() as folder:
            kept = Path(folder) / "replay.safetensors"
            self.parts = with_replay(self.recipe, parts, kept, self.accelerator, silent)
        self.state = start(self.recipe, self.parts)
        measuring = measuring or load_recipe(JUDGES)
        self.sigmas = evaluation_sigmas(measuring)
        sections = [*measuring.rewards, *measuring.evaluation.held_out_rewards]
        known = {section.label for section in sections}
        sections += [  # what it is trained on, as far as that sees clips
            section
            for section in self.recipe.rewards
            if section.label not in known and section.kind != "latent"
        ]
        self.judges = load_judges(sections, self.recipe.sampling.frames, device)
        self.seconds = 0.0
        self.peak_bytes = 0
        self.curve: list[tuple[float, float]] = []

    def step(self) -> dict[str, Any]:
        """Make one update on the clock; what it says of it, such as a row of metrics.jsonl."""
        began = self.clock()
        row = self.update()
        self.seconds += self.clock() - began
        if "reward" in row:
            self.curve.append((self.seconds, sum(row["reward"].values()) / len(row["reward"])))
        resident = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        self.peak_bytes = max(self.peak_bytes, resident, *row.get("memory", {}).values())
        return row

    def update(self) -> dict[str, Any]:
        """Make one update; its row of metrics.jsonl."""
        return optimiser_step(self.recipe, self.parts, self.state, self.accelerator)

    def measure(self, clips: int, *, base: bool = False, keep_clips: int = 0) -> SideScores:
        """Score held-out prompts with the adapter as it is, or without.

        Args:
            clips: Of each prompt.
            base: Without the adapter.
            keep_clips: Return the first clip of so many prompts.
        """
        return evaluate(
            self.parts.sampler,
            None if base else self.adapter(),
            dict(enumerate(self.parts.held_out)),
            self.judges,
            self.sigmas,
            seed=self.recipe.seed,
            seeds=clips,
            batch_size=8,
            keep_clips=keep_clips,
            oracle=True,
        )

    def adapter(self) -> Mapping[str, Tensor]:
        """What would be exported now."""
        return self.state.exported(self.parts.trained)
