"""A critic that is the generator's own text encoder: one set of weights, the same numbers."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from base_model.networks.prompt_encoder import PromptEncoder
from reward_tuning.cli.judges import judges_of_options, judges_of_recipe
from reward_tuning.errors import TuningError
from reward_tuning.inputs import text_states as states_module
from reward_tuning.inputs.text_cache import checkpoint_fingerprint
from reward_tuning.judges import shared_encoder as module
from reward_tuning.judges.judge import FramedJudge
from reward_tuning.judges.loading import load_judges
from reward_tuning.judges.offload import judge_modules, split_offload
from reward_tuning.judges.shared_encoder import SharedEncoder, loaded_from_folder, shared_encoder
from reward_tuning.progress import silent
from reward_tuning.schema.recipe import Recipe
from reward_tuning.tuning.calibration import calibrate
from reward_tuning.tuning.parts import RunParts, load_parts
from reward_tuning.tuning.trainer import run
from rewards.kinds.qwen_critic import QwenCritic
from tests.reward_tuning.tiny_run import TRAIN, tiny_recipe, write_world
from tests.rewards import tiny_qwen
from tests.rewards.tiny_qwen import bytes_clips, tokenizer, write_folder

CPU = torch.device("cpu")
OPTIONS = "aspects: [colour, motion], min_pixels: 784, max_pixels: 3136"
CRITIC = f"rewards.0={{kind: qwen_critic, checkpoint: generator, {OPTIONS}}}"
HELD_OUT = CRITIC.replace("rewards.0", "evaluation.held_out_rewards.0")
SHORT = ("train.steps=1", "evaluation.prompts=2", "evaluation.seeds=1")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A world whose generator's tokenizer writes Yes and No in one token each."""
    folder = write_world(tmp_path_factory.mktemp("world"))
    for part in ("text_encoder", "tokenizer"):
        shutil.rmtree(folder / "generator" / part)
    write_folder(folder / "generator" / "text_encoder", tiny_qwen.model(tied=True))
    tokenizer().save_pretrained(folder / "generator" / "tokenizer")
    return folder


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REWARD_TUNING_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> list[PromptEncoder]:
    """Every text encoder that is loaded for a run."""
    found: list[PromptEncoder] = []

    def counting(load: Callable[..., PromptEncoder]) -> Callable[..., PromptEncoder]:
        def counted(*args: Any, **options: Any) -> PromptEncoder:
            found.append(load(*args, **options))
            return found[-1]

        return counted

    for place in (module, states_module):
        monkeypatch.setattr(place, "load_text_encoder", counting(place.load_text_encoder))
    return found


def critic_of(parts: RunParts) -> QwenCritic:
    judge = parts.judges[0]
    assert isinstance(judge, FramedJudge)
    assert isinstance(judge.reward, QwenCritic)
    return judge.reward


def pointers(model: nn.Module) -> dict[str, int]:
    return {name: tensor.data_ptr() for name, tensor in model.named_parameters()}


def parts_of(recipe: Recipe) -> RunParts:
    return load_parts(recipe, CPU, 2, silent)


@pytest.mark.parametrize("memory", ["resident", "offload"])
def test_the_weights_are_in_memory_once(
    world: Path, tmp_path: Path, loaded: list[PromptEncoder], memory: str
) -> None:
    recipe = tiny_recipe(world, tmp_path / "run", CRITIC, f"generator.memory={memory}", *SHORT)
    parts = parts_of(recipe)
    (encoder,) = loaded
    model = critic_of(parts).tower.model
    assert model is encoder.text_encoder
    assert pointers(model) == pointers(encoder.text_encoder)
    assert {id(judge) for judge in judge_modules(parts.judges)} == {id(model)}
    assert parts.offload.absent == (memory == "offload")
    root = world / "generator"
    named = checkpoint_fingerprint([root / "text_encoder", root / "tokenizer"])
    assert parts.fingerprints["qwen_critic"] == f"sha256:{named}"


