"""Finds recipes and the files they name: shipped name first, then path, then hub id."""

import difflib
import re
import shlex
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from base_model.errors import GeneratorError
from base_model.files.shipped import WEIGHTS, resolve_checkpoint, resolve_part
from reward_tuning.errors import TuningError

FINETUNE, DISTIL = "finetune", "distil"  # folders of the recipes of these verbs
ADAPTERS = WEIGHTS / "adapters"
FOLDER_MARKS = ("config.json", "model_config.json", "text_encoder")
"""Contents that identify a judge's folder: Qwen2-VL, VideoAlign, a generator's checkpoint."""

# owner/name/file, owner/name/file@revision
_HUB_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
_HUB_FILE = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+(/[\w.+-]+)+(@[\w.-]+)?")


@dataclass(frozen=True)
class ShippedRecipe:
    """A recipe of the package, with the first line of its header."""

    name: str
    path: Path
    summary: str


def shipped_folder(package: str, folder: str = "") -> Path:
    """Return a folder of one of our packages, as installed, without importing the package."""
    spec = find_spec(package)
    assert spec is not None, package
    assert spec.submodule_search_locations, package
    return Path(spec.submodule_search_locations[0]) / folder


def header_lines(path: Path) -> list[str]:
    """Return the comment at the top of a YAML file, without the number signs."""
    lines = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            break
        lines.append(line[1:].strip())
    return lines


def shipped_recipes() -> list[ShippedRecipe]:
    """List the recipes of `reward-tuning run` in the package, by name."""
    return _recipes_in("")


def finetune_recipes() -> list[ShippedRecipe]:
    """List the shipped recipes of `reward-tuning finetune`, as `finetune/NAME`."""
    return _recipes_in(FINETUNE)


def distil_recipes() -> list[ShippedRecipe]:
    """List the shipped recipes of `reward-tuning distil`, as `distil/NAME`."""
    return _recipes_in(DISTIL)


def _recipes_in(verb: str) -> list[ShippedRecipe]:
    """List the recipes of a folder by name; empty for that of `run`."""
    folder = shipped_folder("recipes", verb) if verb else shipped_folder("recipes")
    prefix = f"{verb}/" if verb else ""
    return [
        ShippedRecipe(f"{prefix}{path.stem}", path, (header_lines(path) or [""])[0])
        for path in sorted(folder.glob("*.yaml"), key=lambda path: path.stem)
    ]


def find_recipe(name: str | Path, besides: str = "") -> Path:
    """Find a recipe by shipped name, else by path.

    Args:
        name: Name as given.
        besides: Further alternatives of the caller, for the message (" nor a run folder").

    Raises:
        TuningError: There is none; the message suggests a shipped one with a similar name.
    """
    recipes = [*shipped_recipes(), *finetune_recipes(), *distil_recipes()]
    shipped = {recipe.name: recipe.path for recipe in recipes}
    text = str(name)
    if text in shipped:
        return shipped[text]
    path = Path(name).expanduser()
    if path.is_dir():
        raise TuningError(
            f"{text} is a folder; give a recipe file (a run folder keeps its own as "
            f"{path / 'recipe.yaml'})"
        )
    if not path.is_file():
        raise TuningError(
            f"no recipe {text!r}: neither a shipped one nor a file{besides}; "
            f"{_likely(text, shipped)}`reward-tuning ls` lists the shipped ones"
        )
    return path


def _likely(text: str, names: Iterable[str]) -> str:
    """Return a question with a similar name; empty if there is none."""
    close = difflib.get_close_matches(text, names, 1, 0.75)
    return f"did you mean {close[0]}? " if close else ""


def verb_of(data: Any) -> Literal["run", "finetune", "distil"]:
    """Return the verb of a recipe, by its sections.

    Args:
        data: Content of its file, of any type.
    """
    if not isinstance(data, dict) or "rewards" in data:
        return "run"
    if "teacher" in data:
        return "distil"
    return "finetune" if "data" in data else "run"


def located(value: str, shipped: Path, folder: Path) -> str | None:
    """Resolve the name of a file or folder: shipped name, then path relative to the recipe.

    Args:
        value: The name as written.
        shipped: Folder of the shipped files.
        folder: Folder that relative paths start from.

    Returns:
        The name itself if it is shipped, the absolute path if that exists, else None.
    """
    if value not in {"", "."} and not Path(value).is_absolute() and (shipped / value).exists():
        return value
    path = folder / Path(value).expanduser()
    return str(path.resolve()) if path.exists() else None


