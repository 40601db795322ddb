"""The hub and the trackers, configured and not; no secret is in any text."""

from collections.abc import Iterable
from pathlib import Path

import pytest

from reward_tuning.doctor import services
from reward_tuning.doctor.facts import Fact

SECRET = "hf_abcdefghijklmnop"


def by_name(facts: Iterable[Fact]) -> dict[str, Fact]:
    found = {fact.name: fact for fact in facts}
    assert SECRET not in str(found)
    return found


def trackers(
    environment: dict[str, str], home: Path, without: tuple[str, ...] = ()
) -> dict[str, Fact]:
    return by_name(services.tracker_facts(environment, lambda name: name not in without, home))


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    from huggingface_hub import constants

    token = tmp_path / "token"
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(token))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    return token


def test_hub(hub: Path) -> None:
    found = by_name(services.hub_facts({}))
    assert {fact.mark for fact in found.values()} == {"ok"}
    assert found["token"].todo.endswith("hf auth login")
    assert "HF_TOKEN" in by_name(services.hub_facts({"HF_TOKEN": SECRET}))["token"].value
    hub.write_text(SECRET)
    assert "file" in by_name(services.hub_facts({}))["token"].value


def test_an_offline_hub_and_an_address_with_a_password(
    hub: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "ENDPOINT", f"https://ann:{SECRET}@hub.example")
    found = by_name(services.hub_facts({}))
    assert found["connection"].mark == "note"
    assert "unset HF_HUB_OFFLINE" in found["connection"].todo
    assert found["address"].value == "https://***@hub.example"


def test_trackers_that_are_not_installed(tmp_path: Path) -> None:
    found = trackers({}, tmp_path, ("wandb", "mlflow"))
    assert (found["wandb"].mark, found["wandb"].value) == ("note", "not installed")
    assert found["wandb"].todo == "pip install 'wandb>=0.31'"
    assert found["mlflow"].todo == "pip install 'mlflow-skinny>=3.17'"
    assert found["tensorboard"].mark == "ok"


def test_wandb(tmp_path: Path) -> None:
    nothing = trackers({}, tmp_path)["wandb"]
    assert (nothing.mark, "wandb login" in nothing.todo) == ("note", True)
    assert "in the environment" in trackers({"WANDB_API_KEY": SECRET}, tmp_path)["wandb"].value
    assert "offline" in trackers({"WANDB_MODE": "offline"}, tmp_path)["wandb"].value
    own = {"WANDB_BASE_URL": f"https://ann:{SECRET}@wandb.example/x"}
    (tmp_path / ".netrc").write_text(f"machine wandb.example\n  login user\n  password {SECRET}\n")
    assert "wandb login" in trackers(own, tmp_path)["wandb"].value
    assert trackers({}, tmp_path)["wandb"].mark == "note"  # a login for another server
    (tmp_path / ".netrc").write_text(f"machine api.wandb.ai login user password {SECRET}\n")
    assert trackers({}, tmp_path)["wandb"].mark == "ok"


def test_trackio_and_mlflow(tmp_path: Path) -> None:
    found = trackers({}, tmp_path)
    assert "run folder" in found["trackio"].value
    assert "run folder" in found["mlflow"].value
    assert "TRACKIO_SPACE_ID" in trackers({"TRACKIO_SPACE_ID": "a/b"}, tmp_path)["trackio"].value
    assert "/data" in trackers({"TRACKIO_DIR": "/data"}, tmp_path)["trackio"].value
    there = {"MLFLOW_TRACKING_URI": f"https://ann:{SECRET}@mlflow.example"}
    assert trackers(there, tmp_path)["mlflow"].value.endswith("https://***@mlflow.example")
    without = trackers({}, tmp_path, ("alembic",))["mlflow"]
    assert (without.mark, "'alembic>=1.13'" in without.todo) == ("note", True)


def test_this_environment_has_tensorboard() -> None:
    assert services.is_installed("tensorboard")
    assert not services.is_installed("no_such_module_anywhere")
