"""validate: the resolved recipe, all mistakes at once, the likely name."""

import json
from pathlib import Path

import pytest

from reward_tuning.files.yaml_text import read_yaml
from tests.reward_tuning.command_line import Command, command
from tests.reward_tuning.recipes_for_tests import write_recipe

run = pytest.fixture(command, name="run")


def test_validate_prints_the_resolved_recipe(run: Command, tmp_path: Path) -> None:
    path = write_recipe(tmp_path)
    done = run("validate", path, "train.steps=7")
    assert done.code == 0
    data = read_yaml(done.out)
    assert data["train"]["steps"] == 7
    assert data["train"]["adam_eps"] == 1e-10
    assert data == json.loads(run("validate", path, "train.steps=7", "--json").out)
    # neither judge is here, and that is no mistake of the recipe
    assert "hf download xswu/HPSv2 HPS_v2.1_compressed.pt" in done.err


def test_validate_lists_all_mistakes(run: Command, tmp_path: Path) -> None:
    done = run("validate", write_recipe(tmp_path), "train.stepz=7", "sampling.frames=8")
    assert done.code == 2
    assert done.out == ""
    assert done.err.startswith("error: 2 mistakes in ")
    assert "did you mean train.steps?" in done.err
    assert "nearest: 5 or 9" in done.err
    assert "Traceback" not in done.err


def test_a_key_of_several_kinds_is_suggested_once(run: Command) -> None:
    done = run("validate", "tiny-draft-hps", "method.negative=detached")
    meant = done.err.partition("did you mean ")[2].partition("?")[0].split(" or ")
    assert "sampling.negative" in meant
    assert len(meant) == len(set(meant)) > 1


def test_validate_reads_prompts_and_makes_a_plan(run: Command, tmp_path: Path) -> None:
    path = write_recipe(tmp_path, method__active_steps=16, evaluation__prompts=3)
    (tmp_path / "bad.jsonl").write_text('{"prompt": "a"}\nnothing\n')
    done = run("validate", path, f"prompts.train={tmp_path / 'bad.jsonl'}")
    assert done.code == 2
    assert "line 2: not valid JSON" in done.err
    assert "evaluation.prompts: got 3, but prompts.held_out has 2" in done.err
    assert "method.active_steps is 16" in done.err  # the earliest stop leaves fewer


def test_an_unknown_name_is_refused_with_the_likely_one(run: Command, tmp_path: Path) -> None:
    assert "no recipe 'tiny-dmeo'" in run("validate", "tiny-dmeo").err
    assert "did you mean tiny-demo? " in run("validate", "tiny-dmeo").err
    assert "did you mean" not in run("validate", "whale").err
    assert "nor a file nor a run folder; " in run("show", "runs/gone").err
    recipe = write_recipe(tmp_path)
    prompts = run("validate", recipe, "prompts.train=tiny/trian.jsonl").err
    assert "did you mean tiny/train.jsonl? " in prompts
    judge = run("validate", recipe, "rewards.0.checkpoint=tiny/hpsv.safetensors").err
    assert "did you mean tiny/hps" in judge


@pytest.mark.parametrize("verb", [["validate"], ["show", "--json"], ["run"], ["cp", "to.yaml"]])
def test_invalid_yaml_is_refused_with_its_file(
    run: Command, tmp_path: Path, verb: list[str]
) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text("seed: 1\nseed: 2\n", encoding="utf-8")
    err = run(verb[0], str(path), *verb[1:]).err
    assert f"{path}: line 2: the key `seed` appears in line 1 already" in err


def test_a_generator_that_is_not_downloaded_is_named(run: Command) -> None:
    told = run("validate", "easyanimate-v5.1-7b-hps").err
    assert "note: generator.checkpoint: alibaba-pai/EasyAnimateV5.1-7b-zh" in told
    assert "generator.checkpoint" not in run("validate", "tiny-drtune-hps").err


@pytest.mark.slow
@pytest.mark.parametrize(("gpu", "said"), [("0.9GB", "does not fit into"), ("24GB", "fits into")])
def test_whether_it_fits_into_a_gpu(run: Command, gpu: str, said: str) -> None:
    done = run("validate", "tiny-drtune-hps", "train.steps=2", "--gpu", gpu)
    assert done.code == 0
    (line,) = (line for line in done.err.splitlines() if line.startswith("note: memory:"))
    assert said in line
    assert f"reward-tuning estimate tiny-drtune-hps --gpu {gpu}" in line
