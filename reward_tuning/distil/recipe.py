"""The recipe of `reward-tuning distil`: every value that decides a distillation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError

from reward_tuning.distil.sections import (
    DistilEvaluationSection,
    DistilTrainSection,
    StudentSection,
    TeacherSection,
)
from reward_tuning.schema.loading import (
    Locate,
    Schema,
    is_name,
    judge_names,
    load_as,
    section_of,
)
from reward_tuning.schema.locate import (
    locate_adapter,
    locate_generator,
    locate_lora,
    locate_part,
    locate_prompts,
)
from reward_tuning.schema.mistakes import Conflict
from reward_tuning.schema.primary import primary_fault
from reward_tuning.schema.recipe import JudgeAt, identity_conflicts
from reward_tuning.schema.sections import GeneratorSection, LoraSection, PromptsSection
from reward_tuning.schema.sharded_conflicts import shared_conflicts
from reward_tuning.schema.tracking import Tracking
from reward_tuning.schema.values import FileName
from reward_tuning.section import NotNegative, Section


class DistilRecipe(Section):
    """Everything that decides a distillation."""

    seed: NotNegative = Field(default=0, description="Seed of every random draw")
    output: FileName = Field(description="The run folder")
    tracking: Tracking
    generator: GeneratorSection
    prompts: PromptsSection
    teacher: TeacherSection
    student: StudentSection = Field(default_factory=StudentSection)
    lora: LoraSection = Field(default_factory=LoraSection)
    train: DistilTrainSection
    evaluation: DistilEvaluationSection = Field(default_factory=DistilEvaluationSection)

    @property
    def size(self) -> tuple[int, int, int]:
        """Frames, height and width of a clip."""
        return self.student.frames, self.student.height, self.student.width

    @model_validator(mode="after")
    def _sections_agree(self) -> DistilRecipe:
        sections = {name: getattr(self, name) for name in type(self).model_fields}
        found = [
            InitErrorDetails(
                type=PydanticCustomError("conflict", "{text}", {"text": conflict.text}),
                loc=conflict.path,
                input=conflict.value,
            )
            for conflict in distil_conflicts(sections)
        ]
        if found:
            raise ValidationError.from_exception_data("DistilRecipe", found)
        return self


def distil_conflicts(sections: dict[str, Any]) -> Iterator[Conflict]:
    """Check values of different sections against each other."""
    prompts: PromptsSection | None = sections.get("prompts")
    student: StudentSection | None = sections.get("student")
    evaluation: DistilEvaluationSection | None = sections.get("evaluation")
    if prompts is not None and prompts.train == prompts.held_out:
        yield Conflict(
            ("prompts", "held_out"),
            prompts.held_out,
            "is the same file as prompts.train, so nothing would be held out; give another file",
        )
    yield from shared_conflicts(sections.get("generator"))
    if evaluation is None:
        return
    if student is not None and evaluation.steps <= student.steps:
        yield Conflict(
            ("evaluation", "steps"),
            evaluation.steps,
            f"allowed: more than student.steps = {student.steps}, since the base is the reference",
        )
    judges: list[JudgeAt] = [
        (("evaluation", "held_out_rewards", i), judge)
        for i, judge in enumerate(evaluation.held_out_rewards)
    ]
    for path, judge in judges:
        if judge.of_generator:
            text = "a distillation has no text encoder to judge with; name another checkpoint"
            yield Conflict((*path, "checkpoint"), "generator", text)
        if judge.kind == "latent":
            text = "a held-out judge sees decoded frames, as people do; choose another kind"
            yield Conflict((*path, "kind"), judge.kind, text)
    yield from identity_conflicts(judges)
    if evaluation.primary is not None:
        labels = [judge.label for _, judge in judges]
        if fault := primary_fault(evaluation.primary, labels, 1):
            yield Conflict(("evaluation", "primary"), evaluation.primary, fault)


def _names(data: dict[str, Any]) -> Iterator[tuple[Any, Locate]]:
    generator = section_of(data, "generator")
    if is_name(generator.get("checkpoint")):
        yield ("generator", "checkpoint"), locate_generator
    for part in ("transformer", "vae", "text_encoder"):
        if is_name(generator.get(part)):
            yield ("generator", part), partial(locate_part, part)
    if is_name(generator.get("adapter")):
        yield ("generator", "adapter"), locate_adapter
    for key in ("train", "held_out"):
        if is_name(section_of(data, "prompts").get(key)):
            yield ("prompts", key), locate_prompts
    if is_name(section_of(data, "lora").get("init")):
        yield ("lora", "init"), locate_lora
    judges = section_of(data, "evaluation").get("held_out_rewards")
    for i, judge in enumerate(judges if isinstance(judges, list) else []):
        if isinstance(judge, dict):
            for path, locate in judge_names(judge):
                yield ("evaluation", "held_out_rewards", i, *path), locate


DISTIL = Schema(DistilRecipe, distil_conflicts, _names, "distil", "teacher")


def load_distil_recipe(
    source: str | Path, overrides: Sequence[str] = (), *, check_files: bool = True
) -> DistilRecipe:
    """Read a recipe of `reward-tuning distil`; see `reward_tuning.schema.loading.load_as`."""
    return load_as(DISTIL, source, overrides, check_files=check_files)
