from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import nn

from rewards import RewardError, load_reward
from rewards.clip_towers.open_clip_models import build_model
from rewards.kinds.aesthetic import affine
from rewards.networks.laion_head import build_head
from tests.rewards.tiny_clip import ARCHITECTURE, frames, random_state

# Written down from the published file: index -> (out, in) of the linear layers.
PUBLISHED_HEAD = {0: (1024, 768), 2: (128, 1024), 4: (64, 128), 6: (16, 64), 7: (1, 16)}


def files(folder: Path, **metadata: str) -> tuple[Path, Path, dict[str, torch.Tensor]]:
    """A tower, and a head saved as the published one: a plain OrderedDict in a ``.pth``."""
    save_file(random_state(ARCHITECTURE), folder / "tower.safetensors")
    torch.manual_seed(3)
    sizes = [24, 1024, 128, 64, 16, 1]
    state = {}
    for index, fan_in, fan_out in zip(PUBLISHED_HEAD, sizes, sizes[1:], strict=False):
        state[f"layers.{index}.weight"] = torch.randn(fan_out, fan_in) * fan_in**-0.5 * 1.5
        state[f"layers.{index}.bias"] = torch.randn(fan_out) * 0.1
    torch.save(state, folder / "head.pth")
    save_file(state, folder / "head.safetensors", metadata)
    return folder / "tower.safetensors", folder / "head.pth", state


def test_score_and_gradient_equal_a_sequential_on_open_clip(tmp_path: Path) -> None:
    tower, head, state = files(tmp_path)
    judge = load_reward("aesthetic", head, tower=tower, architecture=ARCHITECTURE, chunk=2)
    linear = [nn.Linear(*reversed(state[f"layers.{i}.weight"].shape)) for i in PUBLISHED_HEAD]
    for layer, i in zip(linear, PUBLISHED_HEAD, strict=True):
        layer.load_state_dict({p: state[f"layers.{i}.{p}"] for p in ("weight", "bias")})
    model = build_model(ARCHITECTURE, torch.device("cpu")).eval()
    model.load_state_dict(random_state(ARCHITECTURE))
    reference = nn.Sequential(*linear)
    mean = torch.tensor([0.48145466, 0.4578275, 0.40821073])[:, None, None]
    std = torch.tensor([0.26862954, 0.26130258, 0.27577711])[:, None, None]

    ours = frames(2, 3).requires_grad_()
    theirs = ours.detach().clone().requires_grad_()
    score = judge(ours, ["x", "y"])
    features = model.encode_image(((theirs - mean) / std).flatten(0, 1))
    expected = reference(F.normalize(features, dim=-1)).reshape(2, 3).mean(dim=1)
    torch.testing.assert_close(score, expected, rtol=1e-5, atol=1e-6)
    assert float((expected[0] - expected[1]).detach().abs()) > 1e-3
    (a,) = torch.autograd.grad(score.square().sum(), ours)
    (b,) = torch.autograd.grad(expected.square().sum(), theirs)
    assert float((a - b).norm() / b.norm()) < 1e-5


def test_the_prompt_does_not_matter_and_dropout_is_off(tmp_path: Path) -> None:
    tower, head, _ = files(tmp_path)
    judge = load_reward("aesthetic", head, tower=tower, architecture=ARCHITECTURE)
    x = frames(2, 2)
    assert torch.equal(judge(x, ["a cat", "a dog"]), judge(x, ["x", "y"]))


def test_head_is_one_affine_map() -> None:
    torch.manual_seed(0)
    head = build_head(24).eval()
    weight, bias = affine(head)
    x = torch.randn(5, 24)
    torch.testing.assert_close(head(x)[:, 0], x @ weight + bias)


def test_gradcheck_in_double(tmp_path: Path) -> None:
    tower, head, _ = files(tmp_path)
    options = {"tower": tower, "architecture": ARCHITECTURE, "dtype": torch.float64}
    judge = load_reward("aesthetic", head, **options)
    x = frames(1, 2).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda v: judge(v, ["x"]), x, fast_mode=True)


def test_a_head_names_the_tower_beside_it(tmp_path: Path) -> None:
    tower, head, _ = files(tmp_path, tower="tower.safetensors")
    named = load_reward("aesthetic", tmp_path / "head.safetensors", architecture=ARCHITECTURE)
    given = load_reward("aesthetic", head, tower=tower, architecture=ARCHITECTURE)
    x = frames(1, 2)
    torch.testing.assert_close(named(x, ["x"]), given(x, ["x"]))
    with pytest.raises(RewardError, match="does not state on which CLIP"):
        load_reward("aesthetic", head, architecture=ARCHITECTURE)


def test_a_foreign_head_is_refused(tmp_path: Path) -> None:
    tower, head, state = files(tmp_path)
    del state["layers.6.bias"]
    state["scoring_head.0.weight"] = torch.ones(1)
    torch.save(state, head)
    with pytest.raises(RewardError, match=r"missing: layers\.6\.bias.*unknown: scoring_head"):
        load_reward("aesthetic", head, tower=tower, architecture=ARCHITECTURE)
    torch.save(dict(build_head(768).state_dict()), head)
    with pytest.raises(RewardError, match=r"24 features.*layers\.0\.weight is \(1024, 768\)"):
        load_reward("aesthetic", head, tower=tower, architecture=ARCHITECTURE)
