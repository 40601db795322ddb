"""push: lists first, asks, uploads; without consent nothing leaves the machine."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
from huggingface_hub import HfApi, constants

from reward_tuning.cli.push import size_text
from tests.reward_tuning.command_line import Command, command
from tests.reward_tuning.sharing.finished_run import finished
from tests.reward_tuning.sharing.local_hub import TOKEN, LocalHub, local_hub

__all__ = ["finished"]
run = pytest.fixture(command, name="run")


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalHub]:
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    with local_hub() as found:

        def client(**_: Any) -> HfApi:
            return HfApi(endpoint=found.address, token=TOKEN)

        monkeypatch.setattr(huggingface_hub, "HfApi", client)
        yield found


@pytest.mark.slow
def test_dry_run_sends_nothing(run: Command, finished: Path, hub: LocalHub) -> None:
    done = run("push", finished, "me/lora", "--dry-run")
    assert done.code == 0
    assert "adapter_model.safetensors" in done.out
    assert "nothing was uploaded" in done.out
    assert hub.requests == []


@pytest.mark.slow
def test_without_consent_nothing_is_uploaded(run: Command, finished: Path, hub: LocalHub) -> None:
    done = run("push", finished, "me/lora")
    assert done.code == 2
    assert "--yes" in done.err
    assert "is created, private" in done.out
    assert hub.repos == {}


@pytest.mark.slow
def test_upload_and_a_second_one_that_replaces(run: Command, finished: Path, hub: LocalHub) -> None:
    done = run("push", finished, "me/lora", "--yes", "--public", "--licence", "mit")
    assert done.code == 0, done.err
    assert f"{hub.address}/me/lora/commit/" in done.out
    assert "is created, public" in done.out
    assert hub.private["me/lora"] is False
    assert b"license: mit" in hub.repos["me/lora"]["README.md"]
    again = run("push", finished, "me/lora", "--yes")
    assert "replaces" in again.out
    assert "me/lora exists" in again.out


@pytest.mark.slow
def test_names_that_are_no_repository(run: Command, finished: Path) -> None:
    done = run("push", finished, "lora", "--yes")
    assert done.code == 2
    assert "owner/name" in done.err


def test_small_files_have_a_size_that_is_not_zero() -> None:
    sizes = {12: "12 bytes", 3_210: "3.2 kB", 999_900: "999.9 kB", 61_250_000: "61.2 MB"}
    assert {size: size_text(size) for size in sizes} == sizes
