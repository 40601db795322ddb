"""The critic's weights and tokenizer as a start for judges at special tokens."""

import shutil
from pathlib import Path

import pytest
import torch

from reward_tuning.errors import TuningError
from reward_tuning.pretrain.judge_data import named_rng
from reward_tuning.pretrain.qwen_start import (
    CRITIC,
    passages,
    start_tower,
    states_at,
)
from reward_tuning.pretrain.video_align_data import (
    draw_compared,
)
from rewards.core.locate import SHIPPED
from rewards.kinds import hpsv3, video_align
from rewards.qwen.files import EMBEDDING, read_folder
from rewards.qwen.templates import template

SHIPPED_CRITIC = SHIPPED / "tiny" / CRITIC


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
