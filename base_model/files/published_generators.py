"""The published generators: hub ids and sizes, known without a connection."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class PublishedSize:
    """What the published checkpoints of one size have in common, whatever their kind.

    Attributes:
        name: As in their hub ids.
        bytes: Bytes of a download: transformer and text encoder in bfloat16, and the VAE.
            Calculated from the published numbers of weights, to the gigabyte.
        transformer: Numbers of weights of the transformer, by the published control config; the
            other kinds differ by less than one in 10,000.
        adapter: Numbers of a LoRA of rank 1 by the preset of its targets, by the same config.
    """

    name: str
    bytes: int
    transformer: int
    adapter: Mapping[str, int]


SIZES = (
    PublishedSize(
        "7b",
        31_000_000_000,
        6_814_855_232,
        {"attention": 1_327_104, "attention+mlp": 2_985_984, "all-linear": 4_371_008},
    ),
    PublishedSize(
        "12b",
        41_000_000_000,
        11_799_450_176,
        {"attention": 2_359_296, "attention+mlp": 5_308_416, "all-linear": 7_148_096},
    ),
)

_ORIGINAL = ("zh", "zh-InP", "zh-Control", "zh-Control-Camera")
_DIFFUSERS = {"7b": ("zh",), "12b": ("zh", "zh-InP", "zh-Control")}


def published_generators(size: PublishedSize) -> list[str]:
    """List the hub ids of one size, the publishers' layout first."""
    start = f"alibaba-pai/EasyAnimateV5.1-{size.name}"
    return [
        *(f"{start}-{ending}" for ending in _ORIGINAL),
        *(f"{start}-{ending}-diffusers" for ending in _DIFFUSERS[size.name]),
    ]


def published_size(hub_id: str) -> PublishedSize | None:
    """Return the size of a published generator; None for any other name."""
    name = hub_id.partition("@")[0]
    return next((size for size in SIZES if name in published_generators(size)), None)
