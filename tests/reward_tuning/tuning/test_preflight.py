"""What `run` and `finetune` refuse before they load, `validate` says; and nothing is fetched."""

import json
import sys
from pathlib import Path

import pytest
import torch

from reward_tuning.errors import TuningError
from reward_tuning.files.yaml_text import write_yaml
from reward_tuning.finetune.parts import load_finetune_parts
from reward_tuning.finetune.recipe import load_finetune_recipe
from reward_tuning.progress import silent
from reward_tuning.schema.loading import load_recipe
from reward_tuning.tuning.parts import load_parts
from rewards import RewardError
from tests.reward_tuning.command_line import Command, command
from tests.reward_tuning.finetune.clip_folder import RECIPE as CLIPS
from tests.reward_tuning.finetune.clip_folder import write_clips
from tests.reward_tuning.recipes_for_tests import write_recipe

run = pytest.fixture(command, name="run")
CPU = torch.device("cpu")
HERE = {
    "rewards": [{"kind": "hps", "checkpoint": "tiny/hps.safetensors"}],
    "evaluation__held_out_rewards": [{"kind": "clip", "checkpoint": "tiny/clip.safetensors"}],
}
CRITIC = "rewards.0={kind: qwen_critic, checkpoint: generator, dtype: bfloat16}"
RESTARTS = ["train.restarts=1", "train.restart_sigma=0.1", "method.early_stop=false"]
REPLAY = '{"prompt": "a cat", "video": "gone.mp4"}\n'


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """The recipe's generator is owner/model: asking for any of it is too early."""

    def fetched(*what: object) -> Path:
        raise AssertionError(f"fetched {what}")

    for place in (
        "base_model.loading.checkpoint",
        "base_model.loading.parts",
        "reward_tuning.sampling.generator_parts",
    ):
        monkeypatch.setattr(f"{place}.download", fetched)


def broken_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    from torch._dynamo.exc import InternalTorchDynamoError

    def compile_(function: object) -> object:
        raise InternalTorchDynamoError("no compiler found")

    monkeypatch.setattr(torch, "compile", compile_)


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (["evaluation.prompts=1"], "evaluation.prompts: got 1; needs at least 2"),
        (["evaluation.prompts=3"], "evaluation.prompts: got 3, but prompts.held_out has 2"),
        (["evaluation.primary=oracle"], "evaluation.primary: got 'oracle', but the oracle"),
        (["generator.quantise=int8"], "bitsandbytes"),
        (["rollout.cache=0.1"], "has no first-block cache"),
        (["evaluation.cache=first-block:0.1"], "has no first-block cache"),
        (["train.compile=true"], "torch.compile does not work here"),
        (["method.active_steps=16"], "method.active_steps is 16"),
        (RESTARTS, "train.restart_sigma is 0.1"),
        (["sampling.guidance_steps=[0.95,0.97]"], "sampling.guidance_steps: got [0.95, 0.97]"),
        (["train.replay={source: {F}/replay.jsonl, clips: 2, weight: 1.0}"], "gone.mp4"),
        (["lora.init={F}/empty"], "lora.init: "),
        (["prompts.train={F}/follow.jsonl"], "no.png"),
        (["prompts.train={F}/pan.jsonl", "generator.checkpoint=tiny"], "does not take the camera"),
        (["generator.checkpoint={F}/empty"], "is no complete checkpoint"),
        (
            ["generator.checkpoint={F}/half", CRITIC],
            "lacks text_encoder/",
        ),
    ],
    ids=lambda value: "" if isinstance(value, str) else value[0].partition("=")[0],
)
def test_a_run(
    run: Command,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    overrides: list[str],
    told: str,
) -> None:
    (tmp_path / "replay.jsonl").write_text(REPLAY)
    (tmp_path / "follow.jsonl").write_text('{"prompt": "a", "image": "no.png"}\n')
    (tmp_path / "pan.jsonl").write_text('{"prompt": "a", "camera": "pan left"}\n')
    (tmp_path / "empty").mkdir()
    for part in ("transformer", "vae"):
        (tmp_path / "half" / part).mkdir(parents=True)
        (tmp_path / "half" / part / "config.json").write_text('{"in_channels": 33}')
    monkeypatch.setitem(sys.modules, "bitsandbytes.functional", None)
    if any("cache=" in one for one in overrides):
        monkeypatch.setitem(sys.modules, "diffusers.hooks._helpers", None)
    broken_compiler(monkeypatch)
    path = write_recipe(tmp_path, **HERE)
    given = [one.replace("{F}", str(tmp_path)) for one in overrides]
    for verb in ("validate", "run"):
        done = run(verb, path, f"output={tmp_path / 'out'}", *given)
        assert (done.code, done.out) == (2, ""), done
        assert told in done.err
    assert not (tmp_path / "out").exists()


