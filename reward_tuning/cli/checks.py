"""What can be checked of a run before anything large is loaded."""

from reward_tuning.errors import TuningError
from reward_tuning.prompts import read_prompts
from reward_tuning.recipe import Recipe
from reward_tuning.recipe_files import prompt_path


def check_run(recipe: Recipe) -> None:
    """Read the prompt files with what they name, and make the method's first plan.

    Args:
        recipe: Loaded and resolved.

    Raises:
        TuningError: With everything that is wrong.
    """
    import torch

    from reward_tuning.methods import make_plan
    from reward_tuning.run_conditions import check_conditions
    from reward_tuning.run_parts import training_sigmas

    wrong: list[str] = []
    for key in ("train", "held_out"):
        try:
            prompts = read_prompts(prompt_path(getattr(recipe.prompts, key)))
        except TuningError as error:
            wrong.append(f"prompts.{key}: {error}")
            continue
        try:
            sampling = recipe.sampling
            size = (sampling.frames, sampling.height, sampling.width)
            check_conditions(prompts, size, strength=sampling.strength, kind=None)
        except TuningError as error:
            wrong.append(f"prompts.{key}: {error}")
        if key == "held_out" and len(prompts) < recipe.evaluation.prompts:
            wrong.append(
                f"evaluation.prompts: got {recipe.evaluation.prompts}; "
                f"at most {len(prompts)}, as many as prompts.held_out has"
            )
    try:
        options = recipe.method.model_dump(exclude={"kind"})
        make_plan(
            recipe.method.kind,
            torch.Generator(),
            training_sigmas(recipe),
            **options,
        )
    except TuningError as error:
        wrong.append(str(error))
    if wrong:
        raise TuningError("\n".join(wrong))


def missing_judges(recipe: Recipe) -> list[str]:
    """Tell which judges are not on this machine yet, each with the way to fetch it."""
    from rewards import RewardError
    from rewards.checkpoint import resolve

    missing = []
    for judge in [*recipe.rewards, *recipe.evaluation.held_out_rewards]:
        for name in judge.files.values():
            try:
                resolve(name)
            except RewardError as error:
                missing.append(f"{judge.label}: {error}")
    return missing
