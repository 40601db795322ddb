"""The parts of a run, loaded from its recipe: judges, text states, generator with adapter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from base_model.generator import Generator, load_generator
from base_model.memory.activation_offload import offload_activations
from base_model.memory.modes import MODES
from base_model.memory.offload import Offload
from base_model.sampling.guidance import Guidance
from reward_tuning.errors import TuningError
from reward_tuning.inputs.prompts import Prompt, PromptStream
from reward_tuning.inputs.run_conditions import (
    check_kinds,
    conditions_fingerprint,
    encode_conditions,
)
from reward_tuning.inputs.text_states import text_states
from reward_tuning.judges.background import Background
from reward_tuning.judges.clip_terms import ClipTerms
from reward_tuning.judges.judge import Judge
from reward_tuning.judges.loading import load_judges
from reward_tuning.judges.missing import require_judges
from reward_tuning.judges.offload import judge_modules, split_offload
from reward_tuning.judges.shared_encoder import shared_encoder
from reward_tuning.judges.truncation import report_truncation
from reward_tuning.lora.frozen import FrozenAdapter, frozen_adapter
from reward_tuning.lora.init import attach_adapter
from reward_tuning.progress import ProgressEvent, ProgressFn
from reward_tuning.runs.training_state import Trained, trained_adapter
from reward_tuning.sampling.cheap_steps import CheapSteps
from reward_tuning.sampling.compilation import compile_blocks
from reward_tuning.sampling.devices import placed
from reward_tuning.sampling.generator_parts import generator_checkpoint, generator_kind, vae_dtype
from reward_tuning.sampling.sampler import ClipSampler
from reward_tuning.schema.gradient_conflicts import ESTIMATES
from reward_tuning.schema.judge_roles import FrameRewardSection
from reward_tuning.schema.recipe import Recipe
from reward_tuning.seeds import derive_seed
from reward_tuning.tuning.estimated import Estimates, estimated_judges, exact_judges
from reward_tuning.tuning.fingerprints import fingerprints_of
from reward_tuning.tuning.graph_memory import graphs_that_fit
from reward_tuning.tuning.group import Group, group_of
from reward_tuning.tuning.outside_judges import outside_judges
from reward_tuning.tuning.preflight import check_files, raising
from reward_tuning.tuning.replay import ReplayClips
from reward_tuning.tuning.replay_clips import replay_clips
from reward_tuning.tuning.replay_sources import ReplaySource
from reward_tuning.tuning.sigma_tables import training_sigmas
from reward_tuning.tuning.small_decoding import attach_small_decoder
from reward_tuning.tuning.step import StepOptions
from rewards.core.black_box import BlackBoxReward


@dataclass(frozen=True)
class RunParts:
    """Everything a run works with.

    Attributes:
        sampler: The generator with its adapter attached, and the text states of the run.
        trained: The adapter.
        judges: Training rewards.
        labels: Names of the scores of a step: of the judges, and of terms on whole clips.
        stream: Training prompts.
        held_out: Prompts of the evaluation.
        sigmas: `(N + 1,)`, the table of the training rollouts.
        fingerprints: Hash of each checkpoint and prompt file.
        options: Choices of the recipe that hold for every batch.
        sources: Sources of the replay's clips; empty where it is off.
        replay: Clips of the replay, once they are made (`with_replay`).
        offload: Judges and VAE that rest on the CPU; nothing with resident weights.
        start: Copy of the adapter of `lora.init`; None where training starts from the base.
        group: How the clips of a batch are chosen; None where it trains on all of them.
        background: Where judges answer while the next batch is rolled out; None without a judge
            outside this process.
        outside: Those of the training rewards that are outside this process.
    """

    sampler: ClipSampler
    trained: Trained
    judges: list[Judge]
    labels: list[str]
    stream: PromptStream
    held_out: list[Prompt]
    sigmas: Tensor
    fingerprints: dict[str, str]
    options: StepOptions
    sources: list[ReplaySource] = field(default_factory=list)
    replay: ReplayClips | None = None
    offload: Offload = field(default_factory=lambda: Offload([], torch.device("cpu")))
    start: Mapping[str, Tensor] | None = None
    group: Group | None = None
    background: Background | None = None
    outside: list[BlackBoxReward] = field(default_factory=list)

    @property
    def parameters(self) -> list[nn.Parameter]:
        """Parameters of the adapter, in model order."""
        return self.trained.parameters


def load_parts(
    recipe: Recipe, device: torch.device, prompts: int, progress: ProgressFn
) -> RunParts:
    """Load and check everything a recipe names.

    What is cheap to load comes first, so that a mistake is reported in seconds and not after the
    generator, tens of GB, is downloaded and read.

    Args:
        recipe: Resolved.
        device: Device of generator and judges.
        prompts: Training prompts that the run draws, over all steps and ranks; only these are
            encoded.
        progress: Called as each part is loaded.

    Raises:
        TuningError: A file or a value does not fit, or an installed library cannot do what the
            recipe asks for.
        GeneratorError: The generator cannot be loaded or cannot sample clips of this size.
        RewardError: A judge, trained or held out, cannot be loaded.
    """
    sampling = recipe.sampling
    dtype = getattr(torch, recipe.generator.dtype)
    measured_by = recipe.evaluation.held_out_rewards

    # 1. Files and values. A judge that is not downloaded is a matter of file names: first of all.
    require_judges([*recipe.rewards, *measured_by])
    files = check_files(recipe, device, raising, drawn=prompts, progress=progress)
    assert files.stream is not None
    assert files.held_out is not None
    stream, held_out, sources = files.stream, files.held_out, files.sources
    if files.warning:
        progress(ProgressEvent("loading", note=files.warning))
    asked = [*stream.drawn(prompts), *held_out]

    # 2. Judges, before the generator. Held-out ones are loaded and dropped: a damaged file must
    # not surface in the evaluation, after hours of training.
    progress(ProgressEvent("loading", phase="judges"))
    shared = shared_encoder(recipe, [*recipe.rewards, *measured_by], device)
    judges = load_judges(recipe.rewards, sampling.frames, device, shared)
    check_gradients(recipe, judges)
    resting = judge_modules(judges) if MODES[recipe.generator.memory].parts_rest else []
    texts_rest, offload = split_offload(resting, shared, device)
    with texts_rest.at_work():
        measured = load_judges(measured_by, sampling.frames, device, shared)
    sets = {"prompts.train": stream.prompts, "prompts.held_out": held_out}
    report_truncation([*judges, *measured], sets, progress)
    del measured

    # 3. The generator's small files; this downloads a checkpoint that is not on the disk.
    if files.kind is None:
        check_kinds(asked, generator_kind(recipe.generator))
    fingerprints = fingerprints_of(recipe, progress)

    # 4. Text states before the generator: text encoder and transformer are never in memory at once.
    asked += [Prompt(source.prompt, source.prompt, source.files) for source in sources]
    with texts_rest.at_work():
        states = text_states(
            generator_checkpoint(recipe.generator),
            [prompt.text for prompt in asked] + [sampling.negative_prompt],
            dtype=dtype,
            device=placed(recipe.generator.text_encoder_device, device),
            encoder=None if shared is None else shared.encoder,
            progress=progress,
        )
    del shared  # frees the encoder, unless a training reward holds it

    # 5. The generator, and what needs it.
    generator, frozen, trained = _generator_with_adapter(recipe, device, progress)
    fingerprints |= attach_small_decoder(recipe, generator)
    start = None
    if recipe.lora.init is not None:
        start = {name: tensor.clone() for name, tensor in trained.state().items()}
    sampler = clip_sampler(recipe, generator, states, asked, progress, frozen)
    if sampler.conditions:
        # Of all prompts, not only the drawn ones: a resumed run may have more steps.
        fingerprints["conditions"] = conditions_fingerprint([*stream.prompts, *held_out])
    sigmas = training_sigmas(recipe)
    options = step_options(recipe)
    waited_for = outside_judges(estimated_judges(judges))
    if recipe.train.keep_graphs == "auto":
        # A judge outside this process answers while the next batch is rolled out.
        ahead = bool(waited_for) and recipe.train.gradient_accumulation > 1
        prompt, batches = stream.drawn(1)[0], 2 if ahead else 1
        kept = graphs_that_fit(recipe, sampler, prompt, sigmas, progress, batches=batches)
        options = replace(options, keep_graphs=kept)
    return RunParts(
        sampler,
        trained,
        judges,
        [*(judge.label for judge in judges), *options.terms.labels],
        stream,
        held_out,
        sigmas,
        fingerprints,
        options,
        sources,
        offload=offload.joined(generator.resting.vae),
        start=start,
        group=group_of(recipe, options),
        background=Background() if waited_for else None,
        outside=outside_judges(judges),
    )


def check_gradients(recipe: Recipe, judges: Sequence[Judge]) -> None:
    """Check that judges that are differentiated can be: a user's own class says so when loaded.

    Raises:
        TuningError: A judge has no gradient, and none is estimated.
    """
    for judge in [] if recipe.method.matches else exact_judges(judges):
        if not getattr(judge.reward, "differentiable", True):  # any callable may judge
            raise TuningError(
                f"rewards: the score of the judge {judge.label} has no gradient; set {ESTIMATES}; "
                "or choose method awm or nft; or list it under evaluation.held_out_rewards"
            )


def clip_sampler(
    recipe: Recipe,
    generator: Generator,
    states: Mapping[str, Tensor],
    prompts: Sequence[Prompt],
    progress: ProgressFn,
    frozen: FrozenAdapter | None = None,
) -> ClipSampler:
    """Return the sampler that a recipe describes, with the encoded conditions of its prompts.

    Args:
        recipe: Resolved.
        generator: Generator, with its adapter where there is one.
        states: Text states `(l, d)` of the prompts and of the negative prompt.
        prompts: Prompts that will be sampled, as `check_conditions` has accepted them.
        progress: Called after each condition.
        frozen: The LoRA of `generator.adapter`, on the generator; None for none.
    """
    sampling = recipe.sampling
    size = (sampling.frames, sampling.height, sampling.width)
    conditions = encode_conditions(
        generator,
        prompts,
        size,
        strength=sampling.strength,
        seed=recipe.seed,
        progress=progress,
    )
    return ClipSampler(
        generator,
        states,
        sampling.negative_prompt,
        Guidance(sampling.guidance_scale, sampling.guidance_rescale, sampling.guidance_steps),
        size,
        recipe.train.decoder_checkpointing,
        conditions,
        sampling.negative,
        Guidance(
            sampling.guidance_scale, sampling.guidance_rescale, recipe.evaluation.guidance_steps
        ),
        recipe.evaluation.cache,
        nullcontext if frozen is None or recipe.evaluation.adapter else frozen.off,
    )


def _generator_with_adapter(
    recipe: Recipe, device: torch.device, progress: ProgressFn
) -> tuple[Generator, FrozenAdapter | None, Trained]:
    sampling = recipe.sampling
    progress(ProgressEvent("loading", phase=f"generator {recipe.generator.checkpoint}"))
    generator = load_generator(
        generator_checkpoint(recipe.generator),
        dtype=getattr(torch, recipe.generator.dtype),
        vae_dtype=vae_dtype(recipe.generator),
        vae_device=recipe.generator.vae_device,
        device=device,
        text_encoder=False,
        memory=recipe.generator.memory,
        quantise=recipe.generator.quantise,
    )
    # Refuses a size that the checkpoint cannot sample, before anything is encoded for it.
    generator.latent_shape(1, sampling.frames, sampling.height, sampling.width)
    frozen = frozen_adapter(generator, recipe.generator, progress)
    parameters = attach_adapter(
        generator.transformer,
        recipe.lora,
        seed=derive_seed(recipe.seed, "adapter"),
        progress=progress,
    )
    if recipe.train.gradient_checkpointing:
        generator.transformer.enable_gradient_checkpointing()
    if recipe.train.offload_activations:
        offload_activations(generator.transformer)
    if recipe.train.compile:
        compile_blocks(generator.transformer)
    return generator, frozen, trained_adapter(generator.transformer, parameters)


def step_options(recipe: Recipe) -> StepOptions:
    """Return the choices of a recipe that hold for every batch.

    Args:
        recipe: Resolved. `train.keep_graphs: auto` keeps none here; `graphs_that_fit` counts them.
    """
    train, rollout = recipe.train, recipe.rollout
    dtype = None if rollout.dtype is None else getattr(torch, rollout.dtype)
    cheap = CheapSteps(rollout.cache, dtype)
    framed = [judge for judge in recipe.rewards if isinstance(judge, FrameRewardSection)]
    sources = {judge.gradient for judge in framed if judge.estimated}
    return StepOptions(
        divide_by_guidance=recipe.sampling.divide_by_guidance,
        anchor=train.anchor,
        anchor_steps=train.anchor_steps,
        share=1.0 / train.gradient_accumulation,
        adjoint_limit=train.adjoint_limit,
        normalise_steps=train.normalise_steps,
        steps_at_once=train.steps_at_once,
        merge=train.merge,
        terms=ClipTerms(train.motion, train.motion_target, train.repulsion, train.clips_per_prompt),
        cheap=None if cheap.exact else cheap,
        decoder=train.decoder,
        keep_graphs=0 if train.keep_graphs == "auto" else train.keep_graphs,
        estimates=None
        if not sources
        else Estimates(
            train.clips_per_prompt, train.pairs if "paired" in sources else 0, train.pair_distance
        ),
    )


def with_replay(
    recipe: Recipe, parts: RunParts, file: Path, accelerator: Accelerator, progress: ProgressFn
) -> RunParts:
    """Return the parts with the replay's clips, made or read back; unchanged where it is off.

    Args:
        recipe: Resolved.
        parts: Parts of the run.
        file: File of the clips' latents.
        accelerator: Accelerator of the run; its processes share the work.
        progress: Called while the clips are made.

    Raises:
        TuningError: As `replay_clips`.
    """
    if not parts.sources:
        return parts
    clips, content = replay_clips(
        recipe,
        parts.sampler,
        parts.sources,
        generator_hash=parts.fingerprints["generator"],
        file=file,
        accelerator=accelerator,
        decoding=parts.offload.at_work,
        progress=progress,
    )
    return replace(parts, replay=clips, fingerprints=parts.fingerprints | {"replay clips": content})
