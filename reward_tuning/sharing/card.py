"""The model card of a run: front matter for a hub, evaluation, instructions, limits."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCardData
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from reward_tuning.errors import TuningError
from reward_tuning.files.json_text import parsed_json
from reward_tuning.lora.export import DIFFUSERS_FILE, ORIGINAL_FILE
from reward_tuning.report.metric_groups import label_of
from reward_tuning.runs.evaluation_file import WHOLE, read_evaluation_file
from reward_tuning.runs.folder import RunFolder
from reward_tuning.runs.status import unfinished_text
from reward_tuning.schema.loading import load_recipe
from reward_tuning.schema.recipe import Recipe
from reward_tuning.statistics.verdicts import (
    comparisons_line,
    interval_text,
    primary_of,
    role_of,
    value_text,
    verdict_sentence,
    verdicts,
)

TEMPLATES = Path(__file__).parent / "templates"
MARKDOWN = re.compile(r"([\\`*_{}\[\]<>#|~$&])")
TAGS = ["lora", "text-to-video", "reward-tuning", "easyanimate"]


def model_card(run: Path, *, title: str | None = None, licence: str | None = None) -> str:
    """Return the model card of a finished run.

    Args:
        run: Folder of a reward tuning.
        title: Heading; None makes one from base and judges.
        licence: Identifier of the LoRA's licence, such as `apache-2.0`; None states none.

    Raises:
        TuningError: The folder is not of a finished reward tuning.
    """
    folder, recipe = RunFolder(run), finished_recipe(run)
    evaluation = read_evaluation_file(folder.evaluation, WHOLE)
    assert evaluation is not None, "finished_recipe has checked it"
    base = recipe.generator.checkpoint
    on_hub = is_hub_id(base)
    # Of evaluation.json's judges those that only compare clips are missing.
    judges = [judge.label for judge in recipe.rewards]
    heading = title or f"{public_name(base)}, tuned on {' and '.join(judges)}"
    clips = shown_clips(run)
    data = ModelCardData(
        base_model=base if on_hub else None,
        library_name="diffusers",
        license=licence,
        pipeline_tag="text-to-video",
        tags=TAGS,
        widget=[
            {"text": clip["prompt"], "output": {"url": f"clips/{clip['file']}"}} for clip in clips
        ]
        or None,
    )
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        undefined=StrictUndefined,
        autoescape=False,  # Markdown: every text from outside goes through `text`
        keep_trailing_newline=True,
        trim_blocks=True,
    )
    environment.filters["text"] = as_text
    environment.filters["interval"] = interval_of_guidance
    shell_base = shlex.quote(base if on_hub or base == "tiny" else "BASE_FOLDER")
    return environment.get_template("card.md").render(
        front_matter=data.to_yaml().strip(),
        title=heading,
        start=evaluation.get("start", "base"),
        summary=verdict_sentence(evaluation).replace("`", ""),
        comparisons=comparisons_line(evaluation),
        clips=clips,
        base=public_name(base),
        hashes=folder.initial_fingerprints(),
        versions=folder.initial_versions(),
        trained_on=judges,
        never_trained_on=evaluation["never_trained_on"],
        recipe=recipe,
        steps=recipe.train.steps,
        title_of_table=(
            f"Base against tuned on {evaluation['prompts']} held-out prompts, "
            f"{evaluation['seeds']} clip{'s' * (evaluation['seeds'] > 1)} each, same noise."
        ),
        rows=table_rows(evaluation),
        diffusers_base=base if on_hub else "BASE_FOLDER",
        shell_base=shell_base,
        diffusers_file=DIFFUSERS_FILE,
        original_file=ORIGINAL_FILE,
        evaluation_steps=recipe.evaluation.steps or recipe.sampling.steps,
        embedded=base == "tiny",
        licence_text=(
            f"{licence}. The licence of the base applies as well."
            if licence
            else "The author of this LoRA states none. The licence of the base applies."
        ),
    )


def finished_recipe(run: Path) -> Recipe:
    """Return the recipe of a run that can be shown to others.

    Raises:
        TuningError: The folder holds no reward tuning, or one that is not finished.
    """
    if not (run / "recipe.yaml").is_file():
        raise TuningError(f"{run} is not a run folder: it has no recipe.yaml")
    if (run / "finetune.json").is_file():
        raise TuningError(
            f"{run} is a fine-tuning, which measures no reward; a card is for a reward tuning"
        )
    if RunFolder(run).read_evaluation() is None or not (run / "lora").is_dir():
        raise TuningError(f"{run} has no evaluation.json and lora yet: {unfinished_text(run)}")
    return load_recipe(run / "recipe.yaml", check_files=False)


def is_hub_id(checkpoint: str) -> bool:
    """Return whether a checkpoint is named by its hub id, `owner/name`, and not by a path."""
    return (
        re.fullmatch(r"[\w.-]+/[\w.-]+", checkpoint) is not None and not Path(checkpoint).exists()
    )


def public_name(checkpoint: str) -> str:
    """Return a checkpoint's name for others: of a path its last part, which names no home."""
    return checkpoint if is_hub_id(checkpoint) else Path(checkpoint).name


def as_text(value: Any) -> str:
    """Escape a text for Markdown, so that a prompt or a name is shown and never rendered."""
    return MARKDOWN.sub(r"\\\1", " ".join(str(value).split()))


def interval_of_guidance(interval: tuple[float, float] | None) -> str:
    """Return what a card adds where only some noise levels are guided."""
    return "" if interval is None else f" at noise levels {interval[0]:g} to {interval[1]:g}"


def shown_clips(run: Path) -> list[dict[str, str]]:
    """Return file and prompt of the side-by-side clips that the run has kept."""
    about = run / "samples" / "prompts.json"
    if not about.is_file():
        return []
    try:
        rows = parsed_json(about.read_text(encoding="utf-8"))
        listed = [{"file": str(row["file"]), "prompt": str(row["prompt"])} for row in rows]
    except (ValueError, KeyError, TypeError) as error:
        raise TuningError(
            f"{about} is damaged ({error}); delete it to leave the clips out"
        ) from error
    folder = run / "samples" / "before-after"
    # The last part of a name alone: the list may come from others, and the clips are uploaded.
    named = [{**one, "file": Path(one["file"]).name} for one in listed]
    return [one for one in named if (folder / one["file"]).is_file()]


def table_rows(evaluation: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Return the rows of the evaluation's table: measure, role, base, tuned, change, verdict."""
    found = verdicts(evaluation, primary_of(evaluation))
    rows = []
    for measure, change in evaluation["difference"].items():
        shown = [value_text(measure, evaluation[side][measure]) for side in ("base", "tuned")]
        interval = "" if change["low"] is None else interval_text(measure, change)
        head = (label_of(measure), role_of(measure, evaluation))
        rows.append((*head, *shown, interval, found[measure]))
    return rows
