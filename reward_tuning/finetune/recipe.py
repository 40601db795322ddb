"""The recipe of `reward-tuning finetune`: every value that decides a training on clips."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError

from base_model.core.tokens import BUDGETS
from base_model.memory.modes import MODES
from reward_tuning.errors import TuningError
from reward_tuning.finetune.sections import (
    BaseSection,
    DataSection,
    DropoutSection,
    FinetuneTrainSection,
    FlowSection,
    MasksSection,
    SamplesSection,
)
from reward_tuning.schema.loading import Locate, Schema, is_name, load_as, section_of
from reward_tuning.schema.locate import locate_adapter, locate_generator, locate_lora
from reward_tuning.schema.mistakes import Conflict
from reward_tuning.schema.sections import LoraSection
from reward_tuning.schema.sharded_conflicts import shared_conflicts
from reward_tuning.schema.tracking import Tracking
from reward_tuning.schema.values import FileName
from reward_tuning.section import NotNegative, Section


class FinetuneRecipe(Section):
    """Everything that decides a run."""

    seed: NotNegative = Field(default=0, description="Seed of every random draw")
    output: FileName = Field(description="The run folder")
    tracking: Tracking
    generator: BaseSection
    data: DataSection
    flow: FlowSection = Field(default_factory=FlowSection)
    dropout: DropoutSection = Field(default_factory=DropoutSection)
    masks: MasksSection = Field(default_factory=MasksSection)
    lora: LoraSection | None = Field(
        default_factory=LoraSection, description="The adapter; null = all weights are trained"
    )
    train: FinetuneTrainSection
    samples: SamplesSection = Field(default_factory=SamplesSection)

    @model_validator(mode="after")
    def _sections_agree(self) -> FinetuneRecipe:
        sections = {name: getattr(self, name) for name in type(self).model_fields}
        found = [
            InitErrorDetails(
                type=PydanticCustomError("conflict", "{text}", {"text": conflict.text}),
                loc=conflict.path,
                input=conflict.value,
            )
            for conflict in finetune_conflicts(sections)
        ]
        if found:
            raise ValidationError.from_exception_data("FinetuneRecipe", found)
        return self


def finetune_conflicts(sections: dict[str, Any]) -> Iterator[Conflict]:
    """Check values of different sections against each other."""
    generator: BaseSection | None = sections.get("generator")
    data: DataSection | None = sections.get("data")
    train: FinetuneTrainSection | None = sections.get("train")
    masks: MasksSection | None = sections.get("masks")
    if generator is not None and "lora" in sections:
        yield from generator_conflicts(generator, lora=sections["lora"] is not None)
    half = generator is not None and generator.dtype != "float32"
    if half and train is not None and train.autocast:
        text = "the weights already have half precision (generator.dtype); set it to null"
        yield Conflict(("train", "autocast"), train.autocast, text)
    if data is not None and data.tokens is not None:
        for name in ("sides", "image_sides"):
            most = max(getattr(data, name) or (0,))
            if most > BUDGETS[data.tokens] * 7:  # one frame of 49 has 7 times the side
                text = f"one frame of {most} x {most} pixels exceeds data.tokens = {data.tokens}"
                yield Conflict(("data", name), list(getattr(data, name)), text)
    for name in ("video", "image") if masks is not None else ():
        shares: Sequence[float] | None = getattr(masks, name)
        if shares is not None and abs(sum(shares) - 1) > 1e-6:
            text = f"the sum of these probabilities is {sum(shares):g}; it must be 1"
            yield Conflict(("masks", name), list(shares), text)


def generator_conflicts(generator: BaseSection, *, lora: bool) -> Iterator[Conflict]:
    """Check that the weights suit the training of an adapter, or of all weights."""
    if generator.vae_device is not None:
        text = "fine-tuning encodes its clips on the run's device; leave it out"
        yield Conflict(("generator", "vae_device"), generator.vae_device, text)
    if lora:
        yield from shared_conflicts(generator)
        for name in ("channels", "fresh"):
            value = getattr(generator, name)
            if value:
                text = "a LoRA does not train all weights; set lora: null"
                yield Conflict(("generator", name), value, text)
        return
    if generator.adapter is not None:
        text = "stays as it is, but with lora: null all weights are trained; merge it into a "
        text += "checkpoint first (`reward-tuning export --merge`)"
        yield Conflict(("generator", "adapter"), generator.adapter, text)
    mode = MODES[generator.memory]
    for name, frozen in (
        ("quantise", generator.quantise is not None),
        ("memory", mode.blocks_rest or mode.blocks_shared),
    ):
        if frozen:
            value = getattr(generator, name)
            text = "only frozen weights can be kept so; with lora: null leave it out"
            yield Conflict(("generator", name), value, text)
    if generator.dtype != "float32":
        yield Conflict(
            ("generator", "dtype"),
            generator.dtype,
            "half-precision weights lose small updates; with lora: null use float32, and "
            "train.autocast=bfloat16 for speed",
        )


def _names(data: dict[str, Any]) -> Iterator[tuple[Any, Locate]]:
    if is_name(section_of(data, "generator").get("checkpoint")):
        yield ("generator", "checkpoint"), locate_generator
    if is_name(section_of(data, "generator").get("adapter")):
        yield ("generator", "adapter"), locate_adapter
    if is_name(section_of(data, "lora").get("init")):
        yield ("lora", "init"), locate_lora
    clips = section_of(data, "data")
    for key, locate in (
        ("metadata", locate_metadata),
        ("folder", locate_folder),
        ("cache", locate_new),
    ):
        if is_name(clips.get(key)):
            yield ("data", key), locate


def locate_metadata(value: str, folder: Path) -> str:
    """Resolve the list of clips, relative to the recipe.

    Raises:
        TuningError: There is no such file.
    """
    path = (folder / Path(value).expanduser()).resolve()
    if not path.is_file():
        raise TuningError(f"there is no list of clips at {path}")
    return str(path)


def locate_folder(value: str, folder: Path) -> str:
    """Resolve the folder of the clips, relative to the recipe.

    Raises:
        TuningError: There is no such folder.
    """
    path = (folder / Path(value).expanduser()).resolve()
    if not path.is_dir():
        raise TuningError(f"there is no folder {path}")
    return str(path)


def locate_new(value: str, folder: Path) -> str:
    """Resolve a folder that is created where it does not exist, relative to the recipe."""
    return str((folder / Path(value).expanduser()).resolve())


FINETUNE = Schema(FinetuneRecipe, finetune_conflicts, _names, "finetune", "data")


def load_finetune_recipe(
    source: str | Path,
    overrides: Sequence[str] = (),
    *,
    check_files: bool = True,
    clips_needed: bool = True,
) -> FinetuneRecipe:
    """Read a recipe of `reward-tuning finetune`; see `reward_tuning.schema.loading.load_as`.

    With `clips_needed=False` the list of clips and their folder need not be there.
    """
    may_miss = () if clips_needed else (("data", "metadata"), ("data", "folder"))
    return load_as(FINETUNE, source, overrides, check_files=check_files, may_miss=may_miss)
