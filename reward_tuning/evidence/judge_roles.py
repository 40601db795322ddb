"""Which judges an evaluation has, and which of them some run was trained on."""

from __future__ import annotations

from collections.abc import Sequence

from reward_tuning.evidence.judge_identity import counted_options
from reward_tuning.judges.shared_encoder import loaded_from_folder
from reward_tuning.schema.judge_parts import JudgeSection
from reward_tuning.schema.recipe import Recipe


def judges_of_runs(runs: Sequence[tuple[str, Recipe]]) -> list[JudgeSection]:
    """Return the judges of runs, training ones first, each once.

    Args:
        runs: Name and recipe of each run.

    Returns:
        The judges, without those that only compare clips; of two with one label and other options
        the later has its run's name, too.
    """
    found: dict[str, JudgeSection] = {}
    for trained in (True, False):
        for name, recipe in runs:
            sections: Sequence[JudgeSection] = (
                recipe.rewards if trained else recipe.evaluation.held_out_rewards
            )
            for judge in loaded_from_folder(recipe, sections):
                if judge.scores_alone:
                    _add(found, judge, name)
    return list(found.values())


def _add(found: dict[str, JudgeSection], judge: JudgeSection, run: str) -> None:
    counted = counted_options(judge)
    if any(counted_options(other) == counted for other in found.values()):
        return
    if judge.label in found:
        label = f"{judge.label} ({run})"
        judge = judge.model_copy(update={"name": label})
    found[judge.label] = judge


def roles_of(
    judges: Sequence[JudgeSection], recipes: Sequence[Recipe]
) -> tuple[list[str], list[str]]:
    """Return the labels of the judges that a run was trained on, and of the others."""
    trained = {
        reward.identity
        for recipe in recipes
        for reward in loaded_from_folder(recipe, recipe.rewards)
    }
    trained_on = [judge.label for judge in judges if judge.identity in trained]
    return trained_on, [judge.label for judge in judges if judge.identity not in trained]
