"""The example of docs/, named in a recipe as a path, in a real run."""

import hashlib
import json
from pathlib import Path

import pytest
from safetensors.torch import load_file

from reward_tuning.errors import TuningError
from reward_tuning.schema.loading import load_recipe
from reward_tuning.tuning.trainer import run
from tests.reward_tuning.tiny_run import tiny_recipe, write_world

EXAMPLE = Path(__file__).parents[3] / "docs" / "examples" / "my_judge.py"
SHORT = ("train.steps=2", "evaluation.prompts=2", "evaluation.seeds=1", "train.checkpoint_every=2")


@pytest.mark.slow
def test_a_run_on_the_example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REWARD_TUNING_CACHE", str(tmp_path / "cached"))
    world = write_world(tmp_path)
    (world / "my_judge.py").write_bytes(EXAMPLE.read_bytes())
    own = "{kind: python, checkpoint: my_judge.py, options: {warmth: 2.0}, name: warm, frames: 2}"
    monkeypatch.chdir(world)
    recipe = tiny_recipe(world, tmp_path / "run", f"rewards.0={own}", *SHORT)
    assert recipe.rewards[0].files == {"checkpoint": str(world / "my_judge.py")}
    folder = run(recipe).folder
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [set(row["reward"]) for row in rows] == [{"warm"}, {"warm"}]
    assert all(row["grad_norm"] > 0 for row in rows)
    trained = load_file(folder / "lora" / "adapter_model.safetensors")
    assert any(float(w.abs().max()) > 0 for name, w in trained.items() if "lora_B" in name)
    head = (folder / "recipe.yaml").read_text(encoding="utf-8")
    assert hashlib.sha256(EXAMPLE.read_bytes()).hexdigest() in head
    assert load_recipe(folder / "recipe.yaml") == recipe
    evaluation = json.loads((folder / "evaluation.json").read_text())
    assert {"warm", "clip_held_out"} <= set(evaluation["base"])


def test_a_missing_file_is_a_mistake_of_the_recipe(tmp_path: Path) -> None:
    world = write_world(tmp_path)
    with pytest.raises(TuningError, match=r"rewards.0.checkpoint: got 'gone.py'; no such judge"):
        tiny_recipe(world, tmp_path / "run", "rewards.0={kind: python, checkpoint: gone.py}")