def locate_prompts(value: str, folder: Path) -> str:
    """Resolve a prompt file: shipped name, then path relative to the recipe.

    Raises:
        TuningError: There is no such file.
    """
    shipped = shipped_folder("recipes")
    place = located(value, shipped, folder)
    if place is None or not prompt_path(place).is_file():
        names = sorted(
            str(path.relative_to(shipped))
            for ending in ("jsonl", "txt", "csv")
            for path in shipped.rglob(f"*.{ending}")
        )
        raise TuningError(
            f"no such prompt file: neither at {(folder / Path(value).expanduser()).resolve()} nor "
            f"shipped; {_likely(value, names)}`reward-tuning ls` lists the shipped ones"
        )
    return place


def locate_replay(value: str, folder: Path) -> str:
    """Resolve the clips of a replay: `base`, or a file of rows relative to the recipe.

    Raises:
        TuningError: It is neither.
    """
    if value == "base":
        return value
    path = (folder / Path(value).expanduser()).resolve()
    if path.suffix.lower() not in (".jsonl", ".ndjson", ".json", ".csv", ".tsv") or (
        not path.is_file()
    ):
        raise TuningError(
            f"allowed: base, or a .jsonl, .json or .csv file of clips; there is none at {path}. "
            'Write one with {"prompt": "...", "video": "clip.mp4"} a line'
        )
    return str(path)


def locate_lora(value: str, folder: Path) -> str:
    """Resolve a finished LoRA: a run folder's, a LoRA's folder, or its file.

    Args:
        value: The name as written.
        folder: Folder that relative paths start from.

    Raises:
        TuningError: There is none, or the run is unfinished.
    """
    path = (folder / Path(value).expanduser()).resolve()
    if (path / "recipe.yaml").is_file():
        path = path / "lora"
    if not path.exists():
        raise TuningError(
            f"no LoRA at {path}; give a finished run's folder, a LoRA's folder or its .safetensors"
        )
    return str(path)


def locate_small_decoder(value: str, folder: Path) -> str:
    """Resolve the file of a small decoder, relative to the recipe.

    Raises:
        TuningError: There is none, or it is no .safetensors file.
    """
    path = (folder / Path(value).expanduser()).resolve()
    if path.suffix != ".safetensors" or not path.is_file():
        raise TuningError(
            f"no .safetensors file of a small decoder at {path}; give one that `reward-tuning "
            "pretrain small-decoder --recipe RECIPE` writes, or set null for the package's own"
        )
    return str(path)


def shipped_adapters() -> list[str]:
    """List the LoRAs of the package by name."""
    return sorted(path.stem for path in ADAPTERS.glob("*.safetensors"))


def locate_adapter(value: str, folder: Path) -> str:
    """Resolve a LoRA to train on top of: a shipped name, else as `locate_lora`.

    Raises:
        TuningError: There is none, or the run is unfinished.
    """
    if value in shipped_adapters():
        return value
    try:
        return locate_lora(value, folder)
    except TuningError as error:
        likely = _likely(value, shipped_adapters())
        names = ", ".join(shipped_adapters()) or "none"
        raise TuningError(f"{error}, or a shipped one ({names}); {likely}".rstrip("; ")) from error


def adapter_place(value: str) -> Path:
    """Return the file or folder of a resolved adapter (`locate_adapter`)."""
    return ADAPTERS / f"{value}.safetensors" if value in shipped_adapters() else Path(value)


def prompt_path(value: str) -> Path:
    """Return the file of a resolved prompt name."""
    return Path(value) if Path(value).is_absolute() else shipped_folder("recipes", value)


def locate_part(part: str, value: str, folder: Path) -> str:
    """Resolve a part of a generator (`base_model.files.shipped.resolve_part`).

    Raises:
        TuningError: It does not exist.
    """
    try:
        found = resolve_part(part, value, folder)
    except GeneratorError as error:
        raise TuningError(str(error)) from error
    shipped = found == WEIGHTS / value
    return value if shipped or isinstance(found, str) else str(found.resolve())