def test_states_and_scores_are_those_of_two_models(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = tiny_recipe(world, tmp_path / "a", CRITIC, "rewards.0.gradient_checkpointing=true")
    shared = parts_of(recipe)
    monkeypatch.setenv("REWARD_TUNING_CACHE", str(tmp_path / "another"))
    apart = parts_of(tiny_recipe(world, tmp_path / "b"))
    for text in [one.text for one in (*shared.stream.drawn(2), *shared.held_out)]:
        torch.testing.assert_close(
            shared.sampler.states[text], apart.sampler.states[text], rtol=0, atol=1e-6
        )
    (alone,) = load_judges(loaded_from_folder(recipe, recipe.rewards), 5, CPU)
    assert isinstance(alone, FramedJudge)
    x = bytes_clips(1, 5, 32, 32).float() / 255
    results = []
    for judge in (critic_of(shared), alone.reward):
        frames = x.clone().requires_grad_()
        score = judge(frames, TRAIN[:1])
        results.append((score.detach(), *torch.autograd.grad(score.sum(), frames)))
    torch.testing.assert_close(*results, rtol=1e-5, atol=1e-7)


@pytest.mark.slow
def test_a_critic_that_only_measures_is_not_kept(
    world: Path, tmp_path: Path, loaded: list[PromptEncoder]
) -> None:
    """Loaded once for the prompts and to be looked at; the evaluation loads it again."""
    recipe = tiny_recipe(world, tmp_path / "run", HELD_OUT, *SHORT)
    folder = run(recipe).folder
    assert len(loaded) == 1
    scores = json.loads((folder / "evaluation.json").read_text())["base"]
    assert "qwen_critic_held_out" in scores
    head = (folder / "recipe.yaml").read_text(encoding="utf-8")
    assert "qwen_critic_held_out sha256:" in head
    assert "checkpoint: generator\n" in head


def test_a_run_on_it(world: Path, tmp_path: Path, loaded: list[PromptEncoder]) -> None:
    recipe = tiny_recipe(world, tmp_path / "run", CRITIC, "generator.memory=offload", *SHORT)
    folder = run(recipe).folder
    assert len(loaded) == 1
    row = json.loads((folder / "metrics.jsonl").read_text().splitlines()[0])
    assert set(row["reward"]) == {"qwen_critic"}
    assert row["grad_norm"] > 0


def test_calibrate_shares_it(world: Path, tmp_path: Path, loaded: list[PromptEncoder]) -> None:
    recipe = tiny_recipe(world, tmp_path / "run", CRITIC)
    (found,) = calibrate(recipe, CPU, prompts=2)
    assert found.label == "qwen_critic"
    assert len(loaded) == 1


def test_score_takes_it_from_the_checkpoint(world: Path, tmp_path: Path) -> None:
    tiny_recipe(world, tmp_path / "run")
    text = (world / "recipe.yaml").read_text(encoding="utf-8")
    changed = text.replace("kind: clip\n", "kind: qwen_critic\n", 1).replace(
        "checkpoint: judge/flat.safetensors", "checkpoint: generator"
    )
    path = world / "critic.yaml"
    path.write_text(changed, encoding="utf-8")
    critic, other = judges_of_recipe(str(path))
    assert critic.folders == {"checkpoint": str(world / "generator")}
    assert other.kind == "clip"


def test_a_tokenizer_with_longer_answers_is_told(tmp_path: Path) -> None:
    """As the embedded generator's, which writes Yes in two tokens."""
    recipe = tiny_recipe(write_world(tmp_path), tmp_path / "run", CRITIC)
    recipe = recipe.model_copy(
        update={"generator": recipe.generator.model_copy(update={"checkpoint": "tiny"})}
    )
    shared = shared_encoder(recipe, recipe.rewards, CPU)
    told = (
        r"qwen_critic has checkpoint: generator.* cannot be used as a judge: "
        r".*'Yes' in 2 tokens.*tiny/qwen"
    )
    with pytest.raises(TuningError, match=told):
        load_judges(recipe.rewards, 5, CPU, shared)


def test_what_does_not_go_together(world: Path, tmp_path: Path) -> None:
    wanted = r"rewards\.0\.dtype: got 'bfloat16'; .*weights, which are float32"
    with pytest.raises(TuningError, match=wanted):
        tiny_recipe(world, tmp_path / "run", CRITIC, "rewards.0.dtype=bfloat16")
    twice = r"held_out_rewards\.0\.checkpoint: got 'generator'; is trained on under rewards"
    with pytest.raises(TuningError, match=twice):
        tiny_recipe(world, tmp_path / "run", CRITIC, HELD_OUT)
    with pytest.raises(TuningError, match="no generator is loaded here"):
        load_judges(judges_of_options(["qwen_critic:generator"]), 5, CPU)


def test_a_folder_of_that_name(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(world)
    named = CRITIC.replace("checkpoint: generator", "checkpoint: ./generator")
    (judge,) = tiny_recipe(world, tmp_path / "run", named).rewards
    assert not judge.of_generator
    assert judge.folders == {"checkpoint": str(world / "generator")}


def test_it_works_for_prompts_while_the_other_judges_rest() -> None:
    model, other = nn.Linear(2, 2).requires_grad_(False), nn.Linear(2, 2).requires_grad_(False)
    encoder = PromptEncoder(model, tokenizer())
    texts, all_of_them = split_offload([other, model], SharedEncoder(Path(), encoder), CPU)
    assert texts.absent
    with texts.at_work():
        assert not texts.absent
        assert all_of_them.absent  # the other judge
    with all_of_them.at_work():
        assert not texts.absent
        assert not all_of_them.absent
    nothing, judges = split_offload([other], SharedEncoder(Path(), encoder), CPU)
    assert not nothing.absent
    assert judges.absent
