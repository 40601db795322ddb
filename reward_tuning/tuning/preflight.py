"""Every check of a recipe that needs no weights: files, values, libraries.

`check_run` collects all findings, for `validate` and before `run`; `load_parts` makes the same
checks and raises the first finding. Nothing is downloaded: a generator that is not on the disk yet
is checked once it is loaded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch

from base_model.core.kinds import Kind
from base_model.memory.quantise import require as require_quantisation
from reward_tuning.errors import TuningError
from reward_tuning.inputs.prompts import Prompt, PromptStream, read_prompts
from reward_tuning.inputs.run_conditions import check_conditions
from reward_tuning.judges.missing import missing_judges
from reward_tuning.judges.no_oracle import check_no_oracle
from reward_tuning.judges.shared_encoder import encoder_folder
from reward_tuning.lora.frozen import check_frozen
from reward_tuning.lora.init import check_start_in
from reward_tuning.progress import ProgressEvent, ProgressFn, silent
from reward_tuning.runs.findings import Findings
from reward_tuning.runs.held_out import shared_prompts
from reward_tuning.runs.optimiser import require_optimiser
from reward_tuning.runs.tracker_packages import require_trackers
from reward_tuning.sampling.compilation import require_compilation
from reward_tuning.sampling.devices import require_device
from reward_tuning.sampling.first_block_cache import require_first_block_cache
from reward_tuning.sampling.generator_parts import generator_folder, generator_kind, is_here
from reward_tuning.sampling.step_cache import check_cache_in
from reward_tuning.schema.cache_kinds import CacheSection, FirstBlock
from reward_tuning.schema.locate import prompt_path
from reward_tuning.schema.primary import ORACLE
from reward_tuning.schema.recipe import Recipe
from reward_tuning.tuning.draws import draw_frames
from reward_tuning.tuning.evaluation import oracle_applies
from reward_tuning.tuning.plan_draws import draw_plan, draw_restarts
from reward_tuning.tuning.prompt_sets import evaluation_prompts, training_prompts
from reward_tuning.tuning.replay_sources import ReplaySource, check_sources, replay_sources
from reward_tuning.tuning.sigma_tables import (
    check_intervals,
    evaluation_sigmas,
    guard_sigmas,
    training_sigmas,
)
from reward_tuning.tuning.small_decoding import check_small_decoder, wants_small_decoder
from rewards.errors import RewardError

CheckFn = Callable[[str], AbstractContextManager[None]]
"""Recipe key -> the context of its check, which raises or collects what the check refuses."""


@dataclass
class CheckedFiles:
    """Files that the checks have read, for the run to use.

    Attributes:
        stream: Training prompts; None where a collecting check refused the file.
        held_out: Prompts of the evaluation; None as above.
        sources: Sources of the replay's clips; empty where it is off.
        kind: Kind of the generator; None where it must be downloaded first.
        warning: Held-out prompts that are trained on too; empty for none.
        lora_note: Remark on `lora.init`; empty for none.
    """

    stream: PromptStream | None = None
    held_out: list[Prompt] | None = None
    sources: list[ReplaySource] = field(default_factory=list)
    kind: Kind | None = None
    warning: str = ""
    lora_note: str = ""


class RunFindings(Findings):
    """Everything that `run` would refuse, its judges included."""

    refusals = (*Findings.refusals, RewardError)


def check_run(recipe: Recipe, device: torch.device, progress: ProgressFn = silent) -> Findings:
    """Collect everything that `run` would refuse before it loads anything large.

    Args:
        recipe: Resolved.
        device: Device of the run: not every device can quantise or compile.
        progress: Called while files are read.
    """
    found = RunFindings()
    files = check_files(recipe, device, found.collect, progress=progress)
    if files.lora_note:
        progress(ProgressEvent("loading", note=files.lora_note))
    found.missing += missing_judges([*recipe.rewards, *recipe.evaluation.held_out_rewards])
    return found


def check_calibration(recipe: Recipe) -> Findings:
    """Collect everything that `calibrate` would refuse before it loads anything large.

    That is less than `run` refuses: calibration neither trains nor evaluates, so the held-out
    judges and prompts, the replay, the start of the adapter and the optimiser do not matter.

    Args:
        recipe: Resolved.
    """
    found = RunFindings()
    with found.collect("prompts.train"):
        training_prompts(recipe)
    with found.collect():
        evaluation_sigmas(recipe)
    if is_here(recipe.generator):
        with found.collect("generator.checkpoint"):
            generator_kind(recipe.generator)
            if any(judge.of_generator for judge in recipe.rewards):
                encoder_folder(recipe)
    found.missing += missing_judges(recipe.rewards)
    return found


def raising(key: str) -> AbstractContextManager[None]:
    """Let a check raise, as `CheckFn` of a run that begins."""
    del key
    return nullcontext()


def check_files(
    recipe: Recipe,
    device: torch.device,
    check: CheckFn,
    *,
    drawn: int | None = None,
    progress: ProgressFn = silent,
) -> CheckedFiles:
    """Make every check that needs no weights, in order of its cost.

    Args:
        recipe: Resolved.
        device: Device of the run.
        check: Context of each check: `raising`, or `Findings.collect`.
        drawn: Training prompts that the run draws, whose condition files are read; None for all.
        progress: Called while files are read.

    Raises:
        TuningError, GeneratorError: A check refuses, and its context lets it raise.
    """
    found = CheckedFiles()
    _check_prompts(recipe, check, found)
    _check_values(recipe, device, check)
    with check("rewards"):
        check_no_oracle(recipe.rewards)
    here, root = is_here(recipe.generator), None
    with check("generator.checkpoint"):
        if here:
            root = generator_folder(recipe.generator, text_encoder=False)
            found.kind = generator_kind(recipe.generator)
    if root is not None and wants_small_decoder(recipe.train):
        with check("train.small_decoder"):
            check_small_decoder(recipe.train, root)
    for key, cache in _caches(recipe):
        with check(key):
            if root is not None:
                check_cache_in(cache, root)
    # From here on every condition file and clip is opened: minutes for thousands of them.
    _check_conditions(recipe, check, found, drawn, progress)
    if found.stream is not None:
        with check("train.replay"):
            found.sources = replay_sources(recipe, found.stream)
            if recipe.train.replay is not None and recipe.train.replay.source != "base":
                progress(ProgressEvent("loading", phase="clips of the replay"))
                check_sources(Path(recipe.train.replay.source), found.sources, _size(recipe))
    with check("generator.adapter"):
        check_frozen(recipe.generator, root)
    with check("lora.init"):
        found.lora_note = check_start_in(recipe.lora, root)
    judges = [*recipe.rewards, *recipe.evaluation.held_out_rewards]
    if here and any(judge.of_generator for judge in judges):
        with check("generator.checkpoint"):
            encoder_folder(recipe)
    return found


def _caches(recipe: Recipe) -> list[tuple[str, CacheSection | None]]:
    """Return the caches of steps by their keys."""
    return [
        ("rollout.cache", recipe.rollout.cache),
        ("evaluation.cache", recipe.evaluation.cache),
    ]


def _check_prompts(recipe: Recipe, check: CheckFn, found: CheckedFiles) -> None:
    with check("prompts.train"):
        found.stream = training_prompts(recipe)
    with check("prompts.held_out"):
        found.held_out = read_prompts(prompt_path(recipe.prompts.held_out))
    if found.held_out is None:
        return
    with check(""):  # the message names its key
        found.held_out = evaluation_prompts(found.held_out, recipe)
    with check(""):
        _check_primary(recipe, found.held_out)
    if found.stream is not None:
        with check(""):
            found.warning = shared_prompts(found.stream.prompts, found.held_out)


def _check_values(recipe: Recipe, device: torch.device, check: CheckFn) -> None:
    """Check libraries and everything that a step draws: a draw that fails, fails now."""
    with check(""):
        sigmas = training_sigmas(recipe)
        for one in _value_checks(recipe, sigmas, device):
            with check(""):
                one()


def _value_checks(
    recipe: Recipe, sigmas: torch.Tensor, device: torch.device
) -> Iterator[Callable[[], object]]:
    yield partial(require_optimiser, recipe.train, device)
    yield partial(require_trackers, recipe.tracking)
    yield partial(evaluation_sigmas, recipe)
    yield partial(guard_sigmas, recipe)
    yield partial(check_intervals, recipe)
    # The first draw stands for all: a method checks its worst case in each of them.
    for draw in (partial(draw_plan, recipe, sigmas), partial(draw_restarts, recipe, sigmas)):
        yield partial(draw, step=1, batch=0)
    yield partial(draw_frames, recipe, step=1, batch=0)
    if any(isinstance(cache, FirstBlock) for _, cache in _caches(recipe)):
        yield require_first_block_cache
    if recipe.train.compile:
        yield partial(require_compilation, device)
    yield partial(
        require_device, "generator.text_encoder_device", recipe.generator.text_encoder_device
    )
    yield partial(require_device, "generator.vae_device", recipe.generator.vae_device)
    for judge in (*recipe.rewards, *recipe.evaluation.held_out_rewards):
        yield partial(require_device, f"device of the judge {judge.label}", judge.own_device)
    if recipe.generator.quantise is not None:
        yield partial(require_quantisation, recipe.generator.quantise, device)


def _check_conditions(
    recipe: Recipe, check: CheckFn, found: CheckedFiles, drawn: int | None, progress: ProgressFn
) -> None:
    sets: dict[str, Sequence[Prompt]] = {}
    if found.stream is not None:
        sets["prompts.train"] = found.stream.prompts if drawn is None else found.stream.drawn(drawn)
    if found.held_out is not None:
        sets["prompts.held_out"] = found.held_out
    strength = recipe.sampling.strength
    for key, prompts in sets.items():
        with check(key):
            check_conditions(
                prompts, _size(recipe), strength=strength, kind=found.kind, progress=progress
            )


def _check_primary(recipe: Recipe, held_out: Sequence[Prompt]) -> None:
    """Refuse the oracle as the metric that decides where it cannot judge the clips.

    Raises:
        TuningError: Names the key.
    """
    primary = recipe.evaluation.primary
    judges = [*recipe.rewards, *recipe.evaluation.held_out_rewards]
    if primary not in ORACLE or primary in [judge.label for judge in judges]:
        return
    if not oracle_applies(held_out, _size(recipe)):
        raise TuningError(
            f"evaluation.primary: got {primary!r}, but the oracle judges only clips of the "
            "embedded world, of its size and with prompts of its grammar; name a judge or a measure"
        )


def _size(recipe: Recipe) -> tuple[int, int, int]:
    sampling = recipe.sampling
    return sampling.frames, sampling.height, sampling.width
