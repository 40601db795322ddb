"""`reward-tuning cp`: a recipe of one's own, to start from."""

import contextlib
import json
import re
import shlex
from pathlib import Path
from typing import Annotated

import typer

from reward_tuning.errors import TuningError
from reward_tuning.files.yaml_text import read_yaml_file
from reward_tuning.schema.locate import find_recipe, verb_of

OUTPUT = re.compile(r"^output:[^\n#]*?(?P<comment>[ \t]+#[^\n]*)?$", re.MULTILINE)
PLAIN = re.compile(r"[A-Za-z0-9_/][A-Za-z0-9_./-]*")  # needs no quotes in YAML


def cp(
    recipe: Annotated[str, typer.Argument(help="A shipped name or a path.")],
    destination: Annotated[Path, typer.Argument(help="The new file, or a folder for it.")],
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace a file that is there.")
    ] = False,
) -> None:
    """Copy a recipe, comments included, to change it there; its output becomes runs/NAME.

    A relative path inside the recipe then starts from the new place; shipped names stay valid.
    """
    source = find_recipe(recipe)
    if destination.is_dir():
        destination /= source.name
    if destination.exists() and not overwrite:
        raise TuningError(
            f"{destination} exists already; choose another name, or replace it with --overwrite"
        )
    verb = verb_of(read_yaml_file(source))
    text, output = own_output(source.read_text(encoding="utf-8"), destination.stem)
    part = destination.with_name(f".{destination.name}.part")
    try:
        destination.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(text, encoding="utf-8")
        part.replace(destination)
    except OSError as error:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
        raise TuningError(f"{destination} cannot be written ({error.strerror})") from error
    print(f"{destination}{output and f', its output is {output}'}")
    print(f"Run it: reward-tuning {verb} {shlex.quote(str(destination))}")


def own_output(text: str, name: str) -> tuple[str, str]:
    """Give a recipe's text a run folder of its own, so that its runs do not meet the original's.

    Args:
        text: The YAML, which stays as it is but for one value.
        name: Of the recipe.

    Returns:
        The text and `runs/NAME`; both unchanged and empty where it has no `output` at its left
        edge.
    """
    output = f"runs/{name}"
    written = output if PLAIN.fullmatch(output) else json.dumps(output)
    changed, count = OUTPUT.subn(lambda line: f"output: {written}{line['comment'] or ''}", text, 1)
    return changed, output if count else ""
