"""From a request to everything that its sides have in common; reads recipes, loads no weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from base_model.files.shipped import resolve_checkpoint
from base_model.loading.checkpoint import local_folder
from base_model.loading.clip_size import own_clip_size
from reward_tuning.distil.recipe import DistilRecipe
from reward_tuning.errors import TuningError
from reward_tuning.evidence.adapters import base_in_header, run_of
from reward_tuning.evidence.any_recipe import AnyRecipe, load_any_recipe
from reward_tuning.evidence.distilled_runs import own_prompts, sampling_notes, student_sampling
from reward_tuning.evidence.judge_roles import judges_of_runs, roles_of
from reward_tuning.evidence.metric_names import DIVERSITY
from reward_tuning.evidence.request import EvaluationRequest, Setup
from reward_tuning.inputs.prompts import Prompt, read_prompts
from reward_tuning.inputs.text_cache import checkpoint_fingerprint
from reward_tuning.lora.frozen import frozen_sha256
from reward_tuning.runs.held_out import shared_prompts
from reward_tuning.sampling.generator_parts import generator_checkpoint, generator_folder
from reward_tuning.schema.cache_kinds import cache_of
from reward_tuning.schema.judge_parts import JudgeSection
from reward_tuning.schema.locate import (
    locate_generator,
    locate_prompts,
    prompt_path,
    shipped_folder,
)
from reward_tuning.schema.primary import OF_SEVERAL_CLIPS, primary_fault
from reward_tuning.schema.recipe import Recipe
from reward_tuning.schema.sections import GeneratorSection, SamplingSection
from reward_tuning.schema.values import ALLOWED_INTERVAL, is_interval
from reward_tuning.statistics.verdicts import default_primary
from reward_tuning.tuning.prompt_sets import evaluation_prompts

GENERAL = "prompts/general.jsonl"  # the shipped set for any generator
WORLD, WORLD_PROMPTS, WORLD_COUNT = "tiny", "tiny/held_out.jsonl", 32
MOST_STRENGTH = 10.0
MOST_GUIDANCE = 1000.0
Number = TypeVar("Number", int, float)


@dataclass(frozen=True)
class SourceRun:
    """A source that is a run of reward tuning.

    Attributes:
        path: The run folder.
        recipe: Its recipe.
    """

    path: Path
    recipe: Recipe


def resolve(request: EvaluationRequest) -> Setup:
    """Work out what a request leaves open.

    Raises:
        TuningError: The sources have no base in common, a run is of another version, something that
            is needed is neither given nor known, or a value is not allowed.
        GeneratorError: The generator does not exist.
    """
    _check_strengths(request.strengths)
    _check_guidance(request.guidance, request.guidance_steps)
    _check_counts(request)
    every = _recipes(request.sources)
    runs = [SourceRun(path, recipe) for path, recipe in every if isinstance(recipe, Recipe)]
    distilled = [(path, recipe) for path, recipe in every if isinstance(recipe, DistilRecipe)]
    first = runs[0].recipe if runs else None
    student = distilled[0][1] if distilled and not runs else None
    known = first or student
    generator = _generator(request, runs)
    sampling = _sampling(generator, first) if student is None else student_sampling(student)
    own_steps = sampling.steps
    if first is not None and first.evaluation.steps is not None:
        own_steps = first.evaluation.steps
    steps = _main_first(request.steps, own_steps)
    guidance = _main_first(request.guidance, sampling.guidance_scale)
    interval = None if first is None else first.evaluation.guidance_steps
    if request.guidance_steps is not None:
        interval = request.guidance_steps
    cache = None if first is None else first.evaluation.cache
    if request.cache is not None:
        cache = cache_of(request.cache)
    sampling = sampling.model_copy(
        update={"steps": steps[0], "guidance_scale": guidance[0], "guidance_steps": interval}
    )
    prompts, notes = _prompts(request, generator, runs, student)
    notes += sampling_notes(distilled, steps[0], guidance[0], own=student is not None)
    if request.checkpoint is None and not any(map(run_of, request.sources)):
        notes.append(f"generator {generator.checkpoint}, which the LoRA's own header names")
    judges = _judges(request, runs, student)
    if not judges and request.judges is None:
        notes.append(
            "no judge is given or known, so clips are only measured; --judges adds some, such as "
            "--judges tiny/clip-held-out.safetensors"
        )
    trained_on, never = roles_of(judges, [one.recipe for one in runs])
    seeds = request.seeds or (1 if first is None else first.evaluation.seeds)
    own = None if known is None else known.evaluation.primary
    primary = request.primary or _known_primary(own, judges, seeds)
    primary = primary or default_primary(never, trained_on)
    if request.primary is None and own not in (None, primary):
        notes.append(f"{own}, which decided in the run, is not measured here; {primary} decides")
    if primary not in (None, DIVERSITY):
        fault = primary_fault(primary, [judge.label for judge in judges], seeds)
        if fault is not None:
            raise TuningError(f"--primary: got {primary!r}; {fault}")
    if known is not None:
        batch_size = known.evaluation.batch_size or known.train.batch_size
    else:
        batch_size = 4 if generator.checkpoint == WORLD else 1
    own_seed = 0 if known is None else known.seed
    return Setup(
        generator=generator,
        sampling=sampling,
        prompts=prompts,
        judges=judges,
        trained_on=trained_on,
        never_trained_on=never,
        primary=primary,
        seed=own_seed if request.seed is None else request.seed,
        seeds=seeds,
        steps=steps,
        guidance=guidance,
        batch_size=request.batch_size or batch_size,
        cache=cache,
        notes=notes,
    )


def _judges(
    request: EvaluationRequest, runs: Sequence[SourceRun], student: DistilRecipe | None
) -> list[JudgeSection]:
    if request.judges is not None:
        return list(request.judges)
    if student is not None:
        return list(student.evaluation.held_out_rewards)
    return judges_of_runs([(one.path.name, one.recipe) for one in runs])


def _check_strengths(strengths: Sequence[float]) -> None:
    wrong = [one for one in strengths if not -MOST_STRENGTH <= one <= MOST_STRENGTH]
    if wrong:
        raise TuningError(
            f"--strengths: got {', '.join(f'{one:g}' for one in wrong)}; allowed: numbers from "
            f"{-MOST_STRENGTH:g} to {MOST_STRENGTH:g}, such as 0.5 1 1.25"
        )


def _check_guidance(scales: Sequence[float], interval: tuple[float, float] | None) -> None:
    wrong = [one for one in scales if not 1.0 <= one <= MOST_GUIDANCE]
    if wrong:
        raise TuningError(
            f"--guidance: got {', '.join(f'{one:g}' for one in wrong)}; allowed: numbers from 1 to "
            f"{MOST_GUIDANCE:g}, such as 3 5 7"
        )
    if interval is not None and not is_interval(interval):
        raise TuningError(
            f"--guidance-steps: got {interval[0]:g} {interval[1]:g}; allowed: {ALLOWED_INTERVAL}, "
            "such as 0.2 0.9"
        )


def _check_counts(request: EvaluationRequest) -> None:
    wrong = [f"--steps: got {one}" for one in request.steps if one < 1]
    wrong += ["--seeds: got 0"] if request.seeds == 0 else []
    if wrong:
        raise TuningError(f"{'; '.join(wrong)}; allowed: 1 or more")


def _recipes(sources: Sequence[Path]) -> list[tuple[Path, AnyRecipe]]:
    """Read the recipes of the sources that are run folders.

    Raises:
        TuningError: A recipe cannot be read by this version.
    """
    found = []
    for source in sources:
        place = source / "recipe.yaml"
        if not place.is_file():
            continue
        try:
            recipe = load_any_recipe(place, check_files=False)
        except TuningError as error:
            raise TuningError(
                f"{source}: its recipe cannot be read, so the run is of another version of "
                f"reward-tuning or was changed by hand; name its LoRA ({source / 'lora'}) with "
                f"--checkpoint, --prompts and --judges instead. {error}"
            ) from error
        found.append((source, recipe))
    return found


def _generator(request: EvaluationRequest, runs: Sequence[SourceRun]) -> GeneratorSection:
    """Return the one base of all sources.

    Raises:
        TuningError: There are several, or none is known.
    """
    changes: dict[str, Any] = {
        key: value
        for key, value in (("dtype", request.dtype), ("memory", request.memory))
        if value is not None
    }
    if request.checkpoint is not None:
        name = locate_generator(request.checkpoint, Path.cwd())
        kept = runs[0].recipe.generator if runs else GeneratorSection(checkpoint=name)
        parts = {"transformer": None, "vae": None, "text_encoder": None, "adapter": None}
        return kept.model_copy(update={"checkpoint": name, **parts, **changes})
    found: dict[Path, GeneratorSection] = {}
    for source in request.sources:
        section = _section_of(source)
        if section is not None:
            found[source] = section
    if not found:
        found = _named_in_headers(request.sources)
    if not found:
        raise TuningError(
            f"{request.sources[0]} is not inside a run folder, so its generator is unknown; name "
            "it with --checkpoint, such as --checkpoint tiny"
        )
    section = next(iter(found.values()))
    _check_same_base(found)
    return section.model_copy(update=changes)


def _section_of(source: Path) -> GeneratorSection | None:
    """Return the generator of the run that a path is in; None if it is in none."""
    run = run_of(source)
    if run is None:
        return None
    recipe = load_any_recipe(run / "recipe.yaml", check_files=False)
    if isinstance(recipe, Recipe):
        measured_on = recipe.generator.adapter if recipe.evaluation.adapter else None
        return recipe.generator.model_copy(update={"adapter": measured_on})
    section = recipe.generator
    name = generator_checkpoint(section)
    return GeneratorSection(checkpoint=name, dtype=section.dtype, adapter=section.adapter)


def _named_in_headers(sources: Sequence[Path]) -> dict[Path, GeneratorSection]:
    """Return the generator that the headers of all sources name; nothing where they disagree."""
    named = {source: name for source in sources if (name := base_in_header(source))}
    if len(set(named.values())) != 1:
        return {}
    return {source: GeneratorSection(checkpoint=name) for source, name in named.items()}


def _check_same_base(found: dict[Path, GeneratorSection]) -> None:
    names = {
        source: generator_checkpoint(section)
        + (f" with {section.adapter}" if section.adapter else "")
        for source, section in found.items()
    }
    if len(set(names.values())) == 1:
        return
    contents: dict[str, list[str]] = {}
    for source, section in found.items():
        root = generator_folder(section, text_encoder=False)
        digest = checkpoint_fingerprint([root / "transformer", root / "vae"])
        digest += frozen_sha256(section)
        contents.setdefault(digest, []).append(f"{source} ({names[source]})")
    if len(contents) > 1:
        groups = "; ".join(", ".join(of) for of in contents.values())
        raise TuningError(
            f"the sources have different generators, so no base is common to them: {groups}. "
            "Compare those of one generator, or name the one to put all of them on with "
            "--checkpoint"
        )


def _sampling(generator: GeneratorSection, first: Recipe | None) -> SamplingSection:
    if first is not None:
        return first.sampling
    folder = local_folder(resolve_checkpoint(generator_checkpoint(generator)))
    frames, height, width = own_clip_size(folder)
    return SamplingSection(frames=frames, height=height, width=width)


def _main_first(given: Sequence[Number], own: Number) -> list[Number]:
    """Return the numbers, each once, the main one first: the own one unless it is not wanted."""
    wanted = list(dict.fromkeys(given)) or [own]
    main = own if own in wanted else wanted[0]
    return sorted(wanted, key=lambda one: one != main)


def _prompts(
    request: EvaluationRequest,
    generator: GeneratorSection,
    runs: Sequence[SourceRun],
    student: DistilRecipe | None,
) -> tuple[list[Prompt], list[str]]:
    """Return the prompts, and notes on them.

    Raises:
        TuningError: The file cannot be read or has too few prompts, or a run was trained on all.
    """
    notes: list[str] = []
    if request.prompts is None and runs:
        recipe = runs[0].recipe
        every = read_prompts(prompt_path(recipe.prompts.held_out))
        found = evaluation_prompts(every, recipe) if request.count is None else every
        return _first(found, request.count, recipe.prompts.held_out), notes
    name, count = request.prompts, request.count
    if name is None and student is not None:
        return _first(own_prompts(student, count), count, student.prompts.held_out), notes
    if name is None:
        name = WORLD_PROMPTS if generator.checkpoint == WORLD else GENERAL
        if not shipped_folder("recipes", name).is_file():
            raise TuningError("no prompts: no source is a run; name a file with --prompts")
        if generator.checkpoint == WORLD and count is None:
            count = WORLD_COUNT
        notes.append(f"prompts of {name}, since no source is a run; --prompts names others")
    place = prompt_path(locate_prompts(name, Path.cwd()))
    found = _first(read_prompts(place), count, name)
    for run in runs:
        training = prompt_path(run.recipe.prompts.train)
        if training.is_file():
            warning = shared_prompts(read_prompts(training), found)
            notes += [f"{run.path}: {warning}"] if warning else []
        else:
            notes.append(
                f"{run.path}: its training prompts are no longer at {training}, so they cannot be "
                "compared with these"
            )
    return found, notes


def _first(prompts: Sequence[Prompt], count: int | None, name: str) -> list[Prompt]:
    if len(prompts) < 2:
        raise TuningError(
            f"--prompts: {name} has 1 prompt; give 2 or more, since one has no interval"
        )
    wanted = len(prompts) if count is None else count
    if wanted > len(prompts) or wanted < 2:
        raise TuningError(
            f"--count: got {wanted}, but {name} has {len(prompts)} prompts; allowed: 2 to "
            f"{len(prompts)}"
        )
    return list(prompts[:wanted])


def _known_primary(own: str | None, judges: Sequence[Any], seeds: int) -> str | None:
    """Return the first run's own primary metric, if it is measured here, too."""
    if own is None or own in OF_SEVERAL_CLIPS:  # pixels: here features are compared
        return None
    return None if primary_fault(own, [judge.label for judge in judges], seeds) else own
