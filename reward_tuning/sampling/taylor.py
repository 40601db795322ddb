"""Predict the transformer's output at planned steps from its outputs at earlier ones.

TaylorSeer (Liu et al. 2025, arXiv 2503.06923) predicts features by a Taylor series whose
derivatives are finite differences of the last steps computed in full. Here, as in its "lite"
variant in diffusers, the feature is the output of the whole transformer. The differences are
divided by noise levels, not by the index of a step: the levels of a sampler are not evenly spaced.
The series is then Newton's polynomial through the last outputs, which Lagrange's weights write as
one sum. Guidance mixes the branches linearly, so predicting both is predicting the guided velocity.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from reward_tuning.lora.schedules import noise_level
from reward_tuning.sampling.replaced_forward import ReplacedForwards
from reward_tuning.schema.cache_kinds import Taylor


def prediction_weights(nodes: Sequence[float], at: float) -> list[float]:
    """Return Lagrange's weights: the polynomial through values at `nodes`, evaluated at `at`.

    Args:
        nodes: Distinct noise levels.
        at: Noise level of the prediction.

    Returns:
        One weight for each node; they add up to 1.
    """
    weights = []
    for j, node in enumerate(nodes):
        weight = 1.0
        for k, other in enumerate(nodes):
            if k != j:
                weight *= (at - other) / (node - other)
        weights.append(weight)
    return weights


class TaylorCache:
    """The prediction on a transformer's calls, within a `with`; afterwards nothing is left of it.

    Args:
        transformer: An `EasyAnimateTransformer3DModel`.
        plan: Interval, warm-up and order.
        steps: Number of calls in the `with`. The last but one is always computed: towards the clean
            clip the velocity turns most, and the last step of a sampler's table is tiny.

    Attributes:
        full_calls: Number of calls that ran the transformer.
    """

    def __init__(self, transformer: Any, plan: Taylor, steps: int) -> None:
        self._steps = steps
        self._transformer = transformer
        self._plan = plan
        self._full = False
        self._calls = 0
        self._past: list[tuple[float, Tensor]] = []
        self.full_calls = 0

    def __enter__(self) -> TaylorCache:
        """Put the prediction in front of the forward pass."""
        self._calls = self.full_calls = 0
        self._past = []
        self._replaced = ReplacedForwards([self._transformer])
        self._transformer.forward = self._in_front_of(self._transformer.forward)
        return self

    def __exit__(self, *error: object) -> None:
        """Restore the forward pass, and drop the outputs."""
        self._replaced.restore()
        self._past = []

    @contextmanager
    def call(self, *, full: bool = False) -> Iterator[None]:
        """Enter around each step's model call; `full` runs the transformer in any case."""
        self._full = full
        yield

    def _in_front_of(self, forward: Any) -> Any:
        def predicted_or_run(*args: Any, **named: Any) -> Any:
            latents = named["hidden_states"] if "hidden_states" in named else args[0]
            sigma = noise_level(args, named)
            if self._is_due(latents, sigma):
                return forward(*args, **named)
            nodes = [node for node, _ in self._past]
            weights = prediction_weights(nodes, sigma)
            parts = [
                weight * output for weight, (_, output) in zip(weights, self._past, strict=True)
            ]
            self._calls += 1
            return (torch.stack(parts).sum(dim=0).to(latents.dtype),)

        def remembering(*args: Any, **named: Any) -> Any:
            before = self._calls
            found = predicted_or_run(*args, **named)
            if self._calls == before:
                self._remember(noise_level(args, named), found[0])
            return found

        return remembering

    def _is_due(self, latents: Tensor, sigma: float) -> bool:
        """Whether this call runs: by plan, or because nothing fits that it could be made from."""
        enough = len(self._past) > self._plan.order
        return (
            self._full
            or not enough
            or len(self._past[-1][1]) != len(latents)
            or self._calls < self._plan.warm_up
            or (self._steps - 2 - self._calls) % self._plan.interval == 0
            or any(node == sigma for node, _ in self._past)
        )

    def _remember(self, sigma: float, output: Tensor) -> None:
        """Keep the output of a call that ran, with as many before it as the order needs."""
        if self._past and self._past[-1][1].shape != output.shape:
            self._past = []
        self._past = [(node, old) for node, old in self._past if node != sigma]
        self._past = [*self._past, (sigma, _precise(output))][-(self._plan.order + 1) :]
        self._calls += 1
        self.full_calls += 1


def _precise(output: Tensor) -> Tensor:
    """Return an output in float32 at least: differences of half-precision numbers are noise."""
    return output.detach().to(torch.promote_types(output.dtype, torch.float32))
