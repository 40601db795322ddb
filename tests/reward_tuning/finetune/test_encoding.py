"""What a step reads, on checkpoints of every kind."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from base_model.conditions.camera import clip_poses, plucker_rays, read_pose_file
from base_model.core.latent_grid import to_latent_grid
from base_model.generator import Generator, load_generator
from base_model.memory.offload import Offload
from base_model.memory.resting import Resting
from base_model.networks import magvit
from reward_tuning.files.clips import read_clip
from reward_tuning.files.frame_files import fitted
from reward_tuning.finetune.batches import ClipBatch
from reward_tuning.finetune.encoding import BatchEncoder
from reward_tuning.finetune.metadata import read_metadata
from reward_tuning.finetune.pixels import ClipReader
from reward_tuning.finetune.posterior_cache import PosteriorCache
from reward_tuning.finetune.sections import DataSection, DropoutSection, MasksSection
from reward_tuning.finetune.survey import survey
from tests.boundary import Boundary
from tests.reward_tuning.kinds import write_kind, write_media

NONE = DropoutSection(text=0.0, control=0.0, reference=0.0, zeroed=1.0)
BATCH = ClipBatch(0, (0, 1), (2, 0), 5, 32, 48)


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_media(tmp_path_factory.mktemp("media"))
    rows = [
        {"file_path": "video.mp4", "text": "a", "control_file_path": "other.mp4"},
        {"file_path": "other.mp4", "text": "b"},
    ]
    (folder / "control.json").write_text(json.dumps(rows))
    rows[0]["control_file_path"] = "poses.txt"
    (folder / "camera.json").write_text(json.dumps(rows))
    return folder


@pytest.fixture(scope="module")
def generators(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Generator]:
    folder = tmp_path_factory.mktemp("kinds")
    return {
        channels: load_generator(write_kind(folder / str(channels), channels), text_encoder=False)
        for channels in (16, 33, 48, 38)
    }


def encoder(
    generator: Generator,
    media: Path,
    name: str = "control.json",
    dropout: DropoutSection = NONE,
    cache: Path | None = None,
    seed: int = 1,
    **data: object,
) -> BatchEncoder:
    width = generator.transformer.config.text_embed_dim
    draw = torch.Generator().manual_seed(0)
    states = {text: torch.randn(6, width, generator=draw) for text in ("a", "b", "")}
    section = DataSection(metadata="x.json", stride=1, frames=5, **data)  # type: ignore[arg-type]
    clips = survey(read_metadata(media / name), controls=True).clips
    return BatchEncoder(
        generator,
        ClipReader(clips, 1),
        states,
        PosteriorCache(cache, "vae"),
        section,
        dropout,
        MasksSection(),
        seed,
    )


def expected_pixels(media: Path, name: str, start: int) -> Tensor:
    return fitted(read_clip(media / name)[start : start + 5], 32, 48)


def test_the_modes_are_the_generators_own_encoding(
    generators: dict[int, Generator], media: Path
) -> None:
    found = encoder(generators[16], media, latents="mode")(BATCH)
    pixels = [expected_pixels(media, "video.mp4", 2), expected_pixels(media, "other.mp4", 0)]
    expected = generators[16].encode(torch.stack(pixels))
    torch.testing.assert_close(found.latents, expected, rtol=1e-4, atol=1e-5)
    assert found.condition.inpaint_latents is None


@pytest.mark.slow
def test_samples_have_the_posteriors_deviation(
    generators: dict[int, Generator], media: Path
) -> None:
    vae = generators[16].vae
    video = expected_pixels(media, "video.mp4", 2)[None].transpose(1, 2) * 2 - 1
    mean, log_variance = magvit.encode_moments(vae, video).chunk(2, dim=1)
    deviation = (0.5 * log_variance).exp() * vae.config.scaling_factor
    drawn = torch.stack(
        [(encoder(generators[16], media, seed=seed)(BATCH).latents[:1]) for seed in range(40)]
    )
    z = (drawn - mean * vae.config.scaling_factor) / deviation
    assert z.mean().item() == pytest.approx(0.0, abs=0.03)
    assert z.std().item() == pytest.approx(1.0, abs=0.03)


def test_a_draw_depends_on_seed_and_number_alone(
    generators: dict[int, Generator], media: Path
) -> None:
    make = encoder(generators[33], media, dropout=DropoutSection())
    other = ClipBatch(
        1, *[getattr(BATCH, k) for k in ("clips", "starts", "frames", "height", "width")]
    )
    first, between, again = make(BATCH), make(other), make(BATCH)
    assert torch.equal(first.latents, again.latents)
    assert torch.equal(first.condition.inpaint_latents, again.condition.inpaint_latents)
    assert not torch.equal(first.latents, between.latents)


def test_copies_differ_in_their_posterior_draw(
    generators: dict[int, Generator], media: Path
) -> None:
    batch = ClipBatch(0, (0, 1), (2, 0), 5, 32, 48, copies=2)
    found = encoder(generators[16], media, latents="mode")(batch)
    assert torch.equal(found.latents[:2], found.latents[2:])
    sampled = encoder(generators[16], media)(batch)
    assert not torch.equal(sampled.latents[:2], sampled.latents[2:])
    assert torch.equal(found.condition.text[:2], found.condition.text[2:])


def test_dropped_text_is_the_empty_prompt(generators: dict[int, Generator], media: Path) -> None:
    make = encoder(generators[16], media, dropout=DropoutSection(text=1.0))
    assert torch.equal(make(BATCH).condition.text, make.states[""].expand(2, -1, -1))
    make = encoder(generators[16], media)
    assert torch.equal(
        make(BATCH).condition.text, torch.stack([make.states["a"], make.states["b"]])
    )


def test_control_clip_and_first_frame(generators: dict[int, Generator], media: Path) -> None:
    found = encoder(generators[48], media)(BATCH).condition.control_latents
    assert found is not None
    assert found.shape == (2, 32, 2, 4, 6)
    control = generators[48].encode(expected_pixels(media, "other.mp4", 2)[None])
    torch.testing.assert_close(found[:1, :16], control, rtol=1e-4, atol=1e-5)
    assert found[1, :16].abs().max() == 0  # its row has no control
    image = generators[48].encode(expected_pixels(media, "video.mp4", 2)[None, :1])
    torch.testing.assert_close(found[:1, 16:, :1], image, rtol=1e-4, atol=1e-5)
    assert found[:, 16:, 1:].abs().max() == 0
    none = encoder(generators[48], media, reference="none")(BATCH).condition.control_latents
    assert none is not None
    assert none[:, 16:].abs().max() == 0


def test_camera_rays_start_with_the_part(generators: dict[int, Generator], media: Path) -> None:
    found = encoder(generators[38], media, "camera.json", dropout=DropoutSection(control=1.0))
    channels = found(BATCH).condition.control_latents
    assert channels is not None
    poses = clip_poses(read_pose_file(media / "poses.txt")[2:], 5)
    rays = plucker_rays(poses, 32, 48).permute(3, 0, 1, 2)[None].float()
    torch.testing.assert_close(channels[:1, :6], to_latent_grid(rays, (2, 4, 6)) * 6.0)
    assert channels[1, :6].abs().max() == 0


def test_samples_of_which_nothing_is_kept(generators: dict[int, Generator], media: Path) -> None:
    make = encoder(generators[33], media)
    everything = MasksSection(video=(0.0, 1.0, *[0.0] * 8))
    zeroed = replace(make, masks=everything)(BATCH)
    assert zeroed.condition.inpaint_latents is not None
    assert zeroed.condition.inpaint_latents.abs().max() == 0
    kept = DropoutSection(zeroed=0.0)
    black = replace(make, masks=everything, dropout=kept)(BATCH)
    channels = black.condition.inpaint_latents
    assert channels is not None
    assert channels[:, 0].abs().max() == 0
    expected = generators[33].encode(torch.zeros(1, 5, 3, 32, 48))
    torch.testing.assert_close(channels[:1, 1:], expected, rtol=1e-4, atol=3e-4)


def test_the_cache_gives_the_same_and_is_mended(
    generators: dict[int, Generator], media: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    expected = encoder(generators[48], media)(BATCH)
    first = encoder(generators[48], media, cache=tmp_path)
    assert torch.equal(first(BATCH).latents, expected.latents)
    assert (first.cache.hits, first.cache.misses) == (0, 3)  # two clips and a control clip
    again = encoder(generators[48], media, cache=tmp_path)
    found = again(BATCH)
    assert (again.cache.hits, again.cache.misses) == (3, 0)
    assert torch.equal(found.latents, expected.latents)
    assert torch.equal(found.condition.control_latents, expected.condition.control_latents)
    other = ClipBatch(0, (0, 1), (1, 0), 5, 32, 48)
    again(other)
    assert (again.cache.hits, again.cache.misses) == (4, 2)  # another part of the first clip
    for file in tmp_path.iterdir():
        content = bytearray(file.read_bytes())
        content[-1] ^= 1
        file.write_bytes(content)
    mended = encoder(generators[48], media, cache=tmp_path)
    assert torch.equal(mended(BATCH).latents, expected.latents)
    assert mended.cache.hits == 0
    assert "damaged" in caplog.text


@pytest.mark.parametrize(("channels", "name"), [(16, "control"), (33, "control"), (48, "control")])
def test_a_vae_that_rests_is_at_work_while_it_encodes(
    generators: dict[int, Generator], media: Path, channels: int, name: str
) -> None:
    expected = encoder(generators[channels], media, f"{name}.json")(BATCH)
    generator = copy.deepcopy(generators[channels])
    boundary = Boundary()
    rests = Offload([generator.vae], torch.device("cpu"), boundary)
    generator.resting = Resting(Offload([], torch.device("cpu")), rests)
    boundary.close([generator.vae])
    found = encoder(generator, media, f"{name}.json")(BATCH)
    assert torch.equal(found.latents, expected.latents)
    field = generator.kind.field
    if field is not None:
        assert torch.equal(getattr(found.condition, field), getattr(expected.condition, field))
    assert boundary.copies > 0
    assert boundary.bytes == 0
