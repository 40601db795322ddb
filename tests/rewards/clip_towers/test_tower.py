import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from rewards import RewardError, load_reward
from rewards.clip_towers.open_clip_models import build_model, open_clip_config
from rewards.clip_towers.tower import ClipTower, load_tower
from rewards.core.preprocess import Preprocess
from rewards.core.tower_options import TowerOptions
from rewards.core.weight_file import WeightFile
from tests.rewards.tiny_clip import ARCHITECTURE, PROMPTS, flat_file, frames, hps_file, random_state

CPU = torch.device("cpu")


def tower(state: dict[str, Tensor], **options: Any) -> ClipTower:
    architecture = options.pop("architecture", ARCHITECTURE)
    file = WeightFile(Path("x"), state)
    return load_tower(file, TowerOptions(**options), architecture, Preprocess("crop", 32))


def vit_h_14() -> dict[str, tuple[int, ...]]:
    """The published names and shapes, written down from its sizes, not from open_clip."""
    expected: dict[str, tuple[int, ...]] = {
        "positional_embedding": (77, 1024),
        "text_projection": (1024, 1024),
        "logit_scale": (),
        "visual.class_embedding": (1280,),
        "visual.positional_embedding": (257, 1280),  # (224 / 14)**2 + 1
        "visual.proj": (1280, 1024),
        "visual.conv1.weight": (1280, 3, 14, 14),
        "token_embedding.weight": (49408, 1024),
    }
    for name, width in (("visual.ln_pre", 1280), ("visual.ln_post", 1280), ("ln_final", 1024)):
        expected |= {f"{name}.weight": (width,), f"{name}.bias": (width,)}
    for prefix, width, layers in (("visual.transformer", 1280, 32), ("transformer", 1024, 24)):
        for i in range(layers):
            block = f"{prefix}.resblocks.{i}"
            for norm in ("ln_1", "ln_2"):
                expected |= {f"{block}.{norm}.{p}": (width,) for p in ("weight", "bias")}
            expected |= {
                f"{block}.attn.in_proj_weight": (3 * width, width),
                f"{block}.attn.in_proj_bias": (3 * width,),
                f"{block}.attn.out_proj.weight": (width, width),
                f"{block}.attn.out_proj.bias": (width,),
                f"{block}.mlp.c_fc.weight": (4 * width, width),
                f"{block}.mlp.c_fc.bias": (4 * width,),
                f"{block}.mlp.c_proj.weight": (width, 4 * width),
                f"{block}.mlp.c_proj.bias": (width,),
            }
    return expected


def test_vit_h_14_has_the_published_keys_and_shapes() -> None:
    expected = vit_h_14()
    assert len(expected) == 686
    model = build_model(open_clip_config("ViT-H-14"), torch.device("meta"))
    assert {name: tuple(t.shape) for name, t in model.state_dict().items()} == expected
    assert sum(torch.Size(s).numel() for s in expected.values()) == 986_109_441
    published = {
        name: torch.empty(s, device="meta", dtype=torch.float16) for name, s in expected.items()
    }
    model.load_state_dict(published, strict=True, assign=True)