def locate_generator(value: str, folder: Path) -> str:
    """Resolve a generator: shipped name, then folder relative to the recipe, then hub id.

    Args:
        value: The name as written.
        folder: Folder that relative paths start from.

    Raises:
        TuningError: It is none of the three.
    """
    try:
        found = resolve_checkpoint(value, folder)
    except GeneratorError as error:
        raise TuningError(str(error)) from error
    shipped = found == WEIGHTS / value
    return value if shipped or isinstance(found, str) else str(found.resolve())


def locate_judge(value: str, folder: Path) -> str:
    """Resolve a judge: shipped name, file relative to the recipe, published name, then hub id.

    Args:
        value: The name as written.
        folder: Folder that relative paths start from.

    Raises:
        TuningError: It is none of the four, or it is a folder.
    """
    weights = shipped_folder("rewards", "weights")
    place = located(value, weights, folder)
    if place is not None and (weights / place).is_dir():
        raise TuningError(
            f"{weights / place} is a folder, but this judge is a single file; name the file in it, "
            f"such as {value.rstrip('/')}/model.safetensors"
        )
    if place is not None:
        return place
    from rewards.core.published import PUBLISHED, published  # imports torch through its package

    if published(value.partition("@")[0]) is not None or _HUB_FILE.fullmatch(value):
        return value
    names = [*shipped_judges(), *(entry.name for entry in PUBLISHED)]
    raise TuningError(
        f"no such judge: neither at {(folder / Path(value).expanduser()).resolve()}, nor a file on "
        "the hub (owner/name/file, or owner/name/file@revision), nor shipped, nor published (as "
        f"hps-v2.1 is); {_likely(value, names)}`reward-tuning ls` lists both"
    )


def locate_judge_folder(value: str, folder: Path) -> str:
    """Resolve a judge's folder: shipped name, folder relative to the recipe, then hub id.

    Args:
        value: The name as written.
        folder: Folder that relative paths start from.

    Raises:
        TuningError: It is none of the three, or it is a file or a folder of another kind.
    """
    weights = shipped_folder("rewards", "weights")
    place = located(value, weights, folder)
    if place is not None and not (weights / place).is_dir():
        raise TuningError(
            f"{weights / place} is a file, but this judge is a folder with its config and its "
            "tokenizer; name the folder"
        )
    if place is not None and not any((weights / place / mark).exists() for mark in FOLDER_MARKS):
        raise TuningError(
            f"{weights / place} is not a judge's folder: it has none of {', '.join(FOLDER_MARKS)}"
        )
    if place is not None:
        return place
    from rewards.core.published import published  # imports torch through its package

    if published(value) is not None or _HUB_REPOSITORY.fullmatch(value):
        return value
    raise TuningError(
        f"no such folder: neither at {(folder / Path(value).expanduser()).resolve()}, nor a hub id "
        f"(owner/name), nor published, nor shipped ({', '.join(shipped_judges()) or 'none'})"
    )


def locate_program(value: str, folder: Path) -> str:
    """Resolve the program of a judge of kind `command`: a file, else a name on the PATH.

    Args:
        value: The name as written.
        folder: Folder that relative paths start from.

    Returns:
        The absolute path of a file, without following links; a name on the PATH as it is.

    Raises:
        TuningError: There is none, or it is not executable.
    """
    found = locate_argument(value, folder)
    if shutil.which(found) is not None:
        return found
    if Path(found).is_file():
        raise TuningError(f"{found} is not executable; run: chmod +x {shlex.quote(found)}")
    raise TuningError(
        f"no such program: neither at {_in_folder(value, folder).absolute()} nor on the PATH; give "
        "its path or its name, and arguments as further entries of the list"
    )


def locate_argument(value: str, folder: Path) -> str:
    """Resolve an argument of a program: a file that exists becomes absolute, others stay.

    Links are not followed: the python of a virtual environment is one, and means the environment.
    """
    path = _in_folder(value, folder)
    return str(path.absolute()) if path.is_file() else value


def _in_folder(value: str, folder: Path) -> Path:
    """Return a path that may begin with ~; `~x` is itself where there is no user x."""
    try:
        return folder / Path(value).expanduser()
    except RuntimeError:
        return folder / value


def shipped_judges() -> list[str]:
    """List the shipped judges by name: files, and folders with a config of their own."""
    weights = shipped_folder("rewards", "weights")
    files = weights.rglob("*.safetensors")
    places = {path.parent if (path.parent / "config.json").is_file() else path for path in files}
    places |= {path.parent for path in weights.rglob("model_config.json")}
    return sorted(place.relative_to(weights).as_posix() for place in places)
