"""VideoAlign on published layouts, against peft's model and direct indexing."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from rewards.core.tower_options import TowerOptions
from rewards.errors import RewardError
from rewards.kinds.video_align import (
    AXES,
    NORMS,
    TOKENS,
    VideoAlignConfig,
    load_video_align,
)
from rewards.qwen.files import read_folder
from rewards.qwen.templates import template
from tests.rewards import small_video_align, tiny_qwen
from tests.rewards.qwen.test_model import reference_states
from tests.rewards.small_video_align import CHANGED, CONFIG, load, reward_model, with_lora, write
from tests.rewards.tiny_qwen import PROMPTS, bytes_clips

root = small_video_align.root


@pytest.mark.parametrize(("layout", "outputs"), [("whole", 1), ("adapter", 1), ("adapter", 3)])
def test_scores_are_those_of_the_authors_model(layout: str, outputs: int, root: Path) -> None:
    model = reward_model(outputs)
    if layout == "adapter":  # what no file holds is the base's
        base = read_folder(root / "base")
        own = {n: t for n, t in base.items() if not any(part in n for part in CHANGED)}
        assert not model.load_state_dict(own, strict=False).unexpected_keys
    wrapped = with_lora(model)
    config = json.loads(json.dumps(CONFIG))
    config["model_config"]["output_dim"] = outputs
    write(root / "judge", wrapped, layout, config)
    judge = load(root)
    clips = bytes_clips(2, 4, 56, 84)
    got = judge.per_axis(clips.float() / 255, PROMPTS)
    inner = wrapped.base_model.model
    reference = tiny_qwen.tower()
    reference.positions = "plain"
    reference.model, reference.tokenizer = inner, judge.tower.tokenizer
    for row, prompt in enumerate(PROMPTS):
        text = template("video_align").replace("{text_prompt}", prompt)
        states = reference_states(reference, clips[row], text)
        ids = judge.tower.tokenizer(judge.tower.conversation(text))["input_ids"]
        grown = len(states) - len(ids)  # the clip's one place became many
        for k, (axis, token) in enumerate(zip(AXES, TOKENS, strict=True)):
            place = ids.index(judge.tower.tokenizer.convert_tokens_to_ids(token)) + grown
            raw = inner.rm_head(states[place])[k if outputs == 3 else 0]
            mean, std = (CONFIG["inference_config"][f"{axis}_{part}"] for part in ("mean", "std"))
            torch.testing.assert_close(got[axis][row], (raw - mean) / std, atol=2e-5, rtol=1e-4)


def test_axes_and_their_sum(root: Path) -> None:
    write(root / "judge", with_lora(reward_model()), "whole")
    frames = bytes_clips(1, 4, 56, 56).float() / 255
    parts = load(root).per_axis(frames, PROMPTS[:1])
    torch.testing.assert_close(load(root)(frames, PROMPTS[:1]), sum(parts.values()))
    for axis in AXES:
        judge = load(root, axis=axis)
        torch.testing.assert_close(judge(frames, PROMPTS[:1]), parts[axis])
        other = judge(frames, PROMPTS[1:])
        assert judge.reads_text == (axis == "TA")
        assert bool((other - parts[axis]).abs() > 1e-4) == judge.reads_text
    with pytest.raises(RewardError, match="axis is 'VT'"):
        load(root, axis="VT")


def test_gradient_batch_and_chunks(root: Path) -> None:
    write(root / "judge", with_lora(reward_model()), "whole")
    judge = load(root, count=4)
    frames = (bytes_clips(2, 4, 56, 56).float() / 255).requires_grad_()
    scores = judge(frames, PROMPTS)
    (gradient,) = torch.autograd.grad(scores.sum(), frames)
    sizes = gradient.flatten(2).norm(dim=2)
    assert float(sizes.min()) > 0.02 * float(sizes.max())
    for row in range(2):
        alone = judge(frames[row : row + 1], PROMPTS[row : row + 1])
        torch.testing.assert_close(alone[0], scores[row], atol=1e-5, rtol=1e-5)
    judge.chunk = 1
    (chunked,) = torch.autograd.grad(judge(frames, PROMPTS).sum(), frames)
    torch.testing.assert_close(chunked, gradient, atol=1e-6, rtol=1e-4)
    better = (frames + 0.02 * gradient.sign()).clamp(0, 1)
    assert float((judge(better, PROMPTS) - scores).detach().min()) > 0


def edited(root: Path, edit: Any) -> None:
    path = root / "judge" / "checkpoint-7" / "model.pth"
    state: dict[str, Tensor] = torch.load(path, weights_only=True)
    edit(state)
    torch.save(state, path)


LAYER = "base_model.model.model.layers.0.mlp.up_proj."


@pytest.mark.parametrize(
    ("edit", "named"),
    [
        (lambda s: s.pop("base_model.model.rm_head.weight"), r"rm_head\.weight"),
        (lambda s: s.pop(f"{LAYER}lora_A.default.weight"), r"rank 4 .*up_proj.*missing: A"),
        (lambda s: s.pop(f"{LAYER}base_layer.weight"), r"adapts .*layers\.0\.mlp\.up_proj"),
        (
            lambda s: s.update({f"{LAYER}lora_magnitude_vector.default.weight": torch.ones(1)}),
            "lora_magnitude_vector",
        ),
        (lambda s: s.update({"base_model.model.value_head": torch.ones(1)}), "value_head"),
        (lambda s: s.pop("base_model.model.visual.merger.ln_q.bias"), r"merger\.ln_q\.bias"),
    ],
)
def test_incomplete_checkpoints_are_refused_by_name(root: Path, edit: Any, named: str) -> None:
    write(root / "judge", with_lora(reward_model()), "whole")
    edited(root, edit)
    with pytest.raises(RewardError, match=named):
        load(root)


def test_configs_that_are_read_in_another_way_are_refused(root: Path) -> None:
    config = json.loads(json.dumps(CONFIG))
    config["data_config"]["prompt_template_type"] = "simple"
    write(root / "judge", with_lora(reward_model()), "whole", config)
    with pytest.raises(RewardError, match="prompt_template_type is 'simple'"):
        load(root)
    (root / "judge" / "model_config.json").write_text("{}")
    with pytest.raises(RewardError, match="lacks 'data_config'"):
        load(root)
    with pytest.raises(RewardError, match="hf download KwaiVGI/VideoReward"):
        load_video_align("KwaiVGI/VideoReward", TowerOptions(folder=root))


@pytest.mark.parametrize(
    ("section", "change", "told"),
    [
        ("data_config", None, "section for data contains None"),
        ("model_config", "x", "section for model contains 'x'"),
        ("peft_lora_config", [1], r"section for lora contains \[1\]"),
        ("inference_config", "x", "section for norms contains 'x'"),
        ("inference_config", {"VQ_std": 0.0}, "VQ_std is 0.0; expected a number above 0"),
        ("inference_config", {"MQ_mean": "a"}, "MQ_mean is 'a'; expected a number"),
        ("peft_lora_config", {"lora_r": "a"}, "lora_r is 'a'"),
        ("peft_lora_config", {"lora_alpha": None}, "lora_alpha is None"),
        ("data_config", {"fps": "fast"}, "fps is 'fast'"),
        ("data_config", {"max_frame_pixels": True}, "max_frame_pixels is True"),
    ],
)
def test_damaged_configs_are_told(root: Path, section: str, change: Any, told: str) -> None:
    fields = {**CONFIG[section], **change} if isinstance(change, dict) else change
    (root / "judge").mkdir()
    (root / "judge" / "model_config.json").write_text(json.dumps({**CONFIG, section: fields}))
    with pytest.raises(RewardError, match=told):
        load(root)


def test_a_config_without_norms_has_the_published_ones(root: Path) -> None:
    path = root / "model_config.json"
    for config in ({k: v for k, v in CONFIG.items() if k != "inference_config"}, dict(CONFIG)):
        if "inference_config" in config:
            config["inference_config"] = None
        path.write_text(json.dumps(config))
        assert VideoAlignConfig.read(path).norms == NORMS


def test_the_published_text_is_kept_to_the_last_blank() -> None:
    digests = {
        "video_align": "fdb6309bac618dd0c8b1b589d3a0970a974f7856eecbb355a190b2dce54af700",
        "hpsv3": "f6ee57479d4e9eee76b49c00dc962e1e696a5a2b3cc32cebd9b1fa76fe27502c",
    }
    for name, digest in digests.items():
        assert hashlib.sha256(template(name).encode()).hexdigest() == digest
    text = template("video_align")
    places = [text.index(token) for token in TOKENS]
    assert places == sorted(places)
    assert places[1] < text.index("{text_prompt}") < places[2]
