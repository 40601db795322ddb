"""Folders with a Qwen2-VL: find them, read tensors under old and new names, load strictly.

Old names are those of transformers before 4.52 and of every published file (`visual.*`,
`model.layers.*`); new ones are `model.visual.*` and `model.language_model.*`. All functions here
use the new ones.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from rewards.core.json_text import json_file
from rewards.core.locate import SHIPPED
from rewards.core.published import published
from rewards.core.torchvision_import import ensure_torchvision_importable
from rewards.core.tower_options import TowerOptions
from rewards.core.weight_file import check_keys
from rewards.errors import RewardError

EMBEDDING = "model.language_model.embed_tokens.weight"
HEAD = "lm_head.weight"
PARTS = ("text_encoder", "tokenizer")
"""Subfolders of a generator's checkpoint, whose text encoder is a whole Qwen2-VL."""


@dataclass(frozen=True)
class QwenFolder:
    """The folders of a Qwen2-VL's parts: one folder, or two of a generator's checkpoint.

    Attributes:
        weights: Folder with `config.json` and `*.safetensors`.
        tokenizer: Folder with `tokenizer.json` or `vocab.json` and `merges.txt`.
    """

    weights: Path
    tokenizer: Path


def find_folder(checkpoint: str | Path, folder: Path | None = None) -> QwenFolder:
    """Find a Qwen2-VL: shipped name, then path, then hub id in the cache. Downloads nothing.

    Args:
        checkpoint: `tiny/qwen-critic`, a folder, a generator's checkpoint with `text_encoder/`
            and `tokenizer/`, or `org/repo`.
        folder: Folder that relative paths start from; the working directory if not given.

    Raises:
        RewardError: It is not on this machine; the message lists the searched places and the
            command that fetches it.
    """
    for place in candidate_folders(checkpoint, folder, "config.json"):
        if (place / "config.json").is_file():
            return QwenFolder(place, place)
        if all((place / part).is_dir() for part in PARTS):
            return QwenFolder(*(place / part for part in PARTS))
    what = "Qwen2-VL: a folder with config.json (or with text_encoder/ and tokenizer/)"
    raise RewardError(missing_folder(checkpoint, folder, what))


def resolve_folder(checkpoint: str | Path, folder: Path | None = None) -> Path:
    """Find the folder of any judge on Qwen2-VL: one with `config.json` or VideoAlign's.

    Raises:
        RewardError: It is not there.
    """
    for file in ("config.json", "model_config.json"):
        for place in candidate_folders(checkpoint, folder, file):
            if place.is_dir():
                return place
    raise RewardError(missing_folder(checkpoint, folder, "folder of a judge on Qwen2-VL"))


def candidate_folders(checkpoint: str | Path, folder: Path | None, file: str) -> list[Path]:
    """List the folders that a name may refer to, the shipped one first.

    Args:
        checkpoint: Name in the recipe.
        folder: Folder that relative paths start from; the working directory if not given.
        file: A file of the hub repository, by which its folder in the cache is found.
    """
    text = str(checkpoint)
    here = [SHIPPED / text, (folder or Path()) / Path(text).expanduser()]
    known = published(text)
    cached = _cached(known.repo if known is not None else text, file)
    return here if cached is None else [*here, cached]


def _cached(repo: str, file: str) -> Path | None:
    if repo.count("/") != 1 or repo.startswith(("/", ".")):
        return None
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        found = try_to_load_from_cache(repo, file)
    except HFValidationError:  # not the name of a repository: a path with a typing mistake
        return None
    return Path(found).parent if isinstance(found, str) else None


def missing_folder(checkpoint: str | Path, folder: Path | None, what: str) -> str:
    """Return the message for a missing folder: the searched places and how to get it."""
    text, place = str(checkpoint), (folder or Path()).absolute()
    known = published(text)
    hub_id = known.repo if known is not None else text
    size = f" ({known.size / 1e9:.3g} GB)" if known is not None and known.size else ""
    fetch = f" Fetch it with: hf download {hub_id}" if hub_id.count("/") == 1 else ""
    shipped = sorted(p.parent.relative_to(SHIPPED).as_posix() for p in SHIPPED.rglob("config.json"))
    return (
        f"{text!r}{size} is not a {what}: it is not a shipped name "
        f"({', '.join(shipped) or 'none'}), not under {place}, and not in the hub's cache.{fetch}"
    )


def new_name(name: str) -> str:
    """Return a tensor's name in transformers 5, from its old or new name."""
    if name.startswith("visual."):
        return f"model.{name}"
    if name.startswith("model.") and not name.startswith(
        ("model.visual.", "model.language_model.")
    ):
        return f"model.language_model.{name.removeprefix('model.')}"
    return name


