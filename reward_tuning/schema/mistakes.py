"""From pydantic's errors to messages that a person can act on.

Each line names the key, the value it got, the allowed values and, for an unknown key, the key that
was probably meant, anywhere in the recipe.
"""

import difflib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from reward_tuning.files.masked_text import masked_addresses

_EXPECTED = {
    "int_type": "expected a whole number",
    "float_type": "expected a number",
    "bool_type": "expected true or false",
    "string_type": "expected a text",
    "list_type": "expected a list",
    "tuple_type": "expected a list",
    "model_type": "expected a section with keys",
    "model_attributes_type": "expected a section with keys",
    "finite_number": "expected a finite number",
    "string_unicode": "contains an invalid Unicode character (lone surrogate); give the text as "
    "UTF-8",
}
Path = tuple[str | int, ...]


@dataclass(frozen=True)
class Mistake:
    """One wrong value: its place in the recipe, and what to do about it."""

    path: Path
    text: str

    def __str__(self) -> str:
        return f"{dotted(self.path)}: {self.text}"


@dataclass(frozen=True)
class Conflict:
    """Two values that are each allowed but exclude each other."""

    path: Path
    value: Any
    text: str


def dotted(path: Sequence[str | int]) -> str:
    """Format a path as on the command line, `rewards.0.weight`; long parts are shortened."""
    return ".".join(cut(str(part)) for part in path) or "the recipe"


def cut(text: str, limit: int = 60) -> str:
    """Shorten a text to a number of characters."""
    return text if len(text) <= limit else text[: limit - 3] + "..."


def shown(value: Any, limit: int = 60) -> str:
    """Format a value in at most `limit` characters: a text in quotes, no secrets of an address."""
    text = (
        "null" if value is None else f"{value}".lower() if value is True or value is False else ""
    )
    return cut(masked_addresses(text or repr(value)), limit)


