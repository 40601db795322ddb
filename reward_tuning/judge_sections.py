"""The judges' sections: one model a kind, with the keys of this kind and no others.

A kind is written once. Its model says which judge is meant and how it is loaded: its own keys are
the keywords of its loader (see `rewards.loading`). What training and the evaluation want beside,
`RewardSection` and `HeldOutSection`, is put on top of every kind by `_each_kind`. To add a kind:
its class and loader in `rewards`, a model here, and the model's place in `KINDS`.
"""

import functools
import operator
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, BeforeValidator, Field, create_model, model_validator

from reward_tuning.section_types import Dtype, FileName, Positive, Section, Text

FILE_KEYS = ("checkpoint", "tower", "tokenizer")
"""Keys of a judge that name a file; all are resolved and hashed alike."""

RESTING: dict[str, Any] = {
    "architecture": None,
    "tower": None,
    "relative": None,
    "augmentation": None,
    "flatten": 0.0,
    "frames": "all",
    "chunk": None,
    "gradient_checkpointing": False,
}
"""Keys that every kind once had, and the values at which they said nothing."""


def _judged(value: Any) -> Any:
    if value == "all" or (type(value) is int and value >= 1):
        return value
    raise ValueError("allowed: all, or a number of frames from 1 up")


def _template(text: str) -> str:
    if "{prompt}" not in text:
        raise ValueError(
            'write {prompt} where the prompt goes, such as "a clean picture: {prompt}"'
        )
    return text


