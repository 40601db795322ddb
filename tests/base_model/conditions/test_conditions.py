"""Conditions of every kind of checkpoint, against diffusers' pipelines and against themselves."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from base_model.conditions.conditions import ConditionInputs
from base_model.conditions.inpainting import (
    KEPT_NOISE,
    extended,
    inpaint_latents,
    kept_clip,
    kept_noise,
)
from base_model.errors import GeneratorError
from base_model.generator import Generator, TextCondition, load_generator
from tests.base_model.published_pipelines import seen_by_the_transformer
from tests.goldens import load_golden, relative, write_checkpoint

SIZE = (9, 32, 48)
NAMES = {
    "text-to-video": "sampling_7b_style",
    "inpaint": "transformer_inpaint_7b_style",
    "control": "transformer_control_7b_style",
    "camera": "transformer_camera_all_mmdit",
}
TEXT = torch.randn(1, 10, 48, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def generators(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Generator]:
    return {
        kind: load_generator(
            write_checkpoint(tmp_path_factory.mktemp(kind), name), text_encoder=False
        )
        for kind, name in NAMES.items()
    }


def clips(batch: int = 1, frames: int = SIZE[0], channels: int = 3, seed: int = 1) -> Tensor:
    """Random `(b, f, c, H, W)` in [0, 1], with some black pixels."""
    draw = torch.Generator().manual_seed(seed)
    frames_ = torch.rand(batch, frames, channels, *SIZE[1:], generator=draw)
    frames_[:, :, :, :5, :7] = 0
    return frames_


def text(batch: int = 1) -> TextCondition:
    return TextCondition(TEXT.expand(batch, -1, -1), -TEXT)


def half_mask(frames: int = SIZE[0]) -> Tensor:
    """Generates the right part, and a bit more of it in every frame."""
    mask = torch.zeros(1, frames, 1, *SIZE[1:])
    for i in range(frames):
        mask[:, i, :, :, 20 - 2 * i :] = 1
    return mask


def published_layout(frames: Tensor) -> Tensor:
    return frames.transpose(1, 2)


def published_noise(generator: Generator, seed: int) -> Tensor:
    """On kept pixels: what the pipeline's random generator gives after the initial latents."""
    draw = torch.Generator().manual_seed(seed)
    torch.randn(generator.latent_shape(1, *SIZE), generator=draw)
    return torch.randn(1, 3, *SIZE, generator=draw) * KEPT_NOISE


def test_a_masked_edit_is_that_of_the_published_pipeline(generators: dict[str, Generator]) -> None:
    # Not 0 and 1 but to either side of the threshold.
    generator, video, mask = generators["inpaint"], clips(), 0.45 + 0.1 * half_mask()
    seen = seen_by_the_transformer(
        generator,
        TEXT,
        SIZE,
        video=published_layout(video),
        mask_video=published_layout(mask),
        generator=torch.Generator().manual_seed(5),
    )
    found = inpaint_latents(generator.vae, video, mask, published_noise(generator, 5))
    assert found.shape == (1, 17, 3, 4, 6)
    assert relative(found, seen["inpaint_latents"][1:]) < 1e-6
    keep = found[:, 0]
    assert keep.min() == 0
    assert keep.max() == pytest.approx(0.7125)
    assert ((keep > 0.01) & (keep < 0.7)).any()  # latents of which a part is kept

    # Both guidance branches have it, with the noise of one's own seed.
    found = inpaint_latents(generator.vae, video, mask, kept_noise([7], *SIZE))
    condition = generator.condition(text(), video=video, mask=mask, noise_seeds=[7])
    for branch in (condition.positive, condition.negative):
        assert branch.inpaint_latents is not None
        assert torch.equal(branch.inpaint_latents, found)
    assert torch.equal(seen["inpaint_latents"][:1], seen["inpaint_latents"][1:])


