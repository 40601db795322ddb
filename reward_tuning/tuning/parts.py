"""What a recipe names, loaded and checked: prompts, text states, generator with adapter, judges."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from base_model.core.kinds import Kind
from base_model.generator import load_generator
from base_model.memory.modes import MODES
from base_model.memory.offload import Offload
from base_model.memory.quantise import require as require_quantisation
from reward_tuning.errors import TuningError
from reward_tuning.files.hashes import file_sha256, text_sha256
from reward_tuning.inputs.prompts import Prompt, PromptStream, read_prompts
from reward_tuning.inputs.run_conditions import (
    check_conditions,
    check_kinds,
    conditions_fingerprint,
    encode_conditions,
)
from reward_tuning.inputs.text_cache import checkpoint_fingerprint
from reward_tuning.inputs.text_states import text_states
from reward_tuning.judges.clip_terms import ClipTerms
from reward_tuning.judges.judge import Judge, load_judges
from reward_tuning.judges.missing import require_judges
from reward_tuning.judges.offload import judge_modules, split_offload
from reward_tuning.judges.shared_encoder import encoder_folder, shared_encoder
from reward_tuning.judges.truncation import tell_truncation
from reward_tuning.lora.init import adapter_file, attach_adapter, check_start_in
from reward_tuning.progress import ProgressEvent, ProgressFn
from reward_tuning.runs.held_out import shared_prompts
from reward_tuning.runs.optimiser import require_optimiser
from reward_tuning.runs.training_state import Trained, trained_adapter
from reward_tuning.sampling.cheap_steps import CheapSteps
from reward_tuning.sampling.compilation import compiled, require_compilation
from reward_tuning.sampling.first_block_cache import require_first_block_cache
from reward_tuning.sampling.generator_parts import (
    folder_if_here,
    generator_checkpoint,
    generator_folder,
    generator_kind,
    is_here,
)
from reward_tuning.sampling.sampler import ClipSampler
from reward_tuning.schema.locate import prompt_path
from reward_tuning.schema.recipe import Recipe
from reward_tuning.seeds import derive_seed
from reward_tuning.tuning.draws import draw_frames, draw_plan, draw_restarts
from reward_tuning.tuning.replay import ReplayClips
from reward_tuning.tuning.replay_clips import replay_clips
from reward_tuning.tuning.replay_sources import ReplaySource, check_sources, replay_sources
from reward_tuning.tuning.sigma_tables import evaluation_sigmas, training_sigmas
from reward_tuning.tuning.step import StepOptions
from rewards.core.locate import resolve as resolve_judge
from rewards.qwen.files import resolve_folder


@dataclass(frozen=True)
class RunParts:
    """Everything a run works with.

    Attributes:
        sampler: The generator, its adapter attached, with the text states of the run.
        trained: The adapter.
        judges: Training rewards.
        stream: Training prompts.
        held_out: Prompts of the evaluation.
        sigmas: `(N + 1,)`, the training sampler's table.
        fingerprints: Hash of each checkpoint.
        options: Choices of the recipe that hold for every batch.
        sources: Of the replay's clips; empty where it is off.
        replay: These clips, once they are made (`with_replay`).
        offload: Of judges and VAE, as `generator.memory` wants; of nothing where it is resident.
        start: The adapter that training starts from, copied; None where that is the base itself.
    """

    sampler: ClipSampler
    trained: Trained
    judges: list[Judge]
    stream: PromptStream
    held_out: list[Prompt]
    sigmas: Tensor
    fingerprints: dict[str, str]
    options: StepOptions
    sources: list[ReplaySource] = field(default_factory=list)
    replay: ReplayClips | None = None
    offload: Offload = field(default_factory=lambda: Offload([], torch.device("cpu")))
    start: Mapping[str, Tensor] | None = None

    @property
    def parameters(self) -> list[nn.Parameter]:
        """Of the adapter, in model order."""
        return self.trained.parameters


def load_parts(
    recipe: Recipe, device: torch.device, prompts: int, progress: ProgressFn
) -> RunParts:
    """Load and check everything a recipe names, cheap checks first.

    Args:
        recipe: Resolved.
        device: Where generator and judges go.
        prompts: How many of the stream the whole run draws, on all ranks: only they are encoded.
        progress: Told what is being loaded.

    Raises:
        TuningError: A prompt file or a value that does not fit, or an installed library that
            cannot do what the rollout asks for.
        GeneratorError: A generator that cannot be loaded or does not take these sizes.
        RewardError: A judge that cannot be loaded, held-out ones included.
    """
    stream, held_out = read_both(recipe, progress)
    sigmas = training_sigmas(recipe)
    for check in checks_before_loading(recipe, sigmas, device):
        check()
    measured_by = recipe.evaluation.held_out_rewards
    require_judges([*recipe.rewards, *measured_by])

    def loading(what: str) -> None:
        progress(ProgressEvent("loading", phase=what))

    sampling = recipe.sampling
    size = (sampling.frames, sampling.height, sampling.width)
    sources = replay_sources(recipe, stream)
    asked = [*stream.drawn(prompts), *held_out]
    kind = _check_files(recipe, asked, sources, progress)
    loading("judges")  # all of them before the generator, which may be tens of GB to fetch
    shared = shared_encoder(recipe, [*recipe.rewards, *measured_by], device)
    judges = load_judges(recipe.rewards, sampling.frames, device, shared)
    resting = judge_modules(judges) if MODES[recipe.generator.memory].parts_rest else []
    texts_rest, offload = split_offload(resting, shared, device)
    # A damaged held-out judge shall not be found after hours of training.
    with texts_rest.at_work():
        measured = load_judges(measured_by, sampling.frames, device, shared)
    sets = {"prompts.train": stream.prompts, "prompts.held_out": held_out}
    tell_truncation([*judges, *measured], sets, progress)
    del measured
    if kind is None:
        check_kinds(asked, generator_kind(recipe.generator))
    asked += [Prompt(source.prompt, source.prompt, source.files) for source in sources]
    fingerprints = fingerprints_of(recipe, loading)

    dtype = getattr(torch, recipe.generator.dtype)
    texts = [prompt.text for prompt in asked] + [sampling.negative_prompt]
    with texts_rest.at_work():
        states = text_states(
            generator_checkpoint(recipe.generator),
            texts,
            dtype=dtype,
            device=device,
            encoder=None if shared is None else shared.encoder,
            progress=progress,
        )
    del shared  # gone from memory, unless a training reward is it
    loading(f"generator {recipe.generator.checkpoint}")
    generator = load_generator(
        generator_checkpoint(recipe.generator),
        dtype=dtype,
        device=device,
        text_encoder=False,
        memory=recipe.generator.memory,
        quantise=recipe.generator.quantise,
    )
    generator.latent_shape(1, *size)  # refuses what the checkpoint cannot sample
    trained = trained_adapter(
        generator.transformer,
        attach_adapter(
            generator.transformer,
            recipe.lora,
            seed=derive_seed(recipe.seed, "adapter"),
            progress=progress,
        ),
    )
    start = None
    if recipe.lora.init is not None:
        start = {name: tensor.clone() for name, tensor in trained.state().items()}
    if recipe.train.gradient_checkpointing:
        generator.transformer.enable_gradient_checkpointing()
    sampler = ClipSampler(
        generator,
        states,
        sampling.negative_prompt,
        sampling.guidance_scale,
        size,
        sampling.guidance_rescale,
        recipe.train.decoder_checkpointing,
        encode_conditions(
            generator,
            asked,
            size,
            strength=sampling.strength,
            seed=recipe.seed,
            progress=progress,
        ),
        sampling.negative,
    )
    if sampler.conditions:
        # of all prompts, whichever are drawn: a run may go on to more steps
        fingerprints["conditions"] = conditions_fingerprint([*stream.prompts, *held_out])
    return RunParts(
        sampler,
        trained,
        judges,
        stream,
        held_out,
        sigmas,
        fingerprints,
        step_options(recipe, generator.transformer),
        sources,
        offload=offload.joined(generator.resting.vae),
        start=start,
    )


def _check_files(
    recipe: Recipe, asked: Sequence[Prompt], sources: Sequence[ReplaySource], progress: ProgressFn
) -> Kind | None:
    """Read what replay, prompts and the adapter's start name; the generator's kind, if it is here.

    Raises:
        TuningError: Something of it does not fit.
    """
    sampling = recipe.sampling
    size = (sampling.frames, sampling.height, sampling.width)
    if recipe.train.replay is not None and recipe.train.replay.source != "base":
        progress(ProgressEvent("loading", phase="clips of the replay"))
        check_sources(Path(recipe.train.replay.source), sources, size)
    kind = generator_kind(recipe.generator) if is_here(recipe.generator) else None
    check_conditions(asked, size, strength=sampling.strength, kind=kind, progress=progress)
    check_start_in(recipe.lora, folder_if_here(recipe.generator))
    return kind


def checks_before_loading(
    recipe: Recipe, sigmas: Tensor, device: torch.device
) -> list[Callable[[], object]]:
    """What needs no weights to be known, each to be called: draws that fail, missing libraries.

    One raises `TuningError` where a value does not fit the method, the installed diffusers has no
    cache or torch.compile does not work here, and `GeneratorError` where the weights cannot be
    quantised here or the evaluation has no step.
    """
    checks: list[Callable[[], object]] = [
        lambda: require_optimiser(recipe.train, device),
        lambda: evaluation_sigmas(recipe),
        lambda: draw_plan(recipe, sigmas, step=1, batch=0),
        lambda: draw_restarts(recipe, sigmas, step=1, batch=0),
        lambda: draw_frames(recipe, step=1, batch=0),
    ]
    quantise = recipe.generator.quantise
    if recipe.rollout.cache is not None:
        checks.append(require_first_block_cache)
    if recipe.rollout.compile:
        checks.append(lambda: require_compilation(device))
    if quantise is not None:
        checks.append(lambda: require_quantisation(quantise, device))
    return checks


def step_options(recipe: Recipe, transformer: Any) -> StepOptions:
    """Return the choices of a recipe that hold for every batch.

    Args:
        recipe: Resolved.
        transformer: The generator's, which `rollout.compile` compiles.

    Raises:
        TuningError: `rollout.compile` is on and torch.compile does not work here.
    """
    train, rollout = recipe.train, recipe.rollout
    cheap = CheapSteps(
        rollout.cache,
        None if rollout.dtype is None else getattr(torch, rollout.dtype),
        compiled(transformer) if rollout.compile else None,
    )
    return StepOptions(
        divide_by_guidance=recipe.sampling.divide_by_guidance,
        anchor=train.anchor,
        share=1.0 / train.gradient_accumulation,
        adjoint_limit=train.adjoint_limit,
        normalise_steps=train.normalise_steps,
        steps_at_once=train.steps_at_once,
        merge=train.merge,
        terms=ClipTerms(train.motion, train.motion_target, train.repulsion, train.clips_per_prompt),
        cheap=None if cheap.exact else cheap,
    )


def with_replay(
    recipe: Recipe, parts: RunParts, file: Path, accelerator: Accelerator, progress: ProgressFn
) -> RunParts:
    """The parts with the replay's clips, made or read back; unchanged where it is off.

    Args:
        recipe: Resolved.
        parts: Of the run.
        file: Where the clips' latents are kept.
        accelerator: Of the run: its processes share the work.
        progress: Told while they are made.

    Raises:
        TuningError: See `reward_tuning.tuning.replay_clips.replay_clips`.
    """
    if not parts.sources:
        return parts
    clips, content = replay_clips(
        recipe,
        parts.sampler,
        parts.sources,
        evaluation_sigmas(recipe),
        generator_hash=parts.fingerprints["generator"],
        file=file,
        accelerator=accelerator,
        decoding=parts.offload.at_work,
        progress=progress,
    )
    return replace(parts, replay=clips, fingerprints=parts.fingerprints | {"replay clips": content})


def read_both(recipe: Recipe, progress: ProgressFn) -> tuple[PromptStream, list[Prompt]]:
    """The prompts to train on and those of the evaluation.

    Raises:
        TuningError: A file is wrong, or all prompts of the evaluation are trained on.
    """
    stream = PromptStream(read_prompts(prompt_path(recipe.prompts.train)), recipe.seed)
    held_out = held_out_prompts(recipe)
    if warning := shared_prompts(stream.prompts, held_out):
        progress(ProgressEvent("loading", note=warning))
    return stream, held_out


def held_out_prompts(recipe: Recipe) -> list[Prompt]:
    """The prompts of the evaluation.

    Raises:
        TuningError: The file has fewer than are wanted, or one only is wanted.
    """
    return first_held_out(read_prompts(prompt_path(recipe.prompts.held_out)), recipe)


def first_held_out(prompts: list[Prompt], recipe: Recipe) -> list[Prompt]:
    """So many of them as the evaluation wants.

    Raises:
        TuningError: There are fewer, or one only is wanted.
    """
    wanted = recipe.evaluation.prompts
    if wanted < 2:
        raise TuningError(
            f"evaluation.prompts: got {wanted}; at least 2, for an interval over one prompt says "
            "nothing (32 is the default)"
        )
    if len(prompts) < wanted:
        raise TuningError(
            f"evaluation.prompts: {wanted} are wanted and prompts.held_out has {len(prompts)}; set "
            f"evaluation.prompts={len(prompts)}, or give a file with more (at most {len(prompts)} "
            "now)"
        )
    return prompts[:wanted]


def fingerprints_of(recipe: Recipe, loading: Callable[[str], None]) -> dict[str, str]:
    """Hash every checkpoint that a recipe names, and the prompts: `sha256:` and 64 digits each.

    Generators by `checkpoint_fingerprint`, judges whole, prompts by their texts.
    """
    root = generator_folder(recipe.generator, text_encoder=False)
    loading("checkpoint hashes")
    folders = [root / "transformer", root / "vae"]
    found = {"generator": "sha256:" + checkpoint_fingerprint(folders)}
    parts = [encoder_folder(recipe) / name for name in ("text_encoder", "tokenizer")]
    found["text encoder"] = "sha256:" + checkpoint_fingerprint(parts)
    for name, prompts in (
        ("prompts.train", read_prompts(prompt_path(recipe.prompts.train))),
        ("prompts.held_out", held_out_prompts(recipe)),
    ):
        texts = json.dumps([[prompt.text, prompt.reward_text] for prompt in prompts])
        found[name] = "sha256:" + text_sha256(texts)
    if recipe.lora.init is not None:
        found["lora.init"] = "sha256:" + file_sha256(adapter_file(Path(recipe.lora.init)))
    for judge in [*recipe.rewards, *recipe.evaluation.held_out_rewards]:
        for key, name in judge.files.items():
            label = judge.label if key == "checkpoint" else f"{judge.label}.{key}"
            found[label] = "sha256:" + file_sha256(resolve_judge(name))
        for key, name in judge.folders.items():
            label = judge.label if key == "checkpoint" else f"{judge.label}.{key}"
            found[label] = "sha256:" + checkpoint_fingerprint([resolve_folder(name)])
        if judge.of_generator:
            found[judge.label] = found["text encoder"]
    return found
