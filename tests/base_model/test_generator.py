from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from base_model.errors import GeneratorError
from base_model.generator import (
    Condition,
    Generator,
    load_generator,
)
from base_model.sampling.guidance import Guidance, guided_velocity
from tests.base_model.sampling.test_guidance import guided, parameter_gradient
from tests.goldens import TRANSFORMERS, load_golden, relative, write_checkpoint


@pytest.mark.parametrize("name", TRANSFORMERS)
@torch.no_grad()
def test_velocity_goldens(name: str, tmp_path: Path) -> None:
    tensors = load_golden(name).tensors
    generator = load_generator(write_checkpoint(tmp_path, name), text_encoder=False)
    condition = Condition(
        tensors["in.text"], tensors.get("in.inpaint_latents"), tensors.get("in.control_latents")
    )
    velocity = generator.velocity(tensors["in.latents"], tensors["in.timestep"] / 1000, condition)
    assert velocity.dtype == torch.float32
    assert relative(velocity, tensors["out.velocity"]) < 1e-5
    for i in range(2):  # a batch is its samples
        rows = slice(i, i + 1)
        extra = (condition.inpaint_latents, condition.control_latents)
        alone = generator.velocity(
            tensors["in.latents"][rows],
            tensors["in.timestep"][i].item() / 1000,
            Condition(condition.text[rows], *(None if t is None else t[rows] for t in extra)),
        )
        assert relative(alone, tensors["out.velocity"][i : i + 1]) < 1e-5


@torch.no_grad()
def test_one_text_serves_all_samples(generator: Generator, inputs: dict[str, Tensor]) -> None:
    pair = inputs["noise"].repeat(2, 1, 1, 1, 1)
    one = generator.velocity(pair, 0.7, Condition(inputs["text"]))
    two = generator.velocity(pair, 0.7, Condition(inputs["text"].repeat(2, 1, 1)))
    assert torch.equal(one, two)
    with pytest.raises(GeneratorError, match="text states for 3 samples and latents for 2"):
        generator.velocity(pair, 0.7, Condition(inputs["text"].repeat(3, 1, 1)))


@pytest.mark.parametrize(
    ("fp32_timesteps", "expected"), [(False, [904.0, 502.0]), (True, [902.345, 501.2])]
)
def test_timesteps_are_rounded_as_in_the_published_code(
    checkpoint: Path, inputs: dict[str, Tensor], fp32_timesteps: bool, expected: list[float]
) -> None:
    """bfloat16 has 8 bits: steps of 4 above 512 and of 2 above 256."""
    generator = load_generator(
        checkpoint, dtype=torch.bfloat16, text_encoder=False, fp32_timesteps=fp32_timesteps
    )
    seen: list[Tensor] = []
    generator.transformer.time_proj.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    sigma = torch.tensor([0.902345, 0.5012])
    velocity = generator.velocity(
        inputs["noise"].repeat(2, 1, 1, 1, 1), sigma, Condition(inputs["text"])
    )
    assert velocity.dtype == torch.float32
    assert seen[0].float().tolist() == pytest.approx(expected, abs=1e-3)


@torch.no_grad()
def test_precision_of_state_and_weights(checkpoint: Path, inputs: dict[str, Tensor]) -> None:
    exact = load_generator(checkpoint, dtype=torch.float64, text_encoder=False)
    half = load_generator(checkpoint, dtype=torch.bfloat16, text_encoder=False)
    condition = Condition(inputs["text"])
    velocity = exact.velocity(inputs["noise"].double(), 0.3, condition)
    assert velocity.dtype == torch.float64
    assert exact.initial_noise((1, 16, 1, 2, 2), [0]).dtype == torch.float64
    assert half.dtype == torch.bfloat16
    assert half.initial_noise((1, 16, 1, 2, 2), [0]).dtype == torch.float32
    error = relative(half.velocity(inputs["noise"], 0.3, condition).double(), velocity)
    assert 1e-4 < error < 0.1


def test_the_vae_may_have_a_dtype_of_its_own(checkpoint: Path) -> None:
    exact = load_generator(checkpoint, text_encoder=False)
    half = load_generator(checkpoint, vae_dtype=torch.bfloat16, text_encoder=False)
    assert half.dtype == half.state_dtype == torch.float32
    latents = torch.randn(1, 16, 2, 4, 4, generator=torch.Generator().manual_seed(0))

    def decoded(generator: Generator) -> tuple[Tensor, Tensor]:
        x = latents.clone().requires_grad_()
        frames = generator.decode(x)
        (gradient,) = torch.autograd.grad(frames.square().sum(), x)
        assert frames.dtype == gradient.dtype == torch.float32
        return frames.detach(), gradient

    found, expected = decoded(half), decoded(exact)
    assert 1e-4 < relative(found[0], expected[0]) < 0.02  # bfloat16 has 8 bits: 0.004
    assert 1e-4 < relative(found[1], expected[1]) < 0.1


def test_noise_depends_on_the_seed_alone(generator: Generator) -> None:
    shape = (3, 16, 2, 4, 6)
    noise = generator.initial_noise(shape, [5, 9, 5])
    assert noise.shape == shape
    assert torch.equal(noise[0], noise[2])
    assert not torch.equal(noise[0], noise[1])
    torch.manual_seed(9)  # a sample is what torch draws from its seed
    assert torch.equal(noise[1], torch.randn(16, 2, 4, 6))
    assert torch.equal(generator.initial_noise((1, *shape[1:]), [9])[0], noise[1])
    with pytest.raises(GeneratorError, match="2 seeds for a batch of 3"):
        generator.initial_noise(shape, [1, 2])


