"""Write docs/recipe-keys.md, the reference of all recipe keys, from the schema.

    python -m scripts.recipe_keys            # write the page
    python -m scripts.recipe_keys --check    # exit code 1 if the page is out of date

A test runs the check, so a new or changed key comes with its line in the reference.
"""

import re
import sys
import types
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import annotated_types
from pydantic import AfterValidator, BaseModel
from pydantic.fields import FieldInfo

from reward_tuning.distil.recipe import DistilRecipe
from reward_tuning.finetune.recipe import FinetuneRecipe
from reward_tuning.schema.judge_roles import RENAMED_KEYS
from reward_tuning.schema.recipe import Recipe

PAGE = Path(__file__).parent.parent / "docs" / "recipe-keys.md"
HEAD = """# Recipe keys

Every key of a recipe: type, default, allowed values, meaning. Generated from the schema by
`python -m scripts.recipe_keys`; do not edit this page by hand.

A recipe is a YAML file of these sections; `key.sub=value` on the command line overrides a value,
`rewards.0.weight=2` one of the first judge. An unknown key is refused with the likely one.
`reward-tuning validate RECIPE` prints a recipe with every default filled in.
"""
TYPES: dict[Any, str] = {
    int: "integer",
    float: "number",
    bool: "true, false",
    str: "text",
    dict: "mapping",
    type(None): "null",
}
PLURALS = {"integer": "integers", "number": "numbers", "text": "texts", "section": "sections"}
TABLE_HEAD = ("| key | type | default | allowed | meaning |", "|---|---|---|---|---|")
SHARED = 3  # a key of so many kinds is described once, or twenty judges would repeat it
HELD_OUT = "evaluation.held_out_rewards.N"
VALIDATED = {"_clip_length": "4k + 1", "_side": "multiple of 16"}  # rules that no bound expresses


def main() -> None:
    """Write the page, or check that it is current."""
    text = page()
    if "--check" not in sys.argv[1:]:
        PAGE.write_text(text, encoding="utf-8")
    elif not PAGE.is_file() or PAGE.read_text(encoding="utf-8") != text:
        sys.exit(f"{PAGE.name} is out of date; run: python -m scripts.recipe_keys")


def page() -> str:
    """Return the reference as Markdown."""
    parts = [HEAD, "## Reward tuning: `run`", *_recipe(Recipe)]
    parts += ["## Fine-tuning: `finetune`", *_recipe(FinetuneRecipe)]
    parts += ["## Distillation: `distil`", *_recipe(DistilRecipe)]
    return "\n\n".join(part.strip() for part in parts) + "\n"


def _recipe(model: type[BaseModel]) -> Iterator[str]:
    plain = {name: field for name, field in model.model_fields.items() if not _sections(field)}
    yield "### Top level"
    yield _table(plain)
    for name, field in model.model_fields.items():
        if sections := _sections(field):
            yield from _part(f"{name}.N" if _is_list(field) else name, field, sections)


def _part(path: str, field: FieldInfo, sections: list[type[BaseModel]]) -> Iterator[str]:
    """Yield heading, text and table of a section, and of the sections in it."""
    yield f"### `{path}`"
    if len(sections) > 1:
        yield from _kinds(path, field, sections)
        return
    (section,) = sections
    yield _text(section.__doc__, field.description, _default_note(field))
    yield _table(section.model_fields)
    for name, inner in section.model_fields.items():
        if below := _sections(inner):
            yield from _part(f"{path}.{name}{'.N' if _is_list(inner) else ''}", inner, below)


def _kinds(path: str, field: FieldInfo, sections: list[type[BaseModel]]) -> Iterator[str]:
    """Yield a section that has a model for each `kind`: shared keys once, then each kind's own."""
    names = ", ".join(f"`{_kind(section)}`" for section in sections)
    yield _text(field.description, f"`kind` is one of {names}.")
    if path == HELD_OUT:
        yield _text(_difference(sections))
        return
    rows = [{n: _row(n, f) for n, f in section.model_fields.items()} for section in sections]
    count = Counter(row for of_section in rows for row in of_section.values())
    shared = [row for row, sections_with_it in count.items() if sections_with_it >= SHARED]
    if shared:
        yield "Keys that several kinds have; each kind below lists which of them it takes:"
        yield "\n".join([*TABLE_HEAD, *shared])
    fields = {n: f for one in reversed(sections) for n, f in one.model_fields.items()}
    for name, inner in fields.items():
        if below := _sections(inner):
            yield from _part(f"{path}.{name}", inner, below)
    for section, of_section in zip(sections, rows, strict=True):
        taken = [f"`{name}`" for name, row in of_section.items() if row in shared]
        own = [row for name, row in of_section.items() if row not in shared and name != "kind"]
        yield f"#### `{path}`, `kind: {_kind(section)}`"
        yield _text(section.__doc__, f"Shared keys: {', '.join(taken)}" if taken else "")
        if own:
            yield "\n".join([*TABLE_HEAD, *own])


