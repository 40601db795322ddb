from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from rewards.core.tower_options import TowerOptions
from rewards.errors import RewardError
from rewards.kinds.hpsv3 import TOKEN, HpsV3Reward, build_head, load_hpsv3
from rewards.qwen.templates import template
from tests.rewards import tiny_qwen
from tests.rewards.options import taken
from tests.rewards.qwen.test_model import reference_states
from tests.rewards.tiny_qwen import PROMPTS, WIDTH, bytes_clips, old_name, write_folder

PIXELS = 56 * 84
CPU = torch.device("cpu")


def parts() -> tuple[Any, nn.Sequential]:
    built = tiny_qwen.model(len(tiny_qwen.tokenizer()) + 1)
    torch.manual_seed(4)
    head = build_head(WIDTH)
    nn.init.normal_(head[5].weight, std=0.5)
    return built, head


def state_of(built: Any, head: nn.Sequential) -> dict[str, Tensor]:
    """Under the old names, language head included, as the published file."""
    state = {old_name(name): tensor.clone() for name, tensor in built.state_dict().items()}
    return state | {f"rm_head.{name}": tensor for name, tensor in head.state_dict().items()}


def load(root: Path, state: dict[str, Tensor], **options: Any) -> HpsV3Reward:
    if not (root / "base").exists():
        write_folder(root / "base", tiny_qwen.model())
    save_file(state, root / "judge.safetensors")
    options = {"base": "base", "pixels": PIXELS, **options}
    return load_hpsv3("judge.safetensors", taken(options, folder=root), **options)


def test_mu_is_that_of_the_authors_model_for_every_frame(tmp_path: Path) -> None:
    built, head = parts()
    judge = load(tmp_path, state_of(built, head))
    clips = bytes_clips(2, 3, 56, 84)
    scores = judge.per_frame(clips.float() / 255, PROMPTS)
    assert scores.dtype == torch.float32
    reference = tiny_qwen.tower("image")
    reference.positions = "plain"
    reference.model, reference.tokenizer = built, judge.tower.tokenizer
    for row, prompt in enumerate(PROMPTS):
        text = template("hpsv3").replace("{text_prompt}", prompt)
        ids = judge.tower.tokenizer(judge.tower.conversation(text))["input_ids"]
        place = ids.index(judge.tower.tokenizer.convert_tokens_to_ids(TOKEN)) - len(ids)
        for frame in range(3):
            states = reference_states(reference, clips[row, frame : frame + 1], text)
            expected = head(states[place])[0]
            torch.testing.assert_close(scores[row, frame], expected, atol=2e-5, rtol=1e-4)


def test_the_head_is_read_layer_by_layer() -> None:
    _, head = parts()
    x = torch.randn(5, WIDTH)
    w = head.state_dict()
    hidden = (x @ w["0.weight"].T + w["0.bias"]).clamp(min=0)
    hidden = (hidden @ w["3.weight"].T + w["3.bias"]).clamp(min=0)
    torch.testing.assert_close(head(x), hidden @ w["5.weight"].T + w["5.bias"])


def test_gradient_batch_and_chunks(tmp_path: Path) -> None:
    judge = load(tmp_path, state_of(*parts()))
    frames = (bytes_clips(2, 2, 60, 90).float() / 255).requires_grad_()
    scores = judge(frames, PROMPTS)
    (gradient,) = torch.autograd.grad(scores.sum(), frames)
    sizes = gradient.flatten(2).norm(dim=2)
    assert float(sizes.min()) > 0.02 * float(sizes.max())
    judge.chunk = 1
    (chunked,) = torch.autograd.grad(judge(frames, PROMPTS).sum(), frames)
    torch.testing.assert_close(chunked, gradient, atol=1e-6, rtol=1e-4)
    alone = judge(frames[1:], PROMPTS[1:])
    torch.testing.assert_close(alone[0], scores[1], atol=1e-5, rtol=1e-5)
    better = (frames + 0.02 * gradient.sign()).clamp(0, 1)
    assert float((judge(better, PROMPTS) - scores).detach().min()) > 0
    features = judge.clip_features(frames)
    assert features.shape == (2, WIDTH)


def test_the_head_stays_fp32_under_a_bfloat16_tower(tmp_path: Path) -> None:
    judge = load(tmp_path, state_of(*parts()), dtype=torch.bfloat16)
    assert {p.dtype for p in judge.head.parameters()} == {torch.float32}
    assert {p.dtype for p in judge.tower.model.parameters()} == {torch.bfloat16}
    assert judge(bytes_clips(1, 1, 56, 84).float() / 255, PROMPTS[:1]).dtype == torch.float32


@pytest.mark.parametrize(
    ("edit", "named"),
    [
        (lambda s: s.pop("rm_head.3.bias"), r"missing: 3\.bias"),
        (lambda s: s.pop("visual.blocks.1.norm2.bias"), r"visual\.blocks\.1\.norm2\.bias"),
        (lambda s: s.update({"model.layers.2.mlp.x.weight": torch.ones(1)}), r"layers\.2\.mlp\.x"),
        (lambda s: s.pop("model.embed_tokens.weight"), r"lacks .*embed_tokens"),
        (lambda s: s.update({"model.embed_tokens.weight": torch.ones(())}), r"lacks .*embed_tok"),
    ],
)
def test_other_files_are_refused_by_name(tmp_path: Path, edit: Any, named: str) -> None:
    state = state_of(*parts())
    edit(state)
    with pytest.raises(RewardError, match=named):
        load(tmp_path, state)


def test_embeddings_without_the_judges_token_are_refused(tmp_path: Path) -> None:
    head = build_head(WIDTH)
    with pytest.raises(RewardError, match="embeddings"):
        load(tmp_path, state_of(tiny_qwen.model(), head))
    with pytest.raises(RewardError, match=r"hf download MizzenAI/HPSv3 HPSv3\.safetensors"):
        load_hpsv3("hpsv3", TowerOptions(folder=tmp_path))


def test_pixels_that_are_no_number_are_refused(tmp_path: Path) -> None:
    load(tmp_path, state := state_of(*parts()))
    save_file(state, tmp_path / "word.safetensors", {"pixels": "many"})
    with pytest.raises(RewardError, match="has pixels 'many' in its metadata"):
        load_hpsv3("word.safetensors", TowerOptions(folder=tmp_path), base="base")
