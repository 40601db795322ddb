"""Inpaint conditions against diffusers' pipeline, channel by channel."""

import pytest
import torch

from base_model.conditions.conditions import ConditionInputs
from base_model.conditions.inpainting import (
    KEPT_NOISE,
    extended,
    inpaint_latents,
    kept_clip,
    kept_noise,
)
from base_model.errors import GeneratorError
from base_model.generator import Generator
from tests.base_model.conditions.small_conditions import (
    SIZE,
    TEXT,
    clips,
    half_mask,
    published_layout,
    published_noise,
    text,
)
from tests.base_model.published_pipelines import seen_by_the_transformer
from tests.goldens import relative


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


def test_an_extended_clip_keeps_the_first_frames(generators: dict[str, Generator]) -> None:
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
