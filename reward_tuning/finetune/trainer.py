"""A fine-tuning from beginning to end: look at the clips, train, measure, export.

A step draws its batches, noise levels and dropout by its number, so a resumed run ends in the bytes
of an uninterrupted one. Several processes, started by `accelerate launch`, share each step; only
the main one writes files.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from base_model.training.velocity_loss import norm_limit
from reward_tuning.errors import TuningError
from reward_tuning.finetune.exporting import export_trained
from reward_tuning.finetune.parts import FinetuneParts, load_finetune_parts
from reward_tuning.finetune.recipe import FinetuneRecipe, load_finetune_recipe
from reward_tuning.finetune.state import FinetuneState, restore, save
from reward_tuning.finetune.step import HELD_OUT_LEVELS, held_out_loss, training_loss
from reward_tuning.metrics import MetricsLog, PhaseClock
from reward_tuning.progress import ProgressEvent, ProgressFn, silent
from reward_tuning.ranks import mean_gradient, mean_of_all
from reward_tuning.run_folder import RunFolder
from reward_tuning.whole_file import write_whole


class FinetuneFolder(RunFolder):
    """The run folder of a fine-tuning: `finetune.json` is the mark of a finished one.

    `recipe.yaml`, `metrics.jsonl`, `checkpoints/` and `lora/` are as in every run; `clips.json`
    says which clips cannot be used, `base.json` the held-out loss before training; with lora: null
    `generator/` is the trained checkpoint.
    """

    def __init__(self, root: str | Path) -> None:
        super().__init__(root, lambda path: load_finetune_recipe(path, check_files=False))

    @property
    def evaluation(self) -> Path:
        """Loss of the held-out clips before and after, and how many clips were used."""
        return self.root / "finetune.json"

    @property
    def clips(self) -> Path:
        """Which clips can be used, and why others cannot."""
        return self.root / "clips.json"

    @property
    def base(self) -> Path:
        """The held-out loss before training."""
        return self.root / "base.json"

    @property
    def generator(self) -> Path:
        """The checkpoint with every weight trained."""
        return self.root / "generator"


@dataclass(frozen=True)
class FinetuneResult:
    """What a finished fine-tuning left.

    Attributes:
        folder: The run folder.
        summary: The content of finetune.json.
    """

    folder: Path
    summary: Mapping[str, Any]


def finetune(
    recipe: FinetuneRecipe, *, resume: bool = False, progress: ProgressFn = silent
) -> FinetuneResult:
    """Train what a recipe says on its clips, and export it into its run folder.

    Args:
        recipe: Resolved (`load_finetune_recipe`).
        resume: Go on with the run in the folder from its newest checkpoint. A finished run is
            returned as it is.
        progress: Told what happens, many times a step.

    Raises:
        TuningError: The folder holds a run already (or none to resume, or another recipe's), no
            clip can be used, the disk is full, or too many steps in a row were not finite.
        GeneratorError: The generator cannot be loaded.
    """
    accelerator = Accelerator(mixed_precision="no")
    main = accelerator.is_main_process
    progress = progress if main else silent
    folder = FinetuneFolder(recipe.output)
    with folder.alone() if main else nullcontext() as warning:
        if warning:
            progress(ProgressEvent("loading", note=warning))
        return _finetune_in(folder, recipe, accelerator, resume, progress)


def _finetune_in(
    folder: FinetuneFolder,
    recipe: FinetuneRecipe,
    accelerator: Accelerator,
    resume: bool,
    progress: ProgressFn,
) -> FinetuneResult:
    train, main = recipe.train, accelerator.is_main_process
    finished = folder.open(recipe, resume=resume)
    if finished is not None:
        return FinetuneResult(folder.root, finished)
    with accelerator.main_process_first():  # the others find the text states in the cache
        parts = load_finetune_parts(recipe, accelerator.device, progress)
    if main and not resume:
        folder.begin(recipe, parts.fingerprints)
        write_whole(folder.clips, parts.survey.report().encode())
    state = FinetuneState.start(recipe, parts.trained)
    if resume:
        restore(state, recipe, parts, folder)
        where = f"after step {state.step}" if state.step else "from the beginning: no checkpoint"
        progress(ProgressEvent("loading", note=f"going on {where}"))
    if main and not folder.base.exists():
        if state.step:
            raise TuningError(f"{folder.base} is missing; start a new run with another output")
        write_whole(folder.base, json.dumps(measure(recipe, parts, progress)).encode())
    log = MetricsLog(folder.metrics, state.step) if main else None
    try:
        while state.step < train.steps:
            row = optimiser_step(recipe, parts, state, accelerator, progress)
            due = state.step == train.steps
            if log and (due or state.step % train.log_every == 0):
                log.write(row)
            if state.bad_in_a_row >= train.max_bad_steps:
                raise TuningError(
                    f"{state.bad_in_a_row} steps in a row (up to step {state.step}) gave NaN or "
                    "infinity and were skipped; lower train.learning_rate, or take another "
                    "generator.dtype than float16, and start a new run"
                )
            if log and (due or state.step % train.checkpoint_every == 0):
                log.flush()
                save(state, recipe, parts, folder)
    finally:
        if log:
            log.close()
    return _finish(folder, recipe, parts, state, accelerator, progress)


def optimiser_step(
    recipe: FinetuneRecipe,
    parts: FinetuneParts,
    state: FinetuneState,
    accelerator: Accelerator,
    progress: ProgressFn = silent,
) -> dict[str, Any]:
    """Make one update, or skip it where loss or gradient is not finite.

    Returns:
        The step's row of metrics.jsonl.
    """
    train, step = recipe.train, state.step + 1
    clock = PhaseClock(
        accelerator.device,
        lambda name: progress(ProgressEvent("training", state.step, train.steps, name)),
    )
    state.optimiser.zero_grad(set_to_none=True)
    losses, shapes = [], []
    for number in batch_numbers(state.step, train.gradient_accumulation, accelerator):
        with clock("clips"):
            planned = parts.order(number)
            batch = parts.encoder(planned)
        with clock("gradient"):
            loss = training_loss(
                parts.generator,
                batch,
                recipe.flow,
                seed=recipe.seed,
                number=number,
                autocast_dtype=train.autocast,
            )
            (loss / train.gradient_accumulation).backward()
        losses.append(float(loss.detach()))
        shapes.append([len(batch.latents), planned.frames, planned.height, planned.width])
    with clock("update"):
        loss_mean = mean_of_all(losses, accelerator)
        mean_gradient(parts.trained.parameters, accelerator)
        limit = math.inf
        if train.max_grad_norm is not None:
            limit = norm_limit(
                state.step,
                train.max_grad_norm,
                first_ratio=train.first_norm_ratio,
                decay_steps=train.norm_decay_steps,
            )
        norm = float(nn.utils.clip_grad_norm_(parts.trained.parameters, limit))
        rate = train.learning_rate * min(1.0, step / max(1, train.warmup_steps))
        good = math.isfinite(loss_mean) and math.isfinite(norm)
        if good:
            for group in state.optimiser.param_groups:
                group["lr"] = rate
            state.optimiser.step()
            if state.ema is not None:
                state.ema.update(parts.trained.state())
    state.step = step
    state.position += train.gradient_accumulation * accelerator.num_processes
    state.bad_steps += not good
    state.bad_in_a_row = 0 if good else state.bad_in_a_row + 1
    if not good:
        note = f"step {step} skipped: loss {loss_mean}, gradient norm {norm}"
        progress(ProgressEvent("training", step, train.steps, note=note))
    progress(ProgressEvent("training", step, train.steps, "", {"loss": loss_mean}))
    return {
        "step": step,
        "loss": loss_mean,
        "grad_norm": norm,
        "learning_rate": rate,
        "epoch": state.position / parts.order.epoch,
        "batches": shapes,
        "bad_steps": state.bad_steps,
        "seconds": dict(clock.seconds) | {"step": sum(clock.seconds.values())},
        "memory": dict(clock.memory),
    }


def batch_numbers(step: int, accumulation: int, accelerator: Accelerator) -> Iterator[int]:
    """This process's batches of a step, counted from 0, by their place in the endless sequence."""
    ranks = accelerator.num_processes
    for i in range(accumulation):
        yield (step * accumulation + i) * ranks + accelerator.process_index


def measure(
    recipe: FinetuneRecipe, parts: FinetuneParts, progress: ProgressFn = silent
) -> dict[str, Any] | None:
    """The loss of the held-out clips as the model is now; None where none are held out.

    Returns:
        `{"loss": mean, "by_level": {"0.1": ..., ...}}`.
    """
    if parts.held_out is None or parts.held_out_encoder is None:
        return None
    rows = []
    for number in range(parts.held_out.epoch):
        progress(ProgressEvent("held-out clips", number, parts.held_out.epoch))
        rows.append(
            held_out_loss(
                parts.generator,
                parts.held_out_encoder(parts.held_out(number)),
                recipe.flow,
                seed=recipe.seed,
                number=number,
                autocast_dtype=recipe.train.autocast,
            )
        )
    means = torch.tensor(rows, dtype=torch.float64).mean(dim=0).tolist()
    levels = {str(level): mean for level, mean in zip(HELD_OUT_LEVELS, means, strict=True)}
    return {"loss": sum(means) / len(means), "by_level": levels}


@contextmanager
def exported_weights(parts: FinetuneParts, state: FinetuneState) -> Iterator[Mapping[str, Tensor]]:
    """Within the context the model is what is exported: its moving average where that is on."""
    if state.ema is None:
        yield parts.trained.state()
        return
    now = {name: tensor.clone() for name, tensor in parts.trained.state().items()}
    parts.trained.load(state.ema.state)
    try:
        yield parts.trained.state()
    finally:
        parts.trained.load(now)


def _finish(
    folder: FinetuneFolder,
    recipe: FinetuneRecipe,
    parts: FinetuneParts,
    state: FinetuneState,
    accelerator: Accelerator,
    progress: ProgressFn,
) -> FinetuneResult:
    summary: dict[str, Any] = {
        "steps": state.step,
        "bad_steps": state.bad_steps,
        "clips": len(parts.survey.clips),
        "broken": [str(path) for path, _ in parts.survey.broken],
        "epochs": state.position / parts.order.epoch,
    }
    with exported_weights(parts, state) as weights:
        summary["base"] = json.loads(folder.base.read_text()) if folder.base.exists() else None
        if accelerator.is_main_process:
            summary["tuned"] = measure(recipe, parts, progress)
            export_trained(recipe, parts.generator.transformer, weights, folder)
            text = json.dumps(summary, ensure_ascii=False, indent=1)
            write_whole(folder.evaluation, text.encode())
    if parts.survey.broken:
        progress(ProgressEvent("finished", note=parts.survey.told()))
    accelerator.wait_for_everyone()
    return FinetuneResult(folder.root, summary)
