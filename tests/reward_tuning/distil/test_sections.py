"""Every key of a distillation has a text, and its bounds hold."""

import pytest
from pydantic import ValidationError

from reward_tuning.distil.sections import (
    DistilEvaluationSection,
    DistilTrainSection,
    StudentSection,
    TeacherSection,
)


@pytest.mark.parametrize(
    "section", [TeacherSection, StudentSection, DistilTrainSection, DistilEvaluationSection]
)
def test_every_key_has_a_text(section: type) -> None:
    assert all(field.description for field in section.model_fields.values())  # type: ignore[attr-defined]


@pytest.mark.parametrize("steps", [1, 51, 4.0])
def test_a_student_has_two_to_fifty_steps(steps: object) -> None:
    with pytest.raises(ValidationError):
        StudentSection(steps=steps)  # type: ignore[arg-type]
    assert (StudentSection(steps=2).steps, StudentSection(steps=50).steps) == (2, 50)
