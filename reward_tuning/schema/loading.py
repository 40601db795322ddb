"""From a YAML file and overrides to a resolved recipe; every mistake is reported at once."""

import contextlib
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Generic, TypeVar

from pydantic import TypeAdapter, ValidationError

from reward_tuning.errors import TuningError, first_lines, shortened
from reward_tuning.files.file_names import file_name_fault
from reward_tuning.files.yaml_text import read_yaml, read_yaml_file, write_yaml
from reward_tuning.schema.judge_kinds import FOLDER_KEYS
from reward_tuning.schema.judge_parts import FILE_KEYS, OF_GENERATOR
from reward_tuning.schema.judge_roles import rename_reward_keys, renamed_path
from reward_tuning.schema.locate import (
    find_recipe,
    locate_adapter,
    locate_argument,
    locate_generator,
    locate_judge,
    locate_judge_folder,
    locate_lora,
    locate_part,
    locate_program,
    locate_prompts,
    locate_replay,
    locate_small_decoder,
)
from reward_tuning.schema.mistakes import Conflict, Mistake, dotted, mistakes_of, shown
from reward_tuning.schema.recipe import Recipe, conflicts
from reward_tuning.section import Section

KeyPath = tuple[str | int, ...]
Locate = Callable[[str, Path], str]
AnyRecipe = TypeVar("AnyRecipe", bound=Section)


@dataclass(frozen=True)
class Schema(Generic[AnyRecipe]):
    """The recipes of one verb.

    Attributes:
        model: Their sections.
        conflicts: Finds values that exclude each other.
        names: Lists the keys of a raw recipe that name a file, with the function that resolves
            them.
        verb: Verb of the command line.
        mark: Section that only recipes of this verb have.
    """

    model: type[AnyRecipe]
    conflicts: Callable[[dict[str, Any]], Iterable[Conflict]]
    names: Callable[[dict[str, Any]], Iterable[tuple[Any, Locate]]]
    verb: str
    mark: str


LONGEST_LINE, LONGEST_LIST, LEAST_LINE = 400, 1800, 120
"""Characters of one mistake in the message, of all of them, and of one among many."""
LARGEST = 2**63 - 1
"""Largest whole number: a recipe counts nothing larger, and larger ones overflow a float."""
MOST_DIGITS = 9  # of an index into a list
VERB_OF_MARK = {"rewards": "run", "data": "finetune", "teacher": "distil"}


def load_recipe(
    source: str | Path, overrides: Sequence[str] = (), *, check_files: bool = True
) -> Recipe:
    """Read a recipe of `reward-tuning run`; see `load_as`."""
    return load_as(RUN, source, overrides, check_files=check_files)


def load_as(
    schema: Schema[AnyRecipe],
    source: str | Path,
    overrides: Sequence[str] = (),
    *,
    check_files: bool = True,
    may_miss: Collection[KeyPath] = (),
) -> AnyRecipe:
    """Read a recipe, apply overrides, validate it and resolve the names of files.

    A relative path in the file starts from the file's folder, one in an override from the working
    folder, and so does `output` in both.

    Args:
        schema: Schema of the verb.
        source: A shipped name or a path.
        overrides: `key.sub=value` texts; a value is YAML, a number in the path counts into a list
            (`rewards.0.weight=2`).
        check_files: Resolve prompt files and checkpoints, and report missing ones as mistakes.
        may_miss: Keys whose files need not be there; their names stay as they are then.

    Raises:
        TuningError: The recipe has mistakes; the message lists each with its key, value, allowed
            values and the likely intended key.
    """
    path = find_recipe(source)
    data = read_yaml_file(path)
    if not isinstance(data, dict):
        raise TuningError(f"{path}: a recipe has sections with keys; got {shown(data)}")
    for mark, verb in VERB_OF_MARK.items():
        if mark in data and schema.mark not in data and verb != schema.verb:
            raise TuningError(
                f"{path}: a recipe with `{mark}` belongs to `reward-tuning {verb}`; start it with "
                f"`reward-tuning {verb} {source}`"
            )
    mistakes: list[Mistake] = []
    data = rename_reward_keys(data)  # first, so that an override of either name replaces the value
    overridden = set(_apply(data, overrides, mistakes))
    data = rename_reward_keys(data)  # and in whole judges that an override sets
    if large := list(_too_large(data)):
        mistakes += large
        raise TuningError(_message(path, mistakes))  # comparing sections would overflow
    named = list(schema.names(data)) if check_files else []
    missing = _resolve(data, named, path.parent.resolve(), overridden) if check_files else []
    missing = [mistake for mistake in missing if mistake.path not in may_miss]
    recipe, wrong = _validate(schema, data)
    mistakes += [*wrong, *missing]
    if mistakes:
        raise TuningError(_message(path, mistakes))
    assert recipe is not None
    return recipe


