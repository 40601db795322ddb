"""What the headers of the published models' recipes state, held against their values.

Sizes come from the published configs on the meta device; the statements are those that a number in
the recipe or a formula decides. What no formula decides (hours, GB of a judge) is not looked at.
"""

import re
from pathlib import Path
from typing import Any

import pytest
from diffusers import EasyAnimateTransformer3DModel

from base_model.loading.checkpoint import empty_model
from base_model.loading.model_configs import transformer_arguments_of
from reward_tuning.files.yaml_text import read_yaml
from reward_tuning.finetune.recipe import FinetuneRecipe
from reward_tuning.gradient.methods.drtune import DRTune
from reward_tuning.lora.adapter import linear_modules, select_targets
from reward_tuning.schema.loading import load_recipe
from reward_tuning.schema.locate import find_recipe, header_lines, shipped_recipes
from reward_tuning.schema.recipe import Recipe
from tests.published_layout import Size, transformer_config

PUBLISHED = {
    "easyanimate-v5.1-7b-hps": "7b",
    "easyanimate-v5.1-12b-hps": "12b",
    "easyanimate-v5.1-7b-hps-long": "7b",
    "easyanimate-v5.1-12b-hps-long": "12b",
}
COUNTED = {8: 27.93, 25: 74.52}
"""Forward passes of one branch that a clip costs, by steps of the rollout: the 12B's by
`python -m benchmarks.flops`, whose test checks the count."""
FINETUNE = "finetune/easyanimate-v5.1-7b-lora"
GB = 1e9
TEXT_TOKENS = 256


def header(name: str) -> str:
    return " ".join(" ".join(header_lines(find_recipe(name))).split())


def stated(name: str, pattern: str) -> tuple[float, ...]:
    """The numbers of a statement, which the header must make."""
    found = re.search(pattern, header(name))
    assert found, f"{name}: its header does not say {pattern!r}"
    return tuple(float(number.replace(",", "")) for number in found.groups())


def network(size: Size) -> Any:
    config = transformer_config(size, "inpaint")
    arguments = transformer_arguments_of(Path("x"), config, EasyAnimateTransformer3DModel)
    return empty_model(EasyAnimateTransformer3DModel, arguments)


def adapter_weights(transformer: Any, rank: int, targets: str) -> int:
    linear = linear_modules(transformer)
    chosen = select_targets(transformer, targets)
    return sum(rank * (linear[p].in_features + linear[p].out_features) for p in chosen)


