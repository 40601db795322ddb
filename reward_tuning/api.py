"""What `import reward_tuning as rt` offers: the verbs of the command line as functions.

Each function does what its verb does and returns objects in place of printed tables. Errors that a
user can fix are `TuningError`, `GeneratorError` and `RewardError`, all of them `ValueError`s.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from base_model.core.family import ClipSize
from base_model.files.shipped import resolve_checkpoint
from base_model.generator import Generator
from base_model.generator import load_generator as load
from base_model.loading.checkpoint import local_folder
from base_model.loading.clip_size import check_clip_size, own_clip_size
from base_model.sampling.guidance import Guidance
from reward_tuning.distil.recipe import DistilRecipe
from reward_tuning.distil.trainer import distil as train_few_steps
from reward_tuning.errors import TuningError
from reward_tuning.evidence.adapters import adapter_path
from reward_tuning.evidence.any_recipe import AnyRecipe, load_any_recipe, recipe_of_run
from reward_tuning.evidence.evaluating import default_output, evaluate_adapters
from reward_tuning.evidence.request import EvaluationRequest
from reward_tuning.finetune.recipe import FinetuneRecipe
from reward_tuning.finetune.trainer import finetune as train_on_clips
from reward_tuning.lora.attached import attached
from reward_tuning.lora.export import import_adapter
from reward_tuning.lora.schedules import Schedule, schedule_of
from reward_tuning.progress import ProgressFn, silent
from reward_tuning.runs.frame import RunResult
from reward_tuning.sampling.automatic_cache import automatic_cache
from reward_tuning.sampling.cheap_steps import CheapSteps
from reward_tuning.sampling.draw import decoded, sample_clip
from reward_tuning.schema.cache_kinds import AUTO, cache_of
from reward_tuning.tuning.trainer import run as train_on_rewards


def run(
    recipe: str | Path, overrides: Sequence[str] = (), *, progress: ProgressFn = silent
) -> RunResult:
    """Train as a recipe says, like `reward-tuning run`, `finetune` and `distil`.

    Args:
        recipe: A shipped name, such as `tiny-demo`, `finetune/tiny-lora` or
            `distil/tiny-4-steps`, or a path.
        overrides: Values in place of the recipe's, such as `["train.steps=6", "output=runs/a"]`.
        progress: Receives every event.

    Returns:
        The run folder, the steps and the final evaluation.

    Raises:
        TuningError: The recipe is wrong, its folder holds a run already, or the run cannot finish.
        GeneratorError: The generator cannot be loaded.
        RewardError: A judge cannot be loaded.
    """
    return _train(load_any_recipe(recipe, list(overrides)), resume=False, progress=progress)


def resume(
    folder: str | Path, overrides: Sequence[str] = (), *, progress: ProgressFn = silent
) -> RunResult:
    """Continue a run of any verb from its newest checkpoint, like `reward-tuning resume`.

    Args:
        folder: The run folder.
        overrides: Keys that may change, such as `["train.steps=200"]` (docs/runs.md).
        progress: Receives every event.

    Raises:
        TuningError: There is no run, or what decides it has changed.
        GeneratorError: The generator cannot be loaded.
        RewardError: A judge cannot be loaded.
    """
    recipe = recipe_of_run(Path(folder), list(overrides))
    return _train(recipe, resume=True, progress=progress)


def _train(recipe: AnyRecipe, *, resume: bool, progress: ProgressFn) -> RunResult:
    if isinstance(recipe, DistilRecipe):
        return train_few_steps(recipe, resume=resume, progress=progress)
    if isinstance(recipe, FinetuneRecipe):
        return train_on_clips(recipe, resume=resume, progress=progress)
    return train_on_rewards(recipe, resume=resume, progress=progress)


def evaluate(
    *sources: str | Path,
    output: str | Path | None = None,
    strengths: Sequence[float] = (1.0,),
    checkpoints: bool = False,
    prompts: str | None = None,
    count: int | None = None,
    primary: str | None = None,
    steps: Sequence[int] = (),
    guidance: Sequence[float] = (),
    seeds: int | None = None,
    checkpoint: str | None = None,
    progress: ProgressFn = silent,
) -> dict[str, Any]:
    """Compare adapters, checkpoints and strengths with the base, like `reward-tuning evaluate`.

    13 parameters: each is an option of `reward-tuning evaluate`.

    Args:
        sources: Run folders, LoRA files and LoRA folders, of one generator.
        output: Folder of results and cache; None is `evaluate` in the one run, or ./evaluate. The
            same call in the same folder continues a stopped one.
        strengths: Factors of each adapter's effect; the base is always evaluated.
        checkpoints: Also all kept checkpoints of each run.
        prompts: Prompt file or shipped name; None = the first run's held-out prompts.
        count: Number of prompts, from the first; None = as the run was evaluated.
        primary: The one metric that decides; None = as in the run.
        steps: Numbers of Euler steps; empty = the run's.
        guidance: Guidance scales; empty = the run's.
        seeds: Clips for each prompt and side; None = the run's.
        checkpoint: Generator; needed where no source is inside a run folder.
        progress: Receives every event.

    Returns:
        The content of evaluation.json (docs/evaluation.md).

    Raises:
        TuningError: The sources do not fit together, or the disk is full.
        GeneratorError: The generator cannot be loaded.
        RewardError: A judge cannot be loaded.
    """
    paths = [Path(source) for source in sources]
    request = EvaluationRequest(
        sources=paths,
        strengths=strengths,
        checkpoints=checkpoints,
        prompts=prompts,
        count=count,
        primary=primary,
        steps=steps,
        guidance=guidance,
        seeds=seeds,
        checkpoint=checkpoint,
    )
    folder = default_output(paths) if output is None else Path(output)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return evaluate_adapters(request, folder, device, progress)


def generate(
    generator: Generator | str | Path,
    prompts: str | Sequence[str],
    *,
    lora: str | Path | None = None,
    lora_scale: float = 1.0,
    lora_schedule: str | Schedule | None = None,
    negative_prompt: str = "",
    steps: int = 25,
    guidance_scale: float = 6.0,
    guidance_steps: tuple[float, float] | None = None,
    seed: int = 0,
    size: tuple[int, int, int] | None = None,
    cache: str = AUTO,
    on_clip: Callable[[int], None] = lambda number: None,
) -> Tensor:
    """Generate clips from prompts, as `reward-tuning generate` does with the same values.

    13 parameters: each is an option of `reward-tuning generate`.

    Args:
        generator: One from `load_generator`, which is left as it was; or a shipped name, a folder
            or a hub id, loaded in float32 onto the first GPU, or the CPU without one.
        prompts: One prompt, or one for each clip.
        lora: Run folder, LoRA file or LoRA folder; None for the base.
        lora_scale: Factor on the LoRA's effect; 0 is the base.
        lora_schedule: The factor by noise level, such as `annealed` or `below:0.7`, or a function
            of it (`reward_tuning.lora.schedules.schedule_of`); None is constant.
        negative_prompt: Text of the negative guidance branch.
        steps: Euler steps, 1 or more.
        guidance_scale: Classifier-free guidance; 1 = none.
        guidance_steps: Lowest and highest sigma with guidance; None = all noise levels.
        seed: Seed of the first clip; clip n has seed + n.
        size: Frames (4k + 1), height and width (multiples of 16); None takes the checkpoint's own,
            which needs `generator` by name.
        cache: Cache of steps, as `--cache` of the verb: `auto`, `none` for the plain sample, or
            a kind with its number, such as `taylor:2`.
        on_clip: Called with the number of each finished clip, from 0.

    Returns:
        `(b, f, 3, H, W)` float32 in [0, 1], on the CPU. `write_clip` writes one of them to a file.

    Raises:
        TuningError: The LoRA cannot be read or is for another model, there is no such schedule or
            cache, `size` is missing, `steps` is below 1, or a number is not finite.
        GeneratorError: The generator cannot be loaded, or cannot sample clips of this size, or
            `guidance_steps` is not an interval within [0, 1].
    """
    texts = [prompts] if isinstance(prompts, str) else list(prompts)
    schedule = schedule_of(lora_schedule)
    if steps < 1:
        raise TuningError(f"steps is {steps}; allowed: 1 or more, such as 25")
    for name, value in (("guidance_scale", guidance_scale), ("lora_scale", lora_scale)):
        if not math.isfinite(value):
            raise TuningError(f"{name} is {value}; allowed: finite numbers, such as 1.0")
    guidance = Guidance(guidance_scale, interval=guidance_steps)
    steps_cache = None if cache == AUTO else cache_of(cache)
    if isinstance(generator, Generator):
        if size is None:
            raise TuningError(
                "size is None, and a loaded generator does not know the size it is made for; give "
                "(frames, height, width), such as size=(49, 384, 672)"
            )
        wanted = ClipSize(*size)
    else:
        folder = local_folder(resolve_checkpoint(generator))
        wanted = ClipSize(*size) if size is not None else own_clip_size(folder)
    check_clip_size(*wanted)
    if not isinstance(generator, Generator):
        generator = load(folder, device="cuda" if torch.cuda.is_available() else "cpu")
    if cache == AUTO and schedule is None:
        steps_cache = automatic_cache(generator.transformer.config, steps, compiled=False)
    clips = []
    with ExitStack() as stack:
        if lora is not None:
            weights = import_adapter(adapter_path(Path(lora)), generator.transformer)
            stack.enter_context(attached(generator.transformer, weights, lora_scale, schedule))
        for number, text in enumerate(texts):
            sampled = sample_clip(
                generator,
                text,
                negative_prompt,
                seed=seed + number,
                size=wanted,
                steps=steps,
                guidance=guidance,
                cheap=CheapSteps(cache=steps_cache),
            )
            clips.append(decoded(generator, sampled.latents)[0].float().cpu())
            on_clip(number)
    return torch.stack(clips)
