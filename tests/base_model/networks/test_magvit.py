from collections.abc import Iterator
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKLMagvit
from torch import Tensor

from base_model.errors import GeneratorError
from base_model.networks import magvit
from benchmarks.peak_memory import peak_allocated
from tests.goldens import Golden, load_golden, relative

ROUNDING = 2e-6
"""Of float32 against a golden from another processor: 0 on an AMD EPYC, 1.5e-6 on a Xeon with AMX,
whose convolutions add in another order."""


@pytest.fixture(scope="module")
def golden() -> Golden:
    return load_golden("vae")


@pytest.fixture
def vae(golden: Golden) -> Any:
    keys = ("block_out_channels", "layers_per_block", "latent_channels", "norm_num_groups")
    model = AutoencoderKLMagvit(**{key: golden.config[key] for key in keys})
    model.load_state_dict(golden.weights)
    return model.requires_grad_(False).eval()


@pytest.fixture
def z(golden: Golden) -> Tensor:
    """Unscaled latents, (1, 16, 4, 2, 3): small, for gradients."""
    return golden.tensors["out.moments"][:, :16, :, :2, :3].clone()


def stale(vae: Any) -> list[str]:
    return [n for n, m in vae.named_modules() if getattr(m, "prev_features", None) is not None]


@pytest.fixture(autouse=True)
def nothing_stale_at_the_end(vae: Any) -> Iterator[None]:
    yield
    assert stale(vae) == []


def test_decode_golden(vae: Any, golden: Golden) -> None:
    latents = golden.tensors["out.moments"][:, :16]
    video = magvit.decode_video(vae, latents)
    assert relative(video, golden.tensors["out.decoded"]) < ROUNDING
    frames = magvit.decode(vae, latents * 0.7125)
    expected = (golden.tensors["out.decoded"] / 2 + 0.5).clamp(0, 1).transpose(1, 2)
    assert frames.shape == (1, 13, 3, 32, 48)
    assert relative(frames, expected) < 1e-5
    assert (frames == 0).any()  # the clamp is exercised
    assert (frames == 1).any()


def test_encode_golden(vae: Any, golden: Golden) -> None:
    video, moments = golden.tensors["in.video"], golden.tensors["out.moments"]
    assert relative(magvit.encode_moments(vae, video), moments) < ROUNDING
    latents = magvit.encode(vae, (video.transpose(1, 2) + 1) / 2)
    assert latents.shape == (1, 16, 4, 4, 6)
    assert relative(latents, moments[:, :16] * 0.7125) < 1e-5


@pytest.mark.parametrize("count", [1, 2, 4])
def test_gradient_is_that_of_the_library_without_checkpoints(
    vae: Any, z: Tensor, count: int
) -> None:
    vae, z = vae.double(), z[:, :, :count].double().requires_grad_()
    weight = torch.randn(1, 3, 4 * count - 3, 16, 24, dtype=torch.float64)
    expected = vae.decode(z).sample
    video = magvit.decode_video(vae, z)
    torch.testing.assert_close(video, expected, rtol=1e-12, atol=1e-12)
    (gradient,) = torch.autograd.grad((video * weight).sum(), z)
    (reference,) = torch.autograd.grad((expected * weight).sum(), z)
    assert relative(gradient, reference) < 1e-12


def test_gradient_is_the_finite_difference(vae: Any, z: Tensor) -> None:
    vae, z = vae.double(), z[:, :, :2].double()
    direction = torch.randn(
        z.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0)
    )

    def reward(x: Tensor) -> Tensor:
        return magvit.decode_video(vae, x).square().sum()

    (gradient,) = torch.autograd.grad(reward(x := z.clone().requires_grad_()), x)
    step = 1e-5 * direction
    slope = (reward(z + step) - reward(z - step)) / 2e-5
    assert (gradient * direction).sum().item() == pytest.approx(slope.item(), rel=1e-7)


def test_decoding_after_a_backward_pass(vae: Any, z: Tensor) -> None:
    before = magvit.decode_video(vae, z)
    magvit.decode_video(vae, x := z.clone().requires_grad_()).sum().backward()
    assert x.grad is not None
    assert stale(vae) == []
    assert torch.equal(magvit.decode_video(vae, z), before)
    assert torch.equal(vae.decode(z).sample, before)


