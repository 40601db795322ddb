"""All probes together: on this machine, with a broken one, and with secrets in the environment."""

import socket
import sys
from collections import Counter
from typing import Any

import pytest

from reward_tuning.doctor import disks, examination, machine, programs, services, versions, weights
from reward_tuning.doctor.facts import Fact
from reward_tuning.evidence.any_recipe import load_any_recipe
from tests.reward_tuning.doctor.sound_machine import sound_machine

SECRETS = {
    "HF_TOKEN": "hf_1234567890abcdef",
    "WANDB_API_KEY": "0123456789abcdef0123456789abcdef01234567",
    "OPENAI_API_KEY": "sk-secret-of-a-judge",
    "MLFLOW_TRACKING_URI": "https://ann:mlflow-word@mlflow.example",
}
HIDDEN = [*list(SECRETS.values())[:3], "mlflow-word"]


@pytest.fixture(scope="module")
def here() -> list[Fact]:
    return examination.examine()


def test_this_machine(here: list[Fact]) -> None:
    groups = list(dict.fromkeys(fact.group for fact in here))
    assert groups == [
        "machine",
        "disk",
        "versions",
        "devices",
        "programs",
        "weights",
        "hub",
        "trackers",
    ]
    names = Counter((fact.group, fact.name) for fact in here)
    assert max(names.values()) == 1
    assert not [fact for fact in here if "cannot be found out" in fact.value]
    for fact in here:
        if fact.mark != "ok":
            assert fact.todo, fact


def test_a_recipe_is_asked_only_for_what_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    sound_machine(monkeypatch)
    facts = examination.examine(load_any_recipe("tiny-demo"))
    assert {fact.group for fact in facts} == {
        "machine",
        "disk",
        "versions",
        "devices",
        "programs",
        "recipe",
    }
    named = {fact.name for fact in facts}
    assert "bitsandbytes" not in named
    assert "hps-v2.1" not in named
    assert "judge hps" in named
    assert examination.problems(facts) == []


PROBES = [
    (machine, "processor_facts"),
    (machine, "cores_fact"),
    (machine, "memory_fact"),
    (disks, "disk_facts"),
    (versions, "version_facts"),
    (programs, "ffmpeg_fact"),
    (weights, "published_judge_facts"),
    (services, "hub_facts"),
    (services, "tracker_facts"),
]


def test_a_broken_probe_ends_no_other(here: list[Fact], monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> Any:
        raise RuntimeError("this part of the machine is broken")

    for module, name in PROBES:
        monkeypatch.setattr(module, name, broken)
    monkeypatch.setitem(sys.modules, "torch", None)  # as if it could not be imported
    facts = examination.examine()
    failed = [fact for fact in facts if "this part of the machine is broken" in fact.value]
    assert len(failed) == len(PROBES)
    assert {fact.name for fact in examination.problems(facts)} == {"devices", "ffmpeg"}
    kept = {(fact.group, fact.name) for fact in facts}
    for name in (("machine", "clock"), ("programs", "browser"), ("weights", "shipped judges")):
        assert name in kept


def test_no_secret_and_no_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError("a probe opens a connection")

    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    facts = examination.examine()
    text = repr(facts)
    assert "AssertionError" not in text
    for secret in HIDDEN:
        assert secret not in text
    told = {fact.name: fact.value for fact in facts}
    assert "HF_TOKEN" in told["token"]
    assert "key is in the environment" in told["wandb"]
    assert "***" in told["mlflow"]
