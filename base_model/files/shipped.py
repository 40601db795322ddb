"""Resolve the name of a checkpoint in a recipe: a shipped name, a folder, or a hub id."""

from pathlib import Path

from base_model.errors import GeneratorError
from base_model.files.hub import HUB_ID

WEIGHTS = Path(__file__).parents[1] / "weights"

PARTS = ("transformer", "vae", "text_encoder")
"""Parts that a recipe can replace; a text encoder brings its tokenizer if it has one."""


def shipped_checkpoints() -> list[str]:
    """Return the names of the generators in the package."""
    if not WEIGHTS.is_dir():
        return []
    return sorted(path.name for path in WEIGHTS.iterdir() if (path / "transformer").is_dir())


def resolve_checkpoint(name: str | Path, relative_to: Path | None = None) -> Path | str:
    """Resolve a generator: a shipped name first, then a folder, then a hub id.

    Args:
        name: Name as in a recipe. A `Path` is always a folder.
        relative_to: Folder that relative paths start from, usually the recipe's; None is the
            current folder.

    Returns:
        An existing folder, or a hub id ("org/name" or "org/name@revision") as a string.

    Raises:
        GeneratorError: It is none of the three.
    """
    if isinstance(name, str) and name in shipped_checkpoints():
        return WEIGHTS / name
    folder = (relative_to or Path()) / Path(name).expanduser()
    if folder.is_dir():
        return folder
    if isinstance(name, str) and HUB_ID.fullmatch(name):
        return name
    shipped = ", ".join(shipped_checkpoints()) or "none"
    problem = "is a file, not a folder" if folder.is_file() else "does not exist"
    raise GeneratorError(
        f"No generator checkpoint {str(name)!r}: the folder {folder} {problem}. Allowed are a "
        f"shipped name ({shipped}), a folder with transformer/ and vae/, or a hub id such as "
        "alibaba-pai/EasyAnimateV5.1-7b-zh-InP (with @revision for one commit, tag or branch)."
    )


def resolve_part(part: str, value: str, relative_to: Path | None = None) -> Path | str:
    """Resolve a part: a shipped name first, then a folder or a weight file, then a hub id.

    Args:
        part: One of `PARTS`.
        value: Name as in a recipe: a checkpoint that has this part, the folder of the part, or a
            safetensors file.
        relative_to: Folder that relative paths start from.

    Returns:
        An existing folder or file, or a hub id.

    Raises:
        GeneratorError: It is none of these, or a file of another format.
    """
    path = (relative_to or Path()) / Path(value).expanduser()
    if path.is_file():
        if path.suffix != ".safetensors":
            raise GeneratorError(
                f"{path} is no .safetensors file. Files of other formats can run code when opened "
                f"and are not read: save the {part}'s tensors as safetensors."
            )
        return path
    if value not in shipped_checkpoints() and not path.is_dir() and not HUB_ID.fullmatch(value):
        shipped = ", ".join(shipped_checkpoints()) or "none"
        raise GeneratorError(
            f"No {part} {value!r}: {path} does not exist. Allowed are a .safetensors file, the "
            f"folder of a {part}, a checkpoint that has one (a folder, or one of {shipped}), or a "
            "hub id."
        )
    return resolve_checkpoint(value, relative_to)
