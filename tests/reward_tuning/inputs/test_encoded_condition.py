"""Encoded conditions of single clips and of batches."""

from pathlib import Path

import pytest
import torch

from base_model.generator import Generator, load_generator
from reward_tuning.errors import TuningError
from reward_tuning.inputs.condition_files import ConditionFiles
from reward_tuning.inputs.condition_pixels import read_condition_pixels
from reward_tuning.inputs.encoded_condition import (
    EncodedCondition,
    encode_condition,
    stacked_channels,
    stacked_starts,
)
from tests.goldens import write_checkpoint
from tests.reward_tuning.kinds import CHECKPOINTS, FRAMES, HEIGHT, WIDTH, write_media

SIZE = (FRAMES, HEIGHT, WIDTH)


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_media(tmp_path_factory.mktemp("media"))
    for channels in (16, 33):
        write_checkpoint(folder / str(channels), CHECKPOINTS[channels])
    return folder


@pytest.fixture(scope="module")
def inpaint(media: Path) -> Generator:
    return load_generator(media / "33", text_encoder=False)


def encoded(generator: Generator, files: ConditionFiles, strength: float) -> EncodedCondition:
    pixels = read_condition_pixels(files, SIZE)
    return encode_condition(generator, files, pixels, strength=strength, noise_seed=5)


@torch.no_grad()
def test_channels_and_start_are_those_of_the_generator(media: Path, inpaint: Generator) -> None:
    files = ConditionFiles(video=str(media / "video.mp4"), mask=str(media / "mask.png"))
    inputs = read_condition_pixels(files, SIZE).inputs
    found = encoded(inpaint, files, 0.7)
    assert found.channels is not None
    assert found.start is not None
    expected = inpaint.encode_condition(inputs, noise_seeds=[5])
    assert expected is not None
    assert torch.equal(found.channels, expected[0])
    assert inputs.video is not None
    assert torch.equal(found.start, inpaint.encode(inputs.video)[0])
    assert encoded(inpaint, files, 1.0).start is None


def test_a_checkpoint_that_does_not_take_it_is_refused(media: Path) -> None:
    generator = load_generator(media / "16", text_encoder=False)
    files = ConditionFiles(image=str(media / "start.png"))
    with pytest.raises(TuningError, match=r"^image .*start\.png: .*does not take the image"):
        encoded(generator, files, 1.0)


def test_a_batch_has_zeros_for_clips_without_channels() -> None:
    channels = torch.rand(17, 2, 4, 6)
    found = stacked_channels([EncodedCondition(), EncodedCondition(channels)])
    assert found is not None
    assert torch.equal(found, torch.stack([torch.zeros_like(channels), channels]))
    assert stacked_channels([EncodedCondition(), EncodedCondition()]) is None


def test_a_batch_starts_from_videos_or_from_noise() -> None:
    starts = torch.rand(2, 16, 2, 4, 6)
    found = stacked_starts([EncodedCondition(start=start) for start in starts])
    assert found is not None
    assert torch.equal(found, starts)
    assert stacked_starts([EncodedCondition(), EncodedCondition()]) is None
    with pytest.raises(AssertionError):
        stacked_starts([EncodedCondition(start=starts[0]), EncodedCondition()])
