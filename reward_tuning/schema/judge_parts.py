"""Parts that the sections of several kinds of judges share: files, frames, texts, networks.

The kinds themselves are in `reward_tuning.schema.judge_kinds`; the keys of a judge that is trained
on, or only evaluated, are in `reward_tuning.schema.judge_roles`.
"""

from collections.abc import Iterable
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from reward_tuning.schema.values import DeviceName, Dtype, FileName, ShownName, Text
from reward_tuning.section import Positive, Section

FILE_KEYS = ("checkpoint", "tower", "tokenizer")
"""Keys of a judge that name a file, which is resolved and hashed."""

OF_GENERATOR = "generator"
"""Checkpoint of a judge that is the generator's own text encoder."""

FORMER_KEYS: dict[str, Any] = {
    "architecture": None,
    "tower": None,
    "relative": None,
    "augmentation": None,
    "flatten": 0.0,
    "frames": "all",
    "chunk": None,
    "gradient_checkpointing": False,
}
"""Keys that every kind once had, with the values that had no effect."""


def _judged_frames(value: Any) -> Any:
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
    """Select `count` of these frames, evenly spaced; two or more include the first and the last."""
    if count >= len(frames):
        return frames
    if count == 1:
        return frames[:1]
    # (a * b + c // 2) // c rounds to the nearest whole number without floating point
    last, gaps = len(frames) - 1, count - 1
    return tuple(frames[(i * last + gaps // 2) // gaps] for i in range(count))


class JudgeSection(Section):
    """One frozen judge, with the keys of both training and held-out rewards.

    Attributes:
        differentiable: Whether its score has a gradient; one without is trained on by an estimate.
        folder_keys: Keys that name a folder, such as one with a Qwen2-VL.
    """

    differentiable: ClassVar[bool] = True
    folder_keys: ClassVar[tuple[str, ...]] = ()

    kind: str
    name: ShownName | None = Field(
        default=None, description="Name in metrics and tables; null = made of kind"
    )

    @model_validator(mode="before")
    @classmethod
    def _drop_former_keys(cls, data: Any) -> Any:
        """Drop former keys: the recipes in older run folders list them for every kind."""
        if not isinstance(data, dict):
            return data
        return {
            key: value
            for key, value in data.items()
            if key in cls.model_fields or key not in FORMER_KEYS or value != FORMER_KEYS[key]
        }

    @property
    def label(self) -> str:
        """Name in metrics and tables."""
        return self.name or self.kind

    @property
    def files(self) -> dict[str, str]:
        """Names of its files, by key; empty for a judge without weights."""
        return self._named(key for key in FILE_KEYS if key not in self.folder_keys)

    @property
    def folders(self) -> dict[str, str]:
        """Names of its folders, by key."""
        return self._named(self.folder_keys)

    def _named(self, keys: Iterable[str]) -> dict[str, str]:
        named = {key: getattr(self, key, None) for key in keys}
        return {key: name for key, name in named.items() if name is not None}

    @property
    def of_generator(self) -> bool:
        """Whether it uses the generator's text encoder, and so names no folder of its own."""
        return False

    @property
    def identity(self) -> str:
        """What distinguishes two judges: file or folder, or the kind if there is neither."""
        return (self.files | self.folders).get("checkpoint", self.kind)

    @property
    def own_device(self) -> str | None:
        """Name of the device that it works on, if that is not the run's."""
        return None

    @property
    def scores_alone(self) -> bool:
        """Whether it scores a clip by itself, and not against others of its prompt."""
        return True

    def loader_options(self) -> dict[str, Any]:
        """Return the keywords of `rewards.load_reward` that the recipe sets."""
        seen = {"frames", "over_frames", "grayscale", "prompt"}  # what the judge is shown
        return self.model_dump(exclude={"kind", "name", "device", *seen})


class FileSection(JudgeSection):
    """A judge with a file."""

    checkpoint: FileName = Field(
        description="A shipped name (tiny/hps.safetensors), a file, a published name (hps-v2.1) or "
        "a hub id with its file (owner/name/file, owner/name/file@revision)"
    )
    sha256: Annotated[str, Field(pattern="^[0-9a-fA-F]{64}$")] | None = Field(
        default=None,
        description="Hash of the file, 64 hexadecimal digits, checked before it is read; null = "
        "the recorded hash of a published file, otherwise unchecked",
    )


class FolderSection(JudgeSection):
    """A judge with a folder."""

    folder_keys: ClassVar[tuple[str, ...]] = ("checkpoint",)

    checkpoint: FileName = Field(
        description="A shipped name (tiny/qwen-critic), a folder, a published name (qwen2-vl-2b) "
        "or a hub id (owner/name)"
    )


class FramesSection(JudgeSection):
    """A judge of decoded frames."""

    frames: Annotated[Literal["all"] | int, BeforeValidator(_judged_frames)] = Field(
        default="all",
        description="Number of judged frames: all, or n spread evenly over the clip (1 = the first "
        "frame)",
    )
    chunk: Positive | None = Field(
        default=None,
        description="Frames (or whole clips, for a judge of those) scored in one pass, to save "
        "memory; changes no number; null = all at once",
    )

    grayscale: bool = Field(
        default=False,
        description="Convert its clips to grey (0.299 R + 0.587 G + 0.114 B), so that colour earns "
        "no reward",
    )

    @property
    def given_rate(self) -> float | None:
        """Frame rate of the clips, if it matters and the recipe sets it."""
        return None

    @property
    def least_frames(self) -> int:
        """Number of frames that it needs of a clip; the judge itself refuses fewer."""
        return 1

    def judged_frames(self, frames: int) -> list[int]:
        """Return the positions of the judged frames in a clip.

        Args:
            frames: Number of frames of the clip, at least as many as this judge sees.

        Returns:
            Increasing positions in [0, frames), first and last included where two or more are
            judged.
        """
        every = tuple(range(frames))
        return list(every if self.frames == "all" else spread(self.frames, every))


class MeanOverFrames(Section):
    """A clip's score is the mean of its frames' scores."""

    kind: Literal["mean"]


class SoftMinOverFrames(Section):
    """A clip's score is close to that of its worst frame, so that every frame has to be good."""

    kind: Literal["soft_min"]
    sharpness: float = Field(
        gt=0.0,
        description="b in -log(mean(exp(-b score))) / b: near 0 the mean, large the worst frame; "
        "try 3 divided by the spread of scores between frames",
    )


class BestOverFrames(Section):
    """A clip's score is the mean of its best frames' scores, so that hard frames cost nothing."""

    kind: Literal["best"]
    share: float = Field(
        gt=0.0,
        le=1.0,
        description="Share of the judged frames, rounded down, at least one frame; 0.3 is usual "
        "with HPSv3",
    )


class RandomFrames(Section):
    """The mean over frames drawn for each training batch; the evaluation takes all frames."""

    kind: Literal["random"]
    count: Positive = Field(description="Number of frames to draw from those that `frames` selects")


OverFrames = Annotated[
    MeanOverFrames | SoftMinOverFrames | BestOverFrames | RandomFrames, Field(discriminator="kind")
]


class EachFrameSection(FramesSection):
    """A judge that scores each frame by itself."""

    over_frames: OverFrames = Field(
        default=MeanOverFrames(kind="mean"),
        description="Reduction of the frames' scores to the clip's: {kind: mean}, {kind: soft_min, "
        "sharpness: b}, {kind: best, share: s} or {kind: random, count: k}",
    )


class TextSection(FramesSection):
    """A judge that reads a clip's prompt."""

    prompt: Text | None = Field(
        default=None,
        description='One text for every clip instead of its prompt, such as "A high-quality '
        "image\"; null = the clip's own prompt",
    )


class NetworkSection(JudgeSection):
    """A judge with networks of its own."""

    dtype: Dtype = Field(
        default="float32", description="Dtype of the judge's networks; scores stay float32"
    )
    gradient_checkpointing: bool = Field(
        default=False,
        description="Recompute each block of the judge in the backward pass to save memory",
    )
    device: DeviceName | None = Field(
        default=None,
        description="Where the judge works and stays, such as cuda:1 or cpu: frames are moved "
        "there and its gradient back; null = the run's device",
    )

    @property
    def own_device(self) -> str | None:
        """Name of the device that it works on, if that is not the run's."""
        return self.device


class SquashSection(JudgeSection):
    """A judge whose frames may be prepared as in the reward scripts of EasyAnimate."""

    preprocess: Literal["own", "squash"] = Field(
        default="own",
        description="own: prepare frames as the judge's authors do; squash: resize to the judge's "
        "square, ignoring the aspect ratio, as the reward scripts of EasyAnimate and VideoX-Fun do",
    )


class ClipTowerSection(NetworkSection, EachFrameSection, FileSection):
    """A judge on an open_clip tower."""

    architecture: Text | None = Field(
        default=None,
        description="open_clip's model name, for a file that does not state it; null = it does",
    )


class QwenSection(NetworkSection, TextSection):
    """A judge that looks at clips through a Qwen2-VL."""

    count: Positive | None = Field(
        default=None,
        description="Number of judged frames that the model looks at; null = all, or as fps says",
    )
    fps: float | None = Field(
        default=None,
        gt=0.0,
        description="Frames per second that the model looks at; excludes count",
    )
    clip_fps: float | None = Field(
        default=None,
        gt=0.0,
        description="Frame rate of the clips; null = the rate of each scored file, and 8 for "
        "generated clips",
    )
    min_pixels: Positive | None = Field(
        default=None, description="Smaller frames are enlarged to it; null = as published"
    )
    max_pixels: Positive | None = Field(
        default=None, description="Larger frames are reduced to it; null = as published"
    )

    @property
    def given_rate(self) -> float | None:
        """`clip_fps`."""
        return self.clip_fps


class RelativeSection(Section):
    """SRPO's semantic-relative preference: (1 + k) cos(frame, positive) - cos(frame, negative)."""

    positive: Annotated[str, AfterValidator(_template)] = Field(
        description='Preferred text, with a place for the prompt: "a clean picture: {prompt}"'
    )
    negative: Annotated[str, AfterValidator(_template)] = Field(
        description='Text to move away from: "a distorted picture: {prompt}"'
    )
    k: float = Field(default=0.0, ge=0.0, description="Extra weight of the positive text")


class TwoTowerSection(ClipTowerSection, TextSection):
    """A judge that compares a frame with its prompt."""

    relative: RelativeSection | None = Field(
        default=None,
        description="Score one text against another, so that the judge's own taste cancels; "
        "null = the prompt alone",
    )
