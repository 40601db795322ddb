"""The cache that `generate` uses if none is named: only where there is evidence for it."""

from __future__ import annotations

from typing import Any

from reward_tuning.sampling.teacache import PUBLISHED, shape_of
from reward_tuning.schema.cache_kinds import CacheSection, Taylor, TeaCache

FEWEST_STEPS = 10
"""With fewer steps neighbouring ones differ too much: a cache saves nothing or changes the clip."""

FEWEST_EMBEDDED = 16
"""Fewest steps at which every measured clip stays above 40 dB to the plain one; at 10 the mean is
38 dB (docs/generator.md)."""

EMBEDDED = (6, 2, 3)
"""Shape of the embedded transformers (`shape_of`), on which `Taylor()` is measured."""


def automatic_cache(config: Any, steps: int, *, compiled: bool) -> CacheSection | None:
    """Return the cache for a checkpoint of this shape, or None.

    * Embedded: Taylor prediction with its default numbers, measured in docs/generator.md.
    * Published 7B and 12B: TeaCache with the authors' coefficients and threshold, which their
      `predict_t2v.py` turns on by default; not for a compiled transformer.
    * Any other: none.

    Args:
        config: The transformer's.
        steps: Number of steps that run.
        compiled: Whether the transformer is compiled.
    """
    shape = shape_of(config)
    if shape == EMBEDDED and steps >= FEWEST_EMBEDDED:
        return Taylor()
    if shape in PUBLISHED and steps >= FEWEST_STEPS and not compiled:
        return TeaCache()
    return None
