import random
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from base_model.tiny.captions import LANGUAGES, Language, parse_caption
from base_model.tiny.scenes import ATTRIBUTES, SIDE, Scene, draw_scenes
from base_model.training.loop import Schedule
from reward_tuning.pretrain import critic_data, judge_critic
from reward_tuning.pretrain.critic_data import (
    ASKED,
    DEFECTS,
    draw_asked,
    draw_clips,
    prompt_scene,
    spoil,
    word_ends,
)
from reward_tuning.pretrain.judge_configs import JudgeRun
from reward_tuning.pretrain.judge_data import named_rng
from rewards import load_reward
from rewards.kinds.qwen_critic import ASPECTS, QwenCritic
from rewards.qwen.model import QwenTower


def test_answers_are_what_the_scenes_say() -> None:
    aspects = tuple(ASPECTS)
    asked = draw_asked(60, aspects, *named_rng("asked", 0))
    prompt = {aspect: text.partition("{prompt}") for aspect, text in ASPECTS.items()}
    for scene, defect, texts, answers in zip(
        asked.shown.scenes,
        asked.shown.defects.tolist(),
        asked.questions,
        asked.answers.tolist(),
        strict=True,
    ):
        for aspect, text, answer in zip(aspects, texts, answers, strict=True):
            if aspect == "artefact":
                assert answer == float(defect < 0)
                continue
            before, _, after = prompt[aspect]
            said, _ = parse_caption(text.removeprefix(before).removesuffix(after))
            assert said.split == "train"
            name = ASKED[aspect]
            assert answer == float(getattr(said, name) == getattr(scene, name))
    shares = asked.answers.mean(dim=0)
    assert float(shares.min()) > 0.3  # neither answer pays by itself
    assert float(shares.max()) < 0.75


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_words_place_is_the_token_that_ends_it(language: Language) -> None:
    torch.manual_seed(0)
    model, tokenizer = judge_critic.build_critic()
    tower = QwenTower(model, tokenizer, judge_critic.frames_spec())
    rng, generator = named_rng("words", 0)
    asked = draw_asked(6, ("colour",), rng, generator, "train", language, pairs=1)
    reading = tower.read(asked.shown.clips, asked.questions)
    for row, ((text,), (said,)) in enumerate(zip(asked.questions, asked.said, strict=True)):
        assert said is not None
        ends = word_ends(text, said)
        first = int((reading.parts[row] == 1).nonzero()[0])
        for name, place in judge_critic.word_places(tower, text, ends).items():
            read = tokenizer.decode(reading.tokens[row, first + 1 : first + place + 1])
            # All up to the word has been read at its token, and not before.
            wanted = text[: ends[name] + 1]
            assert read.startswith(wanted)
            before = tokenizer.decode(reading.tokens[row, first + 1 : first + place])
            assert not before.startswith(wanted)
    english = dict(zip(ATTRIBUTES, ("red", "star", "dark", "small", "up"), strict=True))
    text = "a small red star rises on a dark background, or so"
    found = word_ends(text, Scene(**english))
    assert [text[: end + 1].split()[-1] for end in found.values()] == [
        "red",
        "star",
        "dark",
        "small",
        "rises",
    ]


def test_what_is_not_asked_for_varies() -> None:
    rng = random.Random(1)
    changed = dict.fromkeys(ATTRIBUTES, 0)
    for scene in draw_scenes(400, rng):
        said = prompt_scene(scene, "colour", True, rng, "train")
        for name in ATTRIBUTES:
            changed[name] += getattr(said, name) != getattr(scene, name)
    assert changed.pop("colour") == 0
    assert all(0.3 < times / 400 < 0.5 for times in changed.values()), changed


