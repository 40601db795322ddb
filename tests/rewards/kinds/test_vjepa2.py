"""V-JEPA 2's surprise against direct calls of transformers' model with random weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor

from rewards import RewardError
from rewards.core.preprocess import Preprocess
from rewards.core.tower_options import TowerOptions
from rewards.core.weight_file import check_keys
from rewards.kinds.vjepa2 import (
    VJepa2,
    build_vjepa2,
    encode,
    load_vjepa2,
    predict,
    vjepa2_preprocess,
)
from tests.rewards.tiny_clip import frames

CONFIG: dict[str, Any] = {
    "model_type": "vjepa2",
    "crop_size": 32,
    "patch_size": 8,
    "tubelet_size": 2,
    "frames_per_clip": 8,
    "hidden_size": 36,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "pred_hidden_size": 24,
    "pred_num_hidden_layers": 2,
    "pred_num_attention_heads": 2,
    "pred_num_mask_tokens": 2,
}
CPU = torch.device("cpu")
PLACES = 16  # of a tubelet: (32 / 8) squared


def random_model(seed: int = 0) -> Any:
    torch.manual_seed(seed)
    model = build_vjepa2(CONFIG, CPU).eval()
    with torch.no_grad():
        for parameter in model.parameters():  # mask tokens start at 0, weights at 0.02
            parameter.add_(0.1 * torch.randn(parameter.shape))
    return model


def written(folder: Path, model: Any, config: dict[str, Any] | None = None) -> Path:
    folder.mkdir()
    save_file(
        {k: v.contiguous() for k, v in model.state_dict().items()}, folder / "model.safetensors"
    )
    (folder / "config.json").write_text(json.dumps(config or CONFIG))
    return folder


def direct_surprise(model: Any, pixels: Tensor, known: int, *, backwards: bool) -> Tensor:
    """By `VJEPA2Model` alone: the known tubelets encoded by themselves, the rest foretold."""
    count, tubelets = len(pixels), pixels.shape[1] // 2
    whole = model(pixels, skip_predictor=True).last_hidden_state
    order = torch.arange(tubelets * PLACES).expand(count, -1)
    cut = known * PLACES
    if backwards:
        context, target = order[:, -cut:], order[:, :-cut]
        seen = pixels[:, -2 * known :]
    else:
        context, target = order[:, :cut], order[:, cut:]
        seen = pixels[:, : 2 * known]
    # A part at its place: each block may be told the positions, as the predictor tells its own.
    handles = [
        layer.register_forward_pre_hook(lambda _, given: (given[0], context))
        for layer in model.encoder.layer
    ]
    alone = torch.zeros_like(whole)
    alone[:, context[0]] = model(seen, skip_predictor=True).last_hidden_state
    for handle in handles:
        handle.remove()
    foretold = model.predictor(alone, [context], [target]).last_hidden_state
    targets = F.layer_norm(whole[:, target[0]], (whole.shape[-1],))
    return (foretold - targets).abs().mean(dim=(1, 2))


@pytest.mark.parametrize("both_ways", [False, True])
def test_the_surprise_is_that_of_direct_calls(both_ways: bool) -> None:
    model = random_model()
    judge = VJepa2(model, vjepa2_preprocess(32), [0.5, 0.7], both_ways=both_ways)
    clips = frames(2, 8, 40, 52)
    pixels = judge.pixels(clips)
    directions = (False, True) if both_ways else (False,)
    expected = torch.stack(
        [
            direct_surprise(model, pixels, known, backwards=way)
            for known in (2, 3)  # 0.5 and 0.7 of four tubelets, rounded up
            for way in directions
        ]
    ).mean(dim=0)
    torch.testing.assert_close(judge(clips, ["-", "-"]), -expected, rtol=0, atol=1e-6)


def test_what_is_foretold_from_a_whole_clip_is_what_the_models_own_call_foretells() -> None:
    model = random_model()
    pixels = torch.randn(2, 8, 3, 32, 32)
    order = torch.arange(4 * PLACES)
    known, unknown = order[: 2 * PLACES], order[2 * PLACES :]
    own = model(pixels, [known.expand(2, -1)], [unknown.expand(2, -1)]).predictor_output
    foretold = predict(model, encode(model, pixels, order)[:, : 2 * PLACES], known, unknown)
    torch.testing.assert_close(foretold, own.last_hidden_state, rtol=0, atol=0)


def test_places_matter_and_the_first_ones_are_the_models_own() -> None:
    model = random_model()
    pixels = torch.randn(1, 4, 3, 32, 32)
    first, last = torch.arange(4 * PLACES).split(2 * PLACES)
    own = model(pixels, skip_predictor=True).last_hidden_state
    torch.testing.assert_close(encode(model, pixels, first), own, rtol=0, atol=0)
    assert float((encode(model, pixels, last) - own).detach().abs().max()) > 1e-3


@pytest.mark.parametrize("count", [3, 8, 9])
def test_the_gradient_reaches_every_frame(count: int) -> None:
    judge = VJepa2(random_model(), vjepa2_preprocess(32))
    x = frames(1, count).requires_grad_()
    (g,) = torch.autograd.grad(judge(x, ["-"]).sum(), x)
    assert float(g.flatten(2).norm(dim=2).min()) > 0
    one_way = VJepa2(judge.model, judge.preprocess, both_ways=False)
    (g,) = torch.autograd.grad(one_way(x, ["-"]).sum(), x)
    # Targets are constants: the frames that are foretold get none.
    assert g.flatten(2).norm(dim=2)[0, -1] == 0


def test_an_odd_clip_begins_with_its_first_frame_twice() -> None:
    judge = VJepa2(random_model(), vjepa2_preprocess(32))
    pixels = judge.pixels(frames(1, 5))
    assert pixels.shape == (1, 6, 3, 32, 32)
    assert torch.equal(pixels[:, 0], pixels[:, 1])
    assert not torch.equal(pixels[:, 1], pixels[:, 2])


def test_recomputed_blocks_change_no_number_and_keep_less(tmp_path: Path) -> None:
    folder = written(tmp_path / "vjepa2", random_model())
    x = frames(2, 8).requires_grad_()
    kept, found = [], []
    for checkpointing in (False, True):
        judge = load_vjepa2(folder, TowerOptions(gradient_checkpointing=checkpointing))
        count = [0]

        def pack(tensor: Tensor, count: list[int] = count) -> Tensor:
            count[0] += tensor.numel()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            score = judge(x, ["-", "-"])
        kept.append(count[0])
        found.append((score, *torch.autograd.grad(score.sum(), x)))
    torch.testing.assert_close(found[0], found[1])
    assert kept[1] < kept[0] / 2


@pytest.mark.parametrize(("height", "width"), [(40, 52), (61, 33), (96, 96), (300, 333)])
def test_preprocessing_is_that_of_the_models_processor(height: int, width: int) -> None:
    from transformers import VJEPA2VideoProcessor

    from rewards.core.torchvision_import import ensure_torchvision_importable

    ensure_torchvision_importable()
    processor = VJEPA2VideoProcessor(crop_size=32)
    clip = frames(1, 2, height, width)[0]
    expected = processor(list(clip[None]), return_tensors="pt", do_rescale=False, device="cpu")
    found = vjepa2_preprocess(32)(clip)
    torch.testing.assert_close(found, expected["pixel_values_videos"][0], rtol=0, atol=1e-5)


def test_the_published_preprocessing() -> None:
    assert vjepa2_preprocess(256).shortest == 292
    assert vjepa2_preprocess(384).shortest == 438


def test_ascent_on_pixels_lowers_the_surprise() -> None:
    judge = VJepa2(random_model(), vjepa2_preprocess(32))
    x = frames(1, 8)
    before = float(judge(x, ["-"]))
    for _ in range(10):
        x = x.detach().requires_grad_()
        (g,) = torch.autograd.grad(judge(x, ["-"]).sum(), x)
        x = (x + 0.5 * g / g.norm()).clamp(0, 1)
    assert float(judge(x.detach(), ["-"])) > before + 1e-3


def test_clips_do_not_mix() -> None:
    judge = VJepa2(random_model(), vjepa2_preprocess(32))
    x = frames(2, 4)
    alone = torch.cat([judge(x[i : i + 1], ["-"]) for i in range(2)])
    torch.testing.assert_close(judge(x, ["-", "-"]), alone)
    judge.chunk = 1
    torch.testing.assert_close(judge(x, ["-", "-"]), alone)


def test_a_folder_is_loaded_in_any_dtype(tmp_path: Path) -> None:
    model = random_model()
    folder = written(tmp_path / "vjepa2", model)
    x = frames(1, 4)
    judge = load_vjepa2("vjepa2", TowerOptions(folder=tmp_path))
    expected = VJepa2(model, vjepa2_preprocess(32))(x, ["-"])
    assert torch.equal(judge(x, ["-"]), expected)
    assert not any(parameter.requires_grad for parameter in judge.model.parameters())
    low = load_vjepa2(folder, TowerOptions(dtype=torch.bfloat16))(x, ["-"])
    assert low.dtype == torch.float32
    assert float(low) == pytest.approx(float(expected), rel=0.05)


def test_full_size_keys_and_wrong_ones() -> None:
    model = build_vjepa2({}, torch.device("meta"))  # transformers' defaults are ViT-L
    shapes = {name: tensor.shape for name, tensor in model.state_dict().items()}

    def block(width: int) -> int:  # four projections, an MLP of four times the width, two norms
        return 4 * (width * width + width) + 8 * width * width + 5 * width + 4 * width

    encoder = (3 * 2 * 16 * 16 + 1) * 1024 + 24 * block(1024) + 2 * 1024
    predictor = 10 * 384 + (1024 + 1) * 384 + 12 * block(384) + 2 * 384 + (384 + 1) * 1024
    assert sum(shape.numel() for shape in shapes.values()) == encoder + predictor
    assert len(shapes) == 2 + 24 * 16 + 2 + 1 + 2 + 12 * 16 + 2 + 2
    for name in (
        "encoder.embeddings.patch_embeddings.proj.weight",
        "encoder.layer.23.attention.query.weight",
        "predictor.embeddings.mask_tokens",
        "predictor.layer.11.mlp.fc2.bias",
    ):
        assert name in shapes
    state = {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}
    check_keys(shapes, state, "a V-JEPA 2", Path("x"))


def test_other_files_are_refused(tmp_path: Path) -> None:
    model = random_model()
    state = {k: v.contiguous() for k, v in model.state_dict().items()}
    folder = written(tmp_path / "vjepa2", model)
    probe = {f"vjepa2.{name}": tensor for name, tensor in state.items()}
    save_file(probe, folder / "model.safetensors")
    with pytest.raises(
        RewardError, match=r"V-JEPA 2 of width 36: 75 missing: .*75 unknown: vjepa2"
    ):
        load_vjepa2(folder, TowerOptions())
    other = written(tmp_path / "wide", model, {**CONFIG, "hidden_size": 48})
    with pytest.raises(RewardError, match=r"of another shape: encoder.*is .*36.*, not .*48"):
        load_vjepa2(other, TowerOptions())
    (folder / "config.json").write_text(json.dumps({"model_type": "videomae"}))
    with pytest.raises(RewardError, match="model_type 'videomae'; expected vjepa2"):
        load_vjepa2(folder, TowerOptions())
    (folder / "config.json").unlink()
    with pytest.raises(RewardError, match=r"config.json is missing.*hf download"):
        load_vjepa2(folder, TowerOptions())
    with pytest.raises(
        RewardError, match=r"hf download facebook/vjepa2-vitl-fpc64-256 model\.safe"
    ):
        load_vjepa2("facebook/vjepa2-vitl-fpc64-256", TowerOptions(folder=tmp_path))


@pytest.mark.parametrize("contexts", [[], [0.0], [1.0], [0.5, 1.5]])
def test_contexts_that_leave_nothing_are_refused(contexts: list[float]) -> None:
    with pytest.raises(RewardError, match="at least one fraction between 0 and 1"):
        VJepa2(random_model(), Preprocess("crop", 32), contexts)
