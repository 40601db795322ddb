"""The verb: its tables, JSON, exit codes and messages."""

import json

import pytest

from benchmarks.small_shape import SMALL
from reward_tuning.cli.estimate import _duration, _print_commands, _time_line
from reward_tuning.estimate.cards import card_of
from reward_tuning.estimate.estimate import Estimate, RunTime
from reward_tuning.estimate.phase_memory import Followed
from reward_tuning.schema.loading import load_recipe
from tests.reward_tuning.command_line import Command, command

run = pytest.fixture(command, name="run")
FEW = ("train.steps=2", "evaluation.prompts=4", "train.keep_graphs=2")


@pytest.mark.slow
def test_table_for_the_cpu(run: Command) -> None:
    done = run("estimate", "tiny-drtune-hps", *FEW, "--tflops", "0.1")
    assert done.code == 0, done.err
    lines = done.out.splitlines()
    assert lines[0].startswith("tiny: GB at the peak of each phase")
    phases = [line.split()[0] for line in lines[3:9]]
    assert phases == ["text", "rollout", "reward", "sweep", "update", "evaluation"]
    assert [line.split()[0] for line in lines if line.endswith("<- peak")] == ["reward"]
    (memory,) = (line for line in lines if line.startswith("memory"))
    assert "GB of libraries a process of" in memory
    assert any(line.startswith("work") and "TFLOP a step" in line for line in lines)
    assert any(line.startswith("time") and "s a step" in line for line in lines)
    assert any(line.startswith("disk") and line.endswith("0.0 GB to download") for line in lines)


@pytest.mark.slow
def test_a_card_that_is_too_small_lists_what_helps(run: Command) -> None:
    arguments = ("estimate", "tiny-drtune-hps", *FEW)
    options = ("--gpu", "1.1GB", "--memory-only")
    done = run(*arguments, *options, "--json")
    assert done.code == 1, done.err
    found = json.loads(done.out)
    assert not found["fits"]
    assert found["work"] is None
    assert found["peak"]["bytes"] > found["gpu"]["usable"]
    assert [one["overrides"] for one in found["changes"]] == ["train.gradient_checkpointing=true"]
    assert found["changes"][0]["bytes"] <= found["gpu"]["usable"]
    table = run(*arguments, *options)
    command = f"{' '.join(arguments)} train.gradient_checkpointing=true --gpu 1.1GB"
    assert f"with all of them: reward-tuning {command}" in table.out
    assert found["peak"]["bytes"] == pytest.approx(
        sum(found["memory"][found["peak"]["phase"]].values())
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "phases"),
    [
        ("finetune/tiny-lora", ["text", "clips", "gradient", "update", "held-out", "samples"]),
        ("distil/tiny-4-steps", ["text", "gradient", "update", "evaluation"]),
    ],
)
def test_other_trainings(run: Command, name: str, phases: list[str]) -> None:
    """A fine-tuning's clips need not be there yet."""
    done = run("estimate", name, "--tflops", "0.1")
    assert done.code == 0, done.err
    lines = done.out.splitlines()
    assert [line.split()[0] for line in lines[3 : 3 + len(phases)]] == phases
    assert ("note       data.metadata: there is no" in done.out) == name.startswith("finetune")
    (time,) = (line for line in lines if line.startswith("time"))
    assert "guards" not in time


def test_times_in_words() -> None:
    """The hours in words are those of the JSON."""
    recipe = load_recipe("tiny-demo")
    work = RunTime(3e12, {}, 6e15, 1e12, recipe.train.steps)
    found = Estimate(recipe, SMALL, {"rollout": {}}, Followed({}, {}), work, (), 1)
    line = _time_line(found, 4)
    assert line.startswith(f"3.0 s a step, {_duration(work.hours * 3600)} for 60 steps")
    assert "4 GPUs make 4 times as many clips a step" in line
    assert [_duration(n) for n in (0.0031, 7.04, 160, 3700, 7300, 400000)] == [
        "0.0031 s",
        "7.0 s",
        "2.7 min",
        "62 min",
        "2.0 h",
        "111 h",
    ]


@pytest.mark.parametrize(
    ("size", "card", "recipe"),
    [
        ("12b", "16GB", "16gb"),
        ("12b", "rtx-5090", "24gb"),
        ("12b", "80GB", "48gb"),
        ("12b", "12GB", None),
        ("7b", "24GB", "24gb"),
        ("7b", "16GB", None),
    ],
)
def test_the_shipped_recipe_for_a_card(
    size: str, card: str, recipe: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    _print_commands(f"easyanimate-v5.1-{size}-hps", [], [], card_of(card))
    said = capsys.readouterr().out.strip()
    assert said.endswith(f"run easyanimate-v5.1-{size}-hps-{recipe}" if recipe else "")
    assert bool(said) == bool(recipe)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("tiny-demo", "--gpu", "huge"), "--gpu: got 'huge'; allowed: a size such as 24GB"),
        (("finetune/tiny-lora", "data.frames=3"), "data.frames"),
        (("no-such",), "no-such"),
    ],
)
def test_mistakes(run: Command, arguments: tuple[str, ...], said: str) -> None:
    done = run("estimate", *arguments)
    assert done.code == 2
    assert said in done.err
