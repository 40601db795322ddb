"""Base against tuned: the same noise, the base untouched, every metric by its formula."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import Tensor

from base_model.generator import load_generator
from base_model.sampling.guidance import Guidance
from base_model.sampling.sample import euler_sample
from base_model.sampling.sigmas import sigma_table
from base_model.tiny.captions import phrasings
from base_model.tiny.render import render
from base_model.tiny.scenes import Scene
from reward_tuning.inputs.prompts import Prompt
from reward_tuning.judges.judge import FramedJudge
from reward_tuning.lora.adapter import LoraSpec, adapter_state, attach
from reward_tuning.sampling.sampler import ClipSampler
from reward_tuning.tuning.evaluation import (
    SideScores,
    compare,
    evaluate,
    evaluation_seed,
    merged,
    oracle_applies,
)
from rewards import load_reward
from tests.goldens import write_checkpoint
from tests.reward_tuning.statistics.test_bootstrap import ends_of_all_resamples
from tests.rewards.tiny_clip import ARCHITECTURE, flat_file, random_state

TEXTS = ["a red ball", "a cat", "a blue cube"]
PROMPTS = {i: Prompt(f"long {text}", text) for i, text in enumerate(TEXTS)}
SIGMAS = sigma_table(3)


@pytest.fixture(scope="module")
def sampler(tmp_path_factory: pytest.TempPathFactory) -> ClipSampler:
    generator = load_generator(
        write_checkpoint(tmp_path_factory.mktemp("generator")), text_encoder=False
    )
    attach(generator.transformer, LoraSpec(2, 2.0), seed=0)
    draw = torch.Generator().manual_seed(5)
    states = {p.text: torch.randn(6, 48, generator=draw) for p in PROMPTS.values()}
    states["bad"] = torch.randn(6, 48, generator=draw)
    return ClipSampler(generator, states, "bad", Guidance(3.0), (5, 16, 16))


@pytest.fixture(scope="module")
def judge(tmp_path_factory: pytest.TempPathFactory) -> FramedJudge:
    path = flat_file(
        tmp_path_factory.mktemp("judge"),
        random_state(ARCHITECTURE),
        architecture=json.dumps(ARCHITECTURE),
    )
    return FramedJudge(load_reward("clip", path), "clip", (0, 2))


def tuned(sampler: ClipSampler) -> dict[str, Tensor]:
    """An adapter that moves the clips."""
    draw = torch.Generator().manual_seed(9)
    return {
        name: 0.3 * torch.randn(tensor.shape, generator=draw)
        for name, tensor in adapter_state(sampler.generator.transformer).items()
    }


def side(
    sampler: ClipSampler, adapter: dict[str, Tensor] | None, judge: FramedJudge, **options: Any
) -> SideScores:
    return evaluate(
        sampler, adapter, PROMPTS, [judge], SIGMAS, **{"seed": 4, "keep_clips": 9} | options
    )


def test_scores_are_those_of_clips_drawn_one_by_one(
    sampler: ClipSampler, judge: FramedJudge
) -> None:
    """The base, against the generator's own sampler and the judge, formulas written out."""
    found = side(sampler, None, judge, seeds=2)
    generator = sampler.generator
    for index, prompt in PROMPTS.items():
        clips = []
        for clip in range(2):
            noise = generator.initial_noise((1, 16, 2, 2, 2), [evaluation_seed(4, index, clip)])
            latents = euler_sample(
                generator, sampler.condition([prompt.text]), noise, SIGMAS, Guidance(3.0)
            )
            with torch.no_grad():
                clips.append(generator.decode(latents))
        with torch.no_grad():
            scores = [float(judge.reward(c[:, [0, 2]], [prompt.reward_text])) for c in clips]
        moved = [float((c[:, 1:] - c[:, :-1]).abs().mean()) for c in clips]
        assert found.values["clip"][index] == pytest.approx(sum(scores) / 2, abs=1e-5)
        assert found.values["motion"][index] == pytest.approx(sum(moved) / 2, rel=1e-4)
        spread = float((clips[0] - clips[1]).abs().mean())
        assert found.values["diversity"][index] == pytest.approx(spread, rel=1e-4)
        assert torch.allclose(found.clips[index], clips[0][0], atol=1e-5)
    looks = {"motion", "brightness", "contrast", "saturation", "diversity"}
    assert set(found.values) == {"clip", *looks}
    assert found.means()["motion"] == pytest.approx(sum(found.values["motion"].values()) / 3)


