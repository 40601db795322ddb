"""The verb: its tables, JSON, exit codes and messages."""

import json

import pytest

from tests.reward_tuning.command_line import Command, command

run = pytest.fixture(command, name="run")
GPUS = ("--gpus", "4")
FEW = ("train.steps=2", "evaluation.prompts=4", "train.keep_graphs=2")


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


def test_a_card_that_is_too_small_lists_what_helps(run: Command) -> None:
    done = run("estimate", "tiny-drtune-hps", *FEW, "--gpu", "1.1GB", "--memory-only", "--json")
    assert done.code == 1, done.err
    found = json.loads(done.out)
    assert not found["fits"]
    assert found["work"] is None
    assert found["peak"]["bytes"] > found["gpu"]["usable"]
    assert [one["overrides"] for one in found["changes"]] == ["train.keep_graphs=0"]
    assert found["changes"][0]["bytes"] <= found["gpu"]["usable"]
    assert found["peak"]["bytes"] == pytest.approx(
        sum(found["memory"][found["peak"]["phase"]].values())
    )


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


def test_hours_are_those_of_the_gpus_in_json_and_in_words(run: Command) -> None:
    arguments = ("estimate", "tiny-drtune-hps", *FEW, "--gpu", "24GB", "--tflops", "0.001")
    one, four = (json.loads(run(*arguments, *gpus, "--json").out)["work"] for gpus in ((), GPUS))
    assert four["flop_of_evaluation"] == pytest.approx(one["flop_of_evaluation"] / 4)
    assert four["hours"] < one["hours"]
    assert f"{four['hours']:.2g} h" in run(*arguments, *GPUS).out


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