@pytest.mark.parametrize("end", [False, True])
def test_image_to_video_is_that_of_the_published_pipeline(
    generators: dict[str, Generator], end: bool
) -> None:
    from diffusers.pipelines.easyanimate.pipeline_easyanimate_inpaint import (
        get_image_to_video_latent,
    )

    generator, images = generators["inpaint"], clips(2)[:, 0]
    last = images[1:] if end else None
    video, mask = get_image_to_video_latent(
        images[0], None if last is None else last[0], SIZE[0], SIZE[1:]
    )
    seen = seen_by_the_transformer(
        generator,
        TEXT,
        SIZE,
        video=video,
        mask_video=mask / 255,
        generator=torch.Generator().manual_seed(6),
    )
    inputs = ConditionInputs(image=images[:1], end_image=last, frames=SIZE[0])
    kept = kept_clip(inputs, inputs.size())
    assert kept is not None
    found = inpaint_latents(generator.vae, *kept, published_noise(generator, 6))
    assert relative(found, seen["inpaint_latents"][1:]) < 1e-6
    # The last frame is the fourth of its latent, whose mask has the two middle ones' mean.
    assert found[:, 0].amax(dim=(0, 2, 3)).tolist() == pytest.approx([0.7125, 0, 0])


def test_an_end_image_alone_is_the_last_frame(generators: dict[str, Generator]) -> None:
    """The published helper leaves it out; as a video with its mask the pipeline takes it."""
    generator, image = generators["inpaint"], clips()[:, 0]
    found = generator.encode_condition(ConditionInputs(end_image=image, frames=9))
    mask = torch.ones(1, 9, 1, *SIZE[1:])
    mask[:, -1] = 0
    video = clips(seed=8)
    video[:, -1] = image
    same = generator.encode_condition(ConditionInputs(video=video, mask=mask))
    assert found is not None
    assert same is not None
    assert torch.equal(found, same)
    # frame 8 is the last of latent 2's four: the published scaling reads the two middle ones
    assert found[:, 0].abs().max() == 0
    assert found[:, 1:, 2].abs().max() > 0


def test_noise_only_where_a_pixel_is_kept_and_not_black(generators: dict[str, Generator]) -> None:
    noise = kept_noise([3, 4], *SIZE)
    assert noise.shape == (2, 3, *SIZE)
    assert noise.std() == pytest.approx(KEPT_NOISE, rel=0.02)
    assert torch.equal(noise[1:], kept_noise([4], *SIZE))
    generator = generators["inpaint"]
    inputs = ConditionInputs(video=torch.zeros(1, *(9, 3, 32, 48)), mask=half_mask())
    plain = generator.encode_condition(inputs)
    noisy = generator.encode_condition(inputs, noise_seeds=[3])
    assert plain is not None
    assert noisy is not None
    assert torch.equal(plain, noisy)
    with pytest.raises(GeneratorError, match="2 noise seeds for the kept pixels of 1 sample"):
        generator.encode_condition(inputs, noise_seeds=[3, 4])


def test_a_sample_that_keeps_nothing_is_text_to_video(generators: dict[str, Generator]) -> None:
    generator = generators["inpaint"]
    mask = torch.cat([half_mask(), torch.ones_like(half_mask())])
    found = generator.encode_condition(ConditionInputs(video=clips(2), mask=mask))
    assert found is not None
    assert found[0].abs().max() > 0.7
    assert found[1].abs().max() == 0
    assert generator.encode_condition(ConditionInputs(video=clips())) is None
    seen = seen_by_the_transformer(
        generator,
        TEXT,
        SIZE,
        video=published_layout(clips()),
        mask_video=255 * torch.ones(1, 1, *SIZE),
    )
    assert seen["inpaint_latents"].abs().max() == 0


@pytest.mark.parametrize(("control", "reference"), [(True, True), (True, False), (False, True)])
def test_control_is_that_of_the_published_pipeline(
    generators: dict[str, Generator], control: bool, reference: bool
) -> None:
    generator = generators["control"]
    clip = clips() if control else None
    image = clips(seed=2)[:, 0] if reference else None
    seen = seen_by_the_transformer(
        generator,
        TEXT,
        SIZE,
        control_video=None if clip is None else published_layout(clip),
        ref_image=None if image is None else image[:, :, None],
    )
    condition = generator.condition(text(), control=clip, reference=image, frames=9)
    for branch, rows in ((condition.negative, slice(0, 1)), (condition.positive, slice(1, 2))):
        assert branch.control_latents is not None
        assert branch.control_latents.shape == (1, 32, 3, 4, 6)
        assert relative(branch.control_latents, seen["control_latents"][rows]) < 1e-6


