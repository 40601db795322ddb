"""Write a Qwen2-VL and its tokenizer in the format of the published checkpoints.

Such a checkpoint opens wherever the published ones do: in EasyAnimate's own environment
(transformers 4.46: a flat config, tensors named `model.layers` and `visual`, vocab.json and
merges.txt, the chat template in tokenizer_config.json) as in today's transformers, which reads
both.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from base_model.files.reproducible import save_reproducibly

# (name of a part today, in the published files); the head has the same name in both.
_PREFIXES = (("model.language_model.", "model."), ("model.visual.", "visual."))
_TEXT_KEYS = (
    "attention_dropout",
    "bos_token_id",
    "eos_token_id",
    "hidden_act",
    "hidden_size",
    "initializer_range",
    "intermediate_size",
    "max_position_embeddings",
    "max_window_layers",
    "num_attention_heads",
    "num_hidden_layers",
    "num_key_value_heads",
    "pad_token_id",
    "rms_norm_eps",
    "sliding_window",
    "use_cache",
    "use_sliding_window",
    "vocab_size",
)
_VISION_KEYS = (
    "depth",
    "embed_dim",
    "hidden_act",
    "hidden_size",
    "in_channels",
    "mlp_ratio",
    "num_heads",
    "patch_size",
    "spatial_merge_size",
    "temporal_patch_size",
)
_TOKEN_KEYS = ("image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id")
_TOKEN_FLAGS = ("content", "lstrip", "normalized", "rstrip", "single_word", "special")


def write_text_encoder(
    folder: Path, model: Any, dtype: torch.dtype, metadata: Mapping[str, str]
) -> None:
    """Write `config.json` and `model.safetensors`.

    Args:
        folder: Folder `text_encoder/` of a checkpoint; created if missing.
        model: `Qwen2VLForConditionalGeneration`.
        dtype: Dtype of the weights in the file.
        metadata: Metadata of the file.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(_json(flat_config(model.config, dtype)))
    state = {published_name(name): tensor.to(dtype) for name, tensor in model.state_dict().items()}
    save_reproducibly(folder / "model.safetensors", state, {"format": "pt", **metadata})


def write_tokenizer(folder: Path, tokenizer: Any) -> None:
    """Write tokenizer.json unchanged, and the files of the slow kind from it.

    Args:
        folder: Folder `tokenizer/` of a checkpoint; created if missing.
        tokenizer: Qwen2 tokenizer with a chat template.
    """
    tokenizer.save_pretrained(folder)
    whole = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    merges = [m if isinstance(m, str) else " ".join(m) for m in whole["model"]["merges"]]
    vocabulary = json.dumps(whole["model"]["vocab"], ensure_ascii=False)
    (folder / "vocab.json").write_text(vocabulary + "\n", encoding="utf-8")
    (folder / "merges.txt").write_text("\n".join(merges) + "\n", encoding="utf-8")
    added = {
        str(token["id"]): {key: token[key] for key in _TOKEN_FLAGS}
        for token in whole["added_tokens"]
    }
    named = {tokenizer.eos_token, tokenizer.pad_token}
    config = {
        "add_prefix_space": False,
        "added_tokens_decoder": added,
        "additional_special_tokens": [
            token["content"] for token in added.values() if token["content"] not in named
        ],
        "bos_token": None,
        "chat_template": tokenizer.chat_template,
        "clean_up_tokenization_spaces": False,
        "eos_token": tokenizer.eos_token,
        "errors": "replace",
        "model_max_length": tokenizer.model_max_length,
        "pad_token": tokenizer.pad_token,
        "split_special_tokens": False,
        "tokenizer_class": "Qwen2Tokenizer",
        "unk_token": tokenizer.unk_token,
    }
    (folder / "tokenizer_config.json").write_text(_json(config), encoding="utf-8")
    # It would take precedence over the template in the config.
    (folder / "chat_template.jinja").unlink(missing_ok=True)


def published_name(name: str) -> str:
    """Return the published name of a tensor for its name in today's transformers."""
    for today, before in _PREFIXES:
        if name.startswith(today):
            return before + name.removeprefix(today)
    return name


def flat_config(config: Any, dtype: torch.dtype) -> dict[str, Any]:
    """Return a `Qwen2VLConfig` with the published keys, as transformers 4.41 to 4.51 write it."""
    whole = config.to_dict()
    text, vision = whole["text_config"], whole["vision_config"]
    rope = text["rope_parameters"]
    return {
        "architectures": ["Qwen2VLForConditionalGeneration"],
        "model_type": "qwen2_vl",
        **{key: text[key] for key in _TEXT_KEYS},
        **{key: whole[key] for key in _TOKEN_KEYS},
        "rope_theta": rope["rope_theta"],
        "rope_scaling": {"type": "mrope", "mrope_section": rope["mrope_section"]},
        "tie_word_embeddings": whole["tie_word_embeddings"],
        "torch_dtype": str(dtype).removeprefix("torch."),
        "vision_config": {key: vision[key] for key in _VISION_KEYS},
    }


def _json(content: Mapping[str, Any]) -> str:
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"
