"""The generator and the judges of an evaluation, loaded when they are first needed."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import torch
from torch import nn

from base_model.generator import load_generator
from base_model.memory.modes import MODES
from base_model.memory.offload import Offload
from base_model.sampling.guidance import Guidance
from base_model.sampling.sample import start_step
from reward_tuning.evidence.clip_cache import ClipFacts
from reward_tuning.evidence.request import Setup
from reward_tuning.evidence.sides_plan import PlannedSide
from reward_tuning.files.hashes import text_sha256
from reward_tuning.inputs.condition_files import NO_CONDITION
from reward_tuning.inputs.run_conditions import check_conditions, conditions_hash, encode_conditions
from reward_tuning.inputs.text_cache import checkpoint_fingerprint
from reward_tuning.inputs.text_states import text_states
from reward_tuning.judges.judge import Judge
from reward_tuning.judges.loading import load_judges
from reward_tuning.judges.missing import require_judges
from reward_tuning.judges.offload import judge_modules
from reward_tuning.judges.truncation import report_truncation
from reward_tuning.lora.frozen import frozen_adapter, frozen_sha256
from reward_tuning.lora.module_shapes import transformer_shapes
from reward_tuning.progress import ProgressEvent, ProgressFn
from reward_tuning.sampling.devices import placed
from reward_tuning.sampling.generator_parts import (
    generator_checkpoint,
    generator_folder,
    generator_kind,
)
from reward_tuning.sampling.sampler import ClipSampler
from reward_tuning.schema.cache_kinds import cache_identity
from reward_tuning.tuning.evaluation import evaluation_seed


@dataclass
class Loaded:
    """Parts of an evaluation.

    Attributes:
        setup: What all sides have in common.
        device: Device of generator and judges.
        progress: Called as each part is loaded.
    """

    setup: Setup
    device: torch.device
    progress: ProgressFn

    def check(self) -> None:
        """Check what needs no weights: judges' files, condition files, and the numbers of steps.

        Raises:
            TuningError: Conditions do not fit.
            RewardError: A judge is not on this machine.
            GeneratorError: The generator does not exist, or a number of steps leaves none to run.
        """
        for steps in self.setup.steps:
            start_step(steps, self.setup.sampling.strength)
        require_judges(self.setup.judges)
        check_conditions(
            self.setup.prompts,
            self.setup.size,
            strength=self.setup.sampling.strength,
            kind=generator_kind(self.setup.generator),
            progress=self.progress,
        )

    @cached_property
    def shapes(self) -> nn.Module:
        """The transformer on the meta device."""
        return transformer_shapes(generator_checkpoint(self.setup.generator))

    @cached_property
    def generator_hash(self) -> str:
        """Fingerprint of transformer and VAE, and of the LoRA that stays on them."""
        own = checkpoint_fingerprint([self._root / "transformer", self._root / "vae"])
        frozen = frozen_sha256(self.setup.generator)
        return text_sha256(f"{own} {frozen}") if frozen else own

    @cached_property
    def text_encoder_hash(self) -> str:
        """Fingerprint of text encoder and tokenizer."""
        return checkpoint_fingerprint([self._root / "text_encoder", self._root / "tokenizer"])

    @cached_property
    def _root(self) -> Path:
        return generator_folder(self.setup.generator, text_encoder=True)

    @cached_property
    def sampler(self) -> ClipSampler:
        """The generator without an adapter, with text states and encoded conditions.

        Raises:
            GeneratorError: It cannot be loaded, or does not take the size.
        """
        setup, section, sampling = self.setup, self.setup.generator, self.setup.sampling
        name, dtype = generator_checkpoint(section), getattr(torch, section.dtype)
        states = text_states(
            name,
            [*(prompt.text for prompt in setup.prompts), sampling.negative_prompt],
            dtype=dtype,
            device=placed(section.text_encoder_device, self.device),
            progress=self.progress,
        )
        self.progress(ProgressEvent("loading", phase=f"generator {section.checkpoint}"))
        generator = load_generator(
            name,
            dtype=dtype,
            vae_device=section.vae_device,
            device=self.device,
            text_encoder=False,
            memory=section.memory,
            quantise=section.quantise,
        )
        frozen_adapter(generator, section, self.progress)
        generator.latent_shape(1, *setup.size)  # refuses a size that it cannot sample
        conditions = encode_conditions(
            generator,
            setup.prompts,
            setup.size,
            strength=sampling.strength,
            seed=setup.seed,
            progress=self.progress,
        )
        return ClipSampler(
            generator,
            states,
            sampling.negative_prompt,
            Guidance(sampling.guidance_scale, sampling.guidance_rescale, sampling.guidance_steps),
            setup.size,
            conditions=conditions,
            negative=sampling.negative,
            latents_cache=setup.cache,
        )

    def guided(self, guidance_scale: float) -> ClipSampler:
        """Return the sampler with another guidance scale."""
        guidance = replace(self.sampler.guidance, scale=guidance_scale)
        return replace(self.sampler, guidance=guidance)

    @cached_property
    def judges(self) -> list[Judge]:
        """The judges.

        Raises:
            RewardError: A file is damaged or of another kind.
            TuningError: A judge cannot work here.
        """
        self.progress(ProgressEvent("loading", phase="judges"))
        judges = load_judges(self.setup.judges, self.setup.size[0], self.device)
        report_truncation(judges, {"the prompts": self.setup.prompts}, self.progress)
        return judges

    @cached_property
    def at_work(self) -> Callable[[], AbstractContextManager[None]]:
        """Context that is entered while VAE and judges work."""
        resting = MODES[self.setup.generator.memory].parts_rest
        modules = judge_modules(self.judges) if resting else []
        offload = Offload(modules, self.device)
        return offload.joined(self.sampler.generator.resting.vae).at_work

    @cached_property
    def _condition_hashes(self) -> list[str | None]:
        return [
            None if prompt.files == NO_CONDITION else conditions_hash([prompt.files])
            for prompt in self.setup.prompts
        ]

    def facts(self, side: PlannedSide, prompt: int, clip: int) -> ClipFacts:
        """Return everything that decides a clip: the base's are the same whatever the adapter."""
        place = (id(side), prompt, clip)
        if place not in self._facts:
            self._facts[place] = self._clip_facts(side, prompt, clip)
        return self._facts[place]

    @cached_property
    def _facts(self) -> dict[tuple[int, int, int], ClipFacts]:
        return {}

    def _clip_facts(self, side: PlannedSide, prompt: int, clip: int) -> ClipFacts:
        setup, sampling = self.setup, self.setup.sampling
        conditions = self._condition_hashes[prompt]
        based = side.adapter is None or side.strength == 0.0
        return ClipFacts(
            generator=self.generator_hash,
            text_encoder=self.text_encoder_hash,
            adapter=None if based or side.adapter is None else side.adapter.sha256,
            strength=0.0 if based else float(side.strength),
            prompt=setup.prompts[prompt].text,
            conditions=conditions,
            kept_pixels=None if conditions is None else setup.seed,
            noise_seed=evaluation_seed(setup.seed, prompt, clip),
            steps=side.steps,
            video_strength=sampling.strength,
            guidance_scale=float(side.guidance_scale),
            guidance_rescale=sampling.guidance_rescale,
            guidance_steps=sampling.guidance_steps,
            cache=None if setup.cache is None else cache_identity(setup.cache),
            negative_prompt=sampling.negative_prompt,
            size=setup.size,
            dtype=setup.generator.dtype,
            quantise=setup.generator.quantise,
        )
