"""Training of the embedded ImageReward and MPS."""

import json
import random
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from base_model.tiny.captions import parse_caption
from base_model.tiny.scenes import Scene
from reward_tuning.pretrain.judge_cross import draw_choices
from reward_tuning.pretrain.judge_data import VISIBLE, draw_pairs, named_rng
from reward_tuning.pretrain.judges import JudgeName, train_judge
from rewards import load_reward
from tests.reward_tuning.small_cross import CROSS_JUDGES, shrink_cross

SCENE = Scene("red", "star", "dark", "large", "left")


def train_small(name: JudgeName, folder: Path, seed: int = 1) -> Path:
    training = folder / "training"
    training.mkdir(parents=True, exist_ok=True)
    with pytest.MonkeyPatch.context() as patch:
        shrink_cross(patch)
        return train_judge(name, folder, seed, lambda *_: None, training=training, steps=2)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("judges")
    for name in CROSS_JUDGES:
        train_small(name, folder)  # type: ignore[arg-type]
    return folder


@pytest.mark.parametrize("name", CROSS_JUDGES)
def test_a_trained_judge_loads_scores_and_says_its_command(trained: Path, name: str) -> None:
    path = trained / f"{name}.safetensors"
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
        dtypes = {file.get_tensor(key).dtype for key in file.keys()}  # noqa: SIM118
    assert metadata["command"] == f"reward-tuning pretrain tiny --only {name} --seed 1"
    assert dtypes == {torch.float16}
    judge = load_reward(name.replace("-", "_"), path)
    frames = torch.rand(1, 2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    score = judge(frames.requires_grad_(), ["a red circle"])
    (gradient,) = torch.autograd.grad(score.sum(), frames)
    assert float(gradient.abs().max()) > 0


def test_each_judge_first_learns_to_see(trained: Path) -> None:
    logs = {
        log.stem: log.read_text().splitlines() for log in (trained / "training").glob("*.jsonl")
    }
    assert set(logs) == {"cross-eyes", "mps-eyes", *CROSS_JUDGES}
    for stage in ("cross-eyes", "mps-eyes"):
        assert [json.loads(line)["step"] for line in logs[stage]] == [2]
    for name in CROSS_JUDGES:
        last = json.loads(logs[name][-1])
        assert {"retrieved", "chosen", "preferred", *VISIBLE} <= set(last)


def test_the_same_seed_gives_the_same_bytes(trained: Path, tmp_path: Path) -> None:
    same = train_small("image-reward", tmp_path / "same").read_bytes()
    other = train_small("image-reward", tmp_path / "other", seed=2).read_bytes()
    assert (trained / "image-reward.safetensors").read_bytes() == same
    assert other != same


def test_scores_start_with_the_published_mean_and_deviation(trained: Path) -> None:
    judge = load_reward("image_reward", trained / "image-reward.safetensors")
    pairs = draw_pairs(4, *named_rng("image-reward", 1, "standardise"), "train")
    frames = torch.cat([pairs.better, pairs.worse])[:, None]
    with torch.no_grad():
        scores = judge(frames, [*pairs.prompts, *pairs.prompts])
    assert float(scores.mean()) == pytest.approx(0.0, abs=0.1)  # the file is fp16
    assert float(scores.std()) == pytest.approx(1.0, abs=0.1)


def test_choices_differ_in_one_visible_word() -> None:
    rng = random.Random(0)
    short = 0
    for _ in range(60):
        right, *wrong = draw_choices(SCENE, rng)
        assert len({right, *wrong}) == 3
        try:
            said, language = parse_caption(right)
        except ValueError:  # a short caption, which is not of the grammar
            short += 1
            continue
        assert said == SCENE
        for text in wrong:
            other, same = parse_caption(text)
            assert same == language
            differing = [n for n in (*VISIBLE, "motion") if getattr(other, n) != getattr(SCENE, n)]
            assert len(differing) == 1
            assert differing[0] in VISIBLE
    assert 5 < short < 30