def spread(count: int, frames: tuple[int, ...]) -> tuple[int, ...]:
    """`count` of these frames, evenly; from two on the first and the last are among them."""
    if count >= len(frames):
        return frames
    if count == 1:
        return frames[:1]
    # (a * b + c // 2) // c rounds to the nearest whole number without floating point
    last, gaps = len(frames) - 1, count - 1
    return tuple(frames[(i * last + gaps // 2) // gaps] for i in range(count))


# --- what several kinds share


class JudgeSection(Section):
    """One frozen judge, as a training reward and a held-out reward both name it.

    Attributes:
        evaluation_only: Refused as a training reward: its score measures and has no gradient.
    """

    evaluation_only: ClassVar[bool] = False

    kind: str
    name: Text | None = Field(
        default=None, description="Name in metrics and tables; null = made of kind"
    )

    @model_validator(mode="before")
    @classmethod
    def _drop_resting_keys(cls, data: Any) -> Any:
        """Let the fully written recipes of older run folders load: they name keys of all kinds."""
        if not isinstance(data, dict):
            return data
        return {
            key: value
            for key, value in data.items()
            if key in cls.model_fields or key not in RESTING or value != RESTING[key]
        }

    @property
    def label(self) -> str:
        """Name in metrics and tables."""
        return self.name or self.kind

    @property
    def files(self) -> dict[str, str]:
        """The files it names: key to name; empty for a judge without weights."""
        named = {key: getattr(self, key, None) for key in FILE_KEYS}
        return {key: name for key, name in named.items() if name is not None}

    @property
    def identity(self) -> str:
        """What tells two judges apart: the file, or the kind where there is none."""
        return self.files.get("checkpoint", self.kind)

    def loader_options(self) -> dict[str, Any]:
        """The keywords of `rewards.load_reward` that the recipe decides, `checkpoint` included."""
        names = set(KINDS[self.kind].model_fields) - {"kind", "name", "frames"}
        return self.model_dump(include=names)


class FileSection(JudgeSection):
    """A judge with a file."""

    checkpoint: FileName = Field(
        description="A shipped name (tiny/hps.safetensors), a file, a published name (hps-v2.1) or "
        "a hub id with its file (owner/name/file, owner/name/file@revision)"
    )
    sha256: Annotated[str, Field(pattern="^[0-9a-fA-F]{64}$")] | None = Field(
        default=None,
        description="Of the file, 64 hexadecimal digits, checked before it is read; null = as "
        "recorded for a published file, else not checked",
    )


class FramesSection(JudgeSection):
    """A judge of decoded frames."""

    frames: Annotated[Literal["all"] | int, BeforeValidator(_judged)] = Field(
        default="all",
        description="How many frames are judged: all, or n spread evenly over the clip (1 = the "
        "first frame)",
    )
    chunk: Positive | None = Field(
        default=None,
        description="Frames (whole clips, for a judge of those) judged at a time, to save memory "
        "(exact); null = all at once",
    )

    def judged_frames(self, frames: int) -> list[int]:
        """Return the positions of the judged frames in a clip of so many frames.

        Args:
            frames: Frames of the clip, at least as many as this judge asks for.

        Returns:
            Increasing positions in [0, frames), first and last included where two or more are
            judged.
        """
        every = tuple(range(frames))
        return list(every if self.frames == "all" else spread(self.frames, every))


class NetworkSection(JudgeSection):
    """A judge with networks of its own."""

    dtype: Dtype = Field(
        default="float32", description="Of the judge's towers; scores stay float32"
    )
    gradient_checkpointing: bool = Field(
        default=False,
        description="Recompute each block of the judge in the backward pass to save memory",
    )


class ClipTowerSection(NetworkSection, FramesSection, FileSection):
    """A judge on an open_clip tower."""

    architecture: Text | None = Field(
        default=None,
        description="open_clip's model name, for a file that does not say; null = it says",
    )


class RelativeSection(Section):
    """SRPO's semantic-relative preference: (1 + k) cos(frame, positive) - cos(frame, negative)."""

    positive: Annotated[str, AfterValidator(_template)] = Field(
        description='What is wanted, with a place for the prompt: "a clean picture: {prompt}"'
    )
    negative: Annotated[str, AfterValidator(_template)] = Field(
        description='What is not wanted: "a distorted picture: {prompt}"'
    )
    k: float = Field(default=0.0, ge=0.0, description="Extra weight of the positive text")


class TwoTowerSection(ClipTowerSection):
    """A judge that compares a frame with its prompt."""

    relative: RelativeSection | None = Field(
        default=None,
        description="Judge one text against another, so that the judge's own tastes fall out; "
        "null = the prompt alone",
    )


# --- the kinds


class HpsSection(TwoTowerSection):
    """HPSv2 and HPSv2.1: human preference."""

    kind: Literal["hps"]


class ClipSection(TwoTowerSection):
    """CLIP text alignment."""

    kind: Literal["clip"]


class PickscoreSection(TwoTowerSection):
    """PickScore: human preference."""

    kind: Literal["pickscore"]


class AestheticSection(ClipTowerSection):
    """The LAION aesthetic predictor v2."""

    kind: Literal["aesthetic"]
    tower: FileName | None = Field(
        default=None, description="The CLIP under the head; null = as the head's file says"
    )


class AestheticV25Section(NetworkSection, FramesSection, FileSection):
    """The aesthetic predictor v2.5, on SigLIP; its published head is under the AGPL."""

    kind: Literal["aesthetic_v2_5"]
    architecture: Text | None = Field(
        default=None,
        description="Of the SigLIP, siglip-so400m-patch14-384, for a file that does not say; "
        "null = it says",
    )
    tower: FileName | None = Field(
        default=None, description="The SigLIP under the head; null = as the head's file says"
    )


class ImageRewardSection(NetworkSection, FramesSection, FileSection):
    """ImageReward: human preference, by a BLIP whose prompt looks at the frame."""

    kind: Literal["image_reward"]
    tokenizer: FileName | None = Field(
        default=None,
        description="BERT's vocab.txt, or bert-base-uncased from the hub's cache; null = as the "
        "judge's file says, else bert-base-uncased",
    )


class MpsSection(NetworkSection, FramesSection, FileSection):
    """MPS: human preference in one respect, by a CLIP whose frame looks at the prompt."""

    kind: Literal["mps"]
    condition: Text = Field(
        default="overall",
        description="overall, aesthetics, detail or alignment, or a list of words of your own",
    )
    threshold: float = Field(
        default=0.01,
        ge=0.0,
        lt=1.0,
        description="A word of the prompt counts whose likeness to the condition is above this "
        "share of the prompt's best word; the authors have 0.01 and 0.3",
    )


class LatentSection(FileSection):
    """A judge of noisy latents, for method prfl only."""

    kind: Literal["latent"]
    dtype: Dtype = Field(default="float32", description="Of its weights; scores stay float32")


class PythonSection(FramesSection, FileSection):
    """A judge of your own: one class in a Python file, whose code runs as it is loaded."""

    kind: Literal["python"]
    options: dict[str, Any] = Field(default_factory=dict, description="Passed to the class by name")


KINDS: dict[str, type[JudgeSection]] = {
    "hps": HpsSection,
    "clip": ClipSection,
    "aesthetic": AestheticSection,
    "pickscore": PickscoreSection,
    "aesthetic_v2_5": AestheticV25Section,
    "image_reward": ImageRewardSection,
    "mps": MpsSection,
    "python": PythonSection,
    "latent": LatentSection,
}


# --- what training and the evaluation put on top


class AugmentationSection(Section):
    """Random changes of the frames that a judge sees in training, one draw a clip."""

    crop: float = Field(
        default=0.0, ge=0.0, lt=1.0, description="Largest share of each side that is cut off"
    )
    flip: bool = Field(
        default=False,
        description="Mirror half of the clips; not where prompts say left or right",
    )
    noise: float = Field(
        default=0.0, ge=0.0, le=1.0, description="Largest standard deviation of white noise"
    )


class RewardSection(JudgeSection):
    """One judge whose score is raised."""

    weight: float = Field(default=1.0, description="Factor of this judge's loss; not 0")
    target: float | None = Field(
        default=None,
        description="Hinge: at a score of target or above this judge gives no gradient; "
        "null = no upper end",
    )
    unit: float = Field(
        default=1.0,
        gt=0.0,
        description="The loss counts scores in this unit, such as the spread of the base's clips, "
        "so that the weights of several judges can be compared",
    )


class FrameRewardSection(RewardSection):
    """One judge of decoded frames whose score is raised."""

    augmentation: AugmentationSection | None = Field(
        default=None,
        description="Crop, mirror or noise what the judge sees in training; null = as it is",
    )
    flatten: float = Field(
        default=0.0,
        ge=0.0,
        le=0.5,
        description="Train on the worst score within this distance (root mean square of a pixel "
        "in [0, 1]), so that sharp peaks of the judge do not pay; one more pass of it; 0 = off",
    )


class HeldOutSection(JudgeSection):
    """One judge that only the evaluation asks; nothing is trained on it."""

    @property
    def label(self) -> str:
        """Name in metrics and tables."""
        return self.name or f"{self.kind}_held_out"


def _trained(kind: type[JudgeSection]) -> type[JudgeSection]:
    return FrameRewardSection if issubclass(kind, FramesSection) else RewardSection


def _held_out(kind: type[JudgeSection]) -> type[JudgeSection]:
    del kind
    return HeldOutSection


def _each_kind(on_top: Callable[[type[JudgeSection]], type[JudgeSection]]) -> Any:
    """A union of all kinds, told apart by `kind`, each with the keys that go on top of it."""
    models = [
        create_model(
            kind.__name__.removesuffix("Section") + on_top(kind).__name__,
            __base__=(kind, on_top(kind)),  # in this order the kind's own `kind` wins
            __doc__=kind.__doc__,
        )
        for kind in KINDS.values()
    ]
    return Annotated[functools.reduce(operator.or_, models), Field(discriminator="kind")]


if TYPE_CHECKING:  # made below from KINDS; every member is one of these
    TrainingReward = RewardSection
    HeldOutReward = HeldOutSection
else:
    TrainingReward = _each_kind(_trained)
    HeldOutReward = _each_kind(_held_out)
