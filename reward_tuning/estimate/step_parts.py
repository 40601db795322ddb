"""Which part of an optimiser step runs now: transformer, decoder, judges, texts, or the rest.

`watched` labels a step's parts without changing a number. A label is entered where a part begins,
and again where the backward pass enters it: an identity at each part's ends says so to autograd.
Whoever counts or times a step listens to the changes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from base_model.generator import Condition, Generator, GuidedCondition, TextCondition
from reward_tuning.judges.judge import Judge
from reward_tuning.lora.adapter import adapted_layers
from reward_tuning.progress import ProgressEvent
from rewards import FrameReward
from rewards.kinds.clip import ClipReward

REST = "rest"
TRANSFORMER = ("positive", "negative", "both", "base")
"""Parts of calls of the transformer: one branch, both in one call, and without the adapter."""

Where = tuple[str, str]
"""Phase of the step and part of it."""


class Parts:
    """The part that runs now.

    Args:
        changed: Called before each change, with what ends.

    Attributes:
        phase: As the step reports it: rollout, reward, sweep, update.
        part: What runs.
        negative: Negative branches of the step's conditions.
        positive: Positive branches.
    """

    def __init__(self, changed: Callable[[Where], None] = lambda ended: None) -> None:
        self._changed = changed
        self.phase = self.part = REST
        self.negative: list[Condition] = []
        self.positive: list[Condition] = []

    @property
    def where(self) -> Where:
        """Phase and part."""
        return self.phase, self.part

    def go(self, part: str, phase: str | None = None) -> None:
        """Change to another part."""
        if (part, phase or self.phase) != (self.part, self.phase):
            self._changed(self.where)
            self.part, self.phase = part, phase or self.phase

    def on_progress(self, event: ProgressEvent) -> None:
        """Take the phase from a step's events."""
        if event.stage == "training":
            self.go(REST, event.phase or REST)

    @contextmanager
    def at(self, part: str) -> Iterator[None]:
        """Run a part, then the one before."""
        before = self.part
        self.go(part)
        try:
            yield
        finally:
            self.go(before)

    def entrance(self, x: Tensor, part: str) -> Tensor:
        """An input of a part: the backward pass leaves the part here."""
        return _Mark.apply(x, self, self.part if self.part != part else REST)

    def exit(self, y: Tensor, part: str) -> Tensor:
        """The output of a part: the backward pass enters the part here."""
        return _Mark.apply(y, self, part)


class _Mark(torch.autograd.Function):
    """The identity, whose backward says where the backward pass is."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, parts: Parts, part: str) -> Tensor:
        ctx.parts, ctx.part = parts, part
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        parts = ctx.parts
        parts.go(ctx.part)
        # A leaf that needs no gradient has no mark of its own: the part ends with the pass.
        torch.autograd.Variable._execution_engine.queue_callback(lambda: parts.go(REST))
        return gradient, None, None


class WatchedGenerator(Generator):
    """A generator whose calls are labelled; `parts` is set by `watched`."""

    parts: Parts

    def conditioned(self, text: TextCondition, latents: Tensor | None) -> GuidedCondition:
        """Remember which branch is which."""
        both = super().conditioned(text, latents)
        self.parts.negative.append(both.negative)
        self.parts.positive.append(both.positive)
        return both

    def velocity(self, latents: Tensor, sigma: Tensor | float, condition: Condition) -> Tensor:
        """Label one call of the transformer."""
        part = self.branch_of(condition)
        x = self.parts.entrance(latents, part)
        with self.parts.at(part):
            v = super().velocity(x, sigma, condition)
        return self.parts.exit(v, part)

    def branch_of(self, condition: Condition) -> str:
        """Return which branches a call runs, or `base` without the adapter."""
        layers = adapted_layers(self.transformer)
        if layers and all(layer.disable_adapters for layer in layers.values()):
            return "base"
        if any(condition is one for one in self.parts.negative):
            return "negative"
        if any(condition is one for one in self.parts.positive) or torch.is_grad_enabled():
            return "positive"  # with gradient also: repeated for several steps at once
        return "both"

    def decode(self, latents: Tensor, *arguments: Any, **options: Any) -> Tensor:
        """Label a decode."""
        z = self.parts.entrance(latents, "decoder")
        with self.parts.at("decoder"):
            frames = super().decode(z, *arguments, **options)
        return self.parts.exit(frames, "decoder")


def watched(generator: Generator, judges: Sequence[Judge], parts: Parts) -> None:
    """Label the calls of a generator and of judges, in place."""
    generator.__class__ = WatchedGenerator
    assert isinstance(generator, WatchedGenerator)
    generator.parts = parts
    for judge in judges:
        reward = judge.reward
        if isinstance(reward, FrameReward):  # also called frame by frame
            reward.per_frame = _judged(reward.per_frame, parts)  # type: ignore[method-assign]
        else:
            plain = type(reward)
            labelled = _judged(plain.__call__.__get__(reward), parts)
            called = {"__call__": lambda self, *a, _labelled=labelled: _labelled(*a)}
            reward.__class__ = type(plain.__name__, (plain,), called)
        if isinstance(reward, ClipReward):
            tower = reward.tower
            tower.text_features = _texts(tower.text_features, parts)  # type: ignore[method-assign]


def _judged(score: Callable[..., Tensor], parts: Parts) -> Callable[..., Tensor]:
    def judged(seen: Tensor, *others: Any) -> Tensor:
        seen = parts.entrance(seen, "judges")
        with parts.at("judges"):
            scores = score(seen, *others)
        return parts.exit(scores, "judges")

    return judged


def _texts(features: Callable[..., Tensor], parts: Parts) -> Callable[..., Tensor]:
    def text_features(prompts: Sequence[str]) -> Tensor:
        with parts.at("text"):
            return features(prompts)

    return text_features
