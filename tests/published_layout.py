"""Small checkpoints in the exact layout of the published ones: their files, their config keys.

The config texts come from ``tests/published`` and the weights from the goldens, which the original
classes and transformers 4.46 wrote; of the published configs only the sizes are changed.
"""

import json
from pathlib import Path
from typing import Any, Literal

from safetensors.torch import save_file

from tests.goldens import Golden, load_golden, write_part

FOLDER = Path(__file__).parent / "published"
Kind = Literal["text", "inpaint", "control", "camera"]
Size = Literal["7b", "12b"]

CHANNELS: dict[Kind, int] = {"text": 16, "inpaint": 33, "control": 48, "camera": 38}
GOLDENS: dict[Kind, str] = {
    "text": "transformer_t2v_all_mmdit",
    "inpaint": "transformer_inpaint_7b_style",
    "control": "transformer_control_7b_style",
    "camera": "transformer_camera_all_mmdit",
}
_SIZES = {
    "transformer": (
        "num_attention_heads",
        "attention_head_dim",
        "num_layers",
        "mmdit_layers",
        "time_embed_dim",
        "text_embed_dim",
        "in_channels",
    ),
    "vae": ("block_out_channels", "layers_per_block", "norm_num_groups"),
}


def published(name: str) -> dict[str, Any]:
    """A config of ``tests/published``, such as ``vae``."""
    return json.loads((FOLDER / f"{name}.json").read_text())


def transformer_config(size: Size, kind: Kind) -> dict[str, Any]:
    """The control checkpoints' configs, and those of the other kinds after them."""
    return published(f"transformer-{size}-control") | {"in_channels": CHANNELS[kind]}


def text_encoder_golden() -> Golden:
    return load_golden("published_text_encoder")


def text_encoder_files() -> dict[str, str]:
    """Name to text of the small text encoder's and tokenizer's files, but for the weights."""
    return json.loads(text_encoder_golden().metadata["files"])


def write_published(folder: Path, kind: Kind) -> Path:
    """A whole small checkpoint in the published layout."""
    golden = load_golden(GOLDENS[kind])
    sizes = {key: golden.config[key] for key in _SIZES["transformer"]}
    write_part(folder / "transformer", transformer_config("7b", kind) | sizes, golden.weights)
    vae = load_golden("vae")
    sizes = {key: vae.config[key] for key in _SIZES["vae"]}
    write_part(folder / "vae", published("vae") | sizes, vae.weights)
    (folder / "scheduler").mkdir()
    (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps(published("scheduler")))
    (folder / "model_index.json").write_text(json.dumps(published("model_index")))
    write_text_encoder(folder)
    return folder


def write_text_encoder(folder: Path) -> Path:
    """``text_encoder/`` and ``tokenizer/`` as published; the tokenizer is in both folders there."""
    for name, text in text_encoder_files().items():
        place, _, file = name.partition("/")
        for part in {place, "text_encoder"}:
            (folder / part).mkdir(exist_ok=True, parents=True)
            (folder / part / file).write_text(text)
    save_file(
        text_encoder_golden().weights,
        folder / "text_encoder" / "model.safetensors",
        metadata={"format": "pt"},
    )
    return folder