def test_the_base_does_not_see_the_adapter_and_the_adapter_comes_back(
    sampler: ClipSampler, judge: FramedJudge
) -> None:
    before = {n: t.clone() for n, t in adapter_state(sampler.generator.transformer).items()}
    first = side(sampler, None, judge)
    better = side(sampler, tuned(sampler), judge)
    again = side(sampler, None, judge)
    for index in PROMPTS:
        assert torch.equal(first.clips[index], again.clips[index])
        assert float((first.clips[index] - better.clips[index]).abs().max()) > 0.01
    after = adapter_state(sampler.generator.transformer)
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_the_tuned_side_is_the_given_adapter(sampler: ClipSampler, judge: FramedJudge) -> None:
    """An adapter whose up matrices are 0 is the base: the same noise gives the same clips."""
    nothing = {n: t if "lora_A" in n else t * 0 for n, t in tuned(sampler).items()}
    base, same = side(sampler, None, judge), side(sampler, nothing, judge)
    for index in PROMPTS:
        assert torch.allclose(base.clips[index], same.clips[index], atol=1e-6)


def test_every_batch_is_shown_with_its_indices(sampler: ClipSampler, judge: FramedJudge) -> None:
    shown: dict[int, Tensor] = {}

    def seen(indices: Sequence[int], latents: Tensor, frames: Tensor) -> None:
        assert len(indices) == len(latents) == len(frames)
        shown.update(zip(indices, frames, strict=True))

    found = side(sampler, None, judge, batch_size=2, seen=seen)
    assert list(shown) == list(PROMPTS)
    assert all(torch.equal(shown[index], clip) for index, clip in found.clips.items())


@pytest.mark.parametrize("batch_size", [1, 4, 100])
def test_batches_do_not_matter(sampler: ClipSampler, judge: FramedJudge, batch_size: int) -> None:
    whole = side(sampler, None, judge, seeds=3, batch_size=2)
    other = side(sampler, None, judge, seeds=3, batch_size=batch_size)
    for name, of in whole.values.items():
        assert other.values[name] == pytest.approx(of, abs=1e-5)


def test_processes_share_the_prompts(sampler: ClipSampler, judge: FramedJudge) -> None:
    whole = side(sampler, None, judge, keep_clips=2)
    parts = [
        evaluate(
            sampler,
            None,
            {i: p for i, p in PROMPTS.items() if i % 2 == rank},
            [judge],
            SIGMAS,
            seed=4,
            keep_clips=2,
        )
        for rank in range(2)
    ]
    together = merged(parts)
    for name, of in whole.values.items():
        assert together.values[name] == pytest.approx(of, abs=1e-5)
    assert sorted(together.clips) == sorted(whole.clips) == [0, 1]


# --- the oracle

SCENES = [
    Scene("red", "circle", "dark", "large", "left"),
    Scene("blue", "square", "bright", "medium", "up"),
    Scene("green", "triangle", "striped", "large", "still"),
]


class Renders:
    """A sampler that draws what is asked for, except for the scenes it gets wrong."""

    def __init__(self, shown: Callable[[Scene], Scene]) -> None:
        self.generator = SimpleNamespace(
            transformer=torch.nn.Linear(1, 1), decode=lambda latents, by: latents
        )
        self.by_text = {phrasings(s, "zh")[0]: shown(s) for s in SCENES}

    def latents(self, prompts: Sequence[Prompt], seeds: Sequence[int], *rest: Any) -> Tensor:
        scenes = [self.by_text[prompt.text] for prompt in prompts]
        return torch.cat(
            [render([s], random.Random(seed)) for s, seed in zip(scenes, seeds, strict=True)]
        )


def oracle_scores(shown: Callable[[Scene], Scene]) -> dict[str, float]:
    prompts = {i: Prompt(phrasings(s, "zh")[0], "-") for i, s in enumerate(SCENES)}
    sampler = cast(ClipSampler, Renders(shown))
    return evaluate(sampler, None, prompts, [], SIGMAS, seed=0, seeds=2, oracle=True).means()


