"""Shipped checkpoints in stock diffusers, as somebody without this package opens them."""

import json
import shutil
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from diffusers import DiffusionPipeline
from torch import Tensor

from base_model.convert.conversion import convert_checkpoint
from base_model.errors import GeneratorError
from base_model.files.shipped import resolve_checkpoint
from base_model.generator import Generator, load_generator
from base_model.loading.checkpoint import local_folder
from base_model.loading.text_encoder_files import load_tokenizer, newer_than_easyanimate
from base_model.networks.corrections import correct
from base_model.sampling.guidance import Guidance
from base_model.sampling.sample import euler_sample
from base_model.sampling.sigmas import sigma_table

PROMPT = "a large blue square moves right on a dark background"
PIPELINES = {
    "tiny": "EasyAnimatePipeline",
    "tiny-inpaint": "EasyAnimateInpaintPipeline",
    "tiny-control": "EasyAnimateControlPipeline",
    "tiny-camera": "EasyAnimateControlPipeline",
}


def opened(folder: Path) -> Any:
    pipeline = DiffusionPipeline.from_pretrained(folder, torch_dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def whole(name: str, tmp_path: Path) -> Path:
    """What a stock user opens: the shipped folder, or what `convert` makes of a delta."""
    source = resolve_checkpoint(name)
    assert isinstance(source, Path)
    if name == "tiny":
        return source
    return convert_checkpoint(source, tmp_path / name, "diffusers").folder


@pytest.mark.parametrize("name", PIPELINES)
def test_it_opens(tmp_path: Path, name: str) -> None:
    folder = whole(name, tmp_path)
    assert isinstance(load_generator(folder), Generator)  # and here, too
    pipeline = opened(folder)
    assert type(pipeline).__name__ == PIPELINES[name]
    expected = load_generator(name)
    for part in ("transformer", "vae"):
        state = getattr(pipeline, part).state_dict()
        ours = getattr(expected, part).state_dict()
        assert state.keys() == ours.keys()
        assert all(torch.equal(state[key], ours[key]) for key in state)
    assert pipeline.vae.config.cache_mag_vae is True  # the port's inpaint pipeline reads it


def ours(generator: Generator, noise: Tensor, steps: int) -> Tensor:
    condition = generator.condition(generator.encode_prompts([PROMPT], [""]))
    return euler_sample(generator, condition, noise, sigma_table(steps), Guidance(5.0))


def theirs(pipeline: Any, noise: Tensor, steps: int) -> Tensor:
    """The stock pipeline at the text length that the checkpoint was trained with."""
    length = pipeline.tokenizer.model_max_length
    text = pipeline.encode_prompt(
        PROMPT, negative_prompt="", device="cpu", dtype=torch.float32, max_sequence_length=length
    )
    positive, negative, positive_mask, negative_mask = text
    return cast(
        "Tensor",
        pipeline(
            prompt_embeds=positive,
            negative_prompt_embeds=negative,
            prompt_attention_mask=positive_mask,
            negative_prompt_attention_mask=negative_mask,
            latents=noise.clone(),
            num_frames=4 * (noise.shape[2] - 1) + 1,
            height=8 * noise.shape[3],
            width=8 * noise.shape[4],
            num_inference_steps=steps,
            guidance_scale=5.0,
            output_type="latent",
        ).frames,
    )


@pytest.mark.parametrize("size", [(64, 64), (64, 96)], ids=str)
def test_corrected_it_draws_what_we_draw(size: tuple[int, int]) -> None:
    """`correct` is all that is between the two; at 3:2 the rotary grid is no part of it."""
    generator = load_generator("tiny")
    pipeline = opened(cast("Path", resolve_checkpoint("tiny")))
    noise = generator.initial_noise(generator.latent_shape(1, 9, *size), [0])
    wanted = ours(generator, noise, 8)
    as_it_comes = (theirs(pipeline, noise, 8) - wanted).norm() / wanted.norm()
    correct(pipeline.transformer)
    corrected = (theirs(pipeline, noise, 8) - wanted).norm() / wanted.norm()
    assert corrected < 1e-4
    assert as_it_comes > 0.01


def test_the_published_way_to_hold_the_text(tmp_path: Path) -> None:
    """What EasyAnimate's environment reads: flat config, old names, vocab.json and merges.txt."""
    tiny = cast("Path", resolve_checkpoint("tiny"))
    config = json.loads((tiny / "text_encoder" / "config.json").read_text())
    assert {"hidden_size", "rope_theta", "rope_scaling", "vision_config"} <= config.keys()
    assert config["rope_scaling"]["type"] == "mrope"
    assert newer_than_easyanimate(tiny) == ()
    whole_tokenizer = load_tokenizer(tiny / "tokenizer")
    slow = tmp_path / "slow"
    shutil.copytree(tiny / "tokenizer", slow)
    (slow / "tokenizer.json").unlink()
    texts = [PROMPT, "一个大的蓝色方块", " It's 12!\n\tnaïve 🐕 <|im_end|> é"]
    assert load_tokenizer(slow)(texts)["input_ids"] == whole_tokenizer(texts)["input_ids"]


def test_a_conversion_says_what_easyanimate_cannot_open(tmp_path: Path, text_folder: Path) -> None:
    """As transformers of today saves it."""
    source = tmp_path / "source"
    shutil.copytree(local_folder(cast("Path", resolve_checkpoint("tiny"))), source)
    for part in ("text_encoder", "tokenizer"):
        shutil.rmtree(source / part)
        shutil.copytree(text_folder / part, source / part)
    done = convert_checkpoint(source, tmp_path / "original", "original")
    assert [note.partition(" ")[0] for note in done.notes] == ["text_encoder/", "tokenizer/"]
    assert convert_checkpoint(tmp_path / "original", tmp_path / "back", "diffusers").notes == ()


def test_the_same_layout_is_still_refused_for_others() -> None:
    with pytest.raises(GeneratorError, match="is already in the diffusers layout"):
        convert_checkpoint(cast("Path", resolve_checkpoint("tiny")), Path("x"), "diffusers")
