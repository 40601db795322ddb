"""Mean and std of the base's clips, against clips sampled and scored here step by step."""

import statistics
from pathlib import Path
from typing import Any

import pytest
import torch

from base_model.generator import load_generator
from base_model.sampling.guidance import Guidance
from base_model.sampling.sample import euler_sample
from base_model.sampling.sigmas import sigma_table
from reward_tuning.errors import TuningError
from reward_tuning.inputs.condition_pixels import read_condition_pixels
from reward_tuning.inputs.prompts import PromptStream, read_prompts
from reward_tuning.schema.loading import load_recipe
from reward_tuning.schema.locate import prompt_path
from reward_tuning.tuning.calibration import Calibration, calibrate, calibrated
from reward_tuning.tuning.evaluation import evaluation_seed
from rewards import load_reward
from tests.reward_tuning.tiny_run import tiny_recipe, write_world

CPU = torch.device("cpu")
BRIGHT = """
class Bright:
    reads_text = False
    def __call__(self, frames, prompts): return 2 * frames.mean(dim=(1, 2, 3, 4))
"""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Any:
    world = write_world(tmp_path_factory.mktemp("world"))
    (world / "bright.py").write_text(BRIGHT)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REWARD_TUNING_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.chdir(world)
        yield world


OWN = "rewards.1={kind: python, checkpoint: bright.py, weight: 0.5}"


@torch.no_grad()
def test_the_numbers(world: Path, tmp_path: Path) -> None:
    recipe = tiny_recipe(world, tmp_path / "run", OWN)
    found = calibrate(recipe, CPU, prompts=4)
    assert [one.clips for one in found] == [4, 4]
    generator = load_generator(recipe.generator.checkpoint, dtype=torch.float32, device="cpu")
    stream = PromptStream(read_prompts(world / "train.txt"), recipe.seed)
    clip_judge = load_reward("clip", recipe.rewards[0].files["checkpoint"])
    expected: dict[str, list[float]] = {"clip": [], "python": []}
    for i in range(4):
        prompt = stream.prompt_at(i).text
        condition = generator.condition(generator.encode_prompts([prompt], [""]))
        noise = generator.initial_noise(
            generator.latent_shape(1, 5, 32, 32), [evaluation_seed(recipe.seed, i, 0)]
        )
        latents = euler_sample(generator, condition, noise, sigma_table(4), Guidance(3.0))
        frames = generator.decode(latents)
        expected["clip"].append(float(clip_judge(frames, [prompt])))
        expected["python"].append(2 * float(frames.mean()))
    assert [one.label for one in found] == ["clip", "python"]
    for one in found:
        values = expected[one.label]
        assert one.mean == pytest.approx(statistics.mean(values), abs=1e-5)
        assert one.deviation == pytest.approx(statistics.stdev(values), rel=1e-2, abs=1e-5)
        assert (one.low, one.high) == pytest.approx((min(values), max(values)), abs=1e-5)


@torch.no_grad()
def test_prompts_with_conditions() -> None:
    settings = ["sampling.guidance_scale=3.0", "evaluation.steps=4"]
    recipe = load_recipe("tiny-edges-hps", settings)
    (found,) = calibrate(recipe, CPU, prompts=2)
    generator = load_generator("tiny-control", dtype=torch.float32, device="cpu")
    stream = PromptStream(read_prompts(prompt_path(recipe.prompts.train)), recipe.seed)
    judge = load_reward("hps", "tiny/hps.safetensors")
    expected = []
    for i in range(2):
        prompt = stream.prompt_at(i)
        control = read_condition_pixels(prompt.files, (9, 64, 64)).inputs.control
        assert control is not None
        text = generator.encode_prompts([prompt.text], [""])
        noise = generator.initial_noise(
            generator.latent_shape(1, 9, 64, 64), [evaluation_seed(recipe.seed, i, 0)]
        )
        condition = generator.condition(text, control=control)
        latents = euler_sample(generator, condition, noise, sigma_table(4), Guidance(3.0))
        expected.append(float(judge(generator.decode(latents), [prompt.reward_text])))
    assert (found.low, found.high) == pytest.approx((min(expected), max(expected)), abs=1e-5)


def test_a_recipe_takes_the_numbers(world: Path, tmp_path: Path) -> None:
    recipe = tiny_recipe(world, tmp_path / "run", OWN)
    found = [
        Calibration("clip", 9, 0.271828, 0.0314159, 0.2, 0.3),
        Calibration("python", 9, 1.0, 0.5, 0, 2),
    ]
    filled = calibrated(recipe, found)
    assert [(one.mean, one.std) for one in filled.rewards] == [(0.2718, 0.03142), (1.0, 0.5)]
    assert filled.rewards[1].weight == 0.5
    assert filled.model_copy(update={"rewards": recipe.rewards}) == recipe
    alike = Calibration.of("clip", [0.25, 0.25])
    with pytest.raises(TuningError, match=r"clip gave 0\.25 to every clip"):
        calibrated(recipe, [alike, found[1]])
