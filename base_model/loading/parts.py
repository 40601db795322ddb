"""Assemble a checkpoint from parts of several checkpoints, as a folder of links.

EasyAnimate's trainers take `--transformer_path` and `--vae_path`; a recipe here names the parts.
The result is an ordinary checkpoint folder in the cache, so that any reader of checkpoints can use
it. Nothing is copied: the links point to the parts.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

from base_model.errors import GeneratorError
from base_model.files.cache_folder import made_once
from base_model.files.hub import download, parts_of
from base_model.files.shipped import PARTS
from base_model.loading.checkpoint import local_folder
from base_model.loading.delta import is_delta

WEIGHT_FILES = {
    "transformer": "diffusion_pytorch_model.safetensors",
    "vae": "diffusion_pytorch_model.safetensors",
    "text_encoder": "model.safetensors",
}
TOKENIZERS = ("tokenizer.json", "vocab.json")


def with_parts(checkpoint: Path | str, parts: Mapping[str, Path | str]) -> Path:
    """Replace parts of a checkpoint by others.

    Args:
        checkpoint: Folder or hub id; of a hub id only the required parts are downloaded.
        parts: Result of `base_model.files.shipped.resolve_part` for each replaced part. A file of
            weights keeps the config of the part that it replaces.

    Returns:
        A folder of links in the cache, the same for the same places. Loading checks whether the
        parts fit together.

    Raises:
        GeneratorError: A place does not hold the part, or the cache cannot be written.
    """
    given = {part: _own_folder(part, place) for part, place in parts.items()}
    files = {part for part, place in given.items() if place.is_file()}
    own = [part for part in PARTS if part not in given or part in files]
    if "text_encoder" not in given or not _brings_tokenizer(given["text_encoder"]):
        own.append("tokenizer")
    base = _base_folder(checkpoint, own)
    links = {path.name: path for path in sorted(base.iterdir()) if path.name not in given}
    for part in set(given) - files:
        links[part] = given[part]
    if "text_encoder" in given and _brings_tokenizer(given["text_encoder"]):
        links["tokenizer"] = _tokenizer(given["text_encoder"])
    for part in files:
        for path in (base / part).glob("*.json"):
            if not path.name.endswith(".index.json"):
                links[f"{part}/{path.name}"] = path
        links[f"{part}/{WEIGHT_FILES[part]}"] = given[part]
    return _linked({name: place.resolve() for name, place in links.items()})


def _own_folder(part: str, place: Path | str) -> Path:
    """Return the folder of a part, or its file."""
    if isinstance(place, str):
        place = download(place, parts_of([part, *(["tokenizer"] * (part == "text_encoder"))]))
    elif is_delta(place):
        place = local_folder(place, text_encoder=False)
    inside = place / part
    if inside.is_dir():
        return inside
    if place.is_file() or (place / "config.json").is_file():
        return place
    raise GeneratorError(
        f"{place} holds no {part}: neither {part}/ nor a config.json of its own. Give the folder "
        f"of a checkpoint or of its {part}."
    )


def _tokenizer(text_encoder: Path) -> Path:
    """Return the folder of the tokenizer: next to the text encoder, or in it as in a Qwen2-VL."""
    sibling = text_encoder.parent / "tokenizer"
    return sibling if text_encoder.name == "text_encoder" and sibling.is_dir() else text_encoder


def _brings_tokenizer(text_encoder: Path) -> bool:
    if text_encoder.is_file():
        return False
    return any((_tokenizer(text_encoder) / name).is_file() for name in TOKENIZERS)


def _base_folder(checkpoint: Path | str, parts: list[str]) -> Path:
    """Return the folder of a checkpoint that holds the required parts."""
    if isinstance(checkpoint, str):
        return download(checkpoint, parts_of(parts))
    if is_delta(checkpoint):
        checkpoint = local_folder(checkpoint, text_encoder=False)
    if missing := [part for part in parts if not (checkpoint / part).is_dir()]:
        raise GeneratorError(
            f"{checkpoint} lacks {', '.join(missing)}, and the recipe does not replace them. "
            "Give a complete checkpoint, or name the missing parts, too."
        )
    return checkpoint


def _linked(links: Mapping[str, Path]) -> Path:
    """Return a folder with these links, made once."""
    content = json.dumps({name: str(place) for name, place in sorted(links.items())})

    def fill(target: Path) -> None:
        for name, place in links.items():
            (target / name).parent.mkdir(exist_ok=True)
            (target / name).symlink_to(place)

    return made_once(
        f"parts-{hashlib.sha256(content.encode()).hexdigest()[:16]}",
        fill,
        advice="A checkpoint with replaced parts is assembled there; name another folder in the "
        "environment variable REWARD_TUNING_CACHE.",
    )
