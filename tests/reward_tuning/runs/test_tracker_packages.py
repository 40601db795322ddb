"""Missing packages and keys are refused with the command that mends it."""

from __future__ import annotations

import re
from importlib.metadata import version
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from reward_tuning.errors import TuningError
from reward_tuning.runs import tracker_packages
from reward_tuning.runs.tracker_packages import MLFLOW_DATABASE, PACKAGES, require_trackers
from tests.test_packaging import SETTINGS


@pytest.fixture
def missing(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    names: set[str] = set()
    real = tracker_packages.find_spec
    monkeypatch.setattr(
        tracker_packages, "find_spec", lambda name: None if name in names else real(name)
    )
    return names


def test_a_missing_package_is_named_with_its_command(missing: set[str]) -> None:
    missing |= {"trackio", "alembic"}
    with pytest.raises(TuningError) as caught:
        require_trackers(["tensorboard", "trackio", "mlflow"])
    assert str(caught.value) == (
        "tracking: trackio and mlflow cannot be used, because trackio, alembic are not installed; "
        "run `pip install 'trackio>=0.43' 'alembic>=1.13'`, or leave it out of tracking"
    )


def test_mlflow_on_a_server_needs_no_database(
    missing: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    missing |= set(MLFLOW_DATABASE)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://host")
    require_trackers(["mlflow"])
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///a.db")
    with pytest.raises(TuningError, match="sqlalchemy, alembic, cryptography are not installed"):
        require_trackers(["mlflow"])


def test_the_commands_install_what_the_extra_names() -> None:
    extra = set(SETTINGS["project"]["optional-dependencies"]["trackers"])
    named = {pip for name in PACKAGES for pip in PACKAGES[name].values()} - {"tensorboard"}
    assert named | set(MLFLOW_DATABASE.values()) == extra
    for line in extra:
        requirement = Requirement(line)
        assert requirement.specifier.contains(version(requirement.name))


def test_wandb_without_a_key_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wandb = pytest.importorskip("wandb")
    for name in ("WANDB_API_KEY", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("HOME", str(tmp_path))
    wandb.teardown()
    with pytest.raises(TuningError, match=re.escape("run `wandb login`, or set WANDB_API_KEY")):
        require_trackers(["wandb"])
    monkeypatch.setenv("WANDB_MODE", "offline")
    wandb.teardown()
    require_trackers(["wandb"])