def test_latent_shape(generator: Generator) -> None:
    assert generator.latent_shape(2, 9, 64, 96) == (2, 16, 3, 8, 12)
    assert generator.latent_shape(1, 49, 384, 672) == (1, 16, 13, 48, 84)
    assert generator.latent_shape(1, 1, 16, 16) == (1, 16, 1, 2, 2)


@pytest.mark.parametrize(
    ("size", "message"),
    [
        ((8, 64, 64), r"4k \+ 1 frames .* got 8\. Use 5 or 9"),
        ((0, 64, 64), r"4k \+ 1 frames .* got 0\. Use 1 or 5"),
        ((9, 72, 64), "height must be a multiple of 16, got 72. Use 64 or 80"),
        ((9, 64, 8), "width must be a multiple of 16, got 8. Use 16 or 32"),
        ((9, 64, -16), "width must be a multiple of 16, got -16"),
    ],
)
def test_a_size_that_does_not_fit_is_told(
    generator: Generator, size: tuple[int, int, int], message: str
) -> None:
    with pytest.raises(GeneratorError, match=message):
        generator.latent_shape(1, *size)


def test_encode_and_decode(generator: Generator) -> None:
    tensors = load_golden("vae").tensors
    frames = (tensors["in.video"].transpose(1, 2) + 1) / 2
    latents = generator.encode(frames)
    assert relative(latents, tensors["out.moments"][:, :16] * 0.7125) < 1e-5
    expected = (tensors["out.decoded"] / 2 + 0.5).clamp(0, 1).transpose(1, 2)
    assert relative(generator.decode(latents), expected) < 1e-5
    assert relative(generator.decode(latents, slice(0, 3)), expected[:, :3]) < 1e-5


@pytest.mark.parametrize(
    ("latent_frames", "name"), [(1, "out.reward_1_latent"), (3, "out.reward_3_latents")]
)
def test_the_golden_rewards_of_golden_latents(
    generator: Generator, latent_frames: int, name: str
) -> None:
    """The published script's linear reward on the frames of the first latents."""
    tensors = load_golden("reward_gradients").tensors
    frames = generator.decode(
        tensors["out.latents_with_lora"], slice(0, 4 * (latent_frames - 1) + 1)
    )
    target = tensors["in.target"].transpose(1, 2)[:, : frames.shape[1]]
    assert (100 * (frames * target).mean()).item() == pytest.approx(tensors[name].item(), rel=1e-5)


def test_without_text_encoder(generator: Generator) -> None:
    with pytest.raises(GeneratorError, match="loaded without its text encoder"):
        generator.encode_prompts(["a"], [""])


def test_modules_that_do_not_belong_together(generator: Generator) -> None:
    class Other:
        def __init__(self, **config: int) -> None:
            self.config = type("Config", (), config)

    known = r"16 \(text-to-video\), 33 \(inpaint\), 48 \(control\), 38 \(camera\)"
    with pytest.raises(GeneratorError, match=rf"32 input channels; EasyAnimateV5\.1 has {known}"):
        Generator(Other(in_channels=32, out_channels=16), generator.vae)
    with pytest.raises(GeneratorError, match="makes 16 latent channels and the VAE takes 4"):
        Generator(generator.transformer, Other(latent_channels=4))


def test_block_checkpointing_changes_no_gradient(
    generator: Generator, inputs: dict[str, Tensor]
) -> None:
    """The corrected text stream and the cached rotary table are recomputed as they were."""

    def compute(latents: Tensor) -> Tensor:
        return guided_velocity(generator, latents, 0.6, guided(inputs), Guidance(6.0), "detached")

    plain = parameter_gradient(generator, inputs, compute)
    generator.transformer.enable_gradient_checkpointing()
    for ours, expected in zip(parameter_gradient(generator, inputs, compute), plain, strict=True):
        assert torch.equal(ours, expected)


def test_a_vae_on_a_device_of_its_own(checkpoint: Path) -> None:
    """It is loaded there and never rests; what it returns is on the transformer's device."""
    options: dict[str, Any] = {"text_encoder": False, "memory": "offload"}
    moved = load_generator(checkpoint, device="cpu", vae_device="meta", **options)
    assert {p.device.type for p in moved.vae.parameters()} == {"meta"}
    assert not moved.resting.vae.absent
    resting = load_generator(checkpoint, device="cpu", **options)
    assert resting.resting.vae.absent
    away = load_generator(checkpoint, device="meta", vae_device="cpu", **options)
    assert {p.device.type for p in away.vae.parameters()} == {"cpu"}
    latents = torch.randn(1, 16, 2, 4, 4, requires_grad=True)
    assert away.decode(latents).device.type == "meta"
    assert away.encode(torch.rand(1, 5, 3, 32, 32)).device.type == "meta"


def test_a_vae_by_its_device_decodes_the_same(checkpoint: Path) -> None:
    found = []
    for device in (None, "cpu"):
        generator = load_generator(checkpoint, text_encoder=False, vae_device=device)
        latents = torch.randn(1, 16, 2, 4, 4, generator=torch.Generator().manual_seed(0))
        frames = generator.decode(latents.requires_grad_())
        frames.square().sum().backward()
        found.append((frames.detach(), latents.grad))
    for one, other in zip(*found, strict=True):
        assert torch.equal(one, other)
