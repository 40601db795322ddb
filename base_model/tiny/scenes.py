"""Scenes of the embedded world: five attributes, and the combinations that are held out.

A scene is one coloured shape that moves (or rests) in front of a grey background. There are 6
colours x 4 shapes x 4 backgrounds x 3 sizes x 5 motions = 1440 combinations. One in five is held
out, chosen by a hash of its words, so that the split is the same on every machine.
"""

from __future__ import annotations

import hashlib
import itertools
import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cache
from typing import Literal

FRAMES = 9
SIDE = 64

COLOURS = ("red", "yellow", "green", "cyan", "blue", "purple")
SHAPES = ("circle", "square", "triangle", "star")
BACKGROUNDS = ("dark", "bright", "striped", "checkered")
SIZES = ("small", "medium", "large")
MOTIONS = ("left", "right", "up", "down", "still")

ATTRIBUTES: dict[str, tuple[str, ...]] = {
    "colour": COLOURS,
    "shape": SHAPES,
    "background": BACKGROUNDS,
    "size": SIZES,
    "motion": MOTIONS,
}

Split = Literal["train", "held_out"]


@dataclass(frozen=True, order=True)
class Scene:
    """One combination of attributes; every field is a word of `ATTRIBUTES`."""

    colour: str
    shape: str
    background: str
    size: str
    motion: str

    def __post_init__(self) -> None:
        for name, word in asdict(self).items():
            if word not in ATTRIBUTES[name]:
                raise ValueError(
                    f"scene {name} is {word!r}; allowed: {', '.join(ATTRIBUTES[name])}"
                )

    @property
    def split(self) -> Split:
        """Split of the scene: `held_out` for one combination in five, by a hash of its words."""
        words = "/".join(asdict(self).values())
        return "held_out" if hashlib.sha256(words.encode()).digest()[0] % 5 == 0 else "train"

    @property
    def places(self) -> tuple[int, ...]:
        """Indices of its words in `ATTRIBUTES`, five numbers for a file."""
        return tuple(ATTRIBUTES[name].index(word) for name, word in asdict(self).items())

    @classmethod
    def of_places(cls, places: Sequence[int]) -> Scene:
        """Return the scene with these `places`."""
        return cls(*(words[i] for words, i in zip(ATTRIBUTES.values(), places, strict=True)))


@cache
def scenes(split: Split | None = None) -> tuple[Scene, ...]:
    """Return every scene of a split (of both if None), in a fixed order."""
    every = (Scene(*words) for words in itertools.product(*ATTRIBUTES.values()))
    return tuple(scene for scene in every if split is None or scene.split == split)


def draw_scenes(count: int, rng: random.Random, split: Split | None = "train") -> list[Scene]:
    """Draw `count` scenes of a split uniformly with replacement."""
    return rng.choices(scenes(split), k=count)
