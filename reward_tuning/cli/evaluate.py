"""`reward-tuning evaluate`: adapters, checkpoints and strengths against the base."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast, get_args

from typer import Argument, Option

from base_model.memory.modes import ALONE
from reward_tuning.cli.devices import chosen_device
from reward_tuning.cli.option_sections import takes_sections
from reward_tuning.cli.quick_imports import quick_imports
from reward_tuning.errors import TuningError

if TYPE_CHECKING:
    from reward_tuning.evidence.request import EvaluationRequest


@dataclass(frozen=True)
class SideOptions:
    """What is compared with the base."""

    PANEL = "What to compare"

    sources: Annotated[
        list[Path], Argument(help="Run folders, LoRA files and LoRA folders, of one generator")
    ]
    strengths: Annotated[
        list[float] | None,
        Option(help="Factors of each adapter's effect, such as 0.5 1 1.25; default: 1"),
    ] = None
    checkpoints: Annotated[
        bool, Option("--checkpoints", help="Also all kept checkpoints of each run")
    ] = False
    steps: Annotated[
        list[int] | None,
        Option(
            min=1,
            help="Numbers of steps, such as 8 25 50: does the gain hold? Default: as "
            "the run was evaluated",
        ),
    ] = None
    guidance: Annotated[list[float] | None, Option(min=1.0, help="Guidance scales, likewise")] = (
        None
    )
    guidance_steps: Annotated[
        tuple[float, float] | None,
        Option(
            metavar="LOW HIGH",
            help="Interval of sigma with guidance, of every side, such as 0.2 0.9; default: as the "
            "run was evaluated",
        ),
    ] = None
    cache: Annotated[
        str | None,
        Option(
            metavar="none|KIND[:NUMBER]",
            help="Cache of steps for every side, as of `generate --cache`, such as taylor:2; "
            "default: as the run was evaluated",
        ),
    ] = None
    checkpoint: Annotated[
        str | None, Option(help="The base; default: the one that the run folders name")
    ] = None


@dataclass(frozen=True)
class MeasureOptions:
    """How it is measured."""

    PANEL = "How to measure"

    prompts: Annotated[
        str | None,
        Option(help="Prompt file, or a shipped name; default: the first run's held-out prompts"),
    ] = None
    count: Annotated[
        int | None,
        Option(
            min=2,
            help="Number of prompts, from the first; default: as the run was evaluated, "
            "or the whole file",
        ),
    ] = None
    seeds: Annotated[
        int | None,
        Option(min=1, help="Clips for each prompt and side; 2 or more also measure diversity"),
    ] = None
    seed: Annotated[int | None, Option(min=0, help="Seed of all noise; default: the run's")] = None
    judges: Annotated[
        list[str] | None,
        Option(
            help="KIND:CHECKPOINT, KIND, a shipped file such as tiny/hps.safetensors, a "
            "recipe section '{kind: ..., ...}', or the name of a judge of a run; default: all "
            "judges of the runs"
        ),
    ] = None
    primary: Annotated[
        str | None,
        Option(
            help="The one metric that decides; default: as in the run, else the first judge "
            "that no run was trained on"
        ),
    ] = None
    no_sharpness: Annotated[
        bool,
        Option(
            "--no-sharpness",
            help="Do not measure the sharpness of the rewards, which scores each clip four times",
        ),
    ] = False


@dataclass(frozen=True)
class WorkOptions:
    """Where it works."""

    PANEL = "How to compute"

    batch_size: Annotated[int | None, Option(min=1, help="Clips at a time")] = None
    device: Annotated[
        str | None, Option(help="cpu, cuda, cuda:1; default: cuda if available, else cpu")
    ] = None
    dtype: Annotated[
        str | None,
        Option(help="Precision of the generator: float32, bfloat16 or float16; default: the run's"),
    ] = None
    memory: Annotated[
        str | None, Option(help=f"Where its weights are: {', '.join(ALONE)}; default: the run's")
    ] = None


@dataclass(frozen=True)
class OutputOptions:
    """Where the results go."""

    PANEL = "Results"

    output: Annotated[
        Path | None,
        Option(
            help="Folder of results and cache; default: evaluate in the one run, else ./evaluate"
        ),
    ] = None
    clips: Annotated[
        int, Option(min=0, help="Clips of each side that are written, of the first prompts")
    ] = 8
    vbench_folder: Annotated[
        Path | None,
        Option(help="Write every clip under VBench's name, in a folder for each side"),
    ] = None
    as_json: Annotated[bool, Option("--json", help="Print the result as JSON")] = False


@takes_sections
def evaluate(
    of_sides: SideOptions, of_measures: MeasureOptions, work: WorkOptions, result: OutputOptions
) -> None:
    """Compare adapters, checkpoints and strengths with the base: same prompts, same noise.

    Clips and scores are kept: stopped, the same command continues, and another judge or strength
    samples nothing again. docs/evaluation.md explains the numbers.
    """
    with quick_imports():
        from reward_tuning.evidence.evaluating import default_output

    request = made_request(of_sides, of_measures, work, result)
    output = result.output or default_output(of_sides.sources)
    evaluate_and_print(request, output, work.device, as_json=result.as_json)


def made_request(
    of_sides: SideOptions, of_measures: MeasureOptions, work: WorkOptions, result: OutputOptions
) -> EvaluationRequest:
    """Return the request that the options describe.

    Raises:
        TuningError: A name is not allowed, or a judge is unknown.
    """
    from reward_tuning.cli.judges import judges_by_name
    from reward_tuning.evidence.request import EvaluationRequest
    from reward_tuning.schema.values import Dtype

    for option, given, allowed in (
        ("--dtype", work.dtype, get_args(Dtype)),
        ("--memory", work.memory, tuple(ALONE)),
    ):
        if given is not None and given not in allowed:
            raise TuningError(f"{option}: got {given!r}; allowed: {', '.join(allowed)}")
    judges = None
    if of_measures.judges:
        judges = judges_by_name(of_measures.judges, of_sides.sources)
    return EvaluationRequest(
        sources=of_sides.sources,
        strengths=of_sides.strengths or (1.0,),
        checkpoints=of_sides.checkpoints,
        prompts=of_measures.prompts,
        count=of_measures.count,
        judges=judges,
        primary=of_measures.primary,
        steps=of_sides.steps or (),
        guidance=of_sides.guidance or (),
        guidance_steps=of_sides.guidance_steps,
        cache=of_sides.cache,
        seeds=of_measures.seeds,
        seed=of_measures.seed,
        checkpoint=of_sides.checkpoint,
        clips=result.clips,
        sharpness=not of_measures.no_sharpness,
        batch_size=work.batch_size,
        dtype=cast(Any, work.dtype),
        memory=cast(Any, work.memory),
        vbench_folder=result.vbench_folder,
    )


def evaluate_and_print(
    request: EvaluationRequest, output: Path, device: str | None, *, as_json: bool
) -> dict[str, Any]:
    """Evaluate with a progress display, print the result and return it."""
    import contextlib
    import sys

    from reward_tuning.cli.display import Display
    from reward_tuning.cli.sides_table import print_sides
    from reward_tuning.cli.stopping import hint_when_stopped

    with quick_imports():
        from reward_tuning.evidence.evaluating import evaluate_adapters

    hint = "the same command continues: what was sampled and scored is kept"
    # a judge written by the user may print; stdout is for the result alone
    with contextlib.redirect_stdout(sys.stderr), hint_when_stopped(hint), Display() as progress:
        found = evaluate_adapters(request, output, chosen_device(device), progress)
    print_sides(found, output, as_json=as_json)
    return found
