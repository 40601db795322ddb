"""The configs of the published checkpoints: their shapes without their weights."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from base_model.core.kinds import KINDS

FOLDER = Path(__file__).parent / "published"
Size = Literal["7b", "12b"]
_KINDS = {
    "": "text-to-video",
    "-InP": "inpaint",
    "-Control": "control",
    "-Control-Camera": "camera",
}
_HUB_ID = re.compile(r"EasyAnimateV5\.1-(7b|12b)-zh(-InP|-Control-Camera|-Control)?")


@dataclass(frozen=True)
class PublishedConfigs:
    """Configs of one published checkpoint.

    Attributes:
        name: Size and kind, such as `EasyAnimateV5.1 12b inpaint`.
        transformer: Config of the transformer.
        vae: Config of the VAE.
        text_encoder: Config of the text encoder.
    """

    name: str
    transformer: dict[str, Any]
    vae: dict[str, Any]
    text_encoder: dict[str, Any]


def published_configs(checkpoint: str) -> PublishedConfigs | None:
    """Return the configs of a published checkpoint by its hub id; None for any other name.

    Seen were those of the control checkpoints; the other kinds differ in their input channels.
    """
    found = _HUB_ID.search(checkpoint)
    if found is None:
        return None
    name = _KINDS[found[2] or ""]
    (channels,) = (number for number, kind in KINDS.items() if kind.name == name)
    return PublishedConfigs(
        f"EasyAnimateV5.1 {found[1]} {name}",
        _read(f"transformer-{found[1]}-control") | {"in_channels": channels},
        _read("vae"),
        _read("text_encoder"),
    )


def _read(name: str) -> dict[str, Any]:
    config: dict[str, Any] = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    return config
