"""Uploads to a local stand-in of the hub, through the hub's own client."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import HfApi, ModelCard, constants

from reward_tuning.errors import TuningError
from reward_tuning.sharing.push import check_repo_id, existing_files, push, uploads
from tests.reward_tuning.sharing.finished_run import finished
from tests.reward_tuning.sharing.local_hub import TOKEN, LocalHub, local_hub

__all__ = ["finished"]
LORA = [
    "adapter_config.json",
    "adapter_model.safetensors",
    "original.safetensors",
    "pytorch_lora_weights.safetensors",
]


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalHub]:
    # the stand-in speaks the older protocol for large files, which HF_HUB_DISABLE_XET=1 selects
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    with local_hub() as found:
        yield found


def client(hub: LocalHub, token: str = TOKEN) -> HfApi:
    return HfApi(endpoint=hub.address, token=token)


@pytest.mark.slow
def test_listed_files_are_those_that_arrive(finished: Path, hub: LocalHub) -> None:
    files = uploads(finished, licence="mit")
    names = [one.name for one in files]
    assert names[:5] == ["README.md", *LORA]
    assert {"clips/00.mp4", "evaluation.json", "recipe.yaml"} <= set(names)
    address = push(files, "me/lora", private=True, api=client(hub))
    assert address.startswith(f"{hub.address}/me/lora/commit/")
    arrived = hub.repos["me/lora"]
    assert sorted(arrived) == sorted(names)
    assert hub.private["me/lora"] is True
    assert {one.name: one.size for one in files} == {n: len(c) for n, c in arrived.items()}
    for name in LORA:
        assert arrived[name] == (finished / "lora" / name).read_bytes()
    assert ModelCard(arrived["README.md"].decode()).data.to_dict()["license"] == "mit"
    assert hub.cards, "the hub checks the front matter"


@pytest.mark.slow
def test_nothing_names_a_folder_of_this_machine(finished: Path) -> None:
    for one in uploads(finished):
        content = one.content if isinstance(one.content, bytes) else one.content.read_bytes()
        assert b"home of someone" not in content, one.name


@pytest.mark.slow
def test_existing_files_are_known_before_the_upload(finished: Path, hub: LocalHub) -> None:
    api = client(hub)
    assert existing_files("me/lora", api) is None
    files = uploads(finished)
    push(files, "me/lora", private=False, api=api)
    assert hub.private["me/lora"] is False
    assert sorted(existing_files("me/lora", api) or []) == sorted(one.name for one in files)
    push(files, "me/lora", private=True, api=api)  # once more: replaces, stays public
    assert hub.private["me/lora"] is False


@pytest.mark.slow
def test_wrong_token_is_refused_and_not_shown(finished: Path, hub: LocalHub) -> None:
    with pytest.raises(TuningError, match=r"401 .*hf auth login") as refused:
        push(uploads(finished), "me/lora", private=True, api=client(hub, "hf_wrong_secret"))
    assert "hf_wrong_secret" not in str(refused.value)
    assert hub.repos == {}


@pytest.mark.slow
def test_failed_commit_shows_nothing(finished: Path, hub: LocalHub) -> None:
    hub.fail_commit = 400
    with pytest.raises(TuningError, match=r"did not take me/lora: 400 no commit today"):
        push(uploads(finished), "me/lora", private=True, api=client(hub))
    assert hub.repos["me/lora"] == {}


@pytest.mark.slow
def test_no_hub_at_the_address(finished: Path) -> None:
    api = HfApi(endpoint="http://127.0.0.1:9", token=TOKEN)
    with pytest.raises(TuningError, match="HF_ENDPOINT"):
        existing_files("me/lora", api)


@pytest.mark.parametrize("repo", ["lora", "a/b/c", "me/..", "me/a b", ""])
def test_names_that_are_no_repository(repo: str) -> None:
    with pytest.raises(TuningError, match="no repository"):
        check_repo_id(repo)


@pytest.mark.slow
def test_a_list_of_clips_that_climbs_uploads_nothing_else(finished: Path, tmp_path: Path) -> None:
    """A run folder of others may name any file, and hold one of the same name to pass a check."""
    run = shutil.copytree(finished, tmp_path / "run")
    (tmp_path / "id_key").write_text("private")
    (run / "samples/before-after/id_key").write_text("theirs")
    rows = [
        {"file": "../../../id_key", "prompt": "a"},
        {"file": str(tmp_path / "id_key"), "prompt": "b"},
    ]
    (run / "samples/prompts.json").write_text(json.dumps(rows))
    files = [one for one in uploads(run) if one.name.startswith("clips/")]
    assert [one.name for one in files] == ["clips/id_key"] * 2
    for one in files:
        assert isinstance(one.content, Path)
        assert one.content.read_text() == "theirs"


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["recipe.yaml", "evaluation.json", "lora/more.json", "samples/before-after/00.mp4"]
)
def test_a_link_out_of_the_run_folder_is_refused(finished: Path, tmp_path: Path, name: str) -> None:
    run = shutil.copytree(finished, tmp_path / "run")
    path = run / name
    target = tmp_path / "outside"
    target.write_bytes(path.read_bytes() if path.exists() else b"{}")
    path.unlink(missing_ok=True)
    path.symlink_to(target)
    with pytest.raises(TuningError, match=r"is a link to .*outside, outside of the run folder"):
        uploads(run)
