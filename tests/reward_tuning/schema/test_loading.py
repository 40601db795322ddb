"""From file and overrides to a recipe; how every mistake is told."""

from pathlib import Path

import pytest

from reward_tuning.errors import TuningError
from reward_tuning.files.yaml_text import read_yaml
from reward_tuning.schema.loading import dump_recipe, load_recipe, parse_override
from tests.reward_tuning.recipes_for_tests import write_recipe

# --- loading


def test_loads(tmp_path: Path) -> None:
    recipe = load_recipe(write_recipe(tmp_path))
    assert recipe.train.steps == 10
    assert recipe.prompts.train == str(tmp_path / "train.txt")
    assert recipe.generator.checkpoint == "owner/model"
    assert recipe.rewards[0].checkpoint == "hps-v2.1"
    assert recipe.output == "runs/a"


def test_dumped_recipe_loads_back_equal_from_elsewhere(tmp_path: Path) -> None:
    recipe = load_recipe(
        write_recipe(tmp_path / "a"),
        ["lora.targets=[to_q, to_v]", "train.ema_decay=0.99", 'sampling.negative_prompt="1e-3"'],
    )
    text = dump_recipe(recipe, ["torch 2.15.0", "sha256 of the transformer: ab\nsecond line"])
    assert text.startswith("# torch 2.15.0\n# sha256 of the transformer: ab\n# second line\n")
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "recipe.yaml").write_text(text, encoding="utf-8")
    assert load_recipe(tmp_path / "b" / "recipe.yaml") == recipe


def test_dump_writes_every_value(tmp_path: Path) -> None:
    data = read_yaml(dump_recipe(load_recipe(write_recipe(tmp_path))))
    assert data["train"]["adam_eps"] == 1e-10
    assert data["train"]["ema_decay"] is None
    assert data["method"] == {
        "kind": "drtune",
        "active_steps": 4,
        "early_stop": True,
        "stop_range": 0.4,
        "rescale": 1.0,
        "smallest_step": 0.25,
    }


def test_overrides(tmp_path: Path) -> None:
    recipe = load_recipe(
        write_recipe(tmp_path),
        [
            "train.steps=6",
            "output=elsewhere",
            "train.learning_rate=1e-5",
            "rewards.0.weight=0.5",
            "rewards.1={kind: clip, checkpoint: clip-vit-l-14, target: 0.3}",
            "method={kind: draft_k, active_steps: 2}",
            "train.ema_decay=0.9",
            "evaluation.steps=4",
        ],
    )
    assert recipe.train.steps == 6
    assert recipe.output == "elsewhere"
    assert recipe.train.learning_rate == 1e-5
    assert [reward.weight for reward in recipe.rewards] == [0.5, 1.0]
    assert recipe.rewards[1].target == 0.3
    assert recipe.method.kind == "draft_k"
    assert recipe.evaluation.steps == 4


def test_override_makes_a_section_that_the_file_leaves_out(tmp_path: Path) -> None:
    path = write_recipe(tmp_path)
    text = "\n".join(line for line in path.read_text().splitlines() if not line.startswith("lora"))
    text = text.replace("  rank: 8\n", "").replace("  alpha: 4\n", "")
    path.write_text(text.replace("  targets: attention\n", ""))
    assert "lora" not in read_yaml(path.read_text())
    assert load_recipe(path, ["lora.rank=2"]).lora.rank == 2


def test_parse_override() -> None:
    assert parse_override("rewards.0.weight=2") == (("rewards", 0, "weight"), 2)
    assert parse_override("a.b=x=y") == (("a", "b"), "x=y")
    assert parse_override("a=") == (("a",), None)


@pytest.mark.parametrize("text", ["train.steps", "=3", "train..steps=3", "a=[1"])
def test_bad_overrides(text: str) -> None:
    with pytest.raises(TuningError, match="override"):
        parse_override(text)


def test_names_in_overrides_start_from_the_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_recipe(tmp_path / "recipes")
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "mine.txt").write_text("a fox\n")
    monkeypatch.chdir(tmp_path / "here")
    recipe = load_recipe(path, ["prompts.train=mine.txt"])
    assert recipe.prompts.train == str(tmp_path / "here" / "mine.txt")
    assert recipe.prompts.held_out == str(tmp_path / "recipes" / "held.txt")


def test_checkpoints_relative_to_the_recipe(tmp_path: Path) -> None:
    path = write_recipe(
        tmp_path,
        generator__checkpoint="models/mine",
        rewards=[{"kind": "hps", "checkpoint": "judges/hps.pt"}],
    )
    (tmp_path / "models" / "mine").mkdir(parents=True)
    (tmp_path / "judges").mkdir()
    (tmp_path / "judges" / "hps.pt").touch()
    recipe = load_recipe(path)
    assert recipe.generator.checkpoint == str(tmp_path / "models" / "mine")
    assert recipe.rewards[0].checkpoint == str(tmp_path / "judges" / "hps.pt")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "a recipe has sections with keys; got null"),
        (b"- 1\n", "a recipe has sections with keys; got [1]"),
        (b"seed: 1\nseed: 2\n", "line 2: the key `seed` appears in line 1 already"),
        (b"seed: [1\n", "not valid YAML"),
        (b"# caf\xe9\n", "not UTF-8 text (byte 5)"),
    ],
)
def test_files_that_are_no_recipe(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_bytes(content)
    with pytest.raises(TuningError) as caught:
        load_recipe(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert message in str(caught.value)
