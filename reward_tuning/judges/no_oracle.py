"""Refuse training on the oracle of the embedded world.

The oracle tells real improvement from reward hacking because no method has ever followed it. A
judge's own code could import it; that is found in its text. A server or a program in another
language can hide it: whoever trains on that has no evidence left.
"""

from __future__ import annotations

import ast
from collections.abc import Sequence
from pathlib import Path

from reward_tuning.errors import TuningError
from reward_tuning.schema.judge_parts import JudgeSection

ORACLE = "base_model.tiny.oracle"
READING = ("base_model.tiny.measure", "base_model.tiny.measure_modes")
"""Modules that score by the oracle."""


def check_no_oracle(judges: Sequence[JudgeSection]) -> None:
    """Check that no judge that is trained on imports the oracle, as far as its code is here.

    Args:
        judges: Sections under `rewards`, resolved.

    Raises:
        TuningError: The Python file of a judge names it.
    """
    for judge in judges:
        if judge.kind == "python":
            files = [Path(name).expanduser() for name in judge.files.values()]
        elif judge.kind == "command":
            files = [Path(word) for word in getattr(judge, "command", ()) if word.endswith(".py")]
        else:
            continue
        for file in files:
            if file.is_file() and (line := line_of_oracle(file)) is not None:
                raise TuningError(
                    f"rewards: the judge {judge.label} reads the embedded world's oracle: line "
                    f"{line} of {file}. The oracle measures whether a run improved anything, so "
                    "nothing may be trained on it; use another judge, or list this one under "
                    "evaluation.held_out_rewards"
                )


def line_of_oracle(file: Path) -> int | None:
    """Return the first line of a Python file that names the oracle's module; None if none does.

    A file that is no Python is left to the judge's loader, which says so.
    """
    try:
        tree = ast.parse(file.read_bytes())
    except (SyntaxError, ValueError):
        return None
    wanted = (ORACLE, *READING)
    lines = []
    for node in ast.walk(tree):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [one.name for one in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module, *(f"{node.module}.{one.name}" for one in node.names)]
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            names = [node.value]  # of an import by name
        elif isinstance(node, ast.Attribute):
            names = [ast.unparse(node)]
        if any(name == one or name.startswith(f"{one}.") for name in names for one in wanted):
            lines.append(getattr(node, "lineno", 1))
    return min(lines, default=None)
