"""Cache-free forwards, the frame-wise start and the loss of the VAE's training."""

import math
import random
from collections.abc import Callable
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKLMagvit
from diffusers.models.autoencoders.autoencoder_kl_magvit import (
    EasyAnimateCausalConv3d,
    EasyAnimateResidualBlock3D,
    EasyAnimateUpsampler3D,
)
from torch import Tensor, nn

from base_model.networks import magvit
from base_model.tiny import configs
from base_model.tiny.render import render
from base_model.tiny.scenes import draw_scenes
from base_model.training.vae import (
    KL_WEIGHT,
    L1_WEIGHT,
    PAST_TAP_RATE,
    bfloat16_gradients_work,
    slow_past_taps,
    start_frame_wise,
    vae_loss,
    whole_clip,
)
from tests.goldens import relative

SMALL = configs.VAE | {"block_out_channels": [8, 16, 16, 16], "norm_num_groups": 4}


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def new_vae(seed: int = 0, **changes: Any) -> AutoencoderKLMagvit:
    """A small VAE whose every tap is random and as large as the present one."""
    vae = AutoencoderKLMagvit(**SMALL | changes)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in vae.parameters():
            if parameter.ndim == 5:
                parameter.normal_(0.0, parameter[0].numel() ** -0.5, generator=generator)
            else:
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return vae


def frame_wise_vae(seed: int = 0) -> AutoencoderKLMagvit:
    vae = AutoencoderKLMagvit(**SMALL)
    start_frame_wise(vae, torch.Generator().manual_seed(seed))
    return vae


def forwards(vae: nn.Module) -> list[str]:
    """Modules whose forward is replaced."""
    return [name for name, module in vae.named_modules() if "forward" in vars(module)]


