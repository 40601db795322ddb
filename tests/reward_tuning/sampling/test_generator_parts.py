"""A generator with its transformer, VAE or text encoder from elsewhere."""

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from base_model.errors import GeneratorError
from base_model.files.shipped import PARTS, WEIGHTS
from base_model.generator import load_generator
from reward_tuning.errors import TuningError
from reward_tuning.sampling.generator_parts import (
    generator_checkpoint,
    generator_folder,
    to_download,
)
from reward_tuning.schema.loading import load_recipe
from reward_tuning.schema.recipe import Recipe
from reward_tuning.schema.sections import GeneratorSection
from reward_tuning.tuning.fingerprints import fingerprints_of
from tests.reward_tuning.recipes_for_tests import write_recipe

TINY = WEIGHTS / "tiny"
FILE = "diffusion_pytorch_model.safetensors"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("REWARD_TUNING_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def tuned(tmp_path: Path) -> Path:
    """A transformer's file in which one weight is another."""
    state = load_file(TINY / "transformer" / FILE)
    state["proj_out.bias"] = torch.full_like(state["proj_out.bias"], 2.0)
    path = tmp_path / "mine" / "tuned.safetensors"
    path.parent.mkdir()
    save_file(state, path)
    return path


def section(**parts: str) -> GeneratorSection:
    return GeneratorSection.model_validate({"checkpoint": "tiny", **parts})


def bias(generator: GeneratorSection) -> torch.Tensor:
    loaded = load_generator(generator_checkpoint(generator), text_encoder=False)
    tensor: torch.Tensor = loaded.transformer.proj_out.bias
    return tensor


def test_without_parts_it_is_the_checkpoint(cache: Path) -> None:
    assert generator_checkpoint(section()) == "tiny"
    assert not cache.exists()


def test_a_file_of_weights_takes_the_transformers_place(tuned: Path) -> None:
    assert not bool((bias(section()) == 2.0).any())
    assert bool((bias(section(transformer=str(tuned))) == 2.0).all())
    folder = generator_folder(section(transformer=str(tuned)), text_encoder=True)
    assert (folder / "transformer" / FILE).resolve() == tuned
    assert (folder / "vae").resolve() == TINY / "vae"
    assert folder == generator_folder(section(transformer=str(tuned)), text_encoder=True)


def test_a_folder_or_a_whole_checkpoint_does_too(tuned: Path, tmp_path: Path) -> None:
    part = tmp_path / "part"
    part.mkdir()
    shutil.copy(TINY / "transformer" / "config.json", part)
    shutil.copy(tuned, part / "weights.safetensors")
    assert bool((bias(section(transformer=str(part))) == 2.0).all())
    whole = tmp_path / "whole"
    shutil.copytree(part, whole / "transformer")
    assert bool((bias(section(transformer=str(whole))) == 2.0).all())


def test_a_shipped_checkpoint_lends_its_transformer() -> None:
    folder = generator_folder(section(transformer="tiny-inpaint"), text_encoder=False)
    loaded = load_generator(folder, text_encoder=False)
    assert loaded.transformer.config.in_channels == 33
    assert (folder / "vae").resolve() == TINY / "vae"


def test_every_part_may_come_from_elsewhere(tmp_path: Path) -> None:
    vae = tmp_path / "vae.safetensors"
    state = load_file(TINY / "vae" / FILE)
    name = "decoder.conv_out.bias"
    state[name] = torch.full_like(state[name], 2.0)
    save_file(state, vae)
    # A Qwen2-VL as the hub has it: weights and tokenizer in one folder.
    qwen = tmp_path / "qwen"
    shutil.copytree(TINY / "text_encoder", qwen)
    for file in (TINY / "tokenizer").iterdir():
        shutil.copy(file, qwen)
    generator = section(vae=str(vae), text_encoder=str(qwen))
    folder = generator_folder(generator, text_encoder=True)
    assert (folder / "tokenizer").resolve() == qwen
    loaded = load_generator(folder)
    plain = load_generator("tiny")
    assert bool((loaded.vae.decoder.conv_out.bias == 2.0).all())
    assert not bool((plain.vae.decoder.conv_out.bias == 2.0).any())
    mine, theirs = (
        one.encode_prompts(["a red star rises"], [""]).positive for one in (loaded, plain)
    )
    torch.testing.assert_close(mine, theirs)
    bare = tmp_path / "bare"
    shutil.copytree(TINY / "text_encoder", bare)
    kept = generator_folder(section(text_encoder=str(bare)), text_encoder=True)
    assert (kept / "tokenizer").resolve() == TINY / "tokenizer"  # it brings none


def test_a_recipe_names_parts_relative_to_itself_and_hashes_them(tuned: Path) -> None:
    here = tuned.parent
    judge = {"kind": "motion_energy"}
    changes = {
        "generator__checkpoint": "tiny",
        "rewards": [judge],
        "evaluation__held_out_rewards": [{"kind": "sharpness"}],
    }
    path = write_recipe(here, **changes, generator__transformer="tuned.safetensors")
    recipe = load_recipe(str(path))
    assert isinstance(recipe, Recipe)
    assert recipe.generator.transformer == str(tuned)
    plain = load_recipe(str(path), ["generator.transformer=null"])
    found = [fingerprints_of(one)["generator"] for one in (recipe, plain)]
    assert found[0] != found[1]
    same = load_recipe(str(path), [f"generator.transformer={TINY / 'transformer' / FILE}"])
    assert fingerprints_of(same)["generator"] == found[1]


def test_what_is_no_part_is_refused(tuned: Path, tmp_path: Path) -> None:
    path = write_recipe(tmp_path, generator__checkpoint="tiny", generator__transformer="a/b/c")
    with pytest.raises(TuningError, match=r"generator\.transformer: got 'a/b/c'; No transformer"):
        load_recipe(str(path))
    torch.save({"a": torch.ones(1)}, tmp_path / "weights.bin")
    path = write_recipe(tmp_path, generator__checkpoint="tiny", generator__vae="weights.bin")
    with pytest.raises(TuningError, match=r"weights\.bin is no \.safetensors file"):
        load_recipe(str(path))
    with pytest.raises(GeneratorError, match="holds no text_encoder"):
        generator_checkpoint(section(text_encoder=str(tuned.parent)))
    state = load_file(tuned)
    del state["proj_out.bias"]
    save_file(state, tuned)
    with pytest.raises(GeneratorError, match=r"1 missing: proj_out\.bias"):
        bias(section(transformer=str(tuned)))


def test_a_hub_generator_is_to_download_until_the_cache_has_all_its_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.file_download.HF_HUB_CACHE", str(tmp_path), raising=False)
    generator = GeneratorSection(checkpoint="owner/name")
    assert to_download(GeneratorSection(checkpoint="tiny")) == []
    assert to_download(generator) == ["owner/name"]
    commit = "0" * 40
    repository = tmp_path / "models--owner--name"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(commit)
    for part in PARTS:
        folder = repository / "snapshots" / commit / part
        folder.mkdir(parents=True)
        (folder / "config.json").touch()
        assert to_download(generator) == ["owner/name"]  # the weights are on their way
        (folder / "model.safetensors").touch()
    assert to_download(generator) == []
    assert to_download(GeneratorSection(checkpoint="owner/name@v2")) == ["owner/name@v2"]
