"""The summary of a run: its result table, the paths of its files, and the next commands."""

import contextlib
import shlex
import shutil
import sys
import textwrap
from pathlib import Path
from typing import Any

from reward_tuning.cli.end_table import COLUMNS, lines_below, table_rows
from reward_tuning.cli.output import print_json, print_table
from reward_tuning.errors import TuningError
from reward_tuning.files.json_text import parsed_json
from reward_tuning.files.yaml_text import read_yaml
from reward_tuning.runs.evaluation_file import read_evaluation_file
from reward_tuning.statistics.verdicts import primary_of, verdict_sentence, verdicts

WIDTH = 80  # of the lines below the table, in characters
PLACES = {
    "report": "report.html",
    "lora": "lora",
    "clips": "evaluation",
    "samples": "samples",
    "metrics": "metrics.jsonl",
    "evaluation": "evaluation.json",
}

SHOWN = ("base", "tuned", "difference")


def summary(folder: Path) -> dict[str, Any]:
    """Return the summary of a finished run.

    Returns:
        `{"run": folder, "evaluation": content of evaluation.json, "verdict": sentence on the
        metric that decides, "verdicts": {metric: verdict}, "places": {name: path}, "next":
        commands}`.

    Raises:
        TuningError: The folder has no evaluation.json, or it is damaged.
    """
    evaluation = read_evaluation_file(folder / "evaluation.json", SHOWN)
    if evaluation is None:
        from reward_tuning.runs.status import unfinished_text

        raise TuningError(f"{folder} has no evaluation.json: {unfinished_text(folder)}")
    places = {what: str(folder / name) for what, name in PLACES.items() if (folder / name).exists()}
    return {
        "run": str(folder),
        "evaluation": evaluation,
        "verdict": verdict_sentence(evaluation),
        "verdicts": verdicts(evaluation, primary_of(evaluation)),
        "places": places,
        "next": next_commands(folder),
    }


def next_commands(folder: Path) -> list[str]:
    """Return the usual next commands after a run.

    They open its report, generate clips sampled as in its evaluation, evaluate it further and
    export the LoRA.
    """
    run, prompt = shlex.quote(str(folder)), "..."
    with contextlib.suppress(
        OSError, ValueError, LookupError, TypeError
    ):  # the user may have deleted the samples
        samples = parsed_json((folder / "samples" / "prompts.json").read_text(encoding="utf-8"))
        prompt = str(samples[0]["prompt"])
    checkpoint, how = generated_from(folder)
    program = _program()
    return [
        f"{program} report {run} --open",
        generate_command(str(folder), checkpoint, prompt, how),
        f"{program} evaluate {run} --strengths 0.5 1",
        f"{program} export {run} --format original --output lora.safetensors",
    ]


def generate_command(lora: str, checkpoint: str, prompt: str = "...", how: str = "") -> str:
    """Return the command that generates clips with a LoRA.

    Args:
        lora: Run folder, or LoRA.
        checkpoint: Its generator.
        prompt: Of the clip.
        how: Further options, each with a space after it.
    """
    of = f"--checkpoint {shlex.quote(checkpoint)} " if checkpoint != "tiny" else ""
    return (
        f"{_program()} generate {of}--lora {shlex.quote(lora)} {how}--prompt {shlex.quote(prompt)} "
        "--output clips"
    )


def generated_from(folder: Path) -> tuple[str, str]:
    """Return what `generate_command` takes as `checkpoint` and `how` for a run.

    They are `tiny` and nothing where the user has deleted the recipe, or edited it beyond reading.
    """
    with contextlib.suppress(OSError, TuningError, LookupError, TypeError, AttributeError):
        recipe = read_yaml((folder / "recipe.yaml").read_text(encoding="utf-8"))
        return str(recipe["generator"]["checkpoint"]), _sampled_as_evaluated(recipe)
    return "tiny", ""


def _sampled_as_evaluated(recipe: dict[str, Any]) -> str:
    """Return the options of `generate` that sample as the run's evaluation did."""
    sampling, evaluation = recipe.get("sampling", {}), recipe.get("evaluation", {})
    steps = evaluation.get("steps") or sampling.get("steps")
    scale = sampling.get("guidance_scale")
    if "student" in recipe:  # a distillation, whose LoRA needs its own few steps
        steps, scale = recipe["student"]["steps"], 1
    given = {"--steps": steps, "--guidance-scale": scale}
    told = "".join(f"{name} {value:g} " for name, value in given.items() if value is not None)
    interval = evaluation.get("guidance_steps")
    return told if interval is None else f"{told}--guidance-steps {interval[0]:g} {interval[1]:g} "


def _program() -> str:
    """Return the command as this shell finds it: after `make demo` it is not on the PATH."""
    name = "reward-tuning"
    started = Path(sys.argv[0])
    if shutil.which(name) is None and started.name == name and started.is_file():
        return shlex.quote(str(started))
    return name


