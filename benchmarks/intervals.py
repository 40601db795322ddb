"""How far the words of a run's end table can be trusted: intervals on simulated paired data.

For prompts of several numbers and differences of several shapes it counts how often the 95 %
interval holds the true mean, and how often it lies above or below 0 although nothing changed. Then
it counts the runs with nine measures and no effect in which a measure has a false verdict. Last,
votes: how often Bradley-Terry scores and win rates hold the truth.

    python -m benchmarks.intervals --trials 2000
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from reward_tuning.statistics.bootstrap import paired_difference
from reward_tuning.statistics.bradley_terry import Outcome, bradley_terry
from reward_tuning.statistics.clustered_shares import clustered_share
from reward_tuning.statistics.corrections import adjusted
from reward_tuning.statistics.verdicts import HIGHER, LOWER, verdicts

PROMPTS = (8, 16, 24, 32, 64, 128)
MEASURES = 9
Draw = Callable[[np.random.Generator, int], tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True)
class Case:
    """One shape of data.

    Attributes:
        name: In the table.
        mean: Of the difference, true.
        draw: Base and tuned values of so many prompts.
        clips: Clips of a prompt, whose shares are compared.
    """

    name: str
    mean: float
    draw: Draw
    clips: int = 1


def _differences(noise: Callable[[np.random.Generator, int], np.ndarray]) -> Draw:
    """Scores whose differences are drawn so; a further change would only shift them."""

    def draw(rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
        base = np.full(n, 0.37)  # 0 without any change would be read as a share
        return base, base + noise(rng, n)

    return draw


def _shares(gained: float, lost: float, seeds: int = 1) -> Draw:
    """Right or wrong, mean of some clips a prompt; so many are gained and lost."""

    def draw(rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
        which = rng.uniform(size=(n, seeds))
        base = np.where(which < gained, 0, np.where(which < gained + lost, 1, which > 0.6))
        tuned = np.where(which < gained, 1, np.where(which < gained + lost, 0, which > 0.6))
        return base.mean(axis=1), tuned.mean(axis=1)

    return draw


SHAPES: dict[str, tuple[Callable[[np.random.Generator, int], np.ndarray], float]] = {
    "normal": (lambda rng, n: rng.normal(size=n), 0.0),
    "skewed (exponential)": (lambda rng, n: rng.exponential(size=n) - 1.0, 0.0),
    "very skewed (lognormal)": (lambda rng, n: rng.lognormal(size=n) - np.exp(0.5), 0.0),
    "heavy tails (Laplace)": (lambda rng, n: rng.laplace(size=n), 0.0),
    "heavy tails (t, 3 degrees)": (lambda rng, n: rng.standard_t(3, size=n), 0.0),
    "bounded (uniform)": (lambda rng, n: rng.uniform(-1, 1, size=n), 0.0),
    "bounded (U-shaped)": (lambda rng, n: rng.beta(0.5, 0.5, size=n) - 0.5, 0.0),
    "scores near the top": (
        lambda rng, n: rng.beta(5, 1, size=n) - rng.beta(4, 1, size=n),
        5 / 6 - 4 / 5,
    ),
    "3 prompts in 10 change": (
        lambda rng, n: (rng.uniform(size=n) < 0.3) * rng.normal(0.3, 1.0, size=n),
        0.09,
    ),
    "1 prompt in 10 changes": (
        lambda rng, n: (rng.uniform(size=n) < 0.1) * rng.normal(1.0, 0.3, size=n),
        0.1,
    ),
    "all change equally": (lambda rng, n: np.full(n, 0.25), 0.25),
}


def cases() -> list[Case]:
    """Each shape, and shares of right clips."""
    found = [Case(name, mean, _differences(noise)) for name, (noise, mean) in SHAPES.items()]
    for gained, lost in ((0.0, 0.0), (0.03, 0.03), (0.15, 0.15), (0.03, 0.0), (0.25, 0.07)):
        name = f"0/1, {gained:.0%} gained, {lost:.0%} lost"
        found.append(Case(name, gained - lost, _shares(gained, lost)))
    for gained, lost in ((0.03, 0.03), (0.03, 0.0), (0.25, 0.07)):
        name = f"two clips, {gained:.0%} and {lost:.0%}"
        found.append(Case(name, gained - lost, _shares(gained, lost, 2), clips=2))
    return found


def measured(case: Case, prompts: int, trials: int, resamples: int) -> tuple[float, float, float]:
    """Shares of the trials whose interval holds the truth, lies above 0, and below 0."""
    rng = np.random.default_rng([prompts, trials])
    inside = higher = lower = 0
    for trial in range(trials):
        base, tuned = case.draw(rng, prompts)
        found = paired_difference(
            base.tolist(), tuned.tolist(), clips=case.clips, seed=trial, resamples=resamples
        )
        inside += found.low - 1e-12 <= case.mean <= found.high + 1e-12
        higher += found.low > 0.0
        lower += found.high < 0.0
    return inside / trials, higher / trials, lower / trials


def false_verdicts(
    prompts: int, trials: int, resamples: int, correlation: float
) -> tuple[float, float, float]:
    """Shares of runs without any effect in which a measure is called higher or lower.

    Args:
        prompts: Prompts of a run.
        trials: Number of runs.
        resamples: Of each interval.
        correlation: Of the differences of two measures, from 0 to 1.

    Returns:
        For the first measure, which decides; for any of the others; and for any of all measures,
        were each judged by its own interval.
    """
    rng = np.random.default_rng([prompts, trials, MEASURES])
    deciding = others = uncorrected = 0
    names = [f"measure {place}" for place in range(MEASURES)]
    for trial in range(trials):
        shared = rng.normal(size=prompts)
        difference = {}
        for name in names:
            values = np.sqrt(correlation) * shared
            values = values + np.sqrt(1 - correlation) * rng.normal(size=prompts)
            found = paired_difference(
                [0.0] * prompts, values.tolist(), seed=trial, resamples=resamples
            )
            difference[name] = vars(found) | {"prompts": prompts}
        for name, p in adjusted({n: one["p"] for n, one in difference.items()}, names[0]).items():
            difference[name]["p_adjusted"] = p
        said = verdicts({"difference": difference}, names[0])
        deciding += said[names[0]] in (HIGHER, LOWER)
        others += any(said[name] in (HIGHER, LOWER) for name in names[1:])
        uncorrected += any(not one["low"] <= 0.0 <= one["high"] for one in difference.values())
    return deciding / trials, others / trials, uncorrected / trials


VOTERS = ((1, 0.0, 0.0, 0.0), (1, 0.8, 0.2, 0.0), (3, 0.8, 0.2, 1.5), (5, 0.0, 0.3, 1.5))
"""Number of voters, mean log odds of a win, share of ties, and the spread of the log odds over
prompts, which makes votes on one prompt alike."""


def voted(
    prompts: int, trials: int, voters: int, mean: float, ties: float, spread: float
) -> tuple[float, float]:
    """Shares of the trials in which score and win rate hold the truth, for two sides."""
    rng = np.random.default_rng([prompts, trials, voters])
    points, weights = np.polynomial.hermite_e.hermegauss(60)
    won = float((weights / weights.sum() / (1 + np.exp(-mean - spread * points))).sum())
    truth = (1 - ties) * won + ties / 2
    score_inside = rate_inside = 0
    for _ in range(trials):
        odds = mean + spread * rng.normal(size=(prompts, 1))
        votes = (rng.uniform(size=(prompts, voters)) < 1 / (1 + np.exp(-odds))).astype(float)
        votes[rng.uniform(size=votes.shape) < ties] = 0.5
        rows = [(int(prompt), float(share)) for (prompt, _), share in np.ndenumerate(votes)]
        score = bradley_terry([Outcome(prompt, 1, 0, share) for prompt, share in rows], 2)[1]
        rate = clustered_share([share for _, share in rows], [prompt for prompt, _ in rows])
        assert score is not None
        assert rate is not None
        score_inside += score.low <= np.log(truth / (1 - truth)) <= score.high
        rate_inside += rate.low <= truth <= rate.high
    return score_inside / trials, rate_inside / trials


def main(arguments: list[str] | None = None) -> None:
    """Print the tables as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=2000)
    parser.add_argument("--resamples", type=int, default=1000)
    given = parser.parse_args(arguments)
    heads = " | ".join(f"n = {n}" for n in PROMPTS)
    print(f"| differences | true mean | {heads} |\n|---|---|{'---|' * len(PROMPTS)}")
    for case in cases():
        cells = []
        for prompts in PROMPTS:
            inside, higher, lower = measured(case, prompts, given.trials, given.resamples)
            said = f"; {higher:.1%} / {lower:.1%}" if case.mean == 0 else ""
            cells.append(f"{inside:.1%}{said}")
        print(f"| {case.name} | {case.mean:.3g} | {' | '.join(cells)} |", flush=True)
    print("\n| prompts | correlation | the one that decides | any other | any, uncorrected |")
    print("|---|---|---|---|---|")
    for prompts in (32, 128):
        for correlation in (0.0, 0.4):
            found = false_verdicts(prompts, given.trials // 2, given.resamples, correlation)
            shares = " | ".join(f"{share:.1%}" for share in found)
            print(f"| {prompts} | {correlation:g} | {shares} |", flush=True)
    counts = PROMPTS[1:]
    heads = " | ".join(f"n = {n}" for n in counts)
    print(f"\n| voters | mean log odds | ties | spread | {heads} |\n|{'---|' * (len(counts) + 4)}")
    for case in VOTERS:
        cells = [
            " / ".join(f"{share:.1%}" for share in voted(prompts, given.trials, *case))
            for prompts in counts
        ]
        voters, mean, ties, spread = case
        print(
            f"| {voters} | {mean:g} | {ties:.0%} | {spread:g} | {' | '.join(cells)} |", flush=True
        )


if __name__ == "__main__":
    main()
