"""The last words of a run: what improved, how much, how surely, and where everything is."""

import json
from pathlib import Path
from typing import Any

from reward_tuning.cli.output import print_json, print_table
from reward_tuning.errors import TuningError
from reward_tuning.yaml_text import read_yaml

PLACES = {
    "lora": "lora",
    "clips": "samples",
    "metrics": "metrics.jsonl",
    "evaluation": "evaluation.json",
    "report": "report.html",
}


def summary(folder: Path) -> dict[str, Any]:
    """Read what a finished run folder says of itself.

    Returns:
        `{"run": folder, "evaluation": evaluation.json, "places": {what: path}}`.

    Raises:
        TuningError: There is no evaluation in it, or it is damaged.
    """
    path = folder / "evaluation.json"
    try:
        evaluation = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise TuningError(
            f"{folder} holds no evaluation.json: the run is not finished; go on with "
            f"`reward-tuning resume {folder}`"
        ) from error
    except json.JSONDecodeError as error:
        raise TuningError(f"{path} is damaged ({error}); delete it and resume the run") from error
    if not isinstance(evaluation, dict) or not {"base", "tuned", "difference"} <= evaluation.keys():
        raise TuningError(f"{path} is damaged (no sides in it); delete it and resume the run")
    places = {what: str(folder / name) for what, name in PLACES.items() if (folder / name).exists()}
    return {"run": str(folder), "evaluation": evaluation, "places": places}


FEWEST_PROMPTS = 8
"""A bootstrap over fewer finds an interval too narrow to say anything of."""


def verdict(low: float, high: float, prompts: int) -> str:
    """Say what a 95 % interval of a difference over so many prompts shows."""
    if low == high == 0:
        return "same"
    if prompts < FEWEST_PROMPTS:
        return "too few prompts"
    if low > 0:
        return "up"
    return "down" if high < 0 else "unclear"


def print_summary(folder: Path, *, as_json: bool) -> None:
    """Print a run's result as a table, or as JSON."""
    found = summary(folder)
    if as_json:
        print_json(found)
        return
    evaluation = found["evaluation"]
    base, tuned = evaluation["base"], evaluation["tuned"]
    rows = []
    for metric, change in evaluation["difference"].items():
        rows.append(
            (
                metric,
                f"{base[metric]:.4f}",
                f"{tuned[metric]:.4f}",
                f"{change['mean']:+.4f}",
                f"{change['low']:+.4f} to {change['high']:+.4f}",
                verdict(change["low"], change["high"], evaluation["prompts"]),
            )
        )
    seeds = evaluation["seeds"]
    start = str(evaluation.get("start", "base"))
    title = (
        f"{start[0].upper()}{start[1:]} against tuned on {evaluation['prompts']} held-out prompts, "
        f"{seeds} clip{'' if seeds == 1 else 's'} each, same noise"
    )
    print_table(title, ("", "base", "tuned", "change", "95 % interval", "verdict"), rows)
    for what, place in found["places"].items():
        print(f"{what + ':':12}{place}")


FINETUNE_PLACES = ("lora", "generator", "samples", "metrics.jsonl", "clips.json", "finetune.json")


def print_run(folder: Path) -> None:
    """Print what came of a run, a reward tuning or a fine-tuning, or how far it is.

    Raises:
        TuningError: A file of it is damaged.
    """
    if (folder / "finetune.json").is_file():
        print_finetune(folder, _read(folder / "finetune.json"))
    elif (folder / "evaluation.json").is_file():
        print_summary(folder, as_json=False)
    else:
        print(f"{how_far(folder)}\ngo on with: reward-tuning resume {folder}")


def print_finetune(folder: Path, found: dict[str, Any]) -> None:
    """Print what a fine-tuning did, and where everything is."""
    print(finetune_told(found))
    for name, place in finetune_places(folder).items():
        print(f"{name + ':':15}{place}")


def finetune_places(folder: Path) -> dict[str, str]:
    """What a fine-tuning left, by name."""
    return {n: str(folder / n) for n in FINETUNE_PLACES if (folder / n).exists()}


def finetune_told(found: dict[str, Any]) -> str:
    """What a fine-tuning did, in two or three lines.

    Args:
        found: The content of finetune.json.
    """
    lines = [
        f"{found['steps']} steps on {found['clips']} clips, {found['epochs']:.1f} epochs; "
        f"{len(found['broken'])} files could not be used"
    ]
    if found["base"] and found["tuned"]:
        base, tuned = found["base"]["loss"], found["tuned"]["loss"]
        lines.append(
            f"loss of the held-out clips: {base:.4f} before, {tuned:.4f} after "
            f"({(tuned - base) / base:+.1%})"
        )
    return "\n".join(lines)


def how_far(folder: Path) -> str:
    """The last row of a run that is not finished, in a line."""
    rows = []
    if (folder / "metrics.jsonl").is_file():
        text = (folder / "metrics.jsonl").read_text(encoding="utf-8", errors="replace")
        rows = [line for line in text.splitlines() if line.endswith("}")]
    steps = read_yaml((folder / "recipe.yaml").read_text(encoding="utf-8"))["train"]["steps"]
    if not rows:
        return f"{folder}: no step of {steps} is done"
    row = json.loads(rows[-1])
    loss = "not finite" if row["loss"] is None else f"{row['loss']:.4f}"
    return f"{folder}: not finished, step {row['step']} of {steps}, loss {loss}"


def _read(path: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise TuningError(f"{path} is damaged ({error}); delete it and resume the run") from error
    return found