def print_summary(folder: Path, *, as_json: bool) -> None:
    """Print the summary of a finished run as a table, or as JSON."""
    found = summary(folder)
    if as_json:
        print_json(found)
        return
    evaluation = found["evaluation"]
    seeds = evaluation["seeds"]
    start = str(evaluation.get("start", "base"))
    title = (
        f"{start[0].upper()}{start[1:]} against tuned on {evaluation['prompts']} held-out prompts, "
        f"{seeds} clip{'' if seeds == 1 else 's'} each, same noise"
    )
    print_table(title, COLUMNS, table_rows(evaluation))
    checkpoint = (
        [f"guards: {evaluation['checkpoint'].get('text', '')}"]
        if evaluation.get("checkpoint")
        else []
    )
    for line in [*lines_below(evaluation), *checkpoint]:
        print(textwrap.fill(line, WIDTH, break_long_words=False, break_on_hyphens=False))
    for what, place in found["places"].items():
        print(f"{what + ':':12}{place}")
    print("next:")
    for command in found["next"]:
        print(f"  {command}")


FINETUNE_PLACES = (
    *("report.html", "lora", "generator", "samples"),
    *("metrics.jsonl", "clips.json", "finetune.json"),
)


def print_run(folder: Path, *, as_json: bool = False) -> None:
    """Print the result of a reward tuning or fine-tuning run, or its progress if unfinished.

    Raises:
        TuningError: A file of the run is damaged.
    """
    if (folder / "finetune.json").is_file():
        print_finetune(folder, _read(folder / "finetune.json"), as_json=as_json)
        return
    if (folder / "evaluation.json").is_file():
        print_summary(folder, as_json=as_json)
        return
    from reward_tuning.runs.status import is_running

    running = is_running(folder)
    if as_json:
        steps, row = _last_row(folder)
        found = {"run": str(folder), "finished": False, "running": running}
        print_json(found | {"steps": steps, "last": row})
    elif running:
        watch = f"{_program()} watch {shlex.quote(str(folder))}"
        print(f"{progress_line(folder, running=True)}\nfollow it with: {watch}")
    else:
        from reward_tuning.runs.folder import RunFolder
        from reward_tuning.runs.resume_command import resume_command

        command = resume_command(folder, RunFolder(folder).initial_processes())
        print(f"{progress_line(folder)}\nresume with: {command}")


def print_evaluation(folder: Path, *, as_json: bool) -> None:
    """Print the result of `evaluate` again, as the verb did.

    Raises:
        TuningError: The file is damaged, or of something else.
    """
    from reward_tuning.cli.sides_table import print_sides

    path = folder / "evaluation.json"
    try:
        found = parsed_json(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise TuningError(f"{path} is damaged ({error}); repeat the evaluation") from error
    if not isinstance(found, dict) or not {"sides", "primary", "texts"} <= found.keys():
        raise TuningError(
            f"{path} is not of `evaluate`; give a run folder or the folder of an evaluation"
        )
    print_sides(found, folder, as_json=as_json)


def print_finetune(folder: Path, found: dict[str, Any], *, as_json: bool = False) -> None:
    """Print the result of a fine-tuning run and the paths of its files."""
    places = finetune_places(folder)
    if as_json:
        print_json({"run": str(folder), **found, "places": places})
        return
    print(finetune_result(found))
    for name, place in places.items():
        print(f"{name + ':':15}{place}")


def finetune_places(folder: Path) -> dict[str, str]:
    """Return the files that a fine-tuning run has written, by name."""
    return {n: str(folder / n) for n in FINETUNE_PLACES if (folder / n).exists()}


def finetune_result(found: dict[str, Any]) -> str:
    """Describe the result of a fine-tuning run in one or two lines.

    Args:
        found: Content of finetune.json.
    """
    lines = [
        f"{found['steps']} steps on {found['clips']} clips, {found['epochs']:.1f} epochs; "
        f"{len(found['broken'])} files could not be used"
    ]
    if found["base"] and found["tuned"]:
        base, tuned = found["base"]["loss"], found["tuned"]["loss"]
        lines.append(
            f"loss on the held-out clips: {base:.4f} before, {tuned:.4f} after "
            f"({(tuned - base) / base:+.1%})"
        )
    return "\n".join(lines)


def progress_line(folder: Path, *, running: bool = False) -> str:
    """Describe the last step of an unfinished run in one line."""
    steps, row = _last_row(folder)
    if row is None:
        return f"{folder}: {'is running, ' * running}no step of {steps} is finished"
    state = "is running" if running else "not finished"
    loss = "not finite" if row["loss"] is None else f"{row['loss']:.4f}"
    return f"{folder}: {state}, step {row['step']} of {steps}, loss {loss}"


def _last_row(folder: Path) -> tuple[int, dict[str, Any] | None]:
    """Return the total number of steps and the last row of metrics.jsonl; None before the first."""
    rows = []
    if (folder / "metrics.jsonl").is_file():
        text = (folder / "metrics.jsonl").read_text(encoding="utf-8", errors="replace")
        # a running process may have written half of the last line
        rows = [line for line in text.splitlines() if line.endswith("}")]
    steps = read_yaml((folder / "recipe.yaml").read_text(encoding="utf-8"))["train"]["steps"]
    return steps, parsed_json(rows[-1]) if rows else None


def _read(path: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = parsed_json(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise TuningError(f"{path} is damaged ({error}); delete it and resume the run") from error
    return found