def test_everything_at_once(run: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_recipe(tmp_path, **HERE)
    (tmp_path / "empty").mkdir()
    monkeypatch.setitem(sys.modules, "bitsandbytes.functional", None)
    wrong = ["evaluation.prompts=1", "method.active_steps=16", "generator.quantise=nf4"]
    done = run("validate", path, *wrong, f"lora.init={tmp_path / 'empty'}")
    assert done.code == 2
    assert len(done.err.splitlines()) == 4


def test_missing_judges_and_a_taken_folder_are_no_mistakes_of_a_recipe(
    run: Command, tmp_path: Path
) -> None:
    path = write_recipe(tmp_path, evaluation__held_out_rewards=[])
    done = run("validate", path, f"output={tmp_path}")  # the recipe itself lies there
    assert done.code == 0
    assert "note: hps: " in done.err
    assert f"note: output: {tmp_path} holds a run already" in done.err
    output = f"output={tmp_path / 'new'}"
    notes = [line for line in run("validate", path, output).err.splitlines() if "note: " in line]
    assert len(notes) == 2
    assert "note: generator.checkpoint: owner/model is not on this disk" in notes[1]
    done = run("run", path, output)
    assert done.code == 2
    assert "hf download xswu/HPSv2 HPS_v2.1_compressed.pt" in done.err
    with pytest.raises(RewardError, match="hf download xswu/HPSv2"):
        load_parts(load_recipe(path), CPU, 2, silent)


def test_a_damaged_judge_is_found_before_the_generator_is_fetched(tmp_path: Path) -> None:
    (tmp_path / "cut.safetensors").write_bytes(b"cut")
    damaged = {"kind": "clip", "checkpoint": "cut.safetensors"}
    path = write_recipe(tmp_path, **HERE | {"evaluation__held_out_rewards": [damaged]})
    with pytest.raises(RewardError, match=r"cut\.safetensors"):
        load_parts(load_recipe(path), CPU, 2, silent)


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (["data.held_out=5"], "data.held_out: got 5; 5 clips can be used"),
        (["generator.quantise=nf4"], "bitsandbytes"),
        (["lora.init=empty"], "lora.init: "),
    ],
    ids=["held_out", "quantise", "init"],
)
def test_a_fine_tuning(
    run: Command,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    overrides: list[str],
    told: str,
) -> None:
    write_clips(tmp_path)
    (tmp_path / "empty").mkdir()
    recipe = json.loads(json.dumps(CLIPS)) | {"generator": {"checkpoint": "tiny"}}
    (tmp_path / "recipe.yaml").write_text(write_yaml(recipe))
    monkeypatch.setitem(sys.modules, "bitsandbytes.functional", None)
    monkeypatch.chdir(tmp_path)
    done = run("validate", "recipe.yaml", *overrides, "output=out")
    assert (done.code, done.out) == (2, "")
    assert told in done.err
    loaded = load_finetune_recipe("recipe.yaml", [*overrides, "generator.checkpoint=tiny"])
    with pytest.raises((TuningError, ValueError)) as refused:
        load_finetune_parts(loaded, CPU, silent)
    assert str(refused.value).splitlines()[0] in done.err