def _difference(held_out: list[type[BaseModel]]) -> str:
    """Say how a judge under `evaluation.held_out_rewards` differs from one under `rewards`."""
    trained = {_kind(one): one for one in _sections(Recipe.model_fields["rewards"])}
    pairs = [(trained[_kind(one)].model_fields.keys(), one.model_fields.keys()) for one in held_out]
    assert not any(keys - of_trained for of_trained, keys in pairs), "document the added keys"
    missing = sorted({name for of_trained, keys in pairs for name in of_trained - keys})
    without = ", ".join(f"`{name}`" for name in missing)
    return f"Each kind takes the keys that it has under `rewards.N`, without {without}"


def _table(fields: dict[str, FieldInfo]) -> str:
    rows = [_row(name, field) for name, field in fields.items()]
    return "\n".join([*TABLE_HEAD, *rows])


def _row(name: str, field: FieldInfo) -> str:
    meaning = field.description or ""
    if sections := _sections(field):
        meaning = meaning or _first_line(sections[0]) if len(sections) == 1 else meaning
        meaning = f"{meaning}; a section, see below" if meaning else "a section, see below"
    for old, new in RENAMED_KEYS.items():
        if name == new:
            meaning += f"; `{old}` is the old name, still read with a warning"
    cells = [f"`{name}`", _type(field.annotation), _default(field), _allowed(field), meaning]
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _type(annotation: Any) -> str:
    origin, inner = get_origin(annotation), get_args(annotation)
    plain = dict if origin is dict else annotation
    if plain in TYPES:
        return TYPES[plain]
    if origin is Annotated:
        return _type(inner[0])
    if origin is Literal:
        return ", ".join(dict.fromkeys(TYPES[type(one)] for one in inner))
    if origin in (Union, types.UnionType):
        return ", ".join(dict.fromkeys(map(_type, inner)))
    if origin in (list, tuple):
        count = f"{len(inner)} " if origin is tuple and Ellipsis not in inner else ""
        names = dict.fromkeys(_type(one) for one in inner if one is not Ellipsis)
        return f"list of {count}" + " and ".join(PLURALS.get(one, one) for one in names)
    assert issubclass(annotation, BaseModel), f"no name for the type {annotation}"
    return "section"


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    if isinstance(value, BaseModel):
        kind = getattr(value, "kind", None)
        return f"`kind: {kind}`" if kind else "its defaults"
    return f"`{_yaml(value)}`"


def _default_note(field: FieldInfo) -> str:
    return "Off by default." if field.default is None else ""


def _yaml(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_yaml, value))}]"
    if isinstance(value, BaseModel):
        inner = ", ".join(f"{k}: {_yaml(v)}" for k, v in value.model_dump().items())
        return f"{{{inner}}}"
    return str(value) or '""'


def _allowed(field: FieldInfo) -> str:
    found = list(_choices(field.annotation))
    for rule in [*field.metadata, *_inner_rules(field.annotation)]:
        match rule:
            case annotated_types.Ge(ge):
                found.append(f"≥ {ge:g}" if isinstance(ge, float) else f"≥ {ge}")
            case annotated_types.Gt(gt):
                found.append(f"> {gt:g}")
            case annotated_types.Le(le):
                found.append(f"≤ {le:g}" if isinstance(le, float) else f"≤ {le}")
            case annotated_types.Lt(lt):
                found.append(f"< {lt:g}")
            case annotated_types.MinLen(least) if get_origin(field.annotation) is list:
                found.append(f"{least} or more")
            case AfterValidator(func=func) if getattr(func, "__name__", "") in VALIDATED:
                found.append(VALIDATED[func.__name__])
    return ", ".join(dict.fromkeys(found))


def _inner_rules(annotation: Any) -> Iterator[Any]:
    """Yield the rules of `Annotated` types inside unions."""
    if get_origin(annotation) is Annotated:
        for one in get_args(annotation)[1:]:
            yield from one.metadata if isinstance(one, FieldInfo) else [one]
    elif get_origin(annotation) in (Union, types.UnionType):
        for one in get_args(annotation):
            yield from _inner_rules(one)


def _choices(annotation: Any) -> Iterator[str]:
    if get_origin(annotation) is Literal:
        yield from (f"`{one}`" for one in get_args(annotation))
    elif get_origin(annotation) in (Union, types.UnionType, Annotated):
        for one in get_args(annotation):
            yield from _choices(one)


def _sections(field: FieldInfo) -> list[type[BaseModel]]:
    return list(_models(field.annotation))


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for one in get_args(annotation):
        yield from _models(one)


def _is_list(field: FieldInfo) -> bool:
    return get_origin(field.annotation) is list


def _kind(section: type[BaseModel]) -> str:
    return str(get_args(section.model_fields["kind"].annotation)[0])


def _first_line(section: type[BaseModel]) -> str:
    return (section.__doc__ or "").strip().splitlines()[0].rstrip(".")


def _text(*parts: str | None) -> str:
    """Join sentences; paragraphs stay, line breaks inside them go."""
    found = []
    for part in filter(None, parts):
        text = re.sub(r"[ \t]*\n[ \t]*(?!\n)", " ", part.strip().replace("\n\n", "\0"))
        text = re.sub(r" *\0 *", "\n\n", text)
        found.append(text if text.endswith((".", ":")) else f"{text}.")
    return " ".join(found)


if __name__ == "__main__":
    main()
