"""From prompts and seeds to clips: what training and evaluation share."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from base_model.generator import Generator, GuidedCondition, TextCondition
from base_model.guidance import (
    NegativeBranch,
    both_branches,
    guided_velocity,
    mixed_branches,
)
from base_model.sampling import euler_sample
from reward_tuning.engine import VelocityFn
from reward_tuning.errors import TuningError


@dataclass(frozen=True)
class ClipSampler:
    """A generator with everything that is fixed during a run.

    Attributes:
        generator: Needs no text encoder.
        states: Text states `(l, d)` of every prompt that will be asked for, and of the negative
            prompt, on the CPU.
        negative_prompt: Of the negative guidance branch.
        guidance_scale: 1 = no guidance.
        size: Frames, height and width of a clip.
        guidance_rescale: Share of the guided velocity that gets the positive branch's contrast.
        decoder_checkpointing: Whether a decode with gradient keeps one latent's activations at a
            time, or all.
    """

    generator: Generator
    states: Mapping[str, Tensor]
    negative_prompt: str
    guidance_scale: float
    size: tuple[int, int, int]
    guidance_rescale: float = 0.0
    decoder_checkpointing: bool = True

    def condition(self, prompts: Sequence[str]) -> GuidedCondition:
        """Text states of b prompts, on the generator's device."""
        device = self.generator.device
        positive = torch.stack([self.states[prompt] for prompt in prompts]).to(device)
        negative = self.states[self.negative_prompt][None].to(device)
        return self.generator.condition(TextCondition(positive, negative))

    def noise(self, seeds: Sequence[int]) -> Tensor:
        """Initial latents `(b, 16, t, h/8, w/8)` of b seeds."""
        shape = self.generator.latent_shape(len(seeds), *self.size)
        return self.generator.initial_noise(shape, seeds)

    def velocity(
        self, condition: GuidedCondition, sigmas: Tensor, negative: NegativeBranch
    ) -> VelocityFn:
        """The guided velocity as the engine calls it, `(x_i, i) -> v_i`."""

        def velocity(x: Tensor, i: int) -> Tensor:
            return guided_velocity(
                self.generator,
                x,
                sigmas[i],
                condition,
                self.guidance_scale,
                negative,
                self.guidance_rescale,
            )

        return velocity

    def velocity_of_one_rollout(
        self, condition: GuidedCondition, sigmas: Tensor, negative: NegativeBranch
    ) -> VelocityFn:
        """As `velocity`, but a detached negative branch is run once a step and then remembered.

        It has no gradient and meets the same state again when the sweep re-runs a step. So without
        gradient both branches run in one batch, as in the evaluation, and the sweep runs the
        positive one alone. Only for one rollout, one adapter and its sweep: a function for the base
        or another noise is another function.
        """
        if negative != "detached" or self.guidance_scale == 1:
            return self.velocity(condition, sigmas, negative)
        remembered: dict[int, Tensor] = {}

        def velocity(x: Tensor, i: int) -> Tensor:
            if i in remembered:
                v_positive = self.generator.velocity(x, sigmas[i], condition.positive)
            elif torch.is_grad_enabled():
                raise TuningError(f"step {i} shall be run again and was not in the rollout")
            else:
                both = both_branches(self.generator, x, sigmas[i], condition)
                remembered[i], v_positive = both
            return mixed_branches(
                remembered[i], v_positive, self.guidance_scale, self.guidance_rescale
            )

        return velocity

    @torch.no_grad()
    def latents(
        self,
        prompts: Sequence[str],
        seeds: Sequence[int],
        sigmas: Tensor,
        on_step: Callable[[int], None] | None = None,
    ) -> Tensor:
        """Sample clips, without gradient, to the end of the flow.

        Args:
            prompts: b prompts whose states are known.
            seeds: b seeds of the noise.
            sigmas: `(N + 1,)`, the sampler's table.
            on_step: Called with i after step i.

        Returns:
            `(b, 16, t, h/8, w/8)` float32, on the generator's device: what its `decode` takes.
        """
        return euler_sample(
            self.generator,
            self.condition(prompts),
            self.noise(seeds),
            sigmas,
            self.guidance_scale,
            None if on_step is None else lambda i, _: on_step(i),
            self.guidance_rescale,
        )
