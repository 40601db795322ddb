"""YAML 1.2 as people mean it: numbers are numbers, `off` is a word, a key stands only once.

PyYAML reads YAML 1.1, where `3e-4` is a text, `off` and `no` are switches, `010` is eight, `1:30`
is ninety and the second of two equal keys wins without a word. Reader and writer here share the
core schema of YAML 1.2, so that what is written reads back equal.
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


MOST_VALUES = 100_000
"""Of a document. Aliases of aliases may mean billions, and whoever walks over them never ends."""


class _Loader(yaml.SafeLoader):
    yaml_implicit_resolvers = _resolvers()

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        """Refuse a key that stands twice, where PyYAML would take the last."""
        seen: dict[str, int] = {}
        for key, _ in node.value:
            name = str(self.construct_object(key, deep=True))
            line = key.start_mark.line + 1
            if name in seen:
                raise TuningError(
                    f"line {line}: the key `{name}` stands in line {seen[name]} already; "
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
        """Write equal values out instead of linking them."""
        return True


_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_integer)
_Loader.add_constructor("tag:yaml.org,2002:float", _Loader.construct_number)


def read_yaml(text: str) -> Any:
    """Read one YAML document.

    Raises:
        TuningError: The text is no YAML, or a key stands twice; with the line. Or its aliases mean
            more than `MOST_VALUES`.
    """
    try:
        found = yaml.load(text, Loader=_Loader)
        values = _written_out(found, {})
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
        # PyYAML's constructors take a tag such as !!int at its word.
        raise TuningError(f"not valid YAML: a value is not what its tag says ({error})") from error
    if values > MOST_VALUES:
        raise TuningError(
            f"its aliases (*name) written out are more than {MOST_VALUES:,} values; leave out "
            "those of aliases"
        )
    return found


def _written_out(value: Any, known: dict[int, int]) -> int:
    """Count the values of a document whose aliases are written out; one that holds itself once."""
    if not isinstance(value, dict | list):
        return 1
    if id(value) not in known:
        known[id(value)] = 0
        parts = value.values() if isinstance(value, dict) else value
        known[id(value)] = 1 + sum(_written_out(part, known) for part in parts)
    return known[id(value)]


def read_yaml_file(path: Path) -> Any:
    """Read a file of one YAML document.

    Raises:
        TuningError: It is no UTF-8 text or no YAML, or a key stands twice; with the path.
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
    """Write plain data so that `read_yaml` gives it back equal, keys in their order."""
    return yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)