@pytest.mark.parametrize("differentiable", [False, True])
def test_an_exception_leaves_nothing_behind(
    vae: Any, z: Tensor, monkeypatch: pytest.MonkeyPatch, differentiable: bool
) -> None:
    before = magvit.decode_video(vae, z)
    z.requires_grad_(differentiable)
    whole, calls = vae.decoder.conv_norm_out.forward, []

    def fails_at_the_third(x: Tensor) -> Tensor:
        calls.append(x)
        if len(calls) == 3:
            raise RuntimeError("no memory")
        return whole(x)

    monkeypatch.setattr(vae.decoder.conv_norm_out, "forward", fails_at_the_third)
    with pytest.raises(RuntimeError, match="no memory"):
        magvit.decode_video(vae, z)
    assert stale(vae) == []
    monkeypatch.undo()
    assert torch.equal(magvit.decode_video(vae, z), before)


def test_an_exception_while_encoding_leaves_nothing_behind(
    vae: Any, golden: Golden, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(x: Tensor) -> Tensor:
        raise RuntimeError("no memory")

    monkeypatch.setattr(vae.encoder.conv_out, "forward", fails)
    with pytest.raises(RuntimeError, match="no memory"):
        magvit.encode_moments(vae, golden.tensors["in.video"])
    assert stale(vae) == []


def test_what_another_call_left_behind_does_no_harm(vae: Any, golden: Golden, z: Tensor) -> None:
    video = golden.tensors["in.video"][:, :, :5, :16, :16]
    clean = magvit.decode_video(vae, z), magvit.encode_moments(vae, video)
    vae.decoder(vae.post_quant_conv(torch.ones_like(z)))
    vae.encoder(torch.ones_like(video[:, :, :1]))
    assert len(stale(vae)) > 20
    assert torch.equal(magvit.encode_moments(vae, video), clean[1])
    vae.decoder(vae.post_quant_conv(torch.ones_like(z[:, :, :1])))
    assert torch.equal(magvit.decode_video(vae, z), clean[0])
    magvit.clear_caches(vae)  # decode_video neither reads nor clears them


def test_the_first_latents_are_the_first_frames(vae: Any, z: Tensor) -> None:
    whole = magvit.decode_video(vae, z)
    for count in (1, 2, 3):
        prefix = magvit.decode_video(vae, z[:, :, :count])
        torch.testing.assert_close(prefix, whole[:, :, : 4 * count - 3], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("window", "latents"),
    [
        (slice(0, 1), 1),
        (slice(0, 2), 2),
        (slice(1, 5), 2),
        (slice(3, 6), 3),
        (slice(4, 5), 2),
        (slice(-4, None), 4),
        (slice(None), 4),
        (None, 4),
    ],
)
def test_a_window_decodes_what_it_needs(
    vae: Any, z: Tensor, monkeypatch: pytest.MonkeyPatch, window: slice | None, latents: int
) -> None:
    whole = magvit.decode(vae, z)
    run, forward = [], vae.decoder.conv_norm_out.forward

    def counting(frames: Tensor) -> Tensor:
        run.append(len(frames))
        return forward(frames)

    monkeypatch.setattr(vae.decoder.conv_norm_out, "forward", counting)
    part = magvit.decode(vae, z, window)
    assert run == [1, 4, 4, 4][:latents]
    torch.testing.assert_close(part, whole[:, window or slice(None)], rtol=1e-5, atol=1e-6)


def test_gradient_of_a_window_is_that_of_the_whole_clip(vae: Any, z: Tensor) -> None:
    """The causal past is part of it: frame 6 moves the latents 0, 1 and 2, not 3."""
    x, y = z.clone().requires_grad_(), z.clone().requires_grad_()
    magvit.decode(vae, x, slice(6, 8)).square().sum().backward()
    magvit.decode(vae, y)[:, 6:8].square().sum().backward()
    assert x.grad is not None
    assert y.grad is not None
    assert relative(x.grad, y.grad) < 1e-5
    assert (x.grad.abs().amax((0, 1, 3, 4)) > 0).tolist() == [True, True, True, False]


@pytest.mark.parametrize("window", [slice(5, 5), slice(13, 20), slice(0, 8, 2), slice(8, 0, -1)])
def test_a_wrong_window_is_told(vae: Any, z: Tensor, window: slice) -> None:
    with pytest.raises(GeneratorError, match="non-empty slice with step 1 of the clip's 13 frames"):
        magvit.decode(vae, z, window)


def test_a_window_without_the_gradient_of_its_context(vae: Any, z: Tensor) -> None:
    """Frames 5 to 8 come of latent 2: the latents before it give values and no gradient."""
    whole = z.clone().requires_grad_()
    window = magvit.decode_video(vae, whole, slice(5, 9), detach_context=True)
    torch.testing.assert_close(window, magvit.decode_video(vae, z)[:, :, 5:9])
    target = torch.randn(window.shape, generator=torch.Generator().manual_seed(3))
    (gradient,) = torch.autograd.grad((window * target).sum(), whole)
    assert not gradient[:, :, :2].any()
    assert not gradient[:, :, 3:].any()
    late = z[:, :, 2:3].clone().requires_grad_()
    joined = torch.cat([z[:, :, :2], late, z[:, :, 3:]], dim=2)
    full = magvit.decode_video(vae, joined, slice(5, 9))
    (expected,) = torch.autograd.grad((full * target).sum(), late)
    assert relative(gradient[:, :, 2:3], expected) < 1e-5
    kept: list[int] = []
    for detach in (False, True):
        leaf = z.clone().requires_grad_()
        with torch.autograd.graph.saved_tensors_hooks(
            lambda t: kept.append(t.numel()) or t, lambda t: t
        ):
            magvit.decode_video(vae, leaf, slice(5, 9), detach_context=detach)
        kept.append(-1)
    first, second = kept[: kept.index(-1)], kept[kept.index(-1) + 1 : -1]
    assert sum(second) < 0.7 * sum(first)  # one latent's inputs in place of three


def test_a_batch_is_its_samples(vae: Any, z: Tensor) -> None:
    pair = torch.cat([z, z.flip(-1) * 0.5])
    both = magvit.decode_video(vae, pair)
    for sample, video in zip(pair.split(1), both.split(1), strict=True):
        torch.testing.assert_close(magvit.decode_video(vae, sample), video, rtol=1e-4, atol=1e-5)


def kept_bytes(compute: Any) -> int:
    """Bytes autograd keeps for the backward pass, each storage once."""
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        alive = compute()  # alive, or storages are used again and counted once
    del alive
    return sum(kept.values())


def test_little_is_kept_for_the_backward_pass(vae: Any) -> None:
    z = torch.randn(1, 16, 5, 4, 4, requires_grad=True)
    ours = [kept_bytes(lambda n=n: magvit.decode_video(vae, z[:, :, :n])) for n in (1, 3, 5)]
    library = [kept_bytes(lambda n=n: vae.decode(z[:, :, :n]).sample) for n in (1, 5)]
    # Beyond the first latent, the causal state alone: two frames per convolution.
    assert (ours[2] - ours[1]) < 0.25 * (library[1] - library[0]) / 4 * 2


def test_a_longer_clip_takes_no_more_memory_than_its_frames(vae: Any) -> None:
    """Without gradient: every allocation counted, beyond the frames that are the result."""

    def beyond(latent_frames: int) -> int:
        latents = torch.randn(1, 16, latent_frames, 4, 4)
        with torch.no_grad():
            peak = peak_allocated(lambda: magvit.decode(vae, latents), torch.device("cpu"))
        return peak - magvit.frame_count(latent_frames) * 3 * 32 * 32 * 4

    short, long = beyond(3), beyond(13)  # 9 and 49 frames
    frames = 40 * 3 * 32 * 32 * 4
    assert short > 4 * frames  # what would be seen if it grew with the clip
    assert long - short < 0.2 * frames


def test_gradients_reach_the_weights_when_they_are_trained(vae: Any, z: Tensor) -> None:
    vae.requires_grad_(True)
    magvit.decode_video(vae, z[:, :, :2]).sum().backward()
    ours = {name: p.grad.clone() for name, p in vae.decoder.named_parameters()}
    vae.zero_grad()
    vae.decode(z[:, :, :2]).sample.sum().backward()
    for name, parameter in vae.decoder.named_parameters():
        torch.testing.assert_close(ours[name], parameter.grad, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("count", [2, 3, 4, 6, 12])
def test_a_number_of_frames_that_does_not_fit_is_told(vae: Any, count: int) -> None:
    with pytest.raises(GeneratorError, match=rf"4k \+ 1 frames .* got {count}\."):
        magvit.encode(vae, torch.zeros(1, count, 3, 16, 16))


def test_a_size_that_does_not_fit_is_told(vae: Any) -> None:
    with pytest.raises(GeneratorError, match="multiples of 8, got 20 x 16"):
        magvit.encode(vae, torch.zeros(1, 5, 3, 20, 16))


def test_frame_arithmetic() -> None:
    assert [magvit.frame_count(n) for n in (1, 2, 3, 13)] == [1, 5, 9, 49]
    assert [magvit.latent_count(f) for f in (1, 2, 5, 6, 9, 49)] == [1, 2, 2, 3, 3, 13]


def test_low_precision_comes_out_as_float32(vae: Any, z: Tensor) -> None:
    whole = magvit.decode(vae, z)
    half = magvit.decode(vae.to(torch.bfloat16), z)
    assert half.dtype == torch.float32
    assert 0 < relative(half, whole) < 0.05
