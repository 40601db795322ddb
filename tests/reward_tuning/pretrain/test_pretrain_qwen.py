"""The embedded VideoAlign and HPSv3: what they are shown, and a training of seconds."""

import json
import shutil
from dataclasses import replace
from math import isnan
from pathlib import Path

import pytest
import torch

from base_model.tiny.captions import parse_caption
from base_model.tiny.oracle import judge as oracle
from base_model.tiny.oracle import recognise_clip
from base_model.tiny.scenes import ATTRIBUTES, FRAMES, SIDE
from base_model.training.loop import Schedule
from reward_tuning.errors import TuningError
from reward_tuning.pretrain import judge_hpsv3, judge_video_align
from reward_tuning.pretrain.judge_configs import JudgeName, JudgeRun
from reward_tuning.pretrain.judge_data import named_rng
from reward_tuning.pretrain.judges import TRAINERS
from reward_tuning.pretrain.qwen_start import (
    BASE,
    CRITIC,
    SHIPPED_BASE,
    passages,
    start_tower,
    states_at,
)
from reward_tuning.pretrain.video_align_data import (
    FAULTS,
    SORTS,
    Compared,
    draw_compared,
    spoiled_alike,
)
from rewards import load_reward
from rewards.core.locate import SHIPPED
from rewards.kinds import hpsv3, video_align
from rewards.qwen.files import EMBEDDING, read_folder
from rewards.qwen.templates import template

SHIPPED_CRITIC = SHIPPED / "tiny" / CRITIC


@pytest.fixture(scope="module")
def pairs() -> Compared:
    return draw_compared(60, *named_rng("compared", 0))


def test_prompts_say_what_the_first_clip_shows_and_one_word_else(pairs: Compared) -> None:
    for prompt, other, word in zip(pairs.prompts, pairs.others, pairs.words, strict=True):
        (scene, language), (changed, same) = parse_caption(prompt), parse_caption(other)
        assert language == same
        assert scene.split == changed.split == "train"
        differ = [n for n in ATTRIBUTES if getattr(scene, n) != getattr(changed, n)]
        assert differ == [word]
    assert set(pairs.words) == set(ATTRIBUTES)


def test_each_sort_differs_in_its_own_axis(pairs: Compared) -> None:
    assert pairs.sorts == [*SORTS] * 20
    for sort, row, reason in zip(pairs.sorts, pairs.better.tolist(), pairs.reasons, strict=True):
        said = dict(zip(SORTS, row, strict=True))
        assert said[sort] == 1.0
        others = [value for name, value in said.items() if name != sort]
        assert all(value == 0.0 or isnan(value) for value in others), reason
        if sort == "TA":
            assert reason in ATTRIBUTES
    distance = (pairs.first - pairs.second).abs().flatten(1).mean(dim=1)
    assert float(distance.min()) > 1e-3


def test_another_word_changes_the_second_clip_alone_and_in_that_word() -> None:
    pairs = draw_compared(40, *named_rng("other word", 0), sorts=("TA",))
    matches = [
        torch.tensor([oracle(clips, prompts).right[name].tolist() for name in ATTRIBUTES])
        for clips in (pairs.first, pairs.second)
        for prompts in (pairs.prompts, pairs.others)
    ]
    changed = torch.tensor([[r == name for r in pairs.reasons] for name in ATTRIBUTES])
    for shown, (own, other) in enumerate((matches[:2], matches[2:])):
        right, wrong = (own, other) if shown == 0 else (other, own)
        assert float(right.mean()) > 0.95  # the oracle misreads a few that jitter has touched
        assert float(wrong[changed].mean()) < 0.1
        assert float(wrong[~changed].mean()) > 0.95
    still = [b for b, r in zip(pairs.better.tolist(), pairs.reasons, strict=True) if r == "motion"]
    assert still
    assert all(isnan(row[1]) for row in still)


def test_a_spoiled_clip_is_spoiled_in_every_frame_alike() -> None:
    clip = torch.full((FRAMES, 3, SIDE, SIDE), 0.5)
    for kind in ("noise", "tint", "grid"):
        less, more = spoiled_alike(clip, kind, *named_rng("alike", kind))
        for side in (less, more):
            assert torch.equal(side, side[:1].expand_as(side))
        assert float((more - clip).abs().mean()) > float((less - clip).abs().mean()) + 0.01


def test_faults_of_motion(pairs: Compared) -> None:
    assert {r for r, s in zip(pairs.reasons, pairs.sorts, strict=True) if s == "MQ"} == set(FAULTS)
    scene = parse_caption("a large blue square moves right on a dark background")[0]
    shown = {name: fault(scene, named_rng("fault", name)[0]) for name, fault in FAULTS.items()}
    speeds = {name: recognise_clip(bad).velocity for name, (_, bad) in shown.items()}
    assert speeds["frozen"] == pytest.approx((0.0, 0.0), abs=0.01)
    for name, (good, bad) in shown.items():
        steps = bad.diff(dim=0).abs().flatten(1).amax(dim=1)
        assert recognise_clip(good).velocity[0] == pytest.approx(2.0, rel=0.15)
        if name == "stuttering":  # three frames alike, then a leap
            assert (steps > 0).tolist() == [False, False, True] * 2 + [False, False]
        if name == "flickering":
            assert float(bad[:, :, 0, 0].mean(dim=1).std()) > 0.05