@pytest.mark.parametrize("frames", [1, 5, 9])
@torch.no_grad()
def test_the_whole_clip_equals_the_cached_forward(frames: int) -> None:
    vae = new_vae()
    video = normal(2, 3, frames, 32, 32, seed=1)
    latents = normal(2, 16, (frames - 1) // 4 + 1, 4, 4, seed=2)
    moments, decoded = magvit.encode_moments(vae, video), magvit.decode_video(vae, latents)
    with whole_clip(vae):
        whole_moments = vae.quant_conv(vae.encoder(video))
        whole_decoded = vae.decoder(vae.post_quant_conv(latents))
    assert whole_moments.shape == moments.shape == (2, 32, (frames - 1) // 4 + 1, 4, 4)
    assert whole_decoded.shape == decoded.shape == (2, 3, frames, 32, 32)
    assert relative(whole_moments, moments) < 1e-5
    assert relative(whole_decoded, decoded) < 1e-5
    if frames > 1:  # the past matters: a net without it would pass by chance
        assert relative(decoded[:, :, 1:], decoded[:, :, :1].expand_as(decoded[:, :, 1:])) > 0.03


def test_the_whole_clip_has_the_same_gradients() -> None:
    vae = new_vae().double()
    latents = normal(1, 16, 3, 2, 2, seed=3).double().requires_grad_()
    weight = normal(1, 3, 9, 16, 16, seed=4).double()
    inputs = [latents, *vae.decoder.parameters()]
    expected = torch.autograd.grad((magvit.decode_video(vae, latents) * weight).sum(), inputs)
    with whole_clip(vae):
        decoded = vae.decoder(vae.post_quant_conv(latents))
        gradients = torch.autograd.grad((decoded * weight).sum(), inputs)
    assert max(map(relative, gradients, expected)) < 1e-10


def test_the_forwards_come_back_after_an_exception() -> None:
    vae = new_vae().eval()
    video = normal(1, 3, 5, 16, 16)
    with torch.no_grad():
        before = magvit.encode_moments(vae, video)
    changed = [m for m in vae.modules() if isinstance(m, EasyAnimateCausalConv3d)]
    changed += [m for m in vae.modules() if isinstance(m, EasyAnimateUpsampler3D)]
    with pytest.raises(ZeroDivisionError), whole_clip(vae):
        assert len(forwards(vae)) == len(changed) == 38 + 3
        _ = 1 / 0
    assert forwards(vae) == []
    with torch.no_grad():
        assert torch.equal(magvit.encode_moments(vae, video), before)


def test_the_whole_clip_keeps_no_past() -> None:
    vae = new_vae()
    with torch.no_grad(), whole_clip(vae):
        vae.encoder(normal(1, 3, 5, 16, 16))
    assert [m for m in vae.modules() if getattr(m, "prev_features", None) is not None] == []


def test_a_norm_over_time_is_refused() -> None:
    vae = new_vae(spatial_group_norm=False)
    with (
        pytest.raises(ValueError, match="whole_clip needs spatial_group_norm=True"),
        whole_clip(vae),
    ):
        pytest.fail("the body must not run")
    assert forwards(vae) == []


def test_the_start_is_drawn_from_its_generator() -> None:
    """Whatever the global state: the shipped weights start here."""
    torch.manual_seed(1)
    first = frame_wise_vae().state_dict()
    torch.manual_seed(2)
    again, other = frame_wise_vae().state_dict(), frame_wise_vae(seed=1).state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["encoder.conv_in.weight"], other["encoder.conv_in.weight"])


def test_the_start_has_no_past_taps_and_a_narrow_posterior() -> None:
    vae = frame_wise_vae()
    taps = 0
    for module in vae.modules():
        if isinstance(module, EasyAnimateCausalConv3d):
            assert not module.weight[:, :, :-1].any()
            assert module.weight[:, :, -1].abs().min() > 0
            taps += module.weight.shape[2] - 1
    assert taps > 0
    with torch.no_grad():
        moments = magvit.encode_moments(vae, normal(1, 3, 5, 32, 32))
    mean, log_variance = moments.chunk(2, dim=1)
    assert log_variance.mean().item() == pytest.approx(-4.0, abs=0.1)
    assert log_variance.std() < 0.3
    assert mean.std() > 0.3


@torch.no_grad()
def test_at_the_start_a_frame_sees_only_the_frame_its_latent_ends_at() -> None:
    """Latent i is frame 4i alone, and gives the frames 4i - 3 to 4i."""
    vae = frame_wise_vae()
    video = normal(1, 3, 9, 16, 16)

    def output(clip: Tensor) -> Tensor:
        with whole_clip(vae):
            mean = vae.quant_conv(vae.encoder(clip)).chunk(2, dim=1)[0]
            return vae.decoder(vae.post_quant_conv(mean))

    before = output(video)
    for changed in range(9):
        clip = video.clone()
        clip[:, :, changed] += normal(1, 3, 16, 16, seed=changed + 1)
        differs = (output(clip) - before).abs().amax(dim=(0, 1, 3, 4)) > 1e-6
        expected = [math.ceil(frame / 4) * 4 == changed for frame in range(9)]
        assert differs.tolist() == expected


@torch.no_grad()
def test_at_the_start_every_kernel_has_unit_gain() -> None:
    """A residual branch ends in norm, SiLU (root mean square 0.6) and a kernel: 0.6 remains."""
    vae = AutoencoderKLMagvit(**configs.VAE)
    start_frame_wise(vae, torch.Generator().manual_seed(0))
    loudness = []
    for module in vae.modules():
        if isinstance(module, EasyAnimateResidualBlock3D):
            module.conv2.register_forward_hook(
                lambda _module, _inputs, output: loudness.append(output.square().mean().sqrt())
            )
    with whole_clip(vae):
        vae.encoder(normal(1, 3, 1, 64, 64))
        vae.decoder(normal(1, 16, 1, 8, 8, seed=1))
    assert len(loudness) == 14
    assert [value.item() for value in loudness] == pytest.approx([0.6] * 14, abs=0.15)
    for module in vae.modules():
        if isinstance(module, nn.Conv3d) and module is not vae.quant_conv:
            present = module.weight[:, :, -1]
            assert present.std().item() == pytest.approx(present[0].numel() ** -0.5, rel=0.15)
            assert module.bias is not None
            assert not module.bias.any()


@torch.no_grad()
def test_at_the_start_the_outputs_keep_their_variance() -> None:
    """The default start leaves 3e-5 between frames; this one neither fades nor blows up.

    The last SiLU of a normal variable has a root mean square of 0.6, which the last kernel keeps.
    """
    vae = AutoencoderKLMagvit(**configs.VAE)
    start_frame_wise(vae, torch.Generator().manual_seed(0))
    video = normal(1, 3, 9, 64, 64)
    latents = normal(1, 16, 3, 8, 8, seed=1)
    with whole_clip(vae):
        mean = vae.quant_conv(vae.encoder(video)).chunk(2, dim=1)[0]
        decoded = vae.decoder(vae.post_quant_conv(latents))
    assert 0.4 < mean.std().item() < 0.9
    assert 0.4 < decoded.std().item() < 0.9
    # Frames of different latents are as different as independent draws (sqrt 2 deviations),
    # frames of one latent the same.
    scale = decoded.std()
    assert ((decoded[:, :, 1] - decoded[:, :, 0]).std() / scale).item() > 0.5
    assert ((decoded[:, :, 2] - decoded[:, :, 1]).abs().max() / scale).item() < 1e-5


def moved_taps(rate: float) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Kernels before, where the optimiser put them, and where they are after, causal ones only."""
    vae = new_vae()
    convs = [m for m in vae.modules() if isinstance(m, EasyAnimateCausalConv3d)]
    before = [conv.weight.detach().clone() for conv in convs]
    biases = [conv.bias.detach().clone() for conv in convs]
    steps = [normal(*conv.weight.shape, seed=i) for i, conv in enumerate(convs)]
    with slow_past_taps(vae, rate), torch.no_grad():
        for conv, step in zip(convs, steps, strict=True):
            conv.weight += step
            conv.bias += 1.0
    for conv, bias in zip(convs, biases, strict=True):
        assert torch.equal(conv.bias, bias + 1.0)
    after = [conv.weight.detach() for conv in convs]
    assert len(convs) == 38
    return [(old, old + step, new) for old, step, new in zip(before, steps, after, strict=True)]


@pytest.mark.parametrize("rate", [0.0, 0.2, 0.7, 1.0])
def test_past_taps_move_by_the_rate(rate: float) -> None:
    for old, stepped, new in moved_taps(rate):
        expected = old[:, :, :-1] + rate * (stepped - old)[:, :, :-1]
        torch.testing.assert_close(new[:, :, :-1], expected, atol=1e-6, rtol=0)
        assert torch.equal(new[:, :, -1], stepped[:, :, -1])
        if rate == 0.0:
            assert torch.equal(new[:, :, :-1], old[:, :, :-1])


def loss_of(vae: AutoencoderKLMagvit, frames: Tensor) -> tuple[Tensor, dict[str, float]]:
    with whole_clip(vae):
        return vae_loss(vae, frames, torch.Generator().manual_seed(9))


@pytest.fixture
def frames() -> Tensor:
    rng = random.Random(0)
    return render(draw_scenes(2, rng), rng)[:, :5, :, 16:48, 16:48]


@pytest.mark.parametrize("make", [new_vae, frame_wise_vae])
@torch.no_grad()
def test_the_loss_against_the_cached_model(
    make: Callable[[], AutoencoderKLMagvit], frames: Tensor
) -> None:
    """Through magvit's forward and the formulas of the [0, 1] scale, in numpy's own way."""
    vae = make()
    loss, numbers = loss_of(vae, frames)
    moments = magvit.encode_moments(vae, frames.transpose(1, 2) * 2 - 1)
    posterior = torch.distributions.Normal(
        moments[:, :16], (0.5 * moments[:, 16:].clamp(-30, 20)).exp()
    )
    noise = torch.randn(2, 16, 2, 4, 4, generator=torch.Generator().manual_seed(9))
    video = magvit.decode_video(vae, posterior.mean + posterior.stddev * noise)
    pixels = (video.transpose(1, 2) + 1) / 2
    mse = ((pixels - frames).numpy() ** 2).mean()
    mae = abs((pixels - frames).numpy()).mean()
    kl = torch.distributions.kl_divergence(posterior, torch.distributions.Normal(0.0, 1.0)).mean()
    assert numbers["psnr"] == pytest.approx(20 * math.log10(1.0 / math.sqrt(mse)), abs=1e-3)
    assert numbers["kl"] == pytest.approx(kl.item(), rel=1e-4)
    # Squared errors are four times, absolute ones twice as large on the scale from -1 to 1.
    expected = 4 * mse + L1_WEIGHT * 2 * mae + KL_WEIGHT * kl.item()
    assert loss.item() == pytest.approx(float(expected), rel=1e-5)


def test_the_posteriors_noise_is_of_the_generator(frames: Tensor) -> None:
    vae = new_vae()
    with torch.no_grad():
        first, again = loss_of(vae, frames)[0], loss_of(vae, frames)[0]
        with whole_clip(vae):
            other = vae_loss(vae, frames, torch.Generator().manual_seed(10))[0]
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_every_part_of_the_net_learns(frames: Tensor) -> None:
    vae = frame_wise_vae()
    loss_of(vae, frames)[0].backward()
    for name, parameter in vae.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), name


def test_eight_steps_lower_the_loss(frames: Tensor) -> None:
    vae = frame_wise_vae()
    optimiser = torch.optim.AdamW(vae.parameters(), lr=3e-3)
    losses = []
    for _ in range(8):
        loss, _ = loss_of(vae, frames)
        optimiser.zero_grad()
        loss.backward()
        with slow_past_taps(vae, PAST_TAP_RATE):
            optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]


def test_bfloat16_gradients_are_refused_on_cpus_with_amx(monkeypatch: pytest.MonkeyPatch) -> None:
    for amx in (True, False):
        monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda amx=amx: amx, raising=False)
        assert bfloat16_gradients_work() is not amx
