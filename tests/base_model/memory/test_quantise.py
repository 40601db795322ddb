"""Packed weights: the formats' own arithmetic, exact gradients, and what is kept for backward."""

import importlib.util
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from base_model.errors import GeneratorError
from base_model.generator import load_generator
from base_model.memory import quantise
from base_model.memory.quantise import Quantise, QuantisedLinear, quantised, require

HAS_LIBRARY = importlib.util.find_spec("bitsandbytes") is not None
needs_library = pytest.mark.skipif(not HAS_LIBRARY, reason="needs bitsandbytes (extra: quantise)")
KINDS = [
    pytest.param("int8", marks=needs_library),
    pytest.param("nf4", marks=needs_library),
    "fp8",
]
# QLoRA (arXiv 2305.14314), appendix E: the sixteen levels of NormalFloat4.
NF4 = [
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635,
    -0.18477343022823334, -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725,
    0.24611230194568634, 0.33791524171829224, 0.44070982933044434, 0.5626170039176941,
    0.7229568362236023, 1.0,
]  # fmt: skip


def weight(out: int = 48, inner: int = 128) -> Tensor:
    return torch.randn(out, inner, generator=torch.Generator().manual_seed(1))


def by_hand(kind: Quantise, w: Tensor) -> Tensor:
    """The weight as the format rounds it, from its definition."""
    if kind == "int8":
        w = w.half().float()  # the library's kernels take float16
        scale = w.abs().amax(dim=1, keepdim=True) / 127
        return (w / scale).round() * scale
    if kind == "fp8":
        scale = w.abs().amax(dim=1, keepdim=True) / 448  # 448 is the largest e4m3 number
        x = w / scale
        exponent = x.abs().log2().floor().clamp_min(-6)  # normal numbers begin at 2^-6
        step = 2 ** (exponent - 3)  # three bits of mantissa
        return (x / step).round() * step * scale
    blocks = w.reshape(-1, 64)
    scale = blocks.abs().amax(dim=1, keepdim=True)
    levels = torch.tensor(NF4)
    nearest = ((blocks / scale).unsqueeze(-1) - levels).abs().argmin(dim=-1)
    return (levels[nearest] * scale).reshape(w.shape)


@pytest.mark.parametrize("kind", KINDS)
def test_the_weight_is_the_formats_rounding(kind: Quantise) -> None:
    w = weight()
    layer = QuantisedLinear(w, kind)
    assert layer.weight.shape == w.shape
    torch.testing.assert_close(layer.weight, by_hand(kind, w), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_bytes(kind: Quantise) -> None:
    layer, bits = QuantisedLinear(weight(256, 1024), kind), 4 if kind == "nf4" else 8
    numbers = 256 * 1024
    stored = sum(t.nbytes for t in layer.packed)
    assert numbers * bits / 8 <= stored < numbers * (bits + 0.6) / 8
    assert not list(layer.parameters())
    assert not layer.state_dict()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_product_and_gradient_are_those_of_that_weight(kind: Quantise, dtype: torch.dtype) -> None:
    layer = QuantisedLinear(weight().to(dtype), kind)
    layer.bias = nn.Parameter(torch.linspace(-1, 1, 48, dtype=dtype), requires_grad=False)
    draw = torch.Generator().manual_seed(2)
    x = torch.randn(2, 5, 128, generator=draw).to(dtype).requires_grad_()
    other = x.detach().clone().requires_grad_()
    got, expected = layer(x), F.linear(other, layer.weight, layer.bias)
    assert got.dtype == dtype
    assert torch.equal(got, expected)
    g = torch.randn(got.shape, generator=draw).to(dtype)
    got.backward(g)
    expected.backward(g)
    assert x.grad is not None
    assert other.grad is not None
    torch.testing.assert_close(x.grad, other.grad)


@pytest.mark.parametrize("kind", KINDS)
def test_autograd_keeps_the_packed_weight_alone(kind: Quantise) -> None:
    layer = QuantisedLinear(weight(), kind)
    saved: list[Tensor] = []

    def pack(tensor: Tensor) -> Tensor:
        saved.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        layer(torch.ones(1, 128, requires_grad=True))
    assert {t.data_ptr() for t in saved} == {t.data_ptr() for t in layer.packed}


@pytest.mark.parametrize("kind", KINDS)
def test_rows_of_zeros(kind: Quantise) -> None:
    w = weight()
    w[3] = 0
    layer = QuantisedLinear(w, kind)
    assert torch.equal(layer.weight[3], torch.zeros(128))
    assert layer.weight.isfinite().all()


def test_only_linear_layers_are_replaced() -> None:
    model = nn.Sequential(nn.LayerNorm(64), nn.Linear(64, 8)).requires_grad_(False)
    bias = model[1].bias
    assert not quantised(model, "0.weight", torch.ones(64), "fp8", "cpu")
    assert not quantised(model, "1.bias", torch.ones(8), "fp8", "cpu")
    assert quantised(model, "1.weight", torch.ones(8, 64), "fp8", "cpu")
    layer = model[1]
    assert isinstance(layer, QuantisedLinear)
    assert layer.bias is bias
    assert torch.equal(layer(torch.ones(64)), 64 + bias)
    assert "64, out_features=8, fp8" in repr(layer)


@pytest.mark.parametrize("kind", KINDS)
def test_a_loaded_transformer(checkpoint: Path, kind: Quantise) -> None:
    generator = load_generator(checkpoint, text_encoder=False, quantise=kind)
    reference = load_generator(checkpoint, text_encoder=False).transformer
    inside = 0
    for path, module in reference.named_modules():
        other = generator.transformer.get_submodule(path)
        if isinstance(module, nn.Linear):
            packed = path.startswith("transformer_blocks.")
            inside += packed
            assert isinstance(other, QuantisedLinear) == packed, path
            assert torch.equal(other.bias, module.bias)
    assert inside == 2 * 14 + 2 * 8  # two MMDiT blocks, two with one stream
    layer = generator.transformer.transformer_blocks[0].ff.net[2]
    w = reference.transformer_blocks[0].ff.net[2].weight
    torch.testing.assert_close(layer.weight, by_hand(kind, w), rtol=1e-6, atol=1e-6)
    assert not any(p.requires_grad or p.is_meta for p in generator.transformer.parameters())


def test_a_missing_library_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    monkeypatch.setitem(sys.modules, "bitsandbytes.functional", None)
    quantise._bitsandbytes.cache_clear()
    for kind in ("int8", "nf4"):
        with pytest.raises(GeneratorError, match=r"need bitsandbytes.*pip install .bitsandbytes"):
            require(kind, "cpu")  # type: ignore[arg-type]
    require("fp8", "cpu")


def test_what_a_build_cannot_do_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """PyTorch's own refusal, of a factorisation in half precision on the CPU."""

    class Unable:
        def pack(self, weight: Tensor) -> tuple[Tensor, ...]:
            return tuple(torch.linalg.qr(weight.half()))

        def unpack(self, packed: object, shape: object, dtype: object) -> Tensor:
            raise AssertionError

    monkeypatch.setattr(quantise, "_CODECS", {"fp8": Unable(), "nf4": Unable()})
    with pytest.raises(
        GeneratorError,
        match=r"quantise=fp8: the installed PyTorch does not support it on cpu \(.*Half",
    ):
        require("fp8", "cpu")
    with pytest.raises(GeneratorError, match=r"the installed bitsandbytes does not .*kind \(fp8\)"):
        require("nf4", "cpu")