def activations(transformer: Any, frames: int, height: int, width: int) -> float:
    """Bytes of what checkpointing keeps of one branch: each block's input, in bfloat16."""
    tokens = ((frames - 1) // 4 + 1) * (height // 16) * (width // 16) + TEXT_TOKENS
    channels = transformer.config.num_attention_heads * transformer.config.attention_head_dim
    return len(transformer.transformer_blocks) * tokens * channels * 2


def flops(transformer: Any, frames: int, height: int, width: int) -> float:
    """Of one forward pass: L (24 S d^2 + 4 S^2 d)."""
    tokens = ((frames - 1) // 4 + 1) * (height // 16) * (width // 16) + TEXT_TOKENS
    channels = transformer.config.num_attention_heads * transformer.config.attention_head_dim
    one = 24 * tokens * channels**2 + 4 * tokens**2 * channels
    return len(transformer.transformer_blocks) * one


@pytest.mark.parametrize(("name", "size"), PUBLISHED.items())
def test_memory(name: str, size: Size) -> None:
    recipe = load_recipe(name, check_files=False)
    assert recipe.lora is not None
    assert recipe.generator.dtype == "bfloat16"
    transformer = network(size)
    assert stated(name, r"transformer ([\d.]+) GB in bfloat16") == (
        pytest.approx(2 * sum(p.numel() for p in transformer.parameters()) / GB, abs=0.05),
    )
    assert recipe.lora.targets == "attention"
    own = adapter_weights(transformer, recipe.lora.rank, "attention")
    every = adapter_weights(transformer, recipe.lora.rank, "all-linear")
    wanted = (16 * own, 4 * own, recipe.lora.rank * GB, 16 * every, 4 * every)
    assert stated(
        name,
        r"adapter, gradient and Adam's moments ([\d.]+) GB in float32 and its average ([\d.]+) GB "
        r"\(rank (\d+) on the attention; on every linear layer it would be ([\d.]+) GB and "
        r"([\d.]+) GB\)",
    ) == pytest.approx(tuple(number / GB for number in wanted), abs=0.051)
    sampling = recipe.sampling
    kept = activations(transformer, sampling.frames, sampling.height, sampling.width)
    assert recipe.train.gradient_checkpointing
    assert stated(name, r"checkpointed activations ([\d.]+) GB per clip for each branch") == (
        pytest.approx(kept / GB, abs=0.051),
    )


@pytest.mark.parametrize(("name", "size"), PUBLISHED.items())
def test_steps_and_cost(name: str, size: Size) -> None:
    recipe = load_recipe(name, check_files=False)
    sampling, train = recipe.sampling, recipe.train
    one = 2 * flops(network(size), sampling.frames, sampling.height, sampling.width)
    steps, tera, active, peta = stated(
        name,
        r"(\d+) guided steps of (\d+) TFLOP and (\d+) steps with gradient are about ([\d.]+) P",
    )
    method = recipe.method
    assert isinstance(method, DRTune)
    executed = float(sampling.steps)
    if method.early_stop:  # s = N - U{1 ... m} and the step of the posterior mean
        executed += 1 - (1 + round(method.stop_range * sampling.steps)) / 2
    assert (steps, active) == (executed, method.active_steps)
    assert tera == pytest.approx(one / 1e12, abs=1)
    assert peta * 1e15 / (one / 2) == pytest.approx(COUNTED[sampling.steps], rel=0.03)
    batch, minutes, updates, hours = stated(
        name, r"batch of (\d+) about (\d+) minutes? and (\d+) steps about (\d+) hours"
    )
    assert batch == train.batch_size * train.gradient_accumulation
    assert updates == train.steps
    assert hours == pytest.approx(batch * updates * peta * 1e15 / 130e12 / 3600, rel=0.1)
    assert minutes == pytest.approx(hours * 60 / updates, abs=0.6)


@pytest.mark.parametrize("name", PUBLISHED)
def test_values(name: str) -> None:
    recipe = load_recipe(name, check_files=False)
    judge, train = recipe.rewards[0], recipe.train
    assert recipe.lora is not None
    assert stated(
        name,
        r"CFG (\d+), LoRA of rank (\d+) and alpha (\d+) on the attention, learning rate ([\de-]+), "
        r"AdamW eps ([\de-]+), weight decay ([\de-]+), EMA ([\d.]+), an anchor of ([\d.]+) to",
    ) == (
        recipe.sampling.guidance_scale,
        recipe.lora.rank,
        recipe.lora.alpha,
        train.learning_rate,
        train.adam_eps,
        train.weight_decay,
        train.ema_decay,
        train.anchor,
    )
    assert stated(name, r"The target of ([\d.]+) is") == (judge.target,)
    assert header(name).count("Five frames are judged") == (judge.frames == 5)


def test_the_scale_of_the_target_is_that_of_the_page_on_judges() -> None:
    page = (Path(__file__).parents[3] / "docs" / "rewards.md").read_text()
    (row,) = re.findall(r"cosine; ([\d.]+) to ([\d.]+) on published weights", page)
    for name in PUBLISHED:
        scores = stated(name, r"pictures average ([\d.]+) to ([\d.]+) on it")
        assert scores == tuple(map(float, row))
        target = load_recipe(name, check_files=False).rewards[0].target
        assert target is not None
        if target > scores[1]:  # no cap: then the header says so
            assert "the hinge is not reached and the loss is linear" in header(name)


@pytest.mark.parametrize("size", ["7b", "12b"])
def test_the_long_recipe_differs_in_the_rollout_alone(size: str) -> None:
    short = load_recipe(f"easyanimate-v5.1-{size}-hps", check_files=False)
    long = load_recipe(f"easyanimate-v5.1-{size}-hps-long", check_files=False)
    assert f"easyanimate-v5.1-{size}-hps-long has rollouts of 25" in header(
        f"easyanimate-v5.1-{size}-hps"
    )
    (share,) = stated(f"easyanimate-v5.1-{size}-hps-long", r"takes ([\d.]+) of its work")
    assert share == pytest.approx(COUNTED[8] / COUNTED[25], abs=0.01)
    assert (short.sampling.steps, short.evaluation.steps, long.sampling.steps) == (8, 25, 25)
    back = short.model_copy(
        update={
            "output": long.output,
            "sampling": short.sampling.model_copy(update={"steps": 25}),
            "method": short.method.model_copy(update={"early_stop": False}),
            "train": short.train.model_copy(update={"anchor_steps": None, "keep_graphs": 0}),
            "evaluation": short.evaluation.model_copy(update={"steps": None}),
        }
    )
    assert back == long


def test_the_other_kinds_are_the_7b_recipe_but_for_what_they_follow() -> None:
    """Their headers refer to it for memory and hardware."""
    base = load_recipe("easyanimate-v5.1-7b-hps", check_files=False)
    for kind in ("camera", "control", "image-to-video"):
        name = f"easyanimate-v5.1-7b-{kind}-hps"
        recipe = load_recipe(name, check_files=False)
        assert "as easyanimate-v5.1-7b-hps, which has the details" in header(name)
        for part in ("method", "rewards", "lora", "train"):
            assert getattr(recipe, part) == getattr(base, part), (name, part)
        if recipe.sampling.frames != base.sampling.frames:
            assert f"with the {recipe.sampling.frames} frames set here" in header(name)


def test_fine_tuning() -> None:
    recipe = FinetuneRecipe.model_validate(read_yaml(find_recipe(FINETUNE).read_text()))
    assert recipe.lora is not None
    transformer = network("7b")
    own = adapter_weights(transformer, recipe.lora.rank, str(recipe.lora.targets))
    assert stated(
        FINETUNE,
        r"transformer ([\d.]+) GB in bfloat16; adapter, gradient and Adam's moments ([\d.]+) GB in "
        r"float32 and its average ([\d.]+) GB \(rank (\d+) on the attention\); checkpointed "
        r"activations ([\d.]+) GB per clip",
    ) == pytest.approx(
        (13.6, 16 * own / GB, 4 * own / GB, 64, activations(transformer, 49, 256, 256) / GB),
        abs=0.051,
    )


# Ids that public sources name (EasyAnimate's README, diffusers' documentation, pages of the hub).
TRACED = {
    *(f"EasyAnimateV5.1-{size}-zh{kind}" for size in ("7b", "12b")
      for kind in ("", "-InP", "-Control", "-Control-Camera")),
    *(f"EasyAnimateV5.1-{name}-diffusers" for name in
      ("7b-zh", "12b-zh", "12b-zh-InP", "12b-zh-Control")),
}  # fmt: skip
HUB_ID = re.compile(r"EasyAnimateV5\.1-[0-9]+b[\w-]*")


def test_only_ids_with_a_trace_are_named() -> None:
    root = Path(__file__).parents[3]
    named: dict[str, str] = {}
    for ending in ("md", "yaml", "py"):
        for path in root.rglob(f"*.{ending}"):
            if not {".venv", ".git", "published"} & set(path.relative_to(root).parts):
                for name in HUB_ID.findall(path.read_text(encoding="utf-8")):
                    named[name] = str(path)
    assert set(named) <= TRACED, {k: v for k, v in named.items() if k not in TRACED}
    used = {
        found[0]
        for recipe in shipped_recipes()
        if (found := HUB_ID.search(recipe.path.read_text(encoding="utf-8")))
    }
    assert len(used) == 4
    assert isinstance(load_recipe("easyanimate-v5.1-7b-hps", check_files=False), Recipe)
