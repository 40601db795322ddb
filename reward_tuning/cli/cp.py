"""`reward-tuning cp`: copy a recipe to edit it."""

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
PLAIN = re.compile(r"[A-Za-z0-9_/][A-Za-z0-9_./-]*")  # YAML needs no quotes


def cp(
    recipe: Annotated[str, typer.Argument(help="A shipped name or a path")],
    destination: Annotated[Path, typer.Argument(help="The new file, or a folder for it")],
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an existing file")
    ] = False,
) -> None:
    """Copy a recipe with its comments, to edit it; its output becomes runs/NAME.

    Relative paths inside the recipe then start from the new folder; shipped names stay valid.
    """
    source = find_recipe(recipe)
    if destination.is_dir():
        destination /= source.name
    if destination.exists() and not overwrite:
        raise TuningError(
            f"{destination} exists and is not overwritten; give another name, or --overwrite"
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
    """Replace a recipe's `output` by `runs/NAME`, so that its runs do not mix with the original's.

    Args:
        text: YAML text of the recipe; nothing else in it changes.
        name: Name of the copy.

    Returns:
        The new text and `runs/NAME`; the text unchanged and "" if it has no `output` key at the
        start of a line.
    """
    output = f"runs/{name}"
    written = output if PLAIN.fullmatch(output) else json.dumps(output)
    changed, count = OUTPUT.subn(lambda line: f"output: {written}{line['comment'] or ''}", text, 1)
    return changed, output if count else ""
