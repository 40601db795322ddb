"""From prompts and seeds to clips: the sampler that training and evaluation share."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass, field, fields, replace

import torch
from torch import Tensor

from base_model.generator import Condition, Generator, GuidedCondition, TextCondition
from base_model.networks.magvit_clip import Checkpointing
from base_model.sampling.guidance import (
    Guidance,
    NegativeBranch,
    both_branches,
    guided_velocity,
    mixed_branches,
    without_negative,
)
from base_model.sampling.sample import euler_sample, start_state
from reward_tuning.errors import TuningError
from reward_tuning.gradient.kept import VelocityFn
from reward_tuning.inputs.condition_files import NO_CONDITION, ConditionFiles
from reward_tuning.inputs.encoded_condition import (
    EncodedCondition,
    stacked_channels,
    stacked_starts,
)
from reward_tuning.inputs.prompts import Prompt
from reward_tuning.sampling.step_cache import step_cache
from reward_tuning.schema.cache_kinds import CacheSection


@dataclass(frozen=True)
class ClipSampler:
    """A generator with everything that is fixed during a run.

    Attributes:
        generator: Needs no text encoder.
        states: Text states `(l, d)` of every prompt that will be sampled, and of the negative
            prompt, on the CPU.
        negative_prompt: Text of the negative guidance branch.
        guidance: Guidance of `velocity`, the training's.
        size: Frames, height and width of a clip.
        decoder_checkpointing: What a decode with gradient computes again in its backward pass; see
            `base_model.networks.magvit.decode`.
        conditions: Encoded conditions of the prompts that follow more than text.
        negative: The negative branch in the gradient of `velocity`. `latents` samples with both
            branches and no gradient, whatever it is.
        latents_guidance: Guidance of `latents`, of samples and evaluations; None = as `guidance`.
        latents_cache: Cache of the steps of `latents`; None = each in full.
        shown_on: Context in which `latents` samples, such as one without the recipe's frozen
            adapter.
    """

    generator: Generator
    states: Mapping[str, Tensor]
    negative_prompt: str
    guidance: Guidance
    size: tuple[int, int, int]
    decoder_checkpointing: Checkpointing = True
    conditions: Mapping[ConditionFiles, EncodedCondition] = field(default_factory=dict)
    negative: NegativeBranch = "detached"
    latents_guidance: Guidance | None = None
    latents_cache: CacheSection | None = None
    shown_on: Callable[[], AbstractContextManager[None]] = nullcontext

    def condition(self, prompts: Sequence[str | Prompt]) -> GuidedCondition:
        """Return text states and encoded conditions of b prompts, on the generator's device.

        A prompt that is a plain text has no condition but its text.
        """
        device = self.generator.device
        texts = [one if isinstance(one, str) else one.text for one in prompts]
        positive = torch.stack([self.states[text] for text in texts]).to(device)
        negative = self.states[self.negative_prompt][None].to(device)
        found = self._conditions_of(prompts)
        channels = None if found is None else stacked_channels(found)
        return self.generator.conditioned(
            TextCondition(positive, negative), None if channels is None else channels.to(device)
        )

    def video(self, prompts: Sequence[str | Prompt]) -> Tensor | None:
        """Return the latents that sampling starts from, on the CPU; None to start from noise."""
        found = self._conditions_of(prompts)
        return None if found is None else stacked_starts(found)

    def _conditions_of(self, prompts: Sequence[str | Prompt]) -> list[EncodedCondition] | None:
        """Return the encoded condition of each prompt; None if all of them are texts alone."""
        files = [NO_CONDITION if isinstance(one, str) else one.files for one in prompts]
        if all(one == NO_CONDITION for one in files):
            return None
        nothing = EncodedCondition()
        return [nothing if one == NO_CONDITION else self.conditions[one] for one in files]

    def guided_by(self, scale: float | None) -> ClipSampler:
        """Return this sampler with another guidance scale of `velocity`; itself for None."""
        if scale is None:
            return self
        return replace(self, guidance=replace(self.guidance, scale=scale))

    def noise(self, seeds: Sequence[int]) -> Tensor:
        """Return the initial latents of b seeds, `(b, 16, t, h/8, w/8)`."""
        shape = self.generator.latent_shape(len(seeds), *self.size)
        return self.generator.initial_noise(shape, seeds)

    def velocity(self, condition: GuidedCondition, sigmas: Tensor) -> VelocityFn:
        """Return the guided velocity in the engine's form, `(x_i, i) -> v_i`."""

        def velocity(x: Tensor, i: int) -> Tensor:
            return guided_velocity(
                self.generator, x, sigmas[i], condition, self.guidance, self.negative
            )

        return velocity

    @torch.no_grad()
    def latents(
        self,
        prompts: Sequence[str | Prompt],
        seeds: Sequence[int],
        sigmas: Tensor,
        on_step: Callable[[int], None] | None = None,
    ) -> Tensor:
        """Sample clips, without gradient, to the end of the flow.

        Args:
            prompts: b prompts whose states and conditions are known.
            seeds: b seeds of the noise.
            sigmas: `(N + 1,)`, the sampler's table; only the end of one to start from a video.
            on_step: Called with i after step i.

        Returns:
            `(b, 16, t, h/8, w/8)` float32, on the generator's device, as its `decode` takes them.
        """
        with ExitStack() as stack:
            stack.enter_context(self.shown_on())
            around_step: Callable[[], AbstractContextManager[None]] = nullcontext
            if self.latents_cache is not None:
                transformer, run = self.generator.transformer, len(sigmas) - 1
                cache = step_cache(self.latents_cache, transformer, run)
                around_step = stack.enter_context(cache).call
            return euler_sample(
                self.generator,
                self.condition(prompts),
                first_state(self.noise(seeds), self.video(prompts), sigmas),
                sigmas,
                self.latents_guidance or self.guidance,
                None if on_step is None else lambda i, _: on_step(i),
                around_step=around_step,
            )


