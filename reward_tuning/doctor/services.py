"""The hub and the trackers: what is installed and configured. No secret is shown, none is sent."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path

from reward_tuning.doctor.facts import Fact
from reward_tuning.files.masked_text import masked_addresses
from reward_tuning.runs.mlflow import URI
from reward_tuning.runs.tracker_packages import MLFLOW_DATABASE, PACKAGES
from reward_tuning.runs.trackio import FOLDER, REMOTE

HUB, TRACKERS = "hub", "trackers"
TOKENS = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")
WANDB_HOST = "api.wandb.ai"

IsInstalled = Callable[[str], bool]


def is_installed(module: str) -> bool:
    """Return whether a module can be imported, without importing it."""
    return find_spec(module) is not None


def hub_facts(environment: Mapping[str, str] = os.environ) -> Iterator[Fact]:
    """Yield the settings of the hub's library: address, offline or not, cache, token."""
    from huggingface_hub import constants

    yield Fact(HUB, "address", masked_addresses(str(constants.ENDPOINT)))
    if constants.HF_HUB_OFFLINE:
        todo = "unset HF_HUB_OFFLINE to download what is missing"
        yield Fact(HUB, "connection", "HF_HUB_OFFLINE is set: nothing is downloaded", "note", todo)
    else:
        yield Fact(HUB, "connection", "used for what is missing; HF_HUB_OFFLINE=1 forbids it")
    yield Fact(HUB, "cache", str(constants.HF_HUB_CACHE))
    named = [name for name in TOKENS if environment.get(name)]
    if named:
        yield Fact(HUB, "token", f"in the environment ({', '.join(named)})")
    elif Path(constants.HF_TOKEN_PATH).is_file():
        yield Fact(HUB, "token", "in the file of `hf auth login`")
    else:
        todo = "for push, and for private or gated repositories: hf auth login"
        yield Fact(HUB, "token", "none", "ok", todo)


def tracker_facts(
    environment: Mapping[str, str] = os.environ,
    installed: IsInstalled = is_installed,
    home: Path | None = None,
) -> Iterator[Fact]:
    """Yield each tracker: installed or not, and where it would send a run.

    Args:
        environment: The settings.
        installed: Tells whether a module can be imported.
        home: The user's folder; None for that of this process.
    """
    where = {
        "tensorboard": lambda: Fact(TRACKERS, "tensorboard", "installed; files in the run folder"),
        "wandb": lambda: _wandb(environment, home or Path.home()),
        "trackio": lambda: _trackio(environment),
        "mlflow": lambda: _mlflow(environment, installed),
    }
    for name, modules in PACKAGES.items():
        missing = [pip for module, pip in modules.items() if not installed(module)]
        if missing:
            todo = "pip install " + " ".join(f"'{pip}'" for pip in missing)
            yield Fact(TRACKERS, name, "not installed", "note", todo)
        else:
            yield where[name]()


def _wandb(environment: Mapping[str, str], home: Path) -> Fact:
    mode = environment.get("WANDB_MODE") or "online"
    if mode != "online":
        return Fact(TRACKERS, "wandb", f"installed; WANDB_MODE is {mode}")
    host = environment.get("WANDB_BASE_URL") or f"https://{WANDB_HOST}"
    value = f"installed; sends to {masked_addresses(host)}"
    if environment.get("WANDB_API_KEY"):
        return Fact(TRACKERS, "wandb", f"{value}; its key is in the environment")
    if _in_netrc(home, host.partition("//")[2].rpartition("@")[2].partition("/")[0]):
        return Fact(TRACKERS, "wandb", f"{value}; its key is in the file of `wandb login`")
    todo = "wandb login, or export WANDB_MODE=offline to keep the data in the run folder"
    return Fact(TRACKERS, "wandb", f"{value}; no key", "note", todo)


def _in_netrc(home: Path, host: str) -> bool:
    """Return whether a file of logins names the host; its secrets are not looked at."""
    for name in (".netrc", "_netrc"):
        try:
            words = (home / name).read_text(encoding="utf-8", errors="replace").split()
        except OSError:
            continue
        if any(
            word == "machine" and words[i + 1 : i + 2] == [host] for i, word in enumerate(words)
        ):
            return True
    return False


def _trackio(environment: Mapping[str, str]) -> Fact:
    remote = [name for name in REMOTE if environment.get(name)]
    if remote:
        value = f"installed; sends to the place that {' and '.join(remote)} names"
    elif environment.get(FOLDER):
        value = f"installed; a database in {environment[FOLDER]}"
    else:
        value = "installed; a database in the run folder"
    return Fact(TRACKERS, "trackio", value)


def _mlflow(environment: Mapping[str, str], installed: IsInstalled) -> Fact:
    address = environment.get(URI, "")
    if address:
        return Fact(TRACKERS, "mlflow", f"installed; sends to {masked_addresses(address)}")
    missing = [pip for module, pip in MLFLOW_DATABASE.items() if not installed(module)]
    if missing:
        todo = "pip install " + " ".join(f"'{pip}'" for pip in missing) + f", or set {URI}"
        return Fact(TRACKERS, "mlflow", "installed without its database", "note", todo)
    return Fact(TRACKERS, "mlflow", "installed; a database in the run folder")
