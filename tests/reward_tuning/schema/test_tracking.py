"""The key `tracking`."""

from pathlib import Path

from reward_tuning.schema.loading import dump_recipe, load_recipe
from tests.reward_tuning.recipes_for_tests import told_once, write_recipe


def test_tensorboard_is_the_default_and_none_is_allowed(tmp_path: Path) -> None:
    path = write_recipe(tmp_path)
    assert load_recipe(path).tracking == ("tensorboard",)
    assert load_recipe(path, ["tracking=[]"]).tracking == ()
    chosen = load_recipe(path, ["tracking=[mlflow, wandb]"])
    assert chosen.tracking == ("mlflow", "wandb")
    (tmp_path / "again.yaml").write_text(dump_recipe(chosen))
    assert load_recipe(tmp_path / "again.yaml").tracking == ("mlflow", "wandb")


def test_mistakes(tmp_path: Path) -> None:
    path = write_recipe(tmp_path)
    assert told_once(path, "tracking=[tensorboard, aim]") == (
        "tracking.1: got 'aim'; allowed: tensorboard, wandb, trackio, mlflow"
    )
    assert "mlflow is named more than once" in told_once(path, "tracking=[mlflow, mlflow]")
    assert told_once(path, "tracking=wandb") == "tracking: got 'wandb'; expected a list"