def first_state(noise: Tensor, video: Tensor | None, sigmas: Tensor) -> Tensor:
    """Return the start of a rollout: the noise, or a video noised to the table's first level.

    Args:
        noise: `(b, 16, t, h/8, w/8)`.
        video: Latents of the same shape, or None.
        sigmas: The rollout's table.
    """
    return noise if video is None else start_state(video, noise, float(sigmas[0]))


class RolloutVelocity:
    """The guided velocity of one rollout and its sweep, `(x_i, i) -> v_i`, with a memory.

    A detached negative branch has no gradient and meets the same state again when the sweep re-runs
    a step. So the rollout runs both branches in one batch, as the evaluation does, and keeps the
    negative one; the sweep runs the positive one alone. A step whose graph is kept runs them one
    after the other, so that the graph is that of the sweep. Outside the guidance's interval all run
    the positive one alone. An object serves one rollout with one adapter: the base, or other noise,
    needs a new one.

    Args:
        sampler: Sampler of the clips.
        condition: Conditions of the b clips, or one for all.
        sigmas: `(N + 1,)`, the rollout's table.
    """

    def __init__(self, sampler: ClipSampler, condition: GuidedCondition, sigmas: Tensor) -> None:
        self.sampler = sampler
        self.condition = condition
        self.sigmas = sigmas
        self.remembers = remembers_negative(sampler)
        self._guided: list[bool] = sampler.guidance.applies(sigmas).tolist()
        self._negative_branch: dict[int, Tensor] = {}

    def __call__(self, x: Tensor, i: int) -> Tensor:
        """Return the velocity `(b, 16, t, h, w)` at step i."""
        remembered = i in self._negative_branch or not (self.remembers and self._guided[i])
        if torch.is_grad_enabled() or remembered:
            return self.at_once([x], [i])[0]
        sampler = self.sampler
        both = both_branches(sampler.generator, x, self.sigmas[i], self.condition)
        self._negative_branch[i] = both[0]
        return mixed_branches(*both, sampler.guidance)

    def with_gradient(self, x: Tensor, i: int) -> Tensor:
        """Return the velocity of a step that the rollout has not computed yet, differentiable."""
        if self.remembers and self._guided[i]:
            generator, negative = self.sampler.generator, self.condition.negative
            with torch.no_grad():
                self._negative_branch[i] = generator.velocity(x, self.sigmas[i], negative)
        return self(x, i)

    def at_once(self, xs: Sequence[Tensor], steps: Sequence[int]) -> list[Tensor]:
        """Return the velocities of several steps of the rollout from one model call."""
        sampler, count = self.sampler, len(steps)
        x = xs[0] if count == 1 else torch.cat(list(xs))
        sigma = self.sigmas[steps[0]]
        if count > 1:
            sigma = self.sigmas[list(steps)].repeat_interleave(len(xs[0]))
        if not self.remembers:
            condition = GuidedCondition(
                repeated(self.condition.positive, count), repeated(self.condition.negative, count)
            )
            v = guided_velocity(
                sampler.generator, x, sigma, condition, sampler.guidance, sampler.negative
            )
            return list(v.chunk(count))
        for i in steps:
            if self._guided[i] and i not in self._negative_branch:
                raise TuningError(f"the sweep needs step {i}, which the rollout did not visit")
        positive = repeated(self.condition.positive, count)
        v_positive = sampler.generator.velocity(x, sigma, positive)
        return [
            mixed_branches(self._negative_branch[i], v, sampler.guidance)
            if self._guided[i]
            else without_negative(v, sampler.guidance)
            for i, v in zip(steps, v_positive.chunk(count), strict=True)
        ]


def remembers_negative(sampler: ClipSampler) -> bool:
    """Return whether a rollout keeps the negative branch for its sweep: it has no gradient."""
    return sampler.negative == "detached" and sampler.guidance.scale != 1


def repeated(condition: Condition, count: int) -> Condition:
    """Repeat a condition of b clips for `count` batches; a tensor shared by all clips stays one."""
    if count == 1:
        return condition
    tensors = {
        field.name: getattr(condition, field.name)
        for field in fields(condition)
        if isinstance(getattr(condition, field.name), Tensor)
    }
    many = {
        name: tensor if len(tensor) == 1 else tensor.repeat(count, *[1] * (tensor.ndim - 1))
        for name, tensor in tensors.items()
    }
    return replace(condition, **many)
