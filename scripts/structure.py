"""Measure the structure of the code.

    python scripts/structure.py step         files that one optimiser step executes
    python scripts/structure.py parameters   functions with more than 8 parameters
    python scripts/structure.py tests        modules without a test file of their name

`step` trains one step of a recipe of the embedded generator and records every project file whose
code runs in it: `--recipe NAME`, by default tiny-drtune-hps. Loading, evaluation and export are not
part of a step, and neither are the display and the checks that the progress events set off.
"""

from __future__ import annotations

import argparse
import ast
import re
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("base_model", "rewards", "reward_tuning")
MAX_PARAMETERS = 8
COUNTED = re.compile(r"\b(?:\d+|many)\s+parameters\b")
MAX_STEP_FILES = 25  # of reward_tuning: what a reader opens to follow one step


class LongSignature(NamedTuple):
    """A function with more than `MAX_PARAMETERS` parameters."""

    path: Path
    name: str
    count: int
    reason: str


def modules() -> Iterator[Path]:
    """Every module of the packages that holds code, relative to the repository."""
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            if path.name not in ("__init__.py", "__main__.py"):
                yield path.relative_to(ROOT)


def untested() -> list[Path]:
    """Modules without a test file of their name in the mirrored folder."""
    return [path for path in modules() if not (ROOT / test_of(path)).is_file()]


def test_of(module: Path) -> Path:
    """The test file that mirrors a module."""
    return Path("tests") / module.parent / f"test_{module.name}"


def long_signatures() -> list[LongSignature]:
    """Functions with too many parameters, each with the reason that its docstring gives.

    The reason is the paragraph of the docstring that counts them, such as "13 parameters: each is
    an option of the command line", or "The many parameters are keys of a recipe". `self` and `cls`
    do not count.
    """
    found = []
    for path in modules():
        tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                count = parameters(node.args)
                if count > MAX_PARAMETERS:
                    reason = _reason(ast.get_docstring(node) or "")
                    found.append(LongSignature(path, node.name, count, reason))
    return sorted(found, key=lambda signature: -signature.count)


def parameters(arguments: ast.arguments) -> int:
    """Number of parameters of a signature."""
    named = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
    count = len(named) + (arguments.vararg is not None) + (arguments.kwarg is not None)
    return count - (bool(named) and named[0].arg in ("self", "cls"))


def _reason(docstring: str) -> str:
    paragraphs = [" ".join(part.split()) for part in docstring.split("\n\n")]
    return next((part for part in paragraphs if COUNTED.search(part)), "")


def step_files(recipe: str) -> list[str]:
    """Project files whose code runs in one optimiser step of a recipe.

    Args:
        recipe: Name of a shipped recipe, or a file.

    Returns:
        Paths relative to the repository, sorted.
    """
    sys.path.insert(0, str(ROOT))
    from reward_tuning.progress import silent
    from reward_tuning.schema.loading import load_recipe
    from reward_tuning.tuning import trainer

    seen: set[str] = set()
    inside = f"{ROOT}/"
    step = trainer.optimiser_step

    def record(frame: FrameType, event: str, _: object) -> None:
        if event == "call" and frame.f_code.co_filename.startswith(inside):
            seen.add(frame.f_code.co_filename.removeprefix(inside))

    def recorded(recipe: Any, parts: Any, state: Any, accelerator: Any, _: Any) -> Any:
        sys.setprofile(record)
        try:
            return step(recipe, parts, state, accelerator, lambda event: None)
        finally:
            sys.setprofile(None)

    with tempfile.TemporaryDirectory() as folder:
        overrides = ("train.steps=1", "evaluation.prompts=2", f"output={folder}/run")
        loaded = load_recipe(recipe, overrides)
        trainer.optimiser_step = recorded
        try:
            trainer.run(loaded, progress=silent)
        finally:
            trainer.optimiser_step = step
    return sorted(name for name in seen if name.startswith(PACKAGES))


def main() -> int:
    """Print one measurement; the exit code is 1 if it exceeds its limit."""
    parser = argparse.ArgumentParser(description="Measure the structure of the code.")
    parser.add_argument("what", choices=("step", "parameters", "tests"))
    parser.add_argument("--recipe", default="tiny-drtune-hps", help="recipe for `step`")
    chosen = parser.parse_args()
    if chosen.what == "tests":
        missing = untested()
        print(*missing, sep="\n", end="\n" if missing else "")
        print(f"{len(missing)} modules without a test file of their name")
        return int(bool(missing))
    if chosen.what == "parameters":
        long = long_signatures()
        for path, name, count, reason in long:
            print(f"{count:3d}  {path}: {name}  {reason or 'NO REASON in its docstring'}")
        without = sum(not signature.reason for signature in long)
        print(f"{len(long)} functions with more than {MAX_PARAMETERS}, {without} without a reason")
        return int(bool(without))
    files = step_files(chosen.recipe)
    print(*files, sep="\n")
    own = sum(name.startswith("reward_tuning/") for name in files)
    print(f"{own} files of reward_tuning (at most {MAX_STEP_FILES}), {len(files)} in all")
    return int(own > MAX_STEP_FILES)


if __name__ == "__main__":
    sys.exit(main())
