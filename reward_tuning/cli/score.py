"""`reward-tuning score`: score clips on disk with judges."""

import contextlib
import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

from typer import Argument, Option

from reward_tuning.cli.devices import chosen_device
from reward_tuning.cli.option_sections import takes_sections
from reward_tuning.cli.output import print_json, print_table
from reward_tuning.cli.quick_imports import quick_imports
from reward_tuning.errors import TuningError
from reward_tuning.judges.clip_files import find_clips, with_prompts

if TYPE_CHECKING:
    from reward_tuning.judges.scoring import Scored
    from reward_tuning.schema.judge_parts import FramesSection

NEXT_STEP = "the scores are printed above; free some space or choose another path"


@dataclass(frozen=True)
class ClipOptions:
    """The clips, their prompts, and how much of them is read at a time."""

    clips: Annotated[
        list[Path], Argument(help="mp4, webm, gif, png or jpg files, and folders of them")
    ]
    prompt: Annotated[str | None, Option(help="One prompt for all clips")] = None
    prompts_file: Annotated[
        Path | None,
        Option(
            "--prompts",
            help="A .jsonl, .json, .csv or .tsv file with `file` and `prompt` in each row; "
            "default: the .txt next to a clip, or the clips.jsonl that generate writes",
        ),
    ] = None
    frames: Annotated[
        int | None, Option(min=1, help="Number of evenly spaced frames of each clip; default: all")
    ] = None
    batch_size: Annotated[int, Option(min=1, help="Number of clips at a time, of one shape")] = 4


@dataclass(frozen=True)
class JudgeOptions:
    """The judges, and where they run."""

    rewards: Annotated[
        list[str] | None,
        Option(
            "--reward",
            help="KIND:CHECKPOINT, such as hps:tiny/hps.safetensors, or KIND alone if it needs no "
            "file; or a recipe section: '{kind: ..., ...}'; repeat for several",
        ),
    ] = None
    recipe: Annotated[
        str | None, Option(help="Use the judges of a recipe, held-out ones included")
    ] = None
    chunk: Annotated[
        int | None,
        Option(min=1, help="Number of frames at a time for judges of --reward, to save memory"),
    ] = None
    dtype: Annotated[
        str, Option(help="Precision of the networks of --reward: float32, bfloat16 or float16")
    ] = "float32"
    device: Annotated[
        str | None, Option(help="cpu, cuda, cuda:1; default: cuda if available, else cpu")
    ] = None

    def sections(self) -> "list[FramesSection]":
        """Return the judges of `--reward`, then those of `--recipe`.

        Raises:
            TuningError: A judge or the recipe has mistakes, or there is no judge.
        """
        from reward_tuning.cli.judges import judges_of_options, judges_of_recipe

        found = judges_of_options(self.rewards or [], chunk=self.chunk, dtype=self.dtype)
        if self.recipe is not None:
            found += judges_of_recipe(self.recipe)
        if not found:
            raise TuningError(
                "no judge; give --reward KIND:CHECKPOINT, such as --reward "
                "hps:tiny/hps.safetensors, or --recipe NAME"
            )
        return found


@dataclass(frozen=True)
class ResultOptions:
    """Where the scores go."""

    output: Annotated[Path | None, Option(help="Also write the result to this new .json file")] = (
        None
    )
    overwrite: Annotated[bool, Option("--overwrite", help="Replace an existing --output")] = False
    as_json: Annotated[bool, Option("--json", help="Print the result as JSON")] = False


