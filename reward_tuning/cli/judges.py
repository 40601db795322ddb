"""Read judges from the command line or from a recipe."""

import difflib
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from reward_tuning.distil.recipe import DistilRecipe
from reward_tuning.errors import TuningError
from reward_tuning.evidence.any_recipe import load_any_recipe
from reward_tuning.files.yaml_text import read_yaml
from reward_tuning.judges.listing import published_entries, shipped_entries
from reward_tuning.schema.judge_kinds import KINDS
from reward_tuning.schema.judge_parts import FramesSection, JudgeSection
from reward_tuning.schema.judge_roles import HeldOutReward
from reward_tuning.schema.loading import judge_names, load_recipe
from reward_tuning.schema.mistakes import dotted, mistakes_of
from reward_tuning.schema.recipe import Recipe
from reward_tuning.section import Section


class _Judges(Section):
    """Judges outside a recipe."""

    reward: list[HeldOutReward] = Field(description="Judges")


def judges_of_options(
    texts: Sequence[str],
    *,
    chunk: int | None = None,
    dtype: str = "float32",
    option: str = "--reward",
) -> list[FramesSection]:
    """Read judges from the command line.

    Args:
        texts: `KIND`, `KIND:CHECKPOINT`, or a recipe section in YAML braces. Files are named as in
            a recipe; relative paths start from the working folder.
        chunk: Default of judges that do not set it.
        dtype: Default of judges with a network that do not set it.
        option: Name of the option, for messages.

    Raises:
        TuningError: Lists every mistake.
    """
    found: list[dict[str, Any]] = []
    for text in texts:
        data = _section(text, option)
        kind = str(data.get("kind"))
        keys = KINDS[kind].model_fields if kind in KINDS else {}
        defaults = {"chunk": chunk, "dtype": dtype}
        found.append({key: value for key, value in defaults.items() if key in keys} | data)
    _set_names(found, option)
    wrong = [line for i, data in enumerate(found) for line in _locate(data, f"reward.{i}")]
    try:
        judges = _Judges.model_validate({"reward": found}).reward
    except ValidationError as error:
        wrong = [*map(str, mistakes_of(error, _Judges)), *wrong]
    if wrong:
        raise TuningError("\n".join([f"{option}:", *(f"  {line}" for line in wrong)]))
    return _frame_judges(judges, option)


def judges_of_recipe(source: str) -> list[FramesSection]:
    """Return the judges of a recipe that score a clip by its frames, held-out ones included.

    Those that only compare clips of a prompt are left out.

    Raises:
        TuningError: The recipe has mistakes.
    """
    recipe = load_recipe(source)
    from reward_tuning.judges.shared_encoder import loaded_from_folder

    judges = loaded_from_folder(recipe, [*recipe.rewards, *recipe.evaluation.held_out_rewards])
    return [judge for judge in judges if isinstance(judge, FramesSection) and judge.scores_alone]


def judges_by_name(texts: Sequence[str], sources: Sequence[Path]) -> list[JudgeSection]:
    """Read judges from the command line that may also be named by a run or by a shipped file.

    Args:
        texts: As for `judges_of_options`; or the name of a judge of one of the runs, which may be
            one of latents; or a shipped file, whose kind is in it.
        sources: Paths, of which some are run folders.

    Raises:
        TuningError: Lists every mistake.
    """
    from reward_tuning.evidence.judge_roles import judges_of_runs

    recipes: list[tuple[str, Recipe]] = []
    distilled: list[JudgeSection] = []
    for source in sources:
        if (source / "recipe.yaml").is_file():
            recipe = load_any_recipe(source / "recipe.yaml", check_files=False)
            if isinstance(recipe, Recipe):
                recipes.append((source.name, recipe))
            elif isinstance(recipe, DistilRecipe):
                distilled += recipe.evaluation.held_out_rewards
    known = {judge.label: judge for judge in [*distilled, *judges_of_runs(recipes)]}
    kinds = {entry["name"]: entry["kind"] for entry in [*shipped_entries(), *published_entries()]}
    others = [
        f"{kinds[text]}:{text}" if text in kinds else text for text in texts if text not in known
    ]
    _check_known(others, known, kinds)
    parsed = iter(judges_of_options(others, option="--judges")) if others else iter(())
    found = [known[text] if text in known else next(parsed) for text in texts]
    twice = [label for label, count in Counter(one.label for one in found).items() if count > 1]
    if twice:
        raise TuningError(
            f"--judges: {', '.join(twice)} is given twice; give each its own name, as in "
            "'{kind: hps, checkpoint: ..., name: mine}'"
        )
    return found


def _check_known(texts: Sequence[str], known: Iterable[str], kinds: Iterable[str]) -> None:
    """Refuse a text that is neither a kind nor a name, with what there is."""
    for text in texts:
        if text.lstrip().startswith("{") or text.partition(":")[0] in KINDS:
            continue
        names = [*known, *kinds, *KINDS]
        likely = difflib.get_close_matches(text, names, n=1)
        hint = f"did you mean {likely[0]}? " if likely else ""
        judges = f"judges of the runs: {', '.join(known)}; " if known else ""
        raise TuningError(
            f"--judges: got {text!r}; {hint}{judges}else KIND:CHECKPOINT, or a file that "
            "`reward-tuning ls` lists"
        )


def _section(text: str, option: str) -> dict[str, Any]:
    if text.lstrip().startswith("{"):
        try:
            data = read_yaml(text)
        except TuningError as error:
            raise TuningError(f"{option} {text}: {error}") from error
        assert isinstance(data, dict)
        return data
    kind, colon, checkpoint = text.partition(":")
    return {"kind": kind, "checkpoint": checkpoint} if colon else {"kind": kind}


def _set_names(found: Sequence[dict[str, Any]], option: str) -> None:
    """Name judges by their kind; add the file if several have the same kind."""
    kinds = Counter(str(data.get("kind")) for data in found if "name" not in data)
    for data in found:
        several = kinds[str(data.get("kind"))] > 1 and "checkpoint" in data
        label = f"{data.get('kind')}:{data['checkpoint']}" if several else data.get("kind")
        data.setdefault("name", label)
    names = Counter(str(data["name"]) for data in found)
    if twice := [name for name, count in names.items() if count > 1]:
        raise TuningError(
            f"{option}: {', '.join(twice)} is given twice; give each its own name, as in "
            "'{kind: hps, checkpoint: ..., name: mine}'"
        )


def _locate(data: dict[str, Any], where: str) -> list[str]:
    """Resolve the files of a judge in place; return the mistakes."""
    wrong = []
    for path, locate in judge_names(data):
        holder: Any = data
        for part in path[:-1]:
            holder = holder[part]
        value = holder[path[-1]]
        try:
            holder[path[-1]] = locate(value, Path.cwd())
        except TuningError as error:
            wrong.append(f"{where}.{dotted(path)}: got {value!r}; {error}")
    return wrong


def _frame_judges(judges: Sequence[Any], option: str) -> list[FramesSection]:
    others = [judge.label for judge in judges if not isinstance(judge, FramesSection)]
    if others:
        raise TuningError(
            f"{option}: {', '.join(others)} judges noisy latents, but files hold frames; give a "
            "judge of frames"
        )
    return list(judges)
