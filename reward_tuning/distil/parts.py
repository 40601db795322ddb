"""The parts of a distillation, loaded from its recipe."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from base_model.generator import load_generator
from base_model.memory.modes import MODES
from base_model.memory.offload import Offload
from base_model.sampling.guidance import Guidance
from reward_tuning.distil.phases import Phases, phases
from reward_tuning.distil.preflight import check_distil
from reward_tuning.distil.recipe import DistilRecipe
from reward_tuning.files.hashes import file_sha256, text_sha256
from reward_tuning.inputs.prompts import Prompt, PromptStream
from reward_tuning.inputs.run_conditions import (
    check_kinds,
    conditions_fingerprint,
    encode_conditions,
)
from reward_tuning.inputs.text_cache import checkpoint_fingerprint
from reward_tuning.inputs.text_states import text_states
from reward_tuning.judges.judge import Judge
from reward_tuning.judges.loading import load_judges
from reward_tuning.judges.offload import judge_modules
from reward_tuning.judges.truncation import report_truncation
from reward_tuning.lora.frozen import frozen_adapter, frozen_sha256
from reward_tuning.lora.init import adapter_file, attach_adapter
from reward_tuning.progress import ProgressEvent, ProgressFn
from reward_tuning.runs.training_state import Trained, trained_adapter
from reward_tuning.sampling.devices import placed
from reward_tuning.sampling.generator_parts import (
    generator_checkpoint,
    generator_folder,
    generator_kind,
    vae_dtype,
)
from reward_tuning.sampling.sampler import ClipSampler
from reward_tuning.seeds import derive_seed
from rewards.core.locate import resolve_file
from rewards.qwen.files import resolve_folder


@dataclass(frozen=True)
class DistilParts:
    """Everything that a distillation works with.

    Attributes:
        teacher: The generator with the adapter attached, and the teacher's guidance.
        trained: The adapter.
        table: Phases of the student.
        stream: Training prompts.
        held_out: Prompts of the evaluation.
        judges: Judges of the evaluation.
        fingerprints: Hash of everything that was read.
        at_work: Context that is entered while VAE and judges work.
    """

    teacher: ClipSampler
    trained: Trained
    table: Phases
    stream: PromptStream
    held_out: Sequence[Prompt]
    judges: Sequence[Judge]
    fingerprints: dict[str, str]
    at_work: Callable[[], AbstractContextManager[None]]

    @property
    def student(self) -> ClipSampler:
        """The generator as the student samples: without guidance."""
        return replace(self.teacher, guidance=Guidance())


def load_distil_parts(
    recipe: DistilRecipe, device: torch.device, prompts: int, progress: ProgressFn
) -> DistilParts:
    """Load everything, the cheap and the likely to fail first.

    Args:
        recipe: The resolved recipe.
        device: Device of generator and judges.
        prompts: Training prompts that the run draws.
        progress: Receives what is being loaded.

    Raises:
        TuningError: Everything that `check_distil` finds, in one message.
        GeneratorError: The generator cannot be loaded or cannot sample clips of this size.
        RewardError: A judge cannot be loaded.
    """
    found = check_distil(recipe, device, progress)
    found.refuse()
    stream, held_out = found.stream, found.held_out
    assert stream is not None
    asked = [*stream.drawn(prompts), *held_out]
    dtype = getattr(torch, recipe.generator.dtype)

    progress(ProgressEvent("loading", phase="judges"))
    judges = load_judges(recipe.evaluation.held_out_rewards, recipe.student.frames, device)
    resting = judge_modules(judges) if MODES[recipe.generator.memory].parts_rest else []
    offload = Offload(resting, device)
    sets = {"prompts.train": stream.prompts, "prompts.held_out": held_out}
    report_truncation(judges, sets, progress)

    check_kinds(asked, generator_kind(recipe.generator))  # downloads a config that was not here
    progress(ProgressEvent("loading", phase="checkpoint hashes"))
    fingerprints = fingerprints_of(recipe, stream.prompts, held_out)
    # Before the generator, so that it and the text encoder are never in memory together.
    states = text_states(
        generator_checkpoint(recipe.generator),
        [*(prompt.text for prompt in asked), recipe.student.negative_prompt],
        dtype=dtype,
        device=placed(recipe.generator.text_encoder_device, device),
        progress=progress,
    )
    progress(ProgressEvent("loading", phase=f"generator {recipe.generator.checkpoint}"))
    generator = load_generator(
        generator_checkpoint(recipe.generator),
        dtype=dtype,
        vae_dtype=vae_dtype(recipe.generator),
        vae_device=recipe.generator.vae_device,
        device=device,
        text_encoder=False,
        memory=recipe.generator.memory,
        quantise=recipe.generator.quantise,
    )
    generator.latent_shape(1, *recipe.size)  # refuses a size that it cannot sample
    frozen_adapter(generator, recipe.generator, progress)
    parameters = attach_adapter(
        generator.transformer,
        recipe.lora,
        seed=derive_seed(recipe.seed, "adapter"),
        progress=progress,
    )
    if recipe.train.gradient_checkpointing:
        generator.transformer.enable_gradient_checkpointing()
    conditions = encode_conditions(
        generator, asked, recipe.size, strength=1.0, seed=recipe.seed, progress=progress
    )
    if conditions:
        fingerprints["conditions"] = conditions_fingerprint([*stream.prompts, *held_out])
    teacher = ClipSampler(
        generator,
        states,
        recipe.student.negative_prompt,
        Guidance(recipe.teacher.guidance_scale, recipe.teacher.guidance_rescale),
        recipe.size,
        conditions=conditions,
    )
    return DistilParts(
        teacher,
        trained_adapter(generator.transformer, parameters),
        phases(recipe.student.steps, recipe.teacher.steps_per_phase),
        stream,
        held_out,
        judges,
        fingerprints,
        offload.joined(generator.resting.vae).at_work,
    )


def fingerprints_of(
    recipe: DistilRecipe, train: Sequence[Prompt], held_out: Sequence[Prompt]
) -> dict[str, str]:
    """Hash everything that a resumed run must find unchanged: `sha256:` and 64 digits, by name.

    Args:
        recipe: The resolved recipe.
        train: All training prompts.
        held_out: Prompts of the evaluation.
    """
    root = generator_folder(recipe.generator, text_encoder=True)
    found = {
        "generator": checkpoint_fingerprint([root / "transformer", root / "vae"]),
        "text encoder": checkpoint_fingerprint([root / "text_encoder", root / "tokenizer"]),
    }
    for name, prompts in (("prompts.train", train), ("prompts.held_out", held_out)):
        found[name] = text_sha256(json.dumps([[one.text, one.reward_text] for one in prompts]))
    if recipe.generator.adapter is not None:
        found["generator.adapter"] = frozen_sha256(recipe.generator)
    if recipe.lora.init is not None:
        found["lora.init"] = file_sha256(adapter_file(Path(recipe.lora.init)))
    for judge in recipe.evaluation.held_out_rewards:
        for key, name in judge.files.items():
            found[f"{judge.label}.{key}"] = file_sha256(resolve_file(name))
        for key, name in judge.folders.items():
            found[f"{judge.label}.{key}"] = checkpoint_fingerprint([resolve_folder(name)])
    return {name: f"sha256:{digits}" for name, digits in found.items()}