def members(annotation: Any) -> list[type[BaseModel]]:
    """List the models in an annotation, through unions, lists and `Annotated`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in get_args(annotation) for model in members(part)]


def key_paths(models: Sequence[type[BaseModel]], prefix: Path = ()) -> Iterator[Path]:
    """List every key of a schema, sections before their keys; items of a list have index 0."""
    seen: set[str] = set()
    for model in models:
        for name, field in model.model_fields.items():
            inner = members(field.annotation)
            listed = "list" in str(field.annotation)
            if name not in seen:
                yield (*prefix, name)
            seen.add(name)
            yield from key_paths(inner, (*prefix, name, *((0,) if listed and inner else ())))


def mistakes_of(
    error: ValidationError, model: type[BaseModel], prefix: Path = ()
) -> Iterator[Mistake]:
    """Translate each error of pydantic into a `Mistake`.

    Args:
        error: Error of the validation.
        model: Schema of the whole recipe, to find intended keys.
        prefix: Path of the validated value; empty for a whole recipe.
    """
    for found in error.errors(include_url=False):
        path, parents = _walk((*prefix, *found["loc"]), model)
        if found["type"] in ("union_tag_invalid", "union_tag_not_found"):
            yield from _wrong_kind(found["input"], path, model)
        else:
            yield Mistake(path, _message(found, path, parents, model))


def _wrong_kind(value: Any, path: Path, model: type[BaseModel]) -> Iterator[Mistake]:
    """Report a missing or unknown `kind`, and the other mistakes of its section.

    These depend on the kind that was meant: the one with a similar name, else the one whose keys
    match best.
    """
    models = {str(tag): one for one in _models_at(model, path) for tag in _tags(one)}
    if "kind" not in value:
        yield Mistake((*path, "kind"), f"is missing; allowed: {', '.join(models)}")
        close: list[str] = []
    else:
        got = str(value["kind"])
        message = f"got {shown(value['kind'])}; {one_of(got, list(models))}"
        yield Mistake((*path, "kind"), message)
        close = difflib.get_close_matches(got, models, 1)
    guesses = []
    for kind in close or models:
        try:
            models[kind].model_validate({**value, "kind": kind})
        except ValidationError as error:
            unknown = sum(found["type"] == "extra_forbidden" for found in error.errors())
            guesses.append(((unknown, error.error_count()), kind, error))
        else:
            return
    _, kind, found_wrong = min(guesses, key=lambda guess: guess[0])
    yield from mistakes_of(found_wrong, model, (*path, kind))


def _walk(loc: Path, model: type[BaseModel]) -> tuple[Path, list[type[BaseModel]]]:
    """Remove the tags of unions from a location; also return the models that hold its last key."""
    path: list[str | int] = []
    holders: list[type[BaseModel]] = [model]
    inner: list[type[BaseModel]] = [model]
    for part in loc:
        tagged = [m for m in inner if part in _tags(m)]
        if len(inner) > 1 and tagged:
            inner = tagged
            continue
        path.append(part)
        if isinstance(part, int):
            continue
        holders = inner
        inner = [
            found
            for holder in holders
            if part in holder.model_fields
            for found in members(holder.model_fields[part].annotation)
        ]
    return tuple(path), holders


def _tags(model: type[BaseModel]) -> tuple[Any, ...]:
    field = model.model_fields.get("kind")
    return get_args(field.annotation) if field is not None else ()


def _message(
    found: Any, path: Path, holders: Sequence[type[BaseModel]], model: type[BaseModel]
) -> str:
    got, context = shown(found["input"]), found.get("ctx", {})
    match found["type"]:
        case "extra_forbidden":
            text = f"unknown key (got {got}); {intended(path, holders, model)}"
        case "missing":
            fields = [h.model_fields[str(path[-1])] for h in holders if path[-1] in h.model_fields]
            wanted = (
                fields[0].description if fields else "another value"
            )  # an item that a list lacks
            text = f"is missing; expected: {wanted or 'a section with keys'}"
        case "literal_error":
            allowed = [part.strip("'") for part in re.split(", | or ", context["expected"])]
            text = f"got {got}; {one_of(str(found['input']), allowed)}"
        case "too_short" | "string_too_short":
            text = f"got {got}; must not be empty"
        case kind:
            said = found["msg"].removeprefix("Value error, ").replace("Input should be", "must be")
            text = f"got {got}; {_EXPECTED.get(kind, said)}"
    return text


def one_of(got: str, allowed: Sequence[str]) -> str:
    """List the allowed texts, and guess which one was meant."""
    close = difflib.get_close_matches(got, allowed, 1)
    return f"allowed: {', '.join(allowed)}" + (f"; did you mean {close[0]}?" if close else "")


def _models_at(model: type[BaseModel], path: Path) -> list[type[BaseModel]]:
    """List the models that the value at a path may have, one for each kind."""
    return _walk((*path, "kind"), model)[1]


def intended(
    path: Path, holders: Sequence[type[BaseModel]], model: type[BaseModel], most: int = 3
) -> str:
    """Guess the key that an unknown one means; else list the keys that the section allows.

    Args:
        path: Path of the unknown key.
        holders: Models of its section.
        model: Schema of the whole recipe, searched if the section has no similar key.
        most: Largest number of guesses.
    """
    key, section = str(path[-1]), path[:-1]
    here = sorted({name for holder in holders for name in holder.model_fields})
    # 0.7 within the section, 0.8 in the whole recipe: a guess from afar must be closer.
    close = difflib.get_close_matches(key, here, 1, 0.7)
    if close:
        return f"did you mean {dotted((*section, close[0]))}?"
    of_kinds = [
        str(tag)
        for one in _models_at(model, section)
        if one not in holders and key in one.model_fields
        for tag in _tags(one)
    ]
    if of_kinds:
        return (
            f"it is a key of kind {', '.join(of_kinds)}; allowed in {dotted(section)}: "
            f"{', '.join(here)}"
        )
    elsewhere: dict[str, list[str]] = {}
    for known in key_paths([model]):
        names = [str(part) for part in known if isinstance(part, str)]
        for alias in {names[-1], "_".join(names)}:
            elsewhere.setdefault(alias, []).append(dotted(known))
    close = [key] if key in elsewhere else difflib.get_close_matches(key, elsewhere, 1, 0.8)
    if close:
        meant = list(dict.fromkeys(elsewhere[close[0]]))  # kinds of one list share their paths
        return f"did you mean {' or '.join(meant[:most])}?"
    return f"allowed in {dotted(section)}: {', '.join(here)}" if here else "it takes no keys"
