"""Evaluate adapters against their base: from a request to a folder with results."""

from __future__ import annotations

import contextlib
import re
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from torch import Tensor

from reward_tuning.errors import TuningError
from reward_tuning.evidence.clip_cache import KEPT, ClipCache
from reward_tuning.evidence.evaluator import Evaluator, Place
from reward_tuning.evidence.loaded import Loaded
from reward_tuning.evidence.metric_names import metric_names
from reward_tuning.evidence.named_adapters import named_adapters, read_named_adapters
from reward_tuning.evidence.request import EvaluationRequest
from reward_tuning.evidence.results import CSV_FILE, JSON_FILE, results, write_results
from reward_tuning.evidence.score_cache import ScoreCache
from reward_tuning.evidence.setup import resolve
from reward_tuning.evidence.sides_plan import PlannedSide, planned_sides
from reward_tuning.evidence.vbench_folder import check_names, write_vbench_clip
from reward_tuning.files.atomic_write import check_writable, not_written
from reward_tuning.files.clips import write_clip
from reward_tuning.progress import ProgressEvent, ProgressFn, silent
from reward_tuning.report.at_end import report_at_end
from reward_tuning.report.report_page import REPORT
from reward_tuning.runs.samples import enlargement
from reward_tuning.sampling.clip_memory import reported_out_of_memory
from reward_tuning.tuning.evaluation import SideScores

CACHE, CLIPS, LOCK = "cache", "clips", ".lock"
RESULTS = "evaluate"
"""Folder of the results, unless the user names one."""


def default_output(sources: Sequence[Path]) -> Path:
    """Return the folder of the results: in the run that is evaluated alone, else `evaluate`."""
    if len(sources) == 1 and (sources[0] / "recipe.yaml").is_file():
        return sources[0] / RESULTS
    return Path(RESULTS)


def evaluate_adapters(
    request: EvaluationRequest, output: Path, device: torch.device, progress: ProgressFn = silent
) -> dict[str, Any]:
    """Sample, measure and compare; the same request in the same folder continues a stopped one.

    Args:
        request: What to evaluate.
        output: Folder of cache and results.
        device: Device of generator and judges.
        progress: Called after every sampling step.

    Returns:
        The content of evaluation.json, which is written after all else but the report.

    Raises:
        TuningError: The request does not fit together, an adapter cannot be read, the folder is not
            an evaluation's or is in use, or the disk is full.
        GeneratorError: The generator cannot be loaded.
        RewardError: A judge cannot be loaded.
    """
    check_output(output)
    named = named_adapters(request.sources, checkpoints=request.checkpoints)
    setup = resolve(request)
    loaded = Loaded(setup, device, progress)
    loaded.check()
    notes = list(setup.notes)
    if request.vbench_folder is not None:
        check_writable(request.vbench_folder)
        notes.append(check_names(setup))
    for note in filter(None, notes):
        progress(ProgressEvent("loading", note=note))
    adapters = read_named_adapters(named, loaded.shapes, progress)
    sides = planned_sides(setup, adapters, request.strengths)
    names = metric_names(setup, sharpness=request.sharpness)
    with _exclusive(output):
        _forget_results(output)
        cache = output / CACHE
        evaluator = Evaluator(
            setup,
            loaded,
            names,
            ClipCache(cache / "clips", progress),
            ScoreCache(cache / "scores", progress),
            progress,
        )
        scores, files = _evaluated(request, evaluator, sides, output)
        found = results(setup, names, sides, scores, files)
        write_results(output, found)
        report_at_end(output, progress)
    return found


def check_output(output: Path) -> None:
    """Check that a folder is new, empty, or that of an evaluation.

    Raises:
        TuningError: It holds something else, or cannot be written.
    """
    if (output / "recipe.yaml").is_file():
        raise TuningError(
            f"--output: {output} is a run folder, whose own evaluation would be overwritten; name "
            f"a folder in it, such as {output / RESULTS}"
        )
    check_writable(output)
    if output.is_dir() and not (output / CACHE).is_dir():
        held = sorted(path.name for path in output.iterdir() if path.name != LOCK)
        if held:
            raise TuningError(
                f"--output: {output} holds {held[0]} and no evaluation; give a new folder"
            )


def _evaluated(
    request: EvaluationRequest, evaluator: Evaluator, sides: Sequence[PlannedSide], output: Path
) -> tuple[list[SideScores], list[dict[int, str]]]:
    """Return the scores and the clips' files of each side."""
    setup = evaluator.setup
    scores: list[SideScores] = []
    files: list[dict[int, str]] = []
    for number, side in enumerate(sides):
        of_side: dict[int, str] = {}
        name = f"{number:02d}-{plain_name(side.name)}"

        def seen(
            prompt: int, clip: int, frames: Tensor, name: str = name, of: dict[int, str] = of_side
        ) -> None:
            if request.vbench_folder is not None:
                folder = request.vbench_folder / name
                write_vbench_clip(folder, setup.prompts[prompt], clip, frames)
            if clip == 0 and prompt < request.clips:
                path = output / CLIPS / name / f"{prompt:02d}.mp4"
                write_clip(frames, path, enlarge=enlargement(frames))
                of[prompt] = path.relative_to(output).as_posix()

        base = side if side.against is None else sides[side.against]
        with reported_out_of_memory(f"{setup.batch_size} clips of {setup.size}"):
            scores.append(evaluator.evaluate(side, base, _shown(request, evaluator), seen))
        files.append(of_side)
    return scores, files


def _shown(request: EvaluationRequest, evaluator: Evaluator) -> set[Place]:
    """Return the places of the clips that are written as videos."""
    setup = evaluator.setup
    if request.vbench_folder is not None:
        return {(i, k) for i in range(len(setup.prompts)) for k in range(setup.seeds)}
    return {(i, 0) for i in range(min(request.clips, len(setup.prompts)))}


def plain_name(name: str) -> str:
    """Return a name with nothing in it that a folder or a link could stumble over."""
    return re.sub(r"[^A-Za-z0-9._]+", "-", name).strip("-.")[:60] or "side"


def _forget_results(output: Path) -> None:
    """Remove the results of an earlier evaluation, whose caches stay.

    Raises:
        TuningError: They cannot be removed.
    """
    try:
        for name in (JSON_FILE, CSV_FILE, REPORT):
            (output / name).unlink(missing_ok=True)
        if (output / CLIPS).is_dir():
            shutil.rmtree(output / CLIPS)
    except OSError as error:
        raise not_written(output, error, advice=KEPT) from error


@contextlib.contextmanager
def _exclusive(output: Path) -> Iterator[None]:
    """Keep other evaluations out of the folder; it has a cache from here on, which marks it.

    Raises:
        TuningError: Another one works there, or the folder cannot be written.
    """
    lock = FileLock(output / LOCK)
    try:
        (output / CACHE).mkdir(parents=True, exist_ok=True)
        lock.acquire(blocking=False)
        for left in (output / CACHE).rglob(".*.tmp-*"):  # of a process that was killed in a write
            left.unlink()
    except Timeout as error:
        raise TuningError(
            f"{output} is in use: another evaluation works there. Wait for it, or choose another "
            "folder with --output"
        ) from error
    except OSError as error:
        raise not_written(output, error, advice=KEPT) from error
    try:
        yield
    finally:
        lock.release()