def test_flicker_changes_brightness_from_frame_to_frame_and_nothing_else_does() -> None:
    clips = torch.full((2, 9, 3, SIDE, SIDE), 0.5)
    defects = torch.tensor([DEFECTS.index("flicker"), -1])
    spoiled = spoil(clips, defects, torch.tensor([1.0, 1.0]), named_rng("spoil", 0)[1])
    assert torch.equal(spoiled[1], clips[1])
    light = spoiled[0].flatten(1)
    assert torch.equal(light.amin(dim=1), light.amax(dim=1))
    assert float(light[:, 0].std()) > 0.1
    assert float((light[:, 0] - 0.5).abs().max()) <= 0.4


def test_coverage_is_where_the_shape_is() -> None:
    shown = draw_clips(8, *named_rng("cover", 0), pairs=2)
    assert shown.clips.shape == (8, 4, 3, SIDE, SIDE)
    coverage = shown.coverage(16)
    torch.testing.assert_close(coverage.sum(dim=1), torch.ones(8))
    for row in range(8):
        time, place = divmod(int(coverage[row].argmax()), 16)
        y, x = 16 * (place // 4), 16 * (place % 4)
        inside = shown.shapes[row, 2 * time : 2 * time + 2, 0, y : y + 16, x : x + 16]
        every = shown.shapes[row, :, 0].unflatten(0, (2, 2)).mean(dim=1)
        tiles = torch.nn.functional.avg_pool2d(every, 16)
        torch.testing.assert_close(inside.mean(), tiles.max())
    whole = draw_clips(2, *named_rng("cover", 0))
    assert whole.clips.shape[1] == critic_data.FRAMES


def test_the_caption_loss_is_the_cross_entropy_of_that_text_alone() -> None:
    torch.manual_seed(0)
    model, tokenizer = judge_critic.build_critic()
    tower = QwenTower(model, tokenizer, judge_critic.frames_spec())
    clips = draw_clips(2, *named_rng("caption", 0), pairs=1).clips
    texts = [["is it red?", "a red star"], ["is it so?", "a small blue circle moves left"]]
    reading = tower.read(clips, texts)
    losses = []
    for row, (_, text) in enumerate(texts):
        alone = tower.read(clips[row : row + 1], [[text]])
        inside = (alone.parts[0] == 1).nonzero()[:, 0]
        logits = torch.log_softmax(model.lm_head(alone.states[0, inside[:-1]]), dim=1)
        losses.append(-logits.gather(1, alone.tokens[0, inside[1:], None])[:, 0])
    expected = torch.cat(losses).mean()
    torch.testing.assert_close(judge_critic.caption_loss(model, reading, part=2), expected)


@pytest.mark.slow
def test_training_writes_a_folder_that_loads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(judge_critic, "LESSON", 2)
    monkeypatch.setattr(judge_critic, "LESSON_BATCH", 4)
    monkeypatch.setattr(judge_critic, "BATCH", 2)
    numbers: list[dict[str, float]] = []
    schedule = Schedule(steps=5, learning_rate=1e-3, optimiser="muon", report_every=1)
    run = JudgeRun(
        "qwen-critic",
        tmp_path,
        tmp_path / "training",
        0,
        schedule,
        lambda stage, done, total, row: numbers.append(row),
    )
    folder = judge_critic.train_critic(run)
    assert len(numbers) == 5
    for name in ("answers/object", "caption", "words"):
        assert [name in row for row in numbers] == [False, False, True, True, True]
    sizes = {path.name: path.stat().st_size for path in folder.iterdir()}
    assert sizes["model.safetensors"] < 1.5e6
    critic = load_reward("qwen_critic", folder)
    assert isinstance(critic, QwenCritic)
    frames = draw_clips(1, *named_rng("trained", 0)).clips.requires_grad_()
    critic(frames, ["a red star"]).sum().backward()
    assert frames.grad is not None
    assert float(frames.grad.flatten(2).norm(dim=2).min()) > 0
    again = judge_critic.train_critic(replace(run, out_dir=tmp_path / "again"))
    assert (again / "model.safetensors").read_bytes() == (folder / "model.safetensors").read_bytes()
