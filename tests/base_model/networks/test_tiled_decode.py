import copy
import math
import random
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from base_model.errors import GeneratorError
from base_model.files.shipped import resolve_checkpoint
from base_model.generator import Generator
from base_model.loading.checkpoint import load_vae, local_folder
from base_model.networks import magvit, magvit_clip, magvit_decoder, tiled_decode
from base_model.networks.tiled_decode import Source, Tiling, _starts, decode_tiled
from base_model.tiny.render import render
from base_model.tiny.scenes import draw_scenes
from tests.goldens import load_golden, relative

TILING = Tiling(tile=8, overlap=3)


@pytest.fixture(scope="module")
def vae() -> Any:
    return load_vae(local_folder(resolve_checkpoint("tiny"), text_encoder=False))


@pytest.fixture(scope="module")
def latents(vae: Any) -> Tensor:
    """Two clips of 5 frames beside each other, cut to 64 x 96: 8 x 12 latents."""
    rng = random.Random(0)
    left, right = render(draw_scenes(2, rng), rng)[:, :5]
    clip = torch.cat([left, right], dim=-1)[None, ..., 16:112]
    with torch.no_grad():
        return magvit.encode(vae, clip)


@pytest.fixture(scope="module")
def whole(vae: Any, latents: Tensor) -> Tensor:
    with torch.no_grad():
        return magvit.decode(vae, latents)


def psnr(a: Tensor, b: Tensor) -> float:
    return -10 * math.log10((a - b).square().mean().item())


@pytest.mark.parametrize(("statistics", "decibels"), [("whole", 40), ("thinned", 28)])
def test_tiles_against_one_piece(
    vae: Any, latents: Tensor, whole: Tensor, statistics: Source, decibels: float
) -> None:
    with torch.no_grad():
        tiled = decode_tiled(vae, latents, tiling=TILING, statistics=statistics)
    assert tiled.shape == whole.shape == (1, 5, 3, 64, 96)
    print(f"{statistics}: {psnr(tiled, whole):.1f} dB")
    assert psnr(tiled, whole) > decibels


def test_tiles_with_statistics_of_their_own_are_far_off(
    vae: Any, latents: Tensor, whole: Tensor
) -> None:
    """Why they are shared. The left 5 latents are of the first tile alone."""
    with torch.no_grad():
        alone = magvit.decode(vae, latents[..., :8])[..., :32]
        shared = decode_tiled(vae, latents, tiling=TILING, statistics="whole")[..., :32]
    print(f"its own statistics: {psnr(alone, whole[..., :32]):.1f} dB")
    assert psnr(shared, whole[..., :32]) > psnr(alone, whole[..., :32]) + 10


def test_one_tile_is_exact(vae: Any, latents: Tensor, whole: Tensor) -> None:
    with torch.no_grad():
        assert torch.equal(decode_tiled(vae, latents), whole)


def test_a_window_of_frames(vae: Any, latents: Tensor) -> None:
    with torch.no_grad():
        tiled = decode_tiled(vae, latents, tiling=TILING)
        window = decode_tiled(vae, latents, slice(2, 4), tiling=TILING)
    torch.testing.assert_close(window, tiled[:, 2:4], atol=1e-5, rtol=0)


def gradient(decode: Callable[[Tensor], Tensor], latents: Tensor) -> Tensor:
    """Of a random weighted sum of two frames, the second of which is of the second latent."""
    height, width = (8 * n for n in latents.shape[-2:])
    weight = torch.randn(1, 2, 3, height, width, generator=torch.Generator().manual_seed(0))
    x = latents.clone().requires_grad_()
    return torch.autograd.grad((decode(x) * weight).sum(), x)[0]


@pytest.mark.slow
def test_the_gradient_is_near_that_of_one_piece(vae: Any, latents: Tensor) -> None:
    """Not equal: the statistics are constants."""
    frames = slice(0, 2)
    one = gradient(lambda x: magvit.decode(vae, x, frames), latents)
    tiled = gradient(
        lambda x: decode_tiled(vae, x, frames, tiling=TILING, statistics="whole"), latents
    )
    cosine = torch.cosine_similarity(one.flatten(), tiled.flatten(), dim=0).item()
    print(f"cosine of the gradients: {cosine:.4f}, relative error {relative(tiled, one):.3f}")
    assert cosine > 0.95


def test_the_gradient_is_that_without_checkpoints(
    generator: Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The backward pass repeats each tile with the shared statistics, and leaves no hook."""
    latents = load_golden("vae").tensors["out.moments"][:, :16, :2] * 0.7125

    def decode(x: Tensor) -> Tensor:
        return decode_tiled(generator.vae, x, slice(0, 2), tiling=Tiling(tile=4, overlap=2))

    with_checkpoints = gradient(decode, latents)
    hooks = [(m._forward_hooks, m._forward_pre_hooks) for m in generator.vae.modules()]
    assert not any(a or b for a, b in hooks)
    for module in (tiled_decode, magvit_clip, magvit_decoder):
        monkeypatch.setattr(module, "checkpoint", lambda run, *arguments, **_: run(*arguments))
    assert relative(with_checkpoints, gradient(decode, latents)) < 1e-5


@pytest.mark.parametrize("statistics", ["whole", "thinned"])
def test_the_gradient_is_the_finite_difference_at_fixed_statistics(
    generator: Generator, statistics: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In float64, along a random direction; with statistics that follow it, it is another."""
    vae = copy.deepcopy(generator.vae).double()
    latents = load_golden("vae").tensors["out.moments"][:, :16, :2].double() * 0.3
    draw = torch.Generator().manual_seed(1)
    direction = torch.randn(latents.shape, generator=draw, dtype=torch.float64)
    weight = torch.randn(1, 5, 3, 32, 48, generator=draw, dtype=torch.float64)

    def loss(x: Tensor) -> Tensor:
        tiling = Tiling(tile=4, overlap=2)
        return (decode_tiled(vae, x, tiling=tiling, statistics=statistics) * weight).sum()

    def difference(step: float = 1e-6) -> float:
        with torch.no_grad():
            ahead, behind = (loss(latents + sign * step * direction) for sign in (1, -1))
        return float(ahead - behind) / (2 * step)

    x = latents.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(loss(x), x)
    slope = float((gradient * direction).sum())
    assert abs(difference() / slope - 1) > 1e-2
    z = latents / vae.config.scaling_factor
    step = 1 if statistics == "whole" else 2  # 6 latents in tiles of 4
    table = tiled_decode.norm_statistics(vae, z[..., ::step, ::step])
    monkeypatch.setattr(tiled_decode, "norm_statistics", lambda *_: table)
    assert slope == pytest.approx(difference(), rel=1e-6)


@pytest.mark.parametrize("length", [9, 12, 16, 17, 40, 128])
def test_tiles_cover_a_side_with_their_overlap(length: int) -> None:
    starts = _starts(length, TILING)
    assert (starts[0], starts[-1]) == (0, length - TILING.tile)
    gaps = torch.tensor(starts).diff()
    assert (gaps > 0).all()
    assert (TILING.tile - gaps >= TILING.overlap).all()


def test_bad_options() -> None:
    for tile, overlap in ((8, 5), (8, 0), (0, 0)):
        with pytest.raises(GeneratorError, match="at most half a tile"):
            Tiling(tile, overlap)
    with pytest.raises(GeneratorError, match=r"'whole' .* or 'thinned' .*, got 'all'"):
        decode_tiled(None, torch.zeros(1, 16, 1, 99, 99), statistics="all")  # type: ignore[arg-type]
