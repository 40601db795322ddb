"""Sigma tables of a run: of training rollouts and groups of clips, of evaluation and replay."""

from __future__ import annotations

from torch import Tensor

from base_model.sampling.guidance import Guidance
from base_model.sampling.sample import start_step
from base_model.sampling.sigmas import sigma_table
from reward_tuning.errors import TuningError
from reward_tuning.schema.recipe import Recipe


def training_sigmas(recipe: Recipe) -> Tensor:
    """Return the table of the training rollouts, `(N + 1,)`.

    With `sampling.strength` below 1 it begins at the noise level of the noised video.
    """
    sampling = recipe.sampling
    first = start_step(sampling.steps, sampling.strength)
    return sigma_table(sampling.steps, sampling.shift)[first:]


def group_sigmas(recipe: Recipe) -> Tensor:
    """Return the table of the clips of a group that are only scored, `(N + 1,)`."""
    assert recipe.train.group is not None
    if recipe.train.group.steps is None:
        return training_sigmas(recipe)
    return sigma_table(recipe.train.group.steps, recipe.sampling.shift)


def evaluation_sigmas(recipe: Recipe) -> Tensor:
    """Return the table of clips that are shown, scored or replayed, `(N + 1,)`.

    `sampling.shift` does not apply: these clips are sampled as the published pipeline samples.

    Raises:
        GeneratorError: `sampling.strength` leaves no step of `evaluation.steps`.
    """
    steps = recipe.evaluation.steps or recipe.sampling.steps
    return sigma_table(steps)[start_step(steps, recipe.sampling.strength) :]


def guard_sigmas(recipe: Recipe) -> Tensor:
    """Return the table of the clips of the guards, `(N + 1,)`: as the evaluation's, of other steps.

    Raises:
        GeneratorError: `sampling.strength` leaves no step of `guards.steps`.
    """
    steps = recipe.guards.steps or recipe.sampling.steps
    return sigma_table(steps)[start_step(steps, recipe.sampling.strength) :]


def check_intervals(recipe: Recipe) -> None:
    """Refuse an interval of guidance in which no step of its table lies.

    Raises:
        TuningError: Names the key, and the noise levels of the steps.
    """
    asked = (
        ("sampling.guidance_steps", recipe.sampling.guidance_steps, training_sigmas(recipe)),
        ("evaluation.guidance_steps", recipe.evaluation.guidance_steps, evaluation_sigmas(recipe)),
    )
    for key, interval, sigmas in asked:
        if interval is None or Guidance(2.0, interval=interval).applies(sigmas[:-1]).any():
            continue
        levels = ", ".join(f"{float(sigma):.3g}" for sigma in sigmas[:-1])
        raise TuningError(
            f"{key}: got {list(interval)}, where no step lies, so nothing is guided; the steps "
            f"have the noise levels {levels}; widen the interval, or leave it out and set "
            "sampling.negative=none or sampling.guidance_scale=1"
        )