def renamed(state: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
    """Return a state dict under new names.

    Raises:
        RewardError: Two names become the same.
    """
    result: dict[str, Tensor] = {}
    for name, tensor in state.items():
        if new_name(name) in result:
            raise RewardError(
                f"{path} contains {new_name(name)} twice, under its old and its new name. The file "
                "is a mixture of two; fetch it again"
            )
        result[new_name(name)] = tensor
    return result


def read_folder(folder: Path) -> dict[str, Tensor]:
    """Read every `*.safetensors` of a folder: tensors by new name, in the files' dtypes.

    Raises:
        RewardError: There is none, one of the index is missing, or one is damaged.
    """
    index = folder / "model.safetensors.index.json"
    files = sorted(folder.glob("*.safetensors"))
    if index.is_file():
        named = json_file(index).get("weight_map")
        if not isinstance(named, dict):
            raise RewardError(f"{index} has no weight_map: it is damaged. Fetch the folder again")
        names = set(named.values())
        files = [folder / name for name in sorted(names)]
    lost = [path.name for path in files if not path.is_file()]
    if lost or not files:
        raise RewardError(
            f"{folder} lacks {', '.join(lost) or 'any *.safetensors'}: the download is incomplete. "
            "Fetch the folder again"
        )
    state: dict[str, Tensor] = {}
    for path in files:
        try:
            with safe_open(path, framework="pt") as file:
                state |= {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except (SafetensorError, OSError) as error:
            raise RewardError(
                f"cannot read {path}: {str(error).splitlines()[0]}. The file is truncated or "
                "damaged; fetch it again"
            ) from error
    return renamed(state, folder)


def read_config(folder: Path, vocabulary: int | None = None) -> Any:
    """Read the `Qwen2VLConfig` of a folder.

    Args:
        folder: Folder with `config.json`, of any version.
        vocabulary: Number of rows of the embedding table, if it differs from the config.

    Raises:
        RewardError: The config is of another model.
    """
    ensure_torchvision_importable()
    from transformers import Qwen2VLConfig

    config_json = json_file(folder / "config.json")
    if config_json.get("model_type") != "qwen2_vl":
        raise RewardError(
            f"{folder} contains a {config_json.get('model_type')!r}; this judge needs a qwen2_vl "
            "(Qwen2-VL, not Qwen2.5-VL or Qwen3-VL, whose vision towers differ)"
        )
    config = Qwen2VLConfig(**config_json)
    if vocabulary is not None:
        config.text_config.vocab_size = vocabulary
    return config


def empty_model(config: Any) -> Any:
    """Build a `Qwen2VLForConditionalGeneration` whose parameters have shapes but no memory.

    Its rotary tables, which are in no file, have values.
    """
    from accelerate import init_empty_weights
    from transformers import Qwen2VLForConditionalGeneration

    with init_empty_weights(include_buffers=False):
        return Qwen2VLForConditionalGeneration(config)


def expected_shapes(config: Any) -> dict[str, torch.Size]:
    """Return the shapes of a complete file by new name; it has no tied head."""
    shapes = {name: tensor.shape for name, tensor in empty_model(config).state_dict().items()}
    if config.tie_word_embeddings:
        del shapes[HEAD]
    return shapes


def build_qwen_model(
    config: Any,
    state: Mapping[str, Tensor],
    path: Path,
    tower_options: TowerOptions,
    *,
    language_head: bool = True,
) -> Any:
    """Load tensors into a frozen model, strictly.

    Args:
        config: Config from `read_config`.
        state: Tensors by new name; a tied head may be among them, and is left out.
        path: Path for messages.
        tower_options: Device and dtype of the weights.
        language_head: Keep the language head; a model without it is 0.5 to 1 GB smaller, but cannot
            generate text.

    Returns:
        `Qwen2VLForConditionalGeneration` in evaluation mode.

    Raises:
        RewardError: A name is missing or unknown, or a shape differs.
    """
    model = empty_model(config)
    tied = language_head and config.tie_word_embeddings
    if not language_head:
        model.lm_head = nn.Identity()
    shapes = {name: tensor.shape for name, tensor in model.state_dict().items()}
    if tied or not language_head:
        state = {name: tensor for name, tensor in state.items() if name != HEAD}
        shapes.pop(HEAD, None)
    check_keys(shapes, state, f"a Qwen2-VL of width {config.text_config.hidden_size}", path)
    device, dtype = tower_options.device, tower_options.dtype
    placed = {name: tensor.to(device, dtype) for name, tensor in state.items()}
    if tied:
        placed[HEAD] = placed[EMBEDDING]
    model.load_state_dict(placed, strict=True, assign=True)
    if tied:
        model.lm_head.weight = model.get_input_embeddings().weight
    model = model.to(device)  # moves the rotary tables
    left = [n for n, t in [*model.named_parameters(), *model.named_buffers()] if t.is_meta]
    assert not left, f"tensors without values: {left}"
    return model.requires_grad_(False).eval()


def load_tokenizer(folder: Path, special: Iterable[str] = ()) -> Any:
    """Load the tokenizer of a folder, with its chat template and a judge's special tokens.

    Args:
        folder: Folder with the tokenizer's files; code in it is never run.
        special: Tokens of the judge; missing ones are added after the others, as its authors'
            training does.

    Raises:
        RewardError: There is no tokenizer, or it has no chat template.
    """
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False
        )
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        # the last three: valid JSON that is not a tokenizer
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise RewardError(
            f"the tokenizer in {folder} cannot be loaded ({reason}). A judge "
            "on Qwen2-VL needs its tokenizer in the same folder; copy or fetch it again"
        ) from error
    template = folder / "chat_template.json"
    if not tokenizer.chat_template and template.is_file():
        tokenizer.chat_template = json_file(template).get("chat_template")
    if not tokenizer.chat_template:
        raise RewardError(
            f"the tokenizer in {folder} has no chat template to wrap questions in. Add "
            "chat_template.json of the Qwen2-VL you use"
        )
    known = tokenizer.get_vocab()
    missing = [token for token in special if token not in known]
    if missing:
        tokenizer.add_special_tokens({"additional_special_tokens": missing})
    return tokenizer