@pytest.mark.parametrize("reference", [False, True])
def test_camera_is_that_of_the_published_pipeline(
    generators: dict[str, Generator], reference: bool
) -> None:
    generator = generators["camera"]
    rays = torch.randn(1, 6, *SIZE, generator=torch.Generator().manual_seed(3))
    image = clips(seed=2)[:, 0] if reference else None
    seen = seen_by_the_transformer(
        generator,
        TEXT,
        SIZE,
        control_camera_video=rays,
        ref_image=None if image is None else image[:, :, None],
    )
    found = generator.condition(text(), camera=rays, reference=image).positive.control_latents
    assert found is not None
    assert found.shape == (1, 22, 3, 4, 6)
    assert relative(found, seen["control_latents"][1:]) < 1e-6


def test_a_reference_without_camera_leaves_the_rays_zero(generators: dict[str, Generator]) -> None:
    inputs = ConditionInputs(reference=clips()[:, 0], frames=9)
    found = generators["camera"].encode_condition(inputs)
    assert found is not None
    assert found[:, :6].abs().max() == 0
    assert found[:, 6:, :1].abs().max() > 0
    assert found[:, 6:, 1:].abs().max() == 0


def test_prolongation_keeps_the_first_frames(generators: dict[str, Generator]) -> None:
    known = clips(frames=5)
    video, mask = extended(known, 9)
    assert torch.equal(video[:, :5], known)
    assert mask.flatten(2).amax(dim=2).tolist() == [[0] * 5 + [1] * 4]
    generator = generators["inpaint"]
    found = generator.encode_condition(ConditionInputs(video=video, mask=mask))
    assert found is not None
    assert torch.equal(found[:, 0, :2], torch.full((1, 2, 4, 6), 0.7125))
    assert found[:, 0, 2].abs().max() == 0
    alone = generator.encode(known)  # the VAE is causal: what follows changes nothing
    assert relative(found[:, 1:, :2], alone) < 1e-5
    for k in (9, 12):
        with pytest.raises(GeneratorError, match=f"clip of {k} frames cannot be extended to 9"):
            extended(clips(frames=k), 9)


INPUTS: dict[str, dict[str, Any]] = {
    "image": {"image": clips()[:, 0], "frames": 9},
    "end image": {"end_image": clips()[:, 0], "frames": 9},
    "mask": {"mask": half_mask()},
    "control": {"control": clips()},
    "reference": {"reference": clips()[:, 0], "frames": 9},
    "camera": {"camera": torch.zeros(1, 6, *SIZE)},
    "video": {"video": clips()},
}


@pytest.mark.parametrize(
    ("kind", "name", "needed"),
    [
        ("text-to-video", "image", r"16 .* text-to-video .* take the image\. Use the inpaint .*33"),
        ("text-to-video", "end image", r"the end image\. Use the inpaint checkpoint \(33 channels"),
        ("text-to-video", "mask", r"inpaint checkpoint .*-InP\)"),
        ("text-to-video", "control", r"control checkpoint \(48 channels, EasyAnimateV5\.1-\*-Con"),
        ("text-to-video", "camera", r"camera checkpoint \(38 channels"),
        ("inpaint", "control", r"33 input channels, the inpaint kind, .* Use the control"),
        ("inpaint", "reference", r"control checkpoint .* or camera checkpoint"),
        ("control", "image", r"48 input channels, the control kind, .* Use the inpaint"),
        ("control", "camera", r"Use the camera checkpoint"),
        ("control", "video", r"Use the inpaint checkpoint"),
        ("camera", "control", r"38 input channels, the camera kind, .* Use the control"),
    ],
)
def test_a_checkpoint_that_cannot_take_it_is_told(
    generators: dict[str, Generator], kind: str, name: str, needed: str
) -> None:
    with pytest.raises(GeneratorError, match=needed):
        generators[kind].condition(text(), **INPUTS[name])


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"image": clips()[:, 0]}, "has image, which does not give the number of frames"),
        ({"image": clips()}, r"image has shape \(1, 9, 3, 32, 48\); expected \(batch, 3, height"),
        ({"image": clips()[:, 0], "frames": 8}, r"4k \+ 1 frames"),
        ({"video": clips(), "mask": half_mask(5)}, "mask has frames 5 and its video 9"),
        ({"video": clips(), "mask": half_mask()[..., 1:]}, "mask has width 47 and its video 48"),
        ({"video": clips(), "frames": 5}, "video has 9 frames, but frames=5"),
        ({"mask": half_mask()}, "a mask but no video"),
        ({"video": clips(), "image": clips()[:, 0]}, "a video and the image, which both define"),
        ({"end_image": clips()[:, 0], "frames": 1}, "1 frame has no end image"),
        ({"image": clips(2)[:, 0], "end_image": clips()[:, 0]}, "batch 1 and its image 2"),
    ],
)
def test_inputs_that_do_not_fit_are_told(
    generators: dict[str, Generator], inputs: dict[str, Any], message: str
) -> None:
    with pytest.raises(GeneratorError, match=message):
        generators["inpaint"].condition(text(), **inputs)


