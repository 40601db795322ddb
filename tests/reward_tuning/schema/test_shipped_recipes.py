"""Every shipped recipe loads, fits its method, and says in its header what it costs."""

import re
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from base_model.conditions.camera_motions import parse_motion
from reward_tuning.files.frame_files import read_picture
from reward_tuning.files.yaml_text import read_yaml
from reward_tuning.inputs.prompts import read_prompts
from reward_tuning.inputs.rendered_prompts import MODES, write_rendered_prompts
from reward_tuning.schema.loading import dump_recipe, load_recipe
from reward_tuning.schema.locate import (
    find_recipe,
    header_lines,
    prompt_path,
    shipped_folder,
    shipped_recipes,
)
from reward_tuning.tuning.preflight import check_run

NAMES = [recipe.name for recipe in shipped_recipes()]


def test_names() -> None:
    assert NAMES == [
        "easyanimate-v5.1-12b-hps",
        "easyanimate-v5.1-12b-hps-16gb",
        "easyanimate-v5.1-12b-hps-24gb",
        "easyanimate-v5.1-12b-hps-48gb",
        "easyanimate-v5.1-12b-hps-512-80gb",
        "easyanimate-v5.1-12b-hps-long",
        "easyanimate-v5.1-7b-camera-hps",
        "easyanimate-v5.1-7b-control-hps",
        "easyanimate-v5.1-7b-hps",
        "easyanimate-v5.1-7b-hps-24gb",
        "easyanimate-v5.1-7b-hps-long",
        "easyanimate-v5.1-7b-image-to-video-hps",
        "tiny-adjoint-matching-hps",
        "tiny-alignprop-hps",
        "tiny-awm-hps",
        "tiny-camera-hps",
        "tiny-demo",
        "tiny-demo-4-steps",
        "tiny-direct-align-hps",
        "tiny-draft-aesthetic",
        "tiny-draft-hps",
        "tiny-draft-k-hps",
        "tiny-draft-lv-hps",
        "tiny-drtune-hps",
        "tiny-drtune-multi",
        "tiny-easyanimate-hps",
        "tiny-edges-hps",
        "tiny-flowbp-bridge-hps",
        "tiny-flowbp-lagrange-hps",
        "tiny-flowbp-sparse-hps",
        "tiny-image-to-video-hps",
        "tiny-leapalign-hps",
        "tiny-masked-edit-hps",
        "tiny-nft-hps",
        "tiny-paired-hps",
        "tiny-prfl-latent",
        "tiny-refl-hps",
        "tiny-trajectory-hps",
        "tiny-video-to-video-hps",
    ]


@pytest.mark.parametrize("name", NAMES)
def test_loads_with_every_file_in_place(name: str) -> None:
    recipe = load_recipe(name)
    mistakes = check_run(recipe, torch.device("cpu")).mistakes
    if recipe.generator.quantise == "nf4" and find_spec("bitsandbytes") is None:
        assert len(mistakes) == 1
        assert "nf4 need bitsandbytes" in mistakes[0]
    else:
        assert mistakes == []


@pytest.mark.parametrize("name", NAMES)
def test_dumped_recipe_loads_back_equal(name: str, tmp_path: Path) -> None:
    recipe = load_recipe(name)
    (tmp_path / "recipe.yaml").write_text(dump_recipe(recipe), encoding="utf-8")
    assert load_recipe(tmp_path / "recipe.yaml") == recipe


@pytest.mark.parametrize("name", NAMES)
def test_keys_and_values_without_files(name: str) -> None:
    recipe = load_recipe(name, check_files=False)
    assert recipe.output == f"runs/{name}"
    assert recipe.evaluation.held_out_rewards, "a recipe without a held-out judge proves nothing"
    assert recipe.train.adam_eps == 1e-10


@pytest.mark.parametrize("name", NAMES)
def test_header(name: str) -> None:
    header = header_lines(find_recipe(name))
    assert header[0].endswith(".")
    text = "\n".join(header)
    assert f"reward-tuning run {name}" in text
    assert "Hardware:" in text
    for word in ("Memory", "Time", "Result") if name.startswith("easyanimate") else ():
        assert f"{word}:" in text
    assert name.startswith("tiny") or "not run with published weights yet" in text


@pytest.mark.parametrize("name", NAMES)
def test_names_in_a_shipped_recipe_stay_valid_elsewhere(name: str) -> None:
    data = read_yaml(find_recipe(name).read_text(encoding="utf-8"))
    for prompts in data["prompts"].values():
        assert not prompts.startswith((".", "/"))
        assert shipped_folder("recipes") in prompt_path(prompts).parents


def test_prompt_lists_of_the_published_models() -> None:
    train, held_out = (
        read_prompts(prompt_path(f"prompts/scenes-{part}.jsonl")) for part in ("train", "held-out")
    )
    both = [*train, *held_out]
    assert len(both) >= 60
    assert len({prompt.text for prompt in both}) == len(both)
    assert not {p.reward_text for p in train} & {p.reward_text for p in held_out}
    chinese = [prompt for prompt in both if re.search("[一-鿿]", prompt.text)]
    assert len(chinese) >= 20
    for prompt in both:
        # the judges' CLIP reads 77 tokens of English; a word is hardly more than two tokens
        assert prompt.reward_text.isascii()
        assert 3 <= len(prompt.reward_text.split()) <= 20


def test_judges_read_the_reward_prompts_whole() -> None:
    from open_clip import SimpleTokenizer

    tokenizer = SimpleTokenizer()
    for part in ("train", "held-out"):
        for prompt in read_prompts(prompt_path(f"prompts/scenes-{part}.jsonl")):
            assert len(tokenizer.encode(prompt.reward_text)) + 2 <= 77


def test_prompts_of_the_published_camera_recipe_name_motions() -> None:
    for part in ("train", "held-out"):
        prompts = read_prompts(prompt_path(f"prompts/scenes-camera-{part}.jsonl"))
        assert len(prompts) >= 12
        for prompt in prompts:
            assert prompt.files.camera is not None
            parse_motion(prompt.files.camera)
            assert "camera" not in prompt.text  # it must not say another motion


@pytest.mark.parametrize("mode", sorted(MODES))
def test_shipped_prompts_of_a_mode_are_what_render_writes(mode: str, tmp_path: Path) -> None:
    """Texts and points to the byte, pictures to the level; clips depend on their encoder."""
    written = write_rendered_prompts(tmp_path, mode, 24)
    shipped = shipped_folder("recipes") / "tiny" / mode / "train"
    assert {path.name for path in shipped.iterdir()} == {path.name for path in tmp_path.iterdir()}
    for path in shipped.iterdir():
        again = written.parent / path.name
        if path.suffix == ".png":
            assert read_picture(path).equal(read_picture(again)), path.name
        elif path.suffix != ".mp4":
            assert path.read_bytes() == again.read_bytes(), path.name


def test_the_two_published_recipes_differ_in_the_model_alone() -> None:
    small, large = (load_recipe(f"easyanimate-v5.1-{size}-hps") for size in ("7b", "12b"))
    assert "7b" in small.generator.checkpoint
    assert "12b" in large.generator.checkpoint
    for one in (small, large):
        assert (one.sampling.frames, one.sampling.height, one.sampling.width) == (49, 256, 256)
        assert (one.sampling.steps, one.sampling.guidance_scale) == (8, 6.0)
        assert one.evaluation.steps == 25
    same = {"generator": small.generator, "output": small.output}
    assert large.model_copy(update=same) == small
