"""Read and write YAML 1.2, in which `3e-4` is a number, `off` a word, and keys are unique.

PyYAML reads YAML 1.1, in which `3e-4` is a text, `off` and `no` are booleans, `010` is eight and
`1:30` is ninety, and takes the second of two equal keys without a warning. The reader and the
writer here share the core schema of YAML 1.2, so written data reads back equal.
"""

import re
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from reward_tuning.errors import TuningError

_CORE_SCHEMA: tuple[tuple[str, str, str], ...] = (
    ("tag:yaml.org,2002:bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("tag:yaml.org,2002:null", r"~|null|Null|NULL|", "~nN"),
    ("tag:yaml.org,2002:int", r"[-+]?[0-9]+", "-+0123456789"),
    (
        "tag:yaml.org,2002:float",
        r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)"
        r"|\.(?:nan|NaN|NAN)",
        "-+0123456789.",
    ),
)


def _resolvers() -> dict[str, list[tuple[str, re.Pattern[str]]]]:
    table: dict[str, list[tuple[str, re.Pattern[str]]]] = {}
    for tag, pattern, firsts in _CORE_SCHEMA:
        for first in [*firsts, *([""] if tag.endswith("null") else [])]:
            table.setdefault(first, []).append((tag, re.compile(rf"(?:{pattern})\Z")))
    return table


MAX_VALUES = 100_000
"""Values of a document with its aliases expanded: a few lines of nested aliases may stand for
billions, over which a walk would never end."""


class _Loader(yaml.SafeLoader):
    yaml_implicit_resolvers = _resolvers()

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        """Refuse a repeated key, of which PyYAML would take the last value."""
        seen: dict[str, int] = {}
        for key, _ in node.value:
            name = str(self.construct_object(key, deep=True))
            line = key.start_mark.line + 1
            if name in seen:
                raise TuningError(
                    f"line {line}: the key `{name}` appears in line {seen[name]} already; "
                    "remove one of the two"
                )
            seen[name] = line
        return super().construct_mapping(node, deep)

    def construct_integer(self, node: yaml.ScalarNode) -> int:
        """Read decimal digits; a leading 0 does not mean octal."""
        return int(self.construct_scalar(node))

    def construct_number(self, node: yaml.ScalarNode) -> float:
        """Read a decimal number, `.inf` or `.nan`."""
        return float(
            self.construct_scalar(node).lower().replace(".inf", "inf").replace(".nan", "nan")
        )


class _Dumper(yaml.SafeDumper):
    yaml_implicit_resolvers = _resolvers()

    def ignore_aliases(self, data: Any) -> bool:
        """Write equal values out instead of using aliases."""
        return True


_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_integer)
_Loader.add_constructor("tag:yaml.org,2002:float", _Loader.construct_number)


def read_yaml(text: str) -> Any:
    """Read one YAML document.

    Raises:
        TuningError: The text is not valid YAML or repeats a key, with the line; or it has more than
            `MAX_VALUES` values with its aliases expanded.
    """
    try:
        found = yaml.load(text, Loader=_Loader)
        values = _expanded_size(found, {})
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        problem = " ".join(part for part in (error.context, error.problem) if part)
        raise TuningError(f"{place}not valid YAML: {problem}") from error
    except yaml.YAMLError as error:
        raise TuningError(f"not valid YAML: {error}") from error
    except TuningError:
        raise
    except RecursionError as error:
        raise TuningError("not valid YAML: nested too deeply") from error
    except (ValueError, LookupError, AttributeError) as error:
        # PyYAML's constructors do not check a value against a tag such as !!int.
        raise TuningError(f"not valid YAML: a value does not fit its tag ({error})") from error
    if values > MAX_VALUES:
        raise TuningError(
            f"with its aliases (*name) expanded it has more than {MAX_VALUES:,} values; remove "
            "aliases of aliases"
        )
    return found


def _expanded_size(value: Any, known: dict[int, int]) -> int:
    """Count the values of a document with its aliases expanded; a recursive one counts once."""
    if not isinstance(value, dict | list):
        return 1
    if id(value) not in known:
        known[id(value)] = 0
        parts = value.values() if isinstance(value, dict) else value
        known[id(value)] = 1 + sum(_expanded_size(part, known) for part in parts)
    return known[id(value)]


def read_yaml_file(path: Path) -> Any:
    """Read a file of one YAML document.

    Raises:
        TuningError: The file is not UTF-8 text or not valid YAML, or repeats a key; with its path.
    """
    try:
        return read_yaml(path.read_text(encoding="utf-8"))
    except TuningError as error:
        raise TuningError(f"{path}: {error}") from error
    except UnicodeDecodeError as error:
        raise TuningError(
            f"{path}: not UTF-8 text (byte {error.start}); save it as UTF-8"
        ) from error


def write_yaml(data: Any) -> str:
    """Return plain data as YAML that `read_yaml` reads back equal, keys in their order."""
    return yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)