def test_the_published_text_goes_through_in_a_few_tokens(tmp_path: Path) -> None:
    shutil.copytree(SHIPPED_CRITIC, tmp_path / CRITIC)
    torch.manual_seed(0)
    tower = start_tower(tmp_path, video_align.TOKENS)
    prompt = "a small red star rises on a striped background"
    text = template("video_align").replace("{text_prompt}", prompt)
    _, tokens = tower.tokens(text)
    assert len(tokens) < 40
    # No character of it is lost, and the prompt's own tokens are those of the critic.
    assert tower.tokenizer.decode(tokens[1:]).startswith(text)
    words = tower.tokenizer(prompt)["input_ids"]
    places = [i for i in range(len(tokens)) if tokens[i : i + len(words)] == words]
    assert len(places) == 1
    for passage in passages():
        assert len(tower.tokenizer(passage)["input_ids"]) == 1
    critic = read_folder(SHIPPED_CRITIC)[EMBEDDING].float()
    assert torch.equal(tower.model.state_dict()[EMBEDDING][: len(critic)], critic)
    with pytest.raises(TuningError, match="pretrain tiny --only qwen-critic"):
        start_tower(tmp_path / "elsewhere", ())


def test_states_of_k_texts_are_those_of_each_alone(tmp_path: Path) -> None:
    shutil.copytree(SHIPPED_CRITIC, tmp_path / CRITIC)
    torch.manual_seed(0)
    tower = start_tower(tmp_path, [hpsv3.TOKEN], "image")
    token = tower.tokenizer.convert_tokens_to_ids(hpsv3.TOKEN)
    frames = draw_compared(2, *named_rng("states", 0)).first[:, :1]
    prompts = [["a red star", "a blue circle moves left"], ["红色的星", "a star"]]
    text = template("hpsv3")
    texts = [[text.replace("{text_prompt}", p) for p in those] for those in prompts]
    with torch.no_grad():
        found = states_at(tower.read(frames, texts), token)
        for row in range(2):
            for k in range(2):
                alone = tower.read(frames[row : row + 1], [[texts[row][k]]]).at(token)[0]
                torch.testing.assert_close(found[row, k], alone, atol=1e-5, rtol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["video-align", "hpsv3"])
def test_training_writes_a_judge_that_loads(
    name: JudgeName, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(judge_video_align, "BATCH", 3)
    monkeypatch.setattr(judge_video_align, "MEASURED", 6)
    monkeypatch.setattr(judge_hpsv3, "FRAMES", 2)
    monkeypatch.setattr(judge_hpsv3, "PAIRS", 4)
    shutil.copytree(SHIPPED_CRITIC, tmp_path / CRITIC)
    rows: list[dict[str, float]] = []
    schedule = Schedule(steps=3, learning_rate=1e-3, optimiser="muon", report_every=1)
    run = JudgeRun(
        name, tmp_path, tmp_path / "training", 0, schedule, lambda *told: rows.append(told[3])
    )
    path = TRAINERS[name](run)
    assert len(rows) == 3
    for file in ("config.json", "tokenizer.json", "chat_template.jinja"):
        here, there = (root / file for root in (tmp_path / BASE, SHIPPED / SHIPPED_BASE))
        assert here.read_bytes() == there.read_bytes()
    kind = name.replace("-", "_")
    judge = load_reward(kind, path)
    frames = draw_compared(1, *named_rng("trained", 0)).first.requires_grad_()
    judge(frames, ["a red star"]).sum().backward()
    assert frames.grad is not None
    assert float(frames.grad.flatten(2).norm(dim=2).min()) > 0
    if name == "video-align":
        said = json.loads((path / "model_config.json").read_text())
        norms = said["inference_config"]
        assert all(norms[f"{axis}_std"] > 0 for axis in SORTS)
        # The scores of what they were measured on have mean 0 and deviation 1, but for fp16.
        pairs = draw_compared(6, *named_rng("video align norms", 0))
        clips = torch.cat([pairs.first, pairs.second])
        assert isinstance(judge, video_align.VideoAlignReward)
        with torch.no_grad():
            scores = judge.axes(clips, pairs.prompts * 2)
        torch.testing.assert_close(scores.mean(dim=0), torch.zeros(3), atol=0.05, rtol=0)
        torch.testing.assert_close(scores.std(dim=0), torch.ones(3), atol=0.05, rtol=0)
    file = path / "checkpoint-3" / "model.pth" if path.is_dir() else path
    first = file.read_bytes()
    TRAINERS[name](replace(run, training=tmp_path / "again"))
    assert file.read_bytes() == first