def test_more_that_does_not_fit_is_told(generators: dict[str, Generator]) -> None:
    image = clips()[:, 0]
    with pytest.raises(GeneratorError, match="single frame takes no reference image"):
        generators["control"].condition(text(), reference=image, frames=1)
    with pytest.raises(GeneratorError, match="text states for 3 samples and a condition for 2"):
        generators["inpaint"].condition(text(3), image=clips(2)[:, 0], frames=9)


@torch.no_grad()
def test_one_condition_serves_all_samples(generators: dict[str, Generator]) -> None:
    from base_model.sampling.guidance import both_branches

    generator = generators["inpaint"]
    condition = generator.condition(text(), image=clips()[:, 0], frames=9)
    noise = generator.initial_noise(generator.latent_shape(2, *SIZE), [1, 2])
    for velocity in both_branches(generator, noise, 0.5, condition):
        assert velocity.shape == noise.shape
    two = generator.condition(text(2), image=clips()[:, 0], frames=9)
    assert torch.equal(
        generator.velocity(noise, 0.5, condition.positive),
        generator.velocity(noise, 0.5, two.positive),
    )


def test_pixels_get_gradient(tmp_path: Path) -> None:
    """Finite differences of the channels in float64, along one direction."""
    generator = load_generator(
        write_checkpoint(tmp_path, NAMES["inpaint"]), dtype=torch.float64, text_encoder=False
    )
    video = clips().double() * 0.8 + 0.1
    target = torch.randn(17, 3, 4, 6, generator=torch.Generator().manual_seed(1)).double()

    def read(video: Tensor) -> Tensor:
        found = generator.encode_condition(ConditionInputs(video=video, mask=half_mask()))
        assert found is not None
        return (found * target).sum()

    direction = torch.randn(video.shape, generator=torch.Generator().manual_seed(2)).double()
    leaf = video.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(read(leaf), leaf)
    eps = 1e-6
    slope = (read(video + eps * direction) - read(video - eps * direction)) / (2 * eps)
    assert float((gradient * direction).sum()) == pytest.approx(float(slope), rel=1e-6)
    assert gradient[:, 0, :, :, 20:].abs().max() == 0  # what is generated anyway
    assert load_golden(NAMES["inpaint"]).config["in_channels"] == 33


@pytest.mark.parametrize(
    ("channels", "inputs"),
    [
        (33, {"image": clips()[:, 0], "frames": 5}),
        (48, {"control": clips(frames=5), "reference": clips()[:, 0]}),
        (38, {"camera": torch.ones(1, 6, 5, *SIZE[1:])}),
    ],
)
@torch.no_grad()
def test_the_embedded_architecture_takes_them(channels: int, inputs: dict[str, Any]) -> None:
    from diffusers import AutoencoderKLMagvit, EasyAnimateTransformer3DModel

    from base_model.tiny.configs import TEXT_WIDTH, TRANSFORMER, VAE

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        transformer = EasyAnimateTransformer3DModel(**{**TRANSFORMER, "in_channels": channels})
        generator = Generator(transformer.eval(), AutoencoderKLMagvit(**VAE).eval())
        states = torch.randn(1, 6, TEXT_WIDTH)
    noise = generator.initial_noise(generator.latent_shape(1, 5, *SIZE[1:]), [1])
    found = [
        generator.velocity(noise, 0.5, condition.positive)
        for condition in (
            generator.condition(TextCondition(states, states), **inputs),
            generator.condition(TextCondition(states, states)),
        )
    ]
    assert found[0].shape == noise.shape
    assert relative(*found) > 1e-4
