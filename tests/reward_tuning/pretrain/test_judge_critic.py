"""The critic's losses at single tokens, and a short training."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from base_model.tiny.captions import LANGUAGES, Language
from base_model.tiny.scenes import ATTRIBUTES, Scene
from base_model.training.loop import Schedule
from reward_tuning.pretrain import judge_critic
from reward_tuning.pretrain.critic_data import (
    draw_asked,
    draw_clips,
    word_ends,
)
from reward_tuning.pretrain.judge_configs import JudgeRun
from reward_tuning.pretrain.judge_data import named_rng
from rewards import load_reward
from rewards.kinds.qwen_critic import QwenCritic
from rewards.qwen.model import QwenTower


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
