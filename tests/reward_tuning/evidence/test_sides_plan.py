"""The sides: every strength with the main sampling, full strength with every other."""

from __future__ import annotations

from pathlib import Path

from reward_tuning.evidence.named_adapters import NamedAdapter, ReadAdapter
from reward_tuning.evidence.request import Setup
from reward_tuning.evidence.sides_plan import decisive_side, planned_sides
from reward_tuning.lora.adapter import LoraWeights
from reward_tuning.schema.sections import GeneratorSection, SamplingSection


def setup(steps: list[int], guidance: list[float]) -> Setup:
    return Setup(
        GeneratorSection(checkpoint="tiny"),
        SamplingSection(),
        [],
        [],
        [],
        [],
        None,
        0,
        1,
        steps,
        guidance,
        1,
    )


def adapter(name: str) -> ReadAdapter:
    return ReadAdapter(NamedAdapter(name, Path(name)), LoraWeights(1, 1.0, {}), name)


def test_all_sides_in_order() -> None:
    found = planned_sides(
        setup([25, 8], [6.0, 3.5]), [adapter("a"), adapter("b")], [0, 0.5, 1, 0.5, 1.25]
    )
    assert [(s.name, s.strength, s.steps, s.guidance_scale, s.against) for s in found] == [
        ("base", 0.0, 25, 6.0, None),
        ("a x0.5", 0.5, 25, 6.0, 0),
        ("a", 1, 25, 6.0, 0),
        ("a x1.25", 1.25, 25, 6.0, 0),
        ("b x0.5", 0.5, 25, 6.0, 0),
        ("b", 1, 25, 6.0, 0),
        ("b x1.25", 1.25, 25, 6.0, 0),
        ("base, 8 steps", 0.0, 8, 6.0, None),
        ("a, 8 steps", 1.0, 8, 6.0, 7),
        ("b, 8 steps", 1.0, 8, 6.0, 7),
        ("base, guidance 3.5", 0.0, 25, 3.5, None),
        ("a, guidance 3.5", 1.0, 25, 3.5, 10),
        ("b, guidance 3.5", 1.0, 25, 3.5, 10),
    ]
    assert len({side.name for side in found}) == len(found)


def test_the_side_that_decides() -> None:
    one, both = [adapter("a")], [adapter("a"), adapter("b")]
    alone = setup([25], [6.0])
    assert decisive_side(planned_sides(alone, one, [1.0])) == 1
    assert decisive_side(planned_sides(alone, one, [0.5, 1.0])) == 2
    assert decisive_side(planned_sides(setup([25, 8], [6.0]), one, [0.7])) == 1
    assert decisive_side(planned_sides(alone, one, [0.5, 0.7])) is None
    assert decisive_side(planned_sides(alone, both, [1.0])) is None
    assert decisive_side(planned_sides(alone, one, [0.0])) is None
