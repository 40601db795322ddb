"""The results of an evaluation in files: evaluation.json and evaluation.csv."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from reward_tuning.evidence.clip_cache import KEPT
from reward_tuning.evidence.metric_names import DIVERSITY, MetricNames
from reward_tuning.evidence.request import Setup
from reward_tuning.evidence.sides_plan import PlannedSide, decisive_side
from reward_tuning.evidence.texts import comparisons, gain_kept, sentences
from reward_tuning.files.atomic_write import atomic_write
from reward_tuning.files.finite_json import without_infinities
from reward_tuning.schema.cache_kinds import cache_text
from reward_tuning.schema.primary import MEASURES
from reward_tuning.seeds import derive_seed
from reward_tuning.tuning.evaluation import SideScores, evaluation_seed
from reward_tuning.tuning.sides import (
    FORMAT,
    Side,
    question_records,
    side_records,
)

JSON_FILE, CSV_FILE = "evaluation.json", "evaluation.csv"
RATIOS = (*MEASURES, DIVERSITY)
"""Measures whose ratio to the base is recorded."""


def results(
    setup: Setup,
    names: MetricNames,
    sides: Sequence[PlannedSide],
    scores: Sequence[SideScores],
    clips: Sequence[Mapping[int, str]],
) -> dict[str, Any]:
    """Return the content of evaluation.json.

    Args:
        setup: What all sides have in common.
        names: The metrics.
        sides: The sides.
        scores: Scores of each.
        clips: Of each side, prompt index to the file of its first clip.

    Returns:
        What a run's evaluation.json has (`base`, `tuned` and `difference` are those of the side
        that decides, or of the first one), with `ratios`, `gain_kept` and `step` of each side,
        `comparisons`, `texts`, `features_of` and `sampling`.
    """
    decisive, interval = decisive_side(sides), setup.sampling.guidance_steps
    records = side_records(
        [_side(*one) for one in zip(sides, scores, clips, strict=True)],
        prompts=len(setup.prompts),
        seeds=setup.seeds,
        seed=derive_seed(setup.seed, "bootstrap") % 2**32,
        primary=setup.primary,
        decisive=decisive,
    )
    for side, record in zip(sides, records, strict=True):
        if side.against is not None:
            record["ratios"] = _ratios(record["means"], records[side.against]["means"])
            record["gain_kept"] = gain_kept(record["difference"])
    found: dict[str, Any] = {
        "format": FORMAT,
        "start": "base",
        "trained_on": list(setup.trained_on),
        "never_trained_on": list(setup.never_trained_on),
        "primary": setup.primary,
        "prompts": len(setup.prompts),
        "seeds": setup.seeds,
    }
    shown = decisive if decisive is not None else next(iter(range(1, len(records))), None)
    if shown is not None and "difference" in records[shown]:
        difference = records[shown]["difference"]
        for key, record in (("base", records[0]), ("tuned", records[shown])):
            found[key] = {name: record["means"][name] for name in difference}
        found["difference"] = difference
    found |= {
        "features_of": names.seer,
        "comparisons": comparisons(records),
        "sampling": {
            "generator": setup.generator.checkpoint,
            "seed": setup.seed,
            "frames": setup.size[0],
            "height": setup.size[1],
            "width": setup.size[2],
            "negative_prompt": setup.sampling.negative_prompt,
            "guidance_rescale": setup.sampling.guidance_rescale,
            **({} if interval is None else {"guidance_steps": list(interval)}),
            **({} if setup.cache is None else {"cache": cache_text(setup.cache)}),
            "dtype": setup.generator.dtype,
        },
        "questions": question_records(
            setup.prompts, lambda index: evaluation_seed(setup.seed, index, 0)
        ),
        "sides": records,
    }
    found["texts"] = sentences(found)
    plain: dict[str, Any] = without_infinities(found)
    return plain


def write_results(folder: Path, found: Mapping[str, Any]) -> None:
    """Write evaluation.csv, then evaluation.json: its existence marks a finished evaluation.

    Raises:
        TuningError: The disk is full.
    """
    atomic_write(folder / CSV_FILE, _csv(found).encode(), advice=KEPT)
    text = json.dumps(found, ensure_ascii=False, indent=2, allow_nan=False)
    atomic_write(folder / JSON_FILE, text.encode(), advice=KEPT)


def _side(side: PlannedSide, scores: SideScores, clips: Mapping[int, str]) -> Side:
    adapter = side.adapter
    return Side(
        name=side.name,
        scores=scores,
        steps=side.steps,
        guidance_scale=float(side.guidance_scale),
        adapter=None if adapter is None else str(adapter.named.path),
        adapter_sha256=None if adapter is None else adapter.sha256,
        strength=float(side.strength),
        against=side.against,
        clips=clips,
        more={} if adapter is None else {"step": adapter.named.step},
    )


def _ratios(means: Mapping[str, float], base: Mapping[str, float]) -> dict[str, float]:
    """Return the ratio of means to the base's, of the measures where 1 is healthy."""
    return {
        name: means[name] / base[name]
        for name in RATIOS
        if name in means and base.get(name, 0.0) != 0.0
    }


def _csv(found: Mapping[str, Any]) -> str:
    """Return one row a side and prompt, one column a metric."""
    metrics = list(dict.fromkeys(name for side in found["sides"] for name in side["scores"]))
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    about = ["side", "strength", "steps", "guidance_scale", "number", "category", "prompt"]
    table.writerow([*about, *metrics])
    for side in found["sides"]:
        how = [side["name"], side["strength"], side["steps"], side["guidance_scale"]]
        for index, question in enumerate(found["questions"]):
            values = [side["scores"].get(name, {index: None})[index] for name in metrics]
            asked = [index, question["category"] or "", question["prompt"]]
            table.writerow([*how, *asked, *("" if one is None else one for one in values)])
    return text.getvalue()
