"""A judge's file: layouts, hashes, and damaged or dangerous files."""

import hashlib
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from rewards import RewardError, load_latent_reward, load_reward
from rewards.core.published import published
from rewards.core.weight_file import file_hash, load_weights, verify

STATE = {"a": torch.arange(600.0), "b.weight": torch.ones(2, 3)}


@pytest.fixture(autouse=True)
def _no_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    # An empty cache: whatever lies on the machine, nothing is found and nothing is asked for.
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))


@pytest.mark.parametrize("layout", ["plain", "state_dict"])
def test_torch_files_of_both_layouts(tmp_path: Path, layout: str) -> None:
    content = STATE if layout == "plain" else {"state_dict": STATE}
    torch.save(content, tmp_path / "m.pt")
    state = load_weights("m.pt", tmp_path).state
    assert set(state) == set(STATE)
    assert torch.equal(state["a"], STATE["a"])


def test_a_given_hash_is_checked_before_the_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    path.write_bytes(b"abc")  # NIST's example of FIPS 180-2
    right = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert file_hash(path, "sha256") == right
    for load in (partial(load_reward, "clip"), load_latent_reward):
        with pytest.raises(RewardError, match=f"has the sha256 {right}, the recipe expects 00000"):
            load(path, sha256="0" * 64)
        with pytest.raises(RewardError, match="truncated or damaged"):
            load(path, sha256=right.upper())


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_a_cut_off_file_is_told(tmp_path: Path, suffix: str, share: float) -> None:
    path = tmp_path / f"cut{suffix}"
    if suffix == ".safetensors":
        save_file(STATE, path)
    else:
        torch.save(STATE, path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(RewardError, match=r"truncated"):
        load_weights(path)


class Payload:
    ran = False

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (_run, ("x",))


def _run(_: str) -> str:
    Payload.ran = True
    return "done"


def test_code_in_a_pickle_is_refused_and_not_run(tmp_path: Path) -> None:
    torch.save({"a": Payload()}, tmp_path / "evil.pt")
    with pytest.raises(RewardError, match="can run code"):
        load_weights("evil.pt", tmp_path)
    assert not Payload.ran


def test_other_things_than_tensors_are_refused(tmp_path: Path) -> None:
    torch.save({"a": torch.ones(1), "epoch": 3}, tmp_path / "m.pt")
    with pytest.raises(RewardError, match="more than tensors: epoch"):
        load_weights("m.pt", tmp_path)
    torch.save([torch.ones(1)], tmp_path / "l.pt")
    with pytest.raises(RewardError, match="contains a list"):
        load_weights("l.pt", tmp_path)


def test_size_and_hash_of_a_published_file_are_checked(tmp_path: Path) -> None:
    path = tmp_path / "HPS_v2.1_compressed.pt"
    torch.save({"state_dict": STATE}, path)
    with pytest.raises(
        RewardError, match=r"the published HPS_v2.1_compressed.pt has 1,972,490,005"
    ):
        load_weights(path)
    entry = published(path.name)
    assert entry is not None
    right = replace(
        entry, size=path.stat().st_size, sha256=hashlib.sha256(path.read_bytes()).hexdigest()
    )
    verify(path, right)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(RewardError, match="sha256"):
        verify(path, right)


def test_an_md5_is_checked_where_nothing_better_is_published(tmp_path: Path) -> None:
    entry = published("mps-overall")
    assert entry is not None
    assert (entry.sha256, entry.md5) == (None, "1491cbbbd20565747fe07e7572e2ac56")
    path = tmp_path / "MPS_overall.pth"
    path.write_bytes(b"abc")
    # RFC 1321 gives this digest of "abc".
    verify(path, replace(entry, md5="900150983cd24fb0d6963f7d28e17f72"))
    with pytest.raises(RewardError, match=r"has the md5 900150983cd24fb0.*published MPS_overall"):
        load_weights(path)
