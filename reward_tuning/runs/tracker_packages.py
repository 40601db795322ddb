"""Refuse a tracker whose packages are missing, before anything is loaded."""

from __future__ import annotations

import os
from collections.abc import Sequence
from importlib.util import find_spec

from reward_tuning.errors import TuningError
from reward_tuning.runs.mlflow import URI
from reward_tuning.runs.wandb import require_wandb

PACKAGES = {
    "tensorboard": {"tensorboard": "tensorboard"},
    "wandb": {"wandb": "wandb>=0.31"},
    "trackio": {"trackio": "trackio>=0.43"},
    "mlflow": {"mlflow": "mlflow-skinny>=3.17"},
}
"""Module to install, and the name by which pip installs it, for each tracker."""
MLFLOW_DATABASE = {
    "sqlalchemy": "sqlalchemy>=2.0",
    "alembic": "alembic>=1.13",
    "cryptography": "cryptography>=43.0",
}
"""What MLflow needs besides to write a database itself, instead of asking a server."""


def require_trackers(names: Sequence[str]) -> None:
    """Check that every tracker of a recipe can be started, as far as this machine can tell.

    Raises:
        TuningError: A package is missing, or wandb has no API key.
    """
    needed: dict[str, str] = {}
    lacking = []
    for name in names:
        modules = dict(PACKAGES[name])
        if name == "mlflow" and not os.environ.get(URI, "").startswith("http"):
            modules |= MLFLOW_DATABASE
        missing = {module: pip for module, pip in modules.items() if find_spec(module) is None}
        if missing:
            lacking.append(name)
            needed |= missing
    if needed:
        packages = " ".join(f"'{pip}'" for pip in needed.values())
        raise TuningError(
            f"tracking: {' and '.join(lacking)} cannot be used, because {', '.join(needed)} "
            f"{'is' if len(needed) == 1 else 'are'} not installed; run `pip install {packages}`, "
            "or leave it out of tracking"
        )
    if "wandb" in names:
        require_wandb()