def test_oracle() -> None:
    right = oracle_scores(lambda scene: scene)
    parts = ["oracle_colour", "oracle_shape", "oracle_background", "oracle_size", "oracle_motion"]
    assert {name: right[name] for name in ["oracle", *parts]} == dict.fromkeys(
        ["oracle", *parts], 1.0
    )

    def one_wrong(scene: Scene) -> Scene:
        if scene.colour != "blue":
            return scene
        return Scene("red", scene.shape, scene.background, scene.size, scene.motion)

    wrong = oracle_scores(one_wrong)
    assert wrong["oracle"] == pytest.approx(2 / 3)
    assert wrong["oracle_colour"] == pytest.approx(2 / 3)
    assert wrong["oracle_motion"] == 1.0


def test_where_the_oracle_applies() -> None:
    captions = [Prompt(phrasings(scene, "en")[0], "-") for scene in SCENES]
    assert oracle_applies(captions, (9, 64, 64))
    assert not oracle_applies(captions, (9, 64, 96))
    assert not oracle_applies(captions, (13, 64, 64))
    assert not oracle_applies([*captions, Prompt("a cat", "a cat")], (9, 64, 64))


# --- the comparison


def test_compare_is_what_the_contract_says() -> None:
    gains = {0: 0.1, 1: 0.2, 2: 0.15, 3: 0.05, 4: -0.05, 5: 0.15}
    base = SideScores({"hps": {i: 0.1 * i for i in gains}, "motion": dict.fromkeys(gains, 1.0)})
    better = SideScores(
        {
            "hps": {i: base.values["hps"][i] + gains[i] for i in reversed(gains)},
            "motion": dict.fromkeys(gains, 0.9),
        }
    )
    found = compare(base, better, seeds=2, seed=0, primary="hps")
    assert set(found) == {"primary", "prompts", "seeds", "base", "tuned", "difference"}
    assert found["primary"] == "hps"
    assert (found["prompts"], found["seeds"]) == (6, 2)
    assert found["base"] == pytest.approx({"hps": 0.25, "motion": 1.0})
    assert found["tuned"] == pytest.approx({"hps": 0.35, "motion": 0.9})
    hps = found["difference"]["hps"]
    assert hps["mean"] == pytest.approx(0.1)
    assert (hps["up"], hps["down"]) == (5, 1)
    low, high = ends_of_all_resamples(np.array(list(gains.values())))
    assert (hps["low"], hps["high"]) == pytest.approx((low, high), abs=0.01)
    unseen = 0.1 * (1 - 0.025 ** (1 / 6))  # of six, none differed
    motion = {
        "mean": -0.1,
        "low": -0.1 - unseen,
        "high": -0.1 + unseen,
        "p": 2 / 2**6,
        "p_adjusted": 2 / 2**6,
        "up": 0,
        "down": 6,
        "prompts": 6,
    }
    assert found["difference"]["motion"] == pytest.approx(motion)
    json.dumps(found, allow_nan=False)


def test_compare_corrects_all_but_the_primary() -> None:
    base = {name: dict.fromkeys(range(8), 0.5) for name in ("hps", "clip", "motion")}
    better = SideScores({name: {i: v + 0.1 for i, v in of.items()} for name, of in base.items()})
    found = compare(SideScores(base), better, seeds=1, seed=0, primary="clip")["difference"]
    p = 2 / 2**8
    assert {name: one["p_adjusted"] for name, one in found.items()} == pytest.approx(
        {"hps": 2 * p, "clip": p, "motion": 2 * p}
    )


def test_noise_differs_by_prompt_clip_and_run() -> None:
    seeds = {evaluation_seed(s, p, c) for s in range(3) for p in range(5) for c in range(2)}
    assert len(seeds) == 30
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_weights_are_not_touched_by_an_error(sampler: ClipSampler, judge: FramedJudge) -> None:
    before = {n: t.clone() for n, t in adapter_state(sampler.generator.transformer).items()}
    broken = FramedJudge(judge.reward, "broken", (0, 99))
    with pytest.raises(IndexError):
        side(sampler, tuned(sampler), broken)
    after = adapter_state(sampler.generator.transformer)
    assert all(torch.equal(before[name], after[name]) for name in before)
