"""Files of the embedded judges: what is written, what is found again, and from which seed."""

from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest
import torch
from safetensors import safe_open

from base_model.training.loop import Schedule
from reward_tuning.errors import TuningError
from reward_tuning.pretrain import judge_configs
from reward_tuning.pretrain.judge_configs import (
    CLIP,
    MERGES_FILE,
    SCHEDULES,
    JudgeName,
    JudgeRun,
    clip_metadata,
    save_judge,
    seed_weights,
    small_merges,
    trained_judge,
)
from rewards.core.preprocess import Preprocess


@pytest.fixture
def run(tmp_path: Path) -> JudgeRun:
    schedule = Schedule(steps=3, learning_rate=0.1, ema_decay=0.0)
    return JudgeRun("hps", tmp_path, tmp_path / "training", 7, schedule, lambda *_: None)


def test_every_judge_has_a_schedule() -> None:
    assert set(SCHEDULES) == set(get_args(JudgeName))


def test_a_saved_judge_is_fp16_and_is_found_again(run: JudgeRun) -> None:
    state = {"w": torch.tensor([0.1, 2.0]), "steps": torch.tensor([3])}
    path = save_judge(run, state, clip_metadata("hps", CLIP, Preprocess("letterbox", 64)))
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
        assert file.get_tensor("w").dtype == torch.float16
        assert file.get_tensor("steps").dtype == torch.int64
    assert metadata["command"] == "reward-tuning pretrain tiny --only hps --seed 7"
    assert (metadata["kind"], metadata["tokenizer"]) == ("hps", MERGES_FILE)
    found = trained_judge(run.out_dir, "hps")
    assert torch.equal(found["w"], state["w"].half().float())
    assert torch.equal(found["steps"], state["steps"])
    with pytest.raises(TuningError, match=r"clip\.safetensors is missing.*tiny --only clip"):
        trained_judge(run.out_dir, "clip")


def test_initial_weights_depend_on_name_and_seed(run: JudgeRun) -> None:
    drawn = []
    for one in (run, run, replace(run, name="clip"), replace(run, seed=8)):
        seed_weights(one)
        drawn.append(float(torch.rand(())))
    assert drawn[0] == drawn[1]
    assert len(set(drawn)) == 3


def test_the_merges_are_trained_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judge_configs, "tokenizer_texts", lambda: ["a red circle"] * 3)
    monkeypatch.setattr(judge_configs, "MERGES", 5)
    path = small_merges(tmp_path)
    first = path.read_bytes()
    monkeypatch.setattr(judge_configs, "tokenizer_texts", lambda: ["blue square"] * 3)
    assert small_merges(tmp_path).read_bytes() == first
    assert [file.name for file in tmp_path.iterdir()] == [MERGES_FILE]


def test_a_run_trains_to_its_schedules_end(run: JudgeRun) -> None:
    module = torch.nn.Linear(1, 1)
    before = module.weight.detach().clone()
    run.train(module, lambda step, generator: (module.weight.square().sum(), {}))
    assert not torch.equal(module.weight, before)
    assert torch.load(run.training / "hps.ckpt", weights_only=True)["step"] == 3