@takes_sections
def score(of_clips: ClipOptions, of_judges: JudgeOptions, result: ResultOptions) -> None:
    """Score clips with judges: one row per clip, one column per judge.

    Unreadable and truncated files are skipped and reported; the exit code is then 2. Judges that
    sample frames at a fixed rate use the frame rate of each file.
    """
    from reward_tuning.schema.values import Dtype

    dtypes = get_args(Dtype)
    if of_judges.dtype not in dtypes:
        raise TuningError(f"--dtype: got {of_judges.dtype!r}; allowed: {', '.join(dtypes)}")
    if result.output is not None:
        _check_output(result.output, result.overwrite)
    sections = of_judges.sections()
    files = with_prompts(
        find_clips(of_clips.clips), prompt=of_clips.prompt, prompts_file=of_clips.prompts_file
    )

    from reward_tuning.cli.display import Display

    with quick_imports():
        from reward_tuning.judges.scoring import file_judges, score_clips
        from reward_tuning.judges.truncation import truncation_notes
    from reward_tuning.progress import ProgressEvent

    device = chosen_device(of_judges.device)
    # a judge written by the user may print; stdout is for the result alone
    with contextlib.redirect_stdout(sys.stderr), Display() as progress:
        progress(ProgressEvent("loading", phase="judges"))
        with quick_imports():
            judges = file_judges(sections, device)
        texts = [file.prompt for file in files if file.prompt is not None]
        for note in truncation_notes([one.judge for one in judges], texts, "the clips' prompts"):
            progress(ProgressEvent("loading", note=note))
        scored = score_clips(
            files,
            judges,
            frames=of_clips.frames,
            batch_size=of_clips.batch_size,
            progress=progress,
        )
    found = scored.as_json()
    if result.as_json:
        print_json(found)
    elif scored.clips:
        _print(scored)
    problems = [] if result.output is None else [_write(result.output, found)]
    if scored.skipped:
        reasons = "\n".join(f"  {reason}" for reason in scored.skipped.values())
        problems.append(
            f"{len(scored.skipped)} of {len(files)} files could not be read and have no score:\n"
            f"{reasons}"
        )
    if message := "\n".join(filter(None, problems)):
        raise TuningError(message)


def _write(output: Path, found: dict[str, Any]) -> str:
    """Write the result; return the error, or "" on success, since the result is printed anyway."""
    from reward_tuning.files.atomic_write import atomic_write

    text = json.dumps(found, ensure_ascii=False, indent=2) + "\n"
    try:
        atomic_write(output, text.encode(), advice=NEXT_STEP)
    except TuningError as error:
        return str(error)
    return ""


def _check_output(output: Path, overwrite: bool) -> None:
    """Refuse an output that cannot be written, before hours of scoring.

    Raises:
        TuningError: The name is not a .json file, or it exists, or cannot be written.
    """
    from reward_tuning.files.atomic_write import check_writable
    from reward_tuning.files.file_names import file_name_fault

    if output.suffix != ".json":
        raise TuningError(f"--output: got {output}; the name must end in .json")
    if fault := file_name_fault(output.name):
        raise TuningError(f"--output: {output.name[:60]!r}: {fault}")
    if output.is_dir():
        raise TuningError(f"--output: {output} is a folder; name a .json file in it")
    if output.exists() and not overwrite:
        raise TuningError(
            f"--output: {output} exists and is not overwritten; give another --output, or "
            "--overwrite"
        )
    check_writable(output.parent)


def _print(scored: "Scored") -> None:
    labels = list(scored.clips[0].scores)
    common = os.path.commonpath([one.clip.path.absolute().parent for one in scored.clips])
    rows: list[list[str]] = [
        [
            *(_number(one.scores[label]) for label in labels),
            "x".join(map(str, one.shape)),
            str(one.clip.path.absolute().relative_to(common)),
        ]
        for one in scored.clips
    ]
    if len(rows) > 1:
        means: dict[str, Any] = scored.means()
        rows.append([*(_number(means[label]) for label in labels), "", "mean"])
    count = len(scored.clips)
    title = f"{count} clip{'' if count == 1 else 's'} of {common}"
    print_table(title, [*labels, "frames", "file"], rows)
    if any(value is None for one in scored.clips for value in one.scores.values()):
        print("- = the clip has too few frames for this judge")


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
