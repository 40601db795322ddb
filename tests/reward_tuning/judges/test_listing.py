"""The available judges in words: every kind once, with its description."""

import json
from pathlib import Path

from reward_tuning.judges.listing import (
    other_entries,
    outside_entries,
    published_entries,
    shipped_entries,
    weightless_entries,
)
from reward_tuning.schema.judge_kinds import KINDS
from rewards.core.locate import shipped_names
from rewards.core.published import PUBLISHED
from rewards.loading import loader_keywords


def test_shipped_judges_with_kind_size_and_command() -> None:
    found = {entry["name"]: entry for entry in shipped_entries()}
    assert list(found) == shipped_names()
    assert found["tiny/hps.safetensors"]["kind"] == "hps"
    assert found["tiny/hps.safetensors"]["about"].startswith("hps: HPSv2 and HPSv2.1")
    assert found["tiny/qwen-critic"]["kind"] == "qwen_critic"
    assert found["tiny/video-align"]["kind"] == "video_align"
    assert found["tiny/siglip.safetensors"]["about"].startswith("the network below a judge's head")
    for entry in found.values():
        assert entry["command"].startswith("reward-tuning pretrain tiny --only ")
    path = Path(found["tiny/clip.safetensors"]["path"])
    assert f"{path.stat().st_size / 1e6:.1f} MB" in found["tiny/clip.safetensors"]["about"]


def test_kinds_without_a_file_are_those_whose_loader_takes_none() -> None:
    names = {entry["name"] for entry in weightless_entries()}
    kinds = set(KINDS) - {"latent"}
    outside = {entry["name"] for entry in outside_entries()}
    assert outside == {"http", "command", "vlm"}
    assert names == {kind for kind in kinds - outside if "checkpoint" not in loader_keywords(kind)}


def test_published_names_with_size_and_source() -> None:
    found = published_entries()
    assert [entry["name"] for entry in found] == [record.name for record in PUBLISHED]
    hps = next(entry for entry in found if entry["name"] == "hps-v2.1")
    assert hps["about"].endswith("1.97 GB, from xswu/HPSv2")
    json.dumps(found)


def test_every_kind_is_in_one_of_the_lists() -> None:
    of_files = {entry["kind"] for entry in [*shipped_entries(), *published_entries()]}
    others = [*weightless_entries(), *other_entries(), *outside_entries()]
    alone = {entry["name"] for entry in others}
    assert of_files.isdisjoint(alone)
    assert set(KINDS) <= of_files | alone
    for entry in others:
        assert len(entry["about"]) > 10
