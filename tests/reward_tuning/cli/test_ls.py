"""ls: what is shipped, and what each entry says."""

import json
from pathlib import Path

import pytest

from reward_tuning.schema.judge_kinds import KINDS
from reward_tuning.schema.locate import distil_recipes, finetune_recipes, shipped_recipes
from rewards.core.locate import shipped_names
from rewards.core.published import PUBLISHED
from tests.reward_tuning.command_line import Command, command

run = pytest.fixture(command, name="run")


def test_ls(run: Command) -> None:
    done = run("ls")
    assert done.code == 0
    found = json.loads(run("ls", "--json").out)
    recipes = [*shipped_recipes(), *finetune_recipes(), *distil_recipes()]
    assert [entry["name"] for entry in found["recipes"]] == [r.name for r in recipes]
    for group, entries in found.items():
        assert entries
        for entry in entries:
            assert entry["about"]
            assert entry["name"] in done.out
            if group in ("recipes", "generators", "adapters", "judges", "prompts"):
                assert Path(entry["path"]).exists()
    prompts = {entry["name"]: entry["about"] for entry in found["prompts"]}
    assert prompts["prompts/scenes-train.jsonl"] == "48 prompts"


def test_ls_describes_each_judge(run: Command) -> None:
    found = json.loads(run("ls", "--json").out)
    judges = {entry["name"]: entry for entry in found["judges"]}
    assert set(judges) == set(shipped_names())
    align = judges["tiny/video-align"]
    assert align["kind"] == "video_align"
    assert align["about"].startswith("video_align: VideoReward of VideoAlign")
    assert align["command"] == "reward-tuning pretrain tiny --only video-align --seed 0"
    kinds = {*KINDS, "tower"}
    assert all(entry["kind"] in kinds for entry in judges.values())
    assert "human preference; 1.9 MB" in judges["tiny/hps.safetensors"]["about"]
    published = {entry["name"]: entry for entry in found["published_judges"]}
    assert list(published) == [entry.name for entry in PUBLISHED]
    assert "1.97 GB, from xswu/HPSv2" in published["hps-v2.1"]["about"]
    weightless = [entry["name"] for entry in found["judges_without_weights"]]
    assert weightless == ["motion_energy", "motion_flow", "flicker", "sharpness"]
    others = [entry["name"] for entry in found["other_judges"]]
    assert others == ["consistency", "dynamic_degree", "python"]


def test_ls_reads_what_a_checkpoint_says_of_itself(
    run: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch
    from safetensors.torch import save_file

    import base_model.files.shipped

    (tmp_path / "mini" / "transformer").mkdir(parents=True)
    metadata = {"command": "reward-tuning pretrain mini [x]"}
    save_file(
        {"w": torch.zeros(250_000)}, tmp_path / "mini" / "transformer" / "m.safetensors", metadata
    )
    monkeypatch.setattr(base_model.files.shipped, "WEIGHTS", tmp_path)
    (entry,) = json.loads(run("ls", "--json").out)["generators"]
    assert entry["about"] == "1.0 MB; reward-tuning pretrain mini [x]"
    assert "pretrain mini [x]" in run("ls").out  # brackets are no markup
    (tmp_path / "mini" / "transformer" / "m.safetensors").write_bytes(b"cut")
    (entry,) = json.loads(run("ls", "--json").out)["generators"]
    assert entry["about"] == "0.0 MB"
