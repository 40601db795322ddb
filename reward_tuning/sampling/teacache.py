"""Skip all blocks while the input of the first one, as it is modulated, has changed little.

TeaCache (Liu et al. 2024, arXiv 2411.19108) in the form in which the authors of EasyAnimate ship it
(github.com/aigc-apps/EasyAnimate at c2a70d1, `easyanimate/models/transformer3d.py`):

* The signal is the video stream behind the first block's modulated norm. Its relative L1 change
  from one step to the next, |m_i - m_(i-1)|_1 / |m_(i-1)|_1 over the batch of both branches, is
  rescaled by a polynomial of degree 4 to the change that the output is expected to show.
* The rescaled changes add up. Below the threshold the step is skipped; at or above it the step is
  computed and the sum is 0 again. The first and the last step are always computed.
* A skipped step adds the residual of the last computed one: from the tokens before the first block
  to the output of the final, modulated norm. The projection behind it runs at each step.

The authors keep signal and residual on the CPU; here they stay on the device (two states).
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor

from base_model.core.family import FAMILY
from reward_tuning.errors import TuningError
from reward_tuning.sampling.replaced_forward import ReplacedForwards

Coefficients = Sequence[float]
"""Of a polynomial of degree 4, highest power first."""

SHAPE_KEYS = ("num_layers", "mmdit_layers", "num_attention_heads")
Shape = tuple[int, int, int]
"""Layers, those of them with weights of their own for the text, heads."""

PUBLISHED: dict[Shape, Coefficients] = {
    (36, 18, 48): (1.07862322, -4.19362456, 3.06725828, 0.33161686, 0.02374758),  # 7B
    (48, 48, 48): (-10.47857366, 8.33844143, -0.78477557, 0.68798618, 0.0136149),  # 12B
}
"""Fitted by the authors on the -InP checkpoints, and given for all kinds of a size."""

FITTED: dict[Shape, Coefficients] = {
    (6, 2, 3): (7989.58, -1998.43, 206.149, -9.63047, 0.208571),
}
"""`python -m benchmarks.teacache_fit --prompts 12`, on `tiny`."""


def rescaled(coefficients: Coefficients, change: float) -> float:
    """Return the polynomial's value at a relative change (Horner's scheme)."""
    value = 0.0
    for coefficient in coefficients:
        value = value * change + coefficient
    return value


def relative_change(before: Tensor, now: Tensor) -> float:
    """Return mean |now - before| / mean |before| over all elements."""
    return float((now - before).abs().mean() / before.abs().mean())


class TeaCacheHooks:
    """The cache on a transformer, within a `with`; afterwards the model is unchanged.

    Args:
        transformer: An `EasyAnimateTransformer3DModel`.
        coefficients: Five, highest power first.
        threshold: Sum of rescaled changes at which a step is computed; 0 computes each.
        steps: Number of calls in the `with`, of which the last is always computed.

    Attributes:
        full_calls: Number of calls in which every block ran.
    """

    def __init__(
        self, transformer: Any, coefficients: Coefficients, threshold: float, steps: int
    ) -> None:
        self._transformer = transformer
        self._coefficients = coefficients
        self._threshold = threshold
        self._steps = steps
        self._forget()

    def _forget(self) -> None:
        self._step = 0
        self._sum = 0.0
        self._full = self._skips = False
        self._signal: Tensor | None = None
        self._input: Tensor | None = None
        self._residual: Tensor | None = None
        self.full_calls = 0

    def __enter__(self) -> TeaCacheHooks:
        """Put the decision in front of the blocks."""
        self._forget()
        first, *others = blocks = getattr(self._transformer, FAMILY.blocks)
        norm_out = self._transformer.norm_out
        self._replaced = ReplacedForwards((*blocks, norm_out))
        self._norm = _on(self._transformer.proj.weight.device, first.norm1)
        first.forward = self._deciding(first.forward)
        for block in others:
            block.forward = self._skipping(block.forward)
        norm_out.forward = self._adding(norm_out.forward)
        return self

    def __exit__(self, *error: object) -> None:
        """Restore the forward passes, and drop what is kept."""
        self._replaced.restore()
        full = self.full_calls
        self._forget()
        self.full_calls = full
        del self._norm

    @contextmanager
    def call(self, *, full: bool = False) -> Iterator[None]:
        """Enter around each step's model call; `full` runs every block in any case."""
        self._full = full
        yield
        self._step += 1

    def _skippable(self, signal: Tensor) -> bool:
        """Add the step's change to the sum, and say whether the step can be skipped."""
        before, self._signal = self._signal, signal
        ends = self._step == 0 or self._step >= self._steps - 1
        fits = self._residual is not None and before is not None and before.shape == signal.shape
        if ends or self._full or not fits:
            self._sum = 0.0
            return False
        assert before is not None
        self._sum += rescaled(self._coefficients, relative_change(before, signal))
        # with a polynomial below 0 the sum would be below a threshold of 0
        if self._threshold > 0.0 and self._sum < self._threshold:
            return True
        self._sum = 0.0
        return False

    def _deciding(self, forward: Any) -> Any:
        def first_block(hidden: Tensor, text: Tensor, temb: Tensor, *rest: Any) -> Any:
            signal = self._norm(hidden.detach(), text.detach(), temb.detach())[0].detach()
            self._skips = self._skippable(signal)
            self._input = hidden.detach()
            if self._skips:
                return hidden, text
            self.full_calls += 1
            return forward(hidden, text, temb, *rest)

        return first_block

    def _skipping(self, forward: Any) -> Any:
        def block(hidden: Tensor, text: Tensor, *rest: Any) -> Any:
            return (hidden, text) if self._skips else forward(hidden, text, *rest)

        return block

    def _adding(self, forward: Any) -> Any:
        def final_norm(hidden: Tensor, *rest: Any, **named: Any) -> Tensor:
            assert self._input is not None
            if self._skips:
                assert self._residual is not None
                return self._input + self._residual
            found: Tensor = forward(hidden, *rest, **named)
            self._residual = found.detach() - self._input
            return found

        return final_norm


def _on(device: Any, norm: Any) -> Any:
    """Return the first block's norm on the device, where streamed weights rest elsewhere."""
    if next(norm.parameters()).device == device:
        return norm
    return copy.deepcopy(norm).to(device)


def shape_of(config: Any) -> Shape:
    """Return what tells the sizes of the family apart, from a transformer's config."""
    return shape_in({key: getattr(config, key) for key in SHAPE_KEYS})


def shape_in(config: Mapping[str, Any]) -> Shape:
    """Return the same from the content of a config file, which may lack diffusers' defaults."""
    layers, mmdit, heads = (int(config.get(key, 48)) for key in SHAPE_KEYS)
    return layers, min(mmdit, layers), heads


def coefficients_of(shape: Shape) -> Coefficients:
    """Return the coefficients that are known for transformers of a shape.

    Raises:
        TuningError: None are known.
    """
    known = (PUBLISHED | FITTED).get(shape)
    if known is not None:
        return known
    raise TuningError(
        f"teacache: no coefficients are known for a transformer of {shape[0]} layers and "
        f"{shape[2]} heads; fit them with `python -m benchmarks.teacache_fit --checkpoint NAME` "
        "and give them as rollout.cache.coefficients, or use first-block, which needs none"
    )