def test_loading_equals_open_clip_itself() -> None:
    """The meta-device way, with its restored causal mask, gives what an ordinary model gives."""
    state = random_state(ARCHITECTURE)
    ours = tower(state)
    reference = build_model(ARCHITECTURE, CPU).eval()
    reference.load_state_dict(state)
    x = frames(1, 3)[0]
    tokens = ours.tokenizer(PROMPTS)
    with torch.no_grad():
        image = reference.encode_image(Preprocess("crop", 32)(x), normalize=True)
        text = reference.encode_text(tokens, normalize=True)
    assert torch.equal(ours.image_features(x), image)
    # A frozen tower takes the fused attention, so not to the last bit.
    torch.testing.assert_close(ours.text_features(PROMPTS), text, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(image.norm(dim=-1), torch.ones(3))


def test_wrong_keys_are_refused_by_name() -> None:
    state = random_state(ARCHITECTURE)
    del state["visual.ln_pre.bias"]
    state["visual.extra"] = torch.ones(1)
    state["text_projection"] = torch.ones(2, 2)
    with pytest.raises(RewardError) as caught:
        tower(state)
    for part in (
        "1 missing: visual.ln_pre.bias",
        "1 unknown: visual.extra",
        "text_projection is (2, 2), not (16, 24)",
    ):
        assert part in str(caught.value)


def test_another_models_keys_are_refused(tmp_path: Path) -> None:
    prefixed = {f"module.{k}": v for k, v in random_state(ARCHITECTURE).items()}
    path = flat_file(tmp_path, prefixed)
    with pytest.raises(RewardError, match=r"missing: .*unknown: module"):
        load_reward("hps", path, architecture=ARCHITECTURE)


def test_an_architecture_must_come_from_somewhere(tmp_path: Path) -> None:
    state = random_state(ARCHITECTURE)
    path = flat_file(tmp_path, state)
    with pytest.raises(RewardError, match="does not state its architecture"):
        load_reward("clip", path)
    with pytest.raises(
        RewardError, match=r"unknown architecture 'ViT-H-15' of open_clip; did you mean .*ViT-H-14"
    ):
        load_reward("clip", path, architecture="ViT-H-15")
    with pytest.raises(RewardError, match="does not fit the architecture ViT-B-32"):
        load_reward("clip", path, architecture="ViT-B-32")
    with pytest.raises(RewardError, match="cannot build"):
        load_reward("clip", path, architecture={**ARCHITECTURE, "wings": 2})
    own = flat_file(tmp_path, state, architecture=json.dumps(ARCHITECTURE))
    assert load_reward("clip", own, architecture=ARCHITECTURE).name == "clip"
    with pytest.raises(RewardError, match="Remove architecture from the recipe"):
        load_reward("clip", own, architecture="ViT-B-32")


def test_a_text_is_encoded_once_and_without_gradient() -> None:
    judge = tower(random_state(ARCHITECTURE))
    calls: list[list[str]] = []
    tokenizer = judge.tokenizer
    judge.tokenizer = lambda texts: (calls.append(list(texts)), tokenizer(texts))[1]
    first = judge.text_features(["b", "a", "b"])
    again = judge.text_features(["a", "c"])
    assert calls == [["b"], ["a"], ["c"]]
    assert torch.equal(first[1], again[0])
    assert torch.equal(first[0], first[2])
    assert not first.requires_grad


def test_neighbours_do_not_change_a_text() -> None:
    """To the last bit: a resumed run meets other neighbours."""
    texts = [f"a text of its own, number {i}" * (1 + i % 3) for i in range(7)]
    together = tower(random_state(ARCHITECTURE)).text_features(texts)
    backwards = tower(random_state(ARCHITECTURE)).text_features(texts[::-1])
    assert torch.equal(together, backwards.flip(0))


def test_low_precision_towers_give_fp32_features() -> None:
    state = random_state(ARCHITECTURE)
    x, full = frames(2, 2)[0], tower(state)
    half = tower(state, dtype=torch.bfloat16)
    assert half.model.visual.conv1.weight.dtype == torch.bfloat16
    assert half.model.visual.ln_pre.weight.dtype == torch.float32
    for a, b in (
        (half.image_features(x), full.image_features(x)),
        (half.text_features(PROMPTS), full.text_features(PROMPTS)),
    ):
        assert a.dtype == torch.float32
        assert float((a - b).norm(dim=-1).max()) < 0.03  # bf16 has 8 bits
        # Normalised after the cast: exactly of length 1, which bf16 features are not.
        torch.testing.assert_close(a.norm(dim=-1), torch.ones(len(a)), rtol=0, atol=1e-6)


def test_half_checkpoints_load_into_fp32_towers(tmp_path: Path) -> None:
    state = random_state(ARCHITECTURE)
    half = load_reward("hps", hps_file(tmp_path, state), architecture=ARCHITECTURE)
    whole = load_reward("hps", flat_file(tmp_path, state), architecture=ARCHITECTURE)
    assert half.tower.model.visual.proj.dtype == torch.float32
    x = frames(1, 2, 20, 32)
    torch.testing.assert_close(half(x, ["a cat"]), whole(x, ["a cat"]), rtol=0, atol=2e-3)


def test_gradcheck_in_double(tmp_path: Path) -> None:
    path = flat_file(tmp_path, random_state(ARCHITECTURE))
    for kind in ("clip", "hps"):
        judge = load_reward(kind, path, architecture=ARCHITECTURE, dtype=torch.float64)
        x = frames(1, 2).double().requires_grad_()
        assert torch.autograd.gradcheck(lambda v, j=judge: j(v, ["a cat"]), x, fast_mode=True)


def test_gradient_checkpointing_changes_no_gradient(tmp_path: Path) -> None:
    path, x = flat_file(tmp_path, random_state(ARCHITECTURE)), frames(1, 2).requires_grad_()
    runs: dict[bool, int] = {}
    gradients = []
    for again in (False, True):
        judge = load_reward("clip", path, architecture=ARCHITECTURE, gradient_checkpointing=again)
        runs[again] = 0

        def count(*_: object, key: bool = again) -> None:
            runs[key] += 1

        judge.tower.model.visual.transformer.resblocks[0].register_forward_pre_hook(count)
        gradients.append(torch.autograd.grad(judge(x, ["a cat"]).sum(), x)[0])
    assert runs == {False: 1, True: 2}
    torch.testing.assert_close(gradients[0], gradients[1], rtol=0, atol=1e-9)


def test_quick_gelu_is_another_function() -> None:
    state, x = random_state(ARCHITECTURE), frames(1, 2)[0]
    plain = tower(state).image_features(x)
    quick = tower(state, architecture={**ARCHITECTURE, "quick_gelu": True}).image_features(x)
    assert float((plain - quick).norm(dim=-1).min()) > 1e-3
    assert open_clip_config("ViT-L-14-quickgelu")["quick_gelu"] is True
