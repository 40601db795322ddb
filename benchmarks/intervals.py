"""How far the words of a run's end table can be trusted: intervals on simulated paired data.

For prompts of several numbers and differences of several shapes it counts how often the 95 %
interval holds the true mean, and how often "higher" or "lower" is said although nothing changed.

    python -m benchmarks.intervals --trials 4000
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from reward_tuning.statistics.bootstrap import paired_difference
from reward_tuning.statistics.verdicts import HIGHER, LOWER, verdict

PROMPTS = (8, 32, 64, 128)
Draw = Callable[[np.random.Generator, int], tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True)
class Case:
    """One shape of data.

    Attributes:
        name: In the table.
        mean: Of the difference, true.
        draw: Base and tuned values of so many prompts.
    """

    name: str
    mean: float
    draw: Draw


def _continuous(noise: Callable[[np.random.Generator, int], np.ndarray], mean: float) -> Draw:
    def draw(rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
        base = rng.normal(size=n)
        return base, base + mean + noise(rng, n)

    return draw


def _shares(gained: float, lost: float, seeds: int = 1) -> Draw:
    """Right or wrong, mean of some clips a prompt; so many are gained and lost."""

    def draw(rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
        which = rng.uniform(size=(n, seeds))
        base = np.where(which < gained, 0, np.where(which < gained + lost, 1, which > 0.6))
        tuned = np.where(which < gained, 1, np.where(which < gained + lost, 0, which > 0.6))
        return base.mean(axis=1), tuned.mean(axis=1)

    return draw


def cases() -> list[Case]:
    """Each shape with and without a change."""
    found = []
    for name, noise in (
        ("normal", lambda rng, n: rng.normal(size=n)),
        ("skewed (exponential)", lambda rng, n: rng.exponential(size=n) - 1.0),
        ("skewed (lognormal)", lambda rng, n: rng.lognormal(size=n) - float(np.exp(0.5))),
    ):
        found += [Case(name, mean, _continuous(noise, mean)) for mean in (0.0, 0.3)]
    for gained, lost in ((0.0, 0.0), (0.03, 0.03), (0.15, 0.15), (0.03, 0.0), (0.25, 0.07)):
        name = f"0/1, {gained:.0%} gained, {lost:.0%} lost"
        found.append(Case(name, gained - lost, _shares(gained, lost)))
    found += [
        Case("0/1, two clips, 3% and 3%", 0.0, _shares(0.03, 0.03, 2)),
        Case("0/1, two clips, 25% and 7%", 0.18, _shares(0.25, 0.07, 2)),
    ]
    return found


def measured(case: Case, prompts: int, trials: int, resamples: int) -> tuple[float, float, float]:
    """Shares of the trials in which the truth lies inside, and "higher" and "lower" are said."""
    rng = np.random.default_rng([prompts, trials])
    inside = higher = lower = 0
    for trial in range(trials):
        base, tuned = case.draw(rng, prompts)
        found = paired_difference(base.tolist(), tuned.tolist(), seed=trial, resamples=resamples)
        inside += found.low - 1e-12 <= case.mean <= found.high + 1e-12
        said = verdict(vars(found), prompts, decides=True)
        higher += said == HIGHER
        lower += said == LOWER
    return inside / trials, higher / trials, lower / trials


def main(arguments: list[str] | None = None) -> None:
    """Print the table as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=4000)
    parser.add_argument("--resamples", type=int, default=2000)
    given = parser.parse_args(arguments)
    heads = " | ".join(f"n = {n}" for n in PROMPTS)
    print(f"| differences | true mean | {heads} |\n|---|---|{'---|' * len(PROMPTS)}")
    for case in cases():
        cells = []
        for prompts in PROMPTS:
            inside, higher, lower = measured(case, prompts, given.trials, given.resamples)
            said = f"; {higher:.1%} / {lower:.1%}" if case.mean == 0 else ""
            cells.append(f"{inside:.1%}{said}")
        print(f"| {case.name} | {case.mean:g} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
