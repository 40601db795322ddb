"""The guards at work in real runs on judges that can be fooled."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from reward_tuning.errors import TuningError
from reward_tuning.progress import ProgressEvent
from reward_tuning.runs.guard_files import best_file
from reward_tuning.tuning.trainer import run
from tests.reward_tuning.tiny_run import tiny_recipe
from tests.reward_tuning.tuning.fooled import fooled_recipe, world

pytestmark = pytest.mark.slow

__all__ = ["world"]  # a fixture
FAST = "train.learning_rate=0.1"
OFF = ("guards.motion=off", "guards.diversity=off", "guards.drift=off")


def rows_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "guards.jsonl").read_text().splitlines()]


def exported(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "lora" / "adapter_model.safetensors")


def same(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor]) -> bool:
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


@pytest.fixture(scope="module")
def stopped(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("stopped") / "run"
    assert run(fooled_recipe(world, output, "bright", *OFF)).steps == 6
    return output


def test_a_held_out_judge_ends_the_run(stopped: Path) -> None:
    """Brightness is trained on, darkness is held out: the one rises as the other falls."""
    rows = rows_of(stopped)
    assert [row["step"] for row in rows] == [2, 4, 6]
    falls = [row["measures"]["dark"]["mean"] for row in rows]
    assert falls[2] < falls[1] < 0
    rises = [row["measures"]["brightness"]["mean"] for row in rows]
    assert rises == pytest.approx([-fall for fall in falls], abs=1e-3)  # the same, as luma
    assert rows[2]["reward"]["now"] > rows[2]["reward"]["before"]
    assert [[one["rule"] for one in row["fired"]] for row in rows] == [[], [], ["held_out"]]
    assert {row["best"] for row in rows} == {2}


def test_the_reward_of_a_row_is_the_mean_since_the_last_one(stopped: Path) -> None:
    steps = [
        json.loads(line)["reward"]["bright"]
        for line in (stopped / "metrics.jsonl").read_text().splitlines()
    ]
    assert len(steps) == 6
    rewards = [row["reward"] for row in rows_of(stopped)]
    means = [sum(steps[i : i + 2]) / 2 for i in (0, 2, 4)]
    assert [one["now"] for one in rewards] == pytest.approx(means)
    assert [one["before"] for one in rewards] == [None, *(one["now"] for one in rewards[:2])]


def test_the_best_checkpoint_is_exported_and_evaluated(world: Path, stopped: Path) -> None:
    """Its bytes are those of a run that ended there."""
    short = stopped.parent / "short"
    run(fooled_recipe(world, short, "bright", *OFF, "train.steps=2"))
    assert same(exported(stopped), exported(short))
    found = json.loads((stopped / "evaluation.json").read_text())
    assert found["tuned"] == json.loads((short / "evaluation.json").read_text())["tuned"]
    assert found["sides"][1]["clips"]["0"] == "evaluation/step-000002/tuned/00.mp4"
    checkpoint = found["checkpoint"]
    assert checkpoint.pop("text").startswith("A guard ended the training at step 6 of 10 (held_out")
    assert checkpoint == {
        "step": 2,
        "of": 10,
        "chosen_by": "dark",
        "stopped_at": 6,
        "rule": "held_out",
    }
    kept = sorted(path.name for path in (stopped / "checkpoints").iterdir())
    assert kept == ["best-000002.safetensors", "step-000004", "step-000006"]
    assert sorted(path.name for path in (stopped / "samples").iterdir()) == [
        "before-after",
        "prompts.json",
        "step-000000",
        "step-000002",
    ]


def test_a_stopped_run_is_finished_until_its_guards_change(world: Path, stopped: Path) -> None:
    before = (stopped / "evaluation.json").read_bytes()
    events: list[ProgressEvent] = []
    again = run(fooled_recipe(world, stopped, "bright", *OFF), resume=True, progress=events.append)
    assert (again.steps, events) == (6, [])
    with pytest.raises(TuningError, match=r"the guard held_out ended .* at step 6.*=warn"):
        run(fooled_recipe(world, stopped, "bright", *OFF, "train.steps=12"), resume=True)
    assert (stopped / "evaluation.json").read_bytes() == before


def test_a_stopped_run_goes_on_where_its_rule_only_warns(world: Path, tmp_path: Path) -> None:
    """As a run whose rule warned from the beginning."""
    output, straight = tmp_path / "run", tmp_path / "straight"
    warn = (*OFF, "guards.held_out=warn", "guards.best=false", "train.steps=8")
    run(fooled_recipe(world, output, "bright", *OFF))
    notes: list[str] = []
    found = run(
        fooled_recipe(world, output, "bright", *warn, "train.steps=8"),
        resume=True,
        progress=lambda event: notes.append(event.note),
    )
    assert found.steps == 8
    assert "continuing after step 6" in notes
    assert (output / "evaluation-step-000006.json").is_file()
    run(fooled_recipe(world, straight, "bright", *warn))
    assert same(exported(output), exported(straight))


@pytest.mark.parametrize(
    ("rule", "reward", "setting"),
    [
        ("motion", "still", "guards.motion={action: stop, low: 0.9}"),
        ("diversity", "bright", "guards.diversity={action: stop, low: 0.8, prompts: 3}"),
        ("drift", "bright", "guards.drift={action: stop, high: 0.5}"),
    ],
)
def test_each_other_rule_ends_a_run(
    world: Path, tmp_path: Path, rule: str, reward: str, setting: str
) -> None:
    # With a held-out judge of image features, which the diversity compares.
    clip = f"{{kind: clip, checkpoint: {world / 'held-out' / 'flat.safetensors'}}}"
    features = f"evaluation.held_out_rewards=[{clip}]"
    recipe = fooled_recipe(
        world, tmp_path / "run", reward, *OFF, "guards.held_out=off", FAST, features, setting
    )
    found = run(recipe)
    assert found.evaluation["checkpoint"]["rule"] == rule
    assert found.steps < 10
    *_, last = rows_of(found.folder)
    assert [one["rule"] for one in last["fired"]] == [rule]
    measured, base = last["measures"], 1.0
    match rule:
        case "motion":
            assert last["motion"] == pytest.approx(
                measured["motion"]["now"] / measured["motion"]["base"]
            )
            assert last["motion"] < 0.9 * base
        case "diversity":
            assert last["diversity"] < 0.8 * base
        case _:
            assert last["drift"] > 0.5
    assert all(row[rule] is None or not row["fired"] for row in rows_of(found.folder)[:-1])


def test_a_rollback_goes_back_with_half_the_rate(world: Path, tmp_path: Path) -> None:
    """From the best checkpoint on, with other draws; after the last rollback it stops."""
    recipe = fooled_recipe(
        world,
        tmp_path / "run",
        "bright",
        *OFF,
        FAST,
        "guards.held_out=off",
        "guards.drift={action: rollback, high: 0.5}",
        "guards.rollbacks=1",
        "train.ema_decay=0.5",
        "train.checkpoint_every=1",
        "train.keep_checkpoints=20",
        "train.max_grad_norm=null",
    )
    found = run(recipe)
    rows = rows_of(found.folder)
    back = next(row for row in rows if row["fired"])
    assert back["fired"][0]["action"] == "rollback"
    aim, at = back["back_to"], back["step"]
    metrics = [
        json.loads(line) for line in (found.folder / "metrics.jsonl").read_text().splitlines()
    ]
    assert metrics[at - 1]["learning_rate"] == pytest.approx(0.1)
    assert metrics[at]["learning_rate"] == pytest.approx(0.05)
    places = found.folder / "checkpoints"
    if aim:
        now = load_file(places / f"step-{at:06d}" / "adapter.safetensors")
        average = load_file(places / f"step-{aim:06d}" / "ema.safetensors")
        assert same(now, average)
    optimiser = torch.load(places / f"step-{at:06d}" / "optimiser.pt", weights_only=True)
    assert optimiser["state"] == {}
    text = found.evaluation["checkpoint"]["text"]
    assert f"At step {at} drift led back to {f'step {aim}' if aim else 'the start'}" in text


def test_guards_change_no_number_of_a_run(world: Path, tmp_path: Path) -> None:
    """The last adapter to the bit, and every row, with guards and without."""
    folders = []
    for every in (1, 0):
        recipe = tiny_recipe(
            world,
            tmp_path / f"{every}",
            f"guards.every={every}",
            "guards.best=false",
            "guards.held_out=warn",
            "evaluation.seeds=1",
            "train.steps=4",
        )
        folders.append(run(recipe).folder)
    assert same(*(exported(folder) for folder in folders))
    rows = [
        [
            (row["loss"], row["grad_norm"], row["active_steps"])
            for row in map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
        ]
        for folder in folders
    ]
    assert rows[0] == rows[1]
    assert (folders[0] / "guards.jsonl").is_file()
    assert not (folders[1] / "guards.jsonl").exists()
    found = [json.loads((folder / "evaluation.json").read_text()) for folder in folders]
    assert found[0].pop("checkpoint")["step"] == 4
    assert found[0] == found[1]


def test_a_run_shorter_than_the_interval_has_no_guards(world: Path, tmp_path: Path) -> None:
    found = run(fooled_recipe(world, tmp_path / "run", "bright", "guards.every=3", "train.steps=2"))
    assert "checkpoint" not in found.evaluation
    assert not (found.folder / "guards.jsonl").exists()
    assert not (found.folder / "guards-base.safetensors").exists()


def test_the_last_step_is_evaluated_too(world: Path, tmp_path: Path) -> None:
    """Five steps, and then to seven: the bytes of seven at once, without the row of step 5."""
    more = (*OFF, "guards.held_out=warn")
    output, straight = tmp_path / "run", tmp_path / "straight"
    run(fooled_recipe(world, output, "still", *more, "train.steps=5"))
    assert [row["step"] for row in rows_of(output)] == [2, 4, 5]
    assert not best_file(output / "checkpoints", 5).exists()  # it is the newest checkpoint
    run(fooled_recipe(world, output, "still", *more, "train.steps=7"), resume=True)
    run(fooled_recipe(world, straight, "still", *more, "train.steps=7"))
    for name in ("lora/adapter_model.safetensors", "evaluation.json"):
        assert (output / name).read_bytes() == (straight / name).read_bytes()
    rows = [[{**row, "seconds": 0} for row in rows_of(folder)] for folder in (output, straight)]
    assert rows[0] == rows[1]
    assert [row["step"] for row in rows[0]] == [2, 4, 6, 7]


def test_prompts_and_steps_cannot_change_on_the_way(world: Path, tmp_path: Path) -> None:
    output = tmp_path / "run"
    run(fooled_recipe(world, output, "still", "train.steps=4", "guards.held_out=warn"))
    for change in ("guards.prompts=2", "guards.steps=3"):
        longer = fooled_recipe(
            world, output, "still", "train.steps=6", "guards.held_out=warn", change
        )
        with pytest.raises(TuningError, match=rf"{change.split('=')[0]}: was"):
            run(longer, resume=True)


def test_without_held_out_judges_it_says_so(world: Path, tmp_path: Path) -> None:
    notes: list[str] = []
    recipe = fooled_recipe(
        world, tmp_path / "run", "bright", "evaluation.held_out_rewards=[]", "train.steps=4"
    )
    found = run(recipe, progress=lambda event: notes.append(event.note))
    assert sum("the rule held_out is off" in note for note in notes) == 1
    assert found.evaluation["checkpoint"]["chosen_by"] is None
    assert found.evaluation["checkpoint"]["step"] == 4


def test_a_base_that_is_measured_again_is_named(world: Path, tmp_path: Path) -> None:
    output = tmp_path / "run"
    notes: list[str] = []
    short = (*OFF, "guards.held_out=warn", "guards.every=1")
    run(fooled_recipe(world, output, "bright", *short, "train.steps=2"))
    rows = rows_of(output)
    base = output / "guards-base.safetensors"
    whole = base.read_bytes()
    base.write_bytes(whole[:40])
    run(
        fooled_recipe(world, output, "bright", *short, "train.steps=3"),
        resume=True,
        progress=lambda event: notes.append(event.note),
    )
    assert f"guards: measuring the base again: {base} is of other guards, or damaged" in notes
    assert base.read_bytes() == whole
    assert rows_of(output)[:2] == rows
