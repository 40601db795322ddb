"""The sides of an evaluation, as evaluation.json lists them for reports: format 2.

A side is the base or an adapter at one strength, sampled with one number of steps and one guidance
scale. Each side with an adapter is compared with the base that was sampled as it was.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from reward_tuning.inputs.prompts import Prompt
from reward_tuning.statistics.corrections import holm
from reward_tuning.tuning.evaluation import SideScores, compare

FORMAT = 2


@dataclass(frozen=True)
class Side:
    """One side.

    Attributes:
        name: Name in tables and reports, unique among the sides.
        scores: Scores on all prompts, or on some of them.
        steps: Euler steps of the whole table.
        guidance_scale: Classifier-free guidance; 1 = none.
        adapter: File or folder of the adapter; None for the base.
        adapter_sha256: Hash of its content (`adapter_sha256`); None for the base.
        strength: Factor of the adapter's effect; 0 for the base.
        against: Index of the side that it is compared with; None for a base.
        clips: Prompt index to the file of its first clip, relative to evaluation.json.
        more: Further keys of its record.
    """

    name: str
    scores: SideScores
    steps: int
    guidance_scale: float
    adapter: str | None = None
    adapter_sha256: str | None = None
    strength: float = 0.0
    against: int | None = None
    clips: Mapping[int, str] = field(default_factory=dict)
    more: Mapping[str, Any] = field(default_factory=dict)


def question_records(prompts: Sequence[Prompt], seed: Callable[[int], int]) -> list[dict[str, Any]]:
    """Return what each prompt asked.

    Args:
        prompts: Prompts of the evaluation, in order.
        seed: From the index of a prompt to the seed of its first clip's noise.
    """
    return [
        {
            "prompt": prompt.text,
            "reward_prompt": prompt.reward_text,
            "category": prompt.category,
            "seed": seed(index),
        }
        for index, prompt in enumerate(prompts)
    ]


def side_records(
    sides: Sequence[Side],
    *,
    prompts: int,
    seeds: int,
    seed: int,
    primary: str | None = None,
    decisive: int | None = None,
) -> list[dict[str, Any]]:
    """Return the record of each side.

    The p values are corrected for the number of comparisons (`holm`). Of the decisive side the
    primary metric is not corrected and the others are, for their number; all metrics of the other
    sides together are one family. Without a decisive side, the primary metrics of all sides are one
    family, and all other metrics another.

    Args:
        sides: The sides; one that is compared comes after the one it is compared with.
        prompts: Number of prompts of the evaluation.
        seeds: Clips for each prompt.
        seed: Seed of the resampling.
        primary: The metric that decides, named beforehand.
        decisive: Index of the side that decides, named beforehand; None for none.

    Raises:
        TuningError: A side has fewer than two prompts.
    """
    records = [_record(side, sides, prompts=prompts, seeds=seeds, seed=seed) for side in sides]
    families: dict[str, dict[tuple[int, str], dict[str, Any]]] = {}
    for index, record in enumerate(records):
        for name, found in record.get("difference", {}).items():
            family = "decisive" if index == decisive else "others"
            if name == primary and decisive in (None, index):
                family = "primary"
            families.setdefault(family, {})[index, name] = found
    for of in families.values():
        p_values = {str(key): found["p"] for key, found in of.items()}
        for found, p in zip(of.values(), holm(p_values).values(), strict=True):
            found["p_adjusted"] = p
    return records


def _record(
    side: Side, sides: Sequence[Side], *, prompts: int, seeds: int, seed: int
) -> dict[str, Any]:
    scores = {
        name: [of.get(index) for index in range(prompts)] for name, of in side.scores.values.items()
    }
    record: dict[str, Any] = {
        "name": side.name,
        "adapter": side.adapter,
        "adapter_sha256": side.adapter_sha256,
        "strength": side.strength,
        "steps": side.steps,
        "guidance_scale": side.guidance_scale,
        "scores": scores,
        "means": _finite(side.scores).means(),
        "against": side.against,
    }
    if side.against is not None:
        record["difference"] = _differences(
            sides[side.against].scores, side.scores, seeds=seeds, seed=seed
        )
    record["clips"] = {str(index): path for index, path in sorted(side.clips.items())}
    return record | dict(side.more)


def _differences(
    base: SideScores, tuned: SideScores, *, seeds: int, seed: int
) -> dict[str, dict[str, Any]]:
    """Compare each metric on the prompts where both sides have a finite score."""
    before, after = _finite(base).values, _finite(tuned).values
    shared = {
        name: [index for index in of if index in after[name]]
        for name, of in before.items()
        if name in after
    }
    # a metric with fewer than two finite scores has no interval, unless all of them have one
    kept = {name: both for name, both in shared.items() if len(both) > 1} or shared
    if not kept:
        return {}
    pair = (
        SideScores(
            {name: {index: of[name][index] for index in both} for name, both in kept.items()}
        )
        for of in (before, after)
    )
    found: dict[str, dict[str, Any]] = compare(*pair, seeds=seeds, seed=seed)["difference"]
    return found


def _finite(scores: SideScores) -> SideScores:
    """Return the scores that are finite, of the metrics that have one."""
    values = {
        name: {index: value for index, value in of.items() if math.isfinite(value)}
        for name, of in scores.values.items()
    }
    return SideScores({name: of for name, of in values.items() if of}, scores.clips)
