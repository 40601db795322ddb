"""Products in 8 bits: the integer arithmetic by hand, and what a rotation is for."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from base_model.errors import GeneratorError
from base_model.memory.eight_bit_compute import EightBitCompute, hadamard, rotated
from base_model.memory.quantise import Quantise, QuantisedLinear, require

CPU = torch.device("cpu")
KINDS: list[Quantise] = ["int8-compute", "fp8-compute"]
DTYPES = {"int8-compute": torch.int8, "fp8-compute": torch.float8_e4m3fn}
# Relative errors of a product of normal numbers: two roundings of about 2^-8 of the largest of a
# row (int8), or of 2^-4 of each number (float8).
ERROR = {"int8-compute": 0.015, "fp8-compute": 0.05}


def normal(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def off(got: Tensor, expected: Tensor) -> float:
    return ((got - expected).norm() / expected.norm()).item()


def test_the_integers_by_hand() -> None:
    """Without rotation: round(127 x / max|x|) in both, one sum of integers, two scales."""
    codec, x, w, g = EightBitCompute(torch.int8, 1), normal(20, 32), normal(24, 32), normal(20, 24)
    packed = codec.pack(w)
    of_x, of_w = (t.abs().amax(dim=1, keepdim=True) / 127 for t in (x, w))
    whole_x, whole_w = (x / of_x).round().long(), (w / of_w).round().long()
    expected = (whole_x @ whole_w.T).double() * of_x.double() * of_w.double().T
    torch.testing.assert_close(codec.product(x, packed).double(), expected, rtol=1e-6, atol=1e-6)
    g_scaled = g * of_w.T  # the rows' scales, in the gradient
    of_g = g_scaled.abs().amax(dim=1, keepdim=True) / 127
    expected = ((g_scaled / of_g).round().long() @ whole_w).double() * of_g.double()
    torch.testing.assert_close(codec.gradient(g, packed).double(), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("size", [1, 2, 8, 128])
def test_a_rotation_is_orthogonal_and_its_own_inverse(size: int) -> None:
    matrix = hadamard(size, CPU, torch.float64)
    assert (matrix.abs() == 1 / math.sqrt(size)).all()
    torch.testing.assert_close(matrix @ matrix, torch.eye(size, dtype=torch.float64))
    assert torch.equal(matrix, matrix.T)


def test_groups_of_channels() -> None:
    x = torch.zeros(1, 24)
    x[0, 9] = 4.0
    y = rotated(x, 128)  # 24 is no power of two: groups of 8
    assert (y[0, 8:16].abs() - math.sqrt(2)).abs().max() < 1e-6
    assert not y[0, :8].any()
    assert not y[0, 16:].any()
    torch.testing.assert_close(rotated(y, 128), x)
    assert rotated(normal(2, 9), 128).equal(normal(2, 9))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("tokens", [2, 40])
def test_a_layer(kind: Quantise, dtype: torch.dtype, tokens: int) -> None:
    """Near the full product, forward and backward; of few rows that of the unpacked weight."""
    w, bias = normal(48, 128), torch.linspace(-1, 1, 48)
    layer = QuantisedLinear(w.to(dtype), kind)
    layer.bias = nn.Parameter(bias.to(dtype), requires_grad=False)
    x = normal(2, tokens, 128, seed=2).to(dtype).requires_grad_()
    other = x.detach().float().requires_grad_()
    got, expected = layer(x), F.linear(other, w, bias)
    assert got.dtype == dtype
    g = normal(2, tokens, 48, seed=3).to(dtype)
    got.backward(g)
    expected.backward(g.float())
    assert x.grad is not None
    assert other.grad is not None
    assert 0 < off(got.float(), expected) < ERROR[kind]
    assert 0 < off(x.grad.float(), other.grad) < ERROR[kind]
    exact = F.linear(x.flatten(0, 1), layer.weight) + layer.bias
    if tokens == 2:  # four rows
        assert torch.equal(got.flatten(0, 1), exact)
    else:
        assert off(got.flatten(0, 1).float(), exact.float()) > 5e-3


@pytest.mark.parametrize("kind", KINDS)
def test_the_weight_is_read_back_unrotated(kind: Quantise) -> None:
    w = normal(48, 128)
    w[3] = 0
    layer = QuantisedLinear(w, kind)
    assert off(layer.weight, w) < ERROR[kind]
    assert torch.equal(layer.weight[3], w[3])
    assert sum(t.nbytes for t in layer.packed) == 48 * 128 + 48 * 4
    x = normal(20, 128)
    x[5] = 0
    assert torch.equal(layer(x)[5], torch.zeros(48))
    assert layer(x).isfinite().all()


def test_a_rotation_spreads_an_outlier() -> None:
    """A channel 50 times as large takes the range from all others, unless it is spread."""
    x, w = normal(32, 256), normal(64, 256, seed=2)
    x[:, 7] *= 50
    w[:, 7] /= 50  # so that the others decide the product
    errors = []
    for group in (1, 128):
        codec = EightBitCompute(torch.int8, group)
        errors.append(off(codec.product(x, codec.pack(w)), x @ w.T))
    assert errors[1] < errors[0] / 4


def test_a_backward_pass_in_full() -> None:
    w, g = normal(48, 128), normal(20, 48, seed=3)
    codec = EightBitCompute(torch.int8, exact_backward=True)
    packed = codec.pack(w)
    expected = g @ codec.unpack(packed, (48, 128), torch.float32)
    assert torch.equal(codec.gradient(g, packed), expected)
    assert off(EightBitCompute(torch.int8).gradient(g, packed), expected) > 1e-3


@pytest.mark.parametrize("kind", KINDS)
def test_autograd_keeps_the_packed_weight_alone(kind: Quantise) -> None:
    layer, saved = QuantisedLinear(normal(48, 128), kind), list[Tensor]()

    def pack(tensor: Tensor) -> Tensor:
        saved.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        layer(torch.ones(20, 128, requires_grad=True))
    assert {t.data_ptr() for t in saved} == {t.data_ptr() for t in layer.packed}


@pytest.mark.parametrize("kind", KINDS)
def test_a_gradient_that_lies_transposed(kind: Quantise) -> None:
    codec = EightBitCompute(DTYPES[kind])
    packed, g = codec.pack(normal(48, 128)), normal(48, 20).T
    assert torch.equal(codec.gradient(g, packed), codec.gradient(g.contiguous(), packed))


@pytest.mark.parametrize(("kind", "unit"), [("int8-compute", 8), ("fp8-compute", 16)])
def test_shapes_without_a_kernel_are_refused(kind: Quantise, unit: int) -> None:
    QuantisedLinear(normal(unit, 3 * unit), kind)
    with pytest.raises(GeneratorError, match=f"24 inputs and {unit + 4} outputs.* of {unit}"):
        QuantisedLinear(normal(unit + 4, 24), kind)


@pytest.mark.parametrize("kind", KINDS)
def test_a_device_without_the_product_is_told(
    kind: Quantise, monkeypatch: pytest.MonkeyPatch
) -> None:
    require(kind, "cpu")

    def old(*arguments: object, **options: object) -> Tensor:
        raise RuntimeError("needs compute capability 8.9")

    for name in ("_int_mm", "_scaled_mm"):
        monkeypatch.setattr(torch, name, old)
    with pytest.raises(GeneratorError, match=f"quantise={kind}: the installed PyTorch .*8.9"):
        require(kind, "cpu")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("kind", KINDS)
def test_on_a_gpu(kind: Quantise) -> None:
    codec, w, x, g = (
        EightBitCompute(DTYPES[kind]),
        normal(256, 512),
        normal(80, 512),
        normal(80, 256),
    )
    here, there = codec.pack(w), tuple(t.cuda() for t in codec.pack(w))
    assert off(codec.product(x.cuda(), there).cpu(), codec.product(x, here)) < 1e-3
    assert off(codec.gradient(g.cuda(), there).cpu(), codec.gradient(g, here)) < 1e-3
