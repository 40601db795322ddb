"""The text encoder and VAE of a whole generator at rest."""

import shutil
from pathlib import Path

import pytest
import torch

from base_model.errors import GeneratorError
from base_model.generator import Generator, load_generator
from base_model.memory.modes import Memory
from base_model.memory.offload import Offload
from base_model.memory.resting import Resting, block_home
from tests.boundary import Boundary

CPU = torch.device("cpu")


@pytest.fixture
def whole(checkpoint: Path, text_folder: Path, tmp_path: Path) -> Path:
    shutil.copytree(checkpoint, tmp_path / "whole")
    shutil.copytree(text_folder, tmp_path / "whole", dirs_exist_ok=True)
    return tmp_path / "whole"


def poisoned(generator: Generator) -> Boundary:
    """The generator's text encoder and VAE behind a boundary."""
    boundary, encoder = Boundary(), generator.prompt_encoder
    assert encoder is not None
    generator.resting = Resting(
        Offload([encoder.text_encoder], CPU, boundary), Offload([generator.vae], CPU, boundary)
    )
    boundary.close([encoder.text_encoder, generator.vae])
    return boundary


def test_each_part_works_alone_and_rests_afterwards(whole: Path) -> None:
    reference, generator = load_generator(whole), load_generator(whole)
    boundary = poisoned(generator)
    text = generator.encode_prompts(["a red ball"], [""])
    assert torch.equal(text.positive, reference.encode_prompts(["a red ball"], [""]).positive)
    encoder = generator.prompt_encoder
    assert encoder is not None
    first = boundary.copies
    assert first == len([*encoder.text_encoder.parameters(), *encoder.text_encoder.buffers()])
    assert boundary.bytes == 0
    latents = torch.randn(1, 16, 2, 4, 4, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        frames = generator.decode(latents)
        assert torch.equal(frames, reference.decode(latents))
        assert torch.equal(generator.encode(frames), reference.encode(frames))
    assert boundary.copies == first + 2 * len([*generator.vae.parameters()])
    assert boundary.bytes == 0


def test_a_gradient_needs_a_longer_stay(whole: Path) -> None:
    reference, generator = load_generator(whole), load_generator(whole)
    boundary = poisoned(generator)
    latents = torch.randn(1, 16, 2, 4, 4, generator=torch.Generator().manual_seed(0))
    expected = latents.clone().requires_grad_()
    reference.decode(expected).square().sum().backward()
    leaf = latents.clone().requires_grad_()
    with pytest.raises(GeneratorError, match=r"The VAE rests on the CPU .*vae\.at_work"):
        generator.decode(leaf)
    with pytest.raises(GeneratorError, match="The VAE rests on the CPU"):
        generator.encode(torch.rand(1, 1, 3, 16, 16).requires_grad_())
    with generator.resting.vae.at_work():
        generator.decode(leaf).square().sum().backward()
    assert leaf.grad is not None
    assert expected.grad is not None
    assert torch.equal(leaf.grad, expected.grad)
    assert boundary.bytes == 0


@pytest.mark.parametrize("memory", ["resident", "offload", "block-offload"])
def test_what_rests(whole: Path, memory: Memory) -> None:
    generator = load_generator(whole, memory=memory)
    assert generator.resting.vae.absent == (memory != "resident")
    assert generator.resting.text_encoder.absent == (memory != "resident")
    without = load_generator(whole, memory=memory, text_encoder=False)
    assert without.resting.vae.absent == (memory != "resident")
    assert not without.resting.text_encoder.absent


@pytest.mark.parametrize(
    ("memory", "home"), [("resident", "gpu"), ("offload", "gpu"), ("block-offload", "cpu")]
)
def test_home_of_blocks(memory: Memory, home: str) -> None:
    assert block_home(memory, "transformer_blocks.3.ff.net.2.bias", "gpu") == home
    assert block_home(memory, "proj.weight", "gpu") == "gpu"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_gpu(whole: Path) -> None:
    generator = load_generator(whole, device="cuda", memory="offload")
    assert generator.vae.post_quant_conv.weight.device.type == "cpu"
    assert generator.device.type == "cuda"
    text = generator.encode_prompts(["a red ball"], [""])
    assert text.positive.device.type == "cuda"
    with torch.no_grad():
        assert generator.decode(torch.zeros(1, 16, 1, 4, 4)).device.type == "cuda"
    assert generator.vae.post_quant_conv.weight.device.type == "cpu"