def dump_recipe(recipe: Section, comments: Sequence[str] = ()) -> str:
    """Format a recipe as YAML with every value explicit, so that it loads back equal.

    Args:
        recipe: A resolved recipe.
        comments: Lines for the top of the file, such as versions and checkpoint hashes.
    """
    head = "".join(f"# {line}\n" for text in comments for line in (text.splitlines() or [""]))
    return head + write_yaml(recipe.model_dump(mode="json"))


def parse_override(text: str) -> tuple[KeyPath, Any]:
    """Split `key.sub=value` into its path and its value.

    Raises:
        TuningError: There is no `=`, a key is empty, or the value is not valid YAML.
    """
    key, equals, value = text.partition("=")
    parts = key.strip().split(".")
    if not equals or not all(parts):
        raise TuningError(f"override {shown(text)}: expected key.sub=value, such as train.steps=6")
    try:
        return tuple(map(_part, parts)), read_yaml(value)
    except TuningError as error:
        raise TuningError(f"override {shown(text)}: {error}") from error


def _part(text: str) -> str | int:
    """Parse a part of a key: an index into a list if it is a number of a possible size."""
    return int(text) if text.isdecimal() and len(text) <= MOST_DIGITS else text


def _apply(
    data: dict[str, Any], overrides: Sequence[str], mistakes: list[Mistake]
) -> Iterator[KeyPath]:
    for text in overrides:
        try:
            path, value = parse_override(text)
        except TuningError as error:
            mistakes.append(Mistake(("command line",), str(error)))
            continue
        path = renamed_path(path, data)
        problem = _set(data, path, value)
        if problem is None:
            yield path
        else:
            mistakes.append(Mistake(path, problem))


def _set(data: Any, path: KeyPath, value: Any) -> str | None:
    """Set one value in nested data; return the fault of the path, if there is one."""
    for depth, part in enumerate(path):
        last = depth == len(path) - 1
        where = dotted(path[:depth])
        if isinstance(data, list):
            if not isinstance(part, int):
                return f"{where} is a list; give a position from 0 to {len(data) - 1}, not {part}"
            if part > len(data) - (0 if last else 1):
                counted = "1 entry" if len(data) == 1 else f"{len(data)} entries"
                return f"{where} has {counted}, counted from 0, so there is no {part}"
            if last:
                data[part : part + 1] = [value]
                return None
        elif isinstance(data, dict):
            if last:
                data[part] = value
                return None
            data.setdefault(part, {})
        else:
            return f"{where} is {shown(data)}, which has no keys"
        data = data[part]
    raise AssertionError("a path is never empty")


def _too_large(data: dict[str, Any]) -> Iterator[Mistake]:
    """List the whole numbers of more than 64 bits."""
    found: list[tuple[KeyPath, Any]] = [((), data)]
    seen = set()  # an anchor of YAML may contain itself
    while found:
        path, value = found.pop(0)
        if isinstance(value, dict | list) and id(value) not in seen:
            seen.add(id(value))
            parts = value.items() if isinstance(value, dict) else enumerate(value)
            found += [((*path, key), part) for key, part in parts]
        elif isinstance(value, int) and abs(value) > LARGEST:
            yield Mistake(path, f"got {shown(value)}; a whole number has at most 64 bits")


def _validate(
    schema: Schema[AnyRecipe], data: dict[str, Any]
) -> tuple[AnyRecipe | None, list[Mistake]]:
    try:
        return schema.model.model_validate(data), []
    except ValidationError as error:
        mistakes = list(mistakes_of(error, schema.model))
    reported = {mistake.path for mistake in mistakes}
    # pydantic compares sections only if all are valid; compare at least the valid ones.
    sections: dict[str, Any] = {}
    for name, field in schema.model.model_fields.items():
        with contextlib.suppress(ValidationError, KeyError):
            annotation: Any = field.annotation
            sections[name] = TypeAdapter(annotation).validate_python(data[name])
    mistakes += [
        Mistake(conflict.path, f"got {shown(conflict.value)}; {conflict.text}")
        for conflict in schema.conflicts(sections)
        if conflict.path not in reported
    ]
    return None, mistakes


