"""Both loops train against the clock: every arm at every rate, then the best of each again.

The script's strategies (tail with its K = 10, uniform with its K = 5, last) against the shipped
recipe as it is, with its short rollouts, and with the script's 25 steps. Every arm
tries every learning rate for a short time; the arm and rate of each loop that then score highest
run for longer, with every seed. The clock stands still while held-out prompts are scored: whole
clips of 25 steps, the script's sampler, from the same noise each time, by the judge that is trained
on and by one that is not.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from accelerate import Accelerator

from base_model.sampling.sigmas import sigma_table
from benchmarks.contestants import (
    COMMON,
    RECIPE,
    SAMPLING_STEPS,
    Arm,
    Contestant,
    published_arm,
)
from benchmarks.time_to_score import Curve, Point, best, compare_curves, train_curve
from benchmarks.trainee import CLOCKS
from reward_tuning.judges.loading import load_judges
from reward_tuning.lora.adapter import adapter_state
from reward_tuning.schema.loading import load_recipe
from reward_tuning.tuning.evaluation import evaluate

ARMS = (
    published_arm("tail", 10),
    published_arm("uniform", 5),
    published_arm("last", 1),
    Arm("ours recipe, whole rollouts", False, (f"sampling.steps={SAMPLING_STEPS}",)),
    Arm("ours recipe", False, ()),
)
LOOPS = {True: "published", False: "ours"}
CHOSEN_BY = "hps"


@dataclass(frozen=True)
class Race:
    """How long and how often.

    Attributes:
        grid_seconds: Training time of each arm and rate, evaluated at its end.
        seconds: Training time of each run of the chosen.
        points: Evaluations of each of these.
        prompts: Held-out prompts of each evaluation, one clip each.
        rates: Learning rates that every arm tries.
        seeds: Of adapter, prompts and noise; the first one tries the grid.
        clock: Of the training time.
    """

    grid_seconds: float
    seconds: float
    points: int
    prompts: int
    rates: Sequence[float]
    seeds: Sequence[int]
    clock: str


@dataclass(frozen=True)
class Run:
    """One training."""

    arm: Arm
    rate: float
    seed: int
    curve: Curve


class HeldOut:
    """Held-out prompts, their noise and the judges, the same for every run.

    Args:
        prompts: How many.
        accelerator: Of one process.
    """

    def __init__(self, prompts: int, accelerator: Accelerator) -> None:
        self.recipe = load_recipe(RECIPE, [*COMMON, f"evaluation.prompts={prompts}"])
        frames, device = self.recipe.sampling.frames, accelerator.device
        self.judges = [
            *load_judges(self.recipe.rewards, frames, device),
            *load_judges(self.recipe.evaluation.held_out_rewards, frames, device),
        ]

    def __call__(self, contestant: Contestant, *, base: bool = False) -> dict[str, float]:
        """Mean of each judge over whole clips, with the adapter as it is or without."""
        parts = contestant.parts
        scores = evaluate(
            parts.sampler,
            None if base else adapter_state(parts.sampler.generator.transformer),
            dict(enumerate(parts.held_out[: self.recipe.evaluation.prompts])),
            self.judges,
            sigma_table(SAMPLING_STEPS),
            seed=self.recipe.seed,
            batch_size=self.recipe.train.batch_size,
        ).means()
        return {judge.label: scores[judge.label] for judge in self.judges}


def race(settings: Race, accelerator: Accelerator, tell: Callable[[str], None]) -> dict[str, Any]:
    """Train and compare.

    Args:
        settings: How long and how often.
        accelerator: Of one process.
        tell: Takes a line of progress.

    Returns:
        The grid, the curves of each loop's best, and `compare_curves` of these for each judge.
    """
    held_out = HeldOut(settings.prompts, accelerator)
    warm = Contestant(ARMS[0], accelerator)
    warm.step()  # what the first step of a process costs is nobody's
    base = held_out(warm, base=True)

    def train(arm: Arm, rate: float, seed: int, seconds: float, points: int) -> Run:
        rated = (f"train.learning_rate={rate!r}", f"seed={seed}")
        contestant = Contestant(arm, accelerator, rated)
        curve = train_curve(
            contestant.step,
            lambda: held_out(contestant),
            base,
            seconds=seconds,
            points=points,
            clock=CLOCKS[settings.clock],
        )
        tell(f"{arm.name}, rate {rate:g}, seed {seed}: {shown(curve[-1])}")
        return Run(arm, rate, seed, curve)

    first = settings.seeds[0]
    grid = [train(a, r, first, settings.grid_seconds, 1) for a in ARMS for r in settings.rates]
    chosen = {loop: best_run(grid, published) for published, loop in LOOPS.items()}
    runs: dict[str, list[Run]] = {loop: [] for loop in chosen}
    for seed in settings.seeds:  # both loops by turns, so that a change of the machine meets both
        for loop, run in chosen.items():
            again = train(run.arm, run.rate, seed, settings.seconds, settings.points)
            runs[loop].append(again)
    curves = {loop: [run.curve for run in of] for loop, of in runs.items()}
    return {
        "settings": asdict(settings),
        "base": base,
        "grid": [as_json(run) for run in grid],
        "chosen": {loop: {"arm": run.arm.name, "rate": run.rate} for loop, run in chosen.items()},
        "curves": {loop: [as_json(run) for run in of] for loop, of in runs.items()},
        "compared": [compare_curves(curves["published"], curves["ours"], m) for m in base],
    }


def best_run(grid: Sequence[Run], published: bool) -> Run:
    """Of one loop the run that scored highest."""
    own = [run for run in grid if run.arm.published == published]
    return max(own, key=lambda run: best(run.curve, CHOSEN_BY))


def as_json(run: Run) -> Mapping[str, Any]:
    """Arm, rate, seed and curve."""
    points = [asdict(point) for point in run.curve]
    return {"arm": run.arm.name, "rate": run.rate, "seed": run.seed, "curve": points}


def shown(point: Point) -> str:
    """A point in one line."""
    scores = ", ".join(f"{name} {score:.4f}" for name, score in point.scores.items())
    return f"{point.steps} steps in {point.seconds:.0f} s ({point.cpu_seconds:.0f} CPU), {scores}"