def _resolve(
    data: dict[str, Any],
    named: Iterable[tuple[Any, Locate]],
    folder: Path,
    overridden: Iterable[KeyPath],
) -> list[Mistake]:
    """Replace names by the files they resolve to, in place; return those that resolve to none."""
    mistakes = []
    overridden = set(overridden)
    for path, locate in named:
        holder = data
        for part in path[:-1]:
            holder = holder[part]
        value = holder[path[-1]]
        typed = any(path[: depth + 1] in overridden for depth in range(len(path)))
        try:
            holder[path[-1]] = locate(value, Path.cwd() if typed else folder)
        except TuningError as error:
            mistakes.append(Mistake(path, f"got {shown(value)}; {error}"))
    if is_name(data.get("output")):
        data["output"] = str(Path(data["output"]).expanduser())
    return mistakes


def section_of(data: dict[str, Any], name: str) -> dict[str, Any]:
    """Return a section of a raw recipe; empty if there is none."""
    value = data.get(name)
    return value if isinstance(value, dict) else {}


def _names(data: dict[str, Any]) -> Iterator[tuple[Any, Locate]]:
    """List the keys of a raw recipe that name a file, with the function that resolves them."""

    def section(name: str) -> dict[str, Any]:
        return section_of(data, name)

    def judges(found: Any, *prefix: str) -> Iterator[tuple[Any, Locate]]:
        for i, judge in enumerate(found if isinstance(found, list) else []):
            if isinstance(judge, dict):
                for path, locate in judge_names(judge):
                    yield (*prefix, i, *path), locate

    if is_name(section("generator").get("checkpoint")):
        yield ("generator", "checkpoint"), locate_generator
    for part in ("transformer", "vae", "text_encoder"):
        if is_name(section("generator").get(part)):
            yield ("generator", part), partial(locate_part, part)
    if is_name(section("generator").get("adapter")):
        yield ("generator", "adapter"), locate_adapter
    for key in ("train", "held_out"):
        if is_name(section("prompts").get(key)):
            yield ("prompts", key), locate_prompts
    if is_name(section("lora").get("init")):
        yield ("lora", "init"), locate_lora
    if is_name(section("train").get("small_decoder")):
        yield ("train", "small_decoder"), locate_small_decoder
    replay = section("train").get("replay")
    if isinstance(replay, dict) and is_name(replay.get("source")):
        yield ("train", "replay", "source"), locate_replay
    yield from judges(data.get("rewards"), "rewards")
    yield from judges(
        section("evaluation").get("held_out_rewards"), "evaluation", "held_out_rewards"
    )


def judge_names(judge: dict[str, Any]) -> Iterator[tuple[KeyPath, Locate]]:
    """List what names a file or folder in a raw judge: the path of each key, and its resolver."""
    kind = str(judge.get("kind"))
    command = judge.get("command")
    for place, part in enumerate(command if kind == "command" and type(command) is list else []):
        if is_name(part):
            yield ("command", place), locate_argument if place else locate_program
    folders = FOLDER_KEYS.get(kind, ())
    for key in dict.fromkeys((*FILE_KEYS, *folders)):
        shares = (kind, key, judge.get(key)) == ("qwen_critic", "checkpoint", OF_GENERATOR)
        if is_name(judge.get(key)) and not shares:
            yield (key,), locate_judge_folder if key in folders else locate_judge


def is_name(value: Any) -> bool:
    """Return whether a raw value can be the name of a file."""
    return isinstance(value, str) and value != "" and file_name_fault(value) is None


def _message(path: Path, mistakes: Sequence[Mistake]) -> str:
    count = "1 mistake" if len(mistakes) == 1 else f"{len(mistakes)} mistakes"
    lines = [shortened(str(mistake), LONGEST_LINE) for mistake in mistakes]
    if sum(map(len, lines)) > LONGEST_LIST:
        each = max(LEAST_LINE, LONGEST_LIST // len(lines))
        lines = [shortened(line, each) for line in lines]
    most = len(lines) if len(lines) * LEAST_LINE <= LONGEST_LIST else LONGEST_LIST // LEAST_LINE
    return "\n".join([f"{count} in {path}", *(f"  {line}" for line in first_lines(lines, most))])


RUN = Schema(Recipe, conflicts, _names, "run", "rewards")
