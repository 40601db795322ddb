import hashlib
import re
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from rewards import RewardError, load_latent_reward, load_reward
from rewards.core.locate import SHIPPED, resolve_file, shipped_names
from rewards.core.published import PUBLISHED, published
from rewards.core.weight_file import file_hash, load_weights, verify

PINNED = "697403c78157020a1ae59d23f111aa58ced35b0a"
STATE = {"a": torch.arange(600.0), "b.weight": torch.ones(2, 3)}


@pytest.fixture(autouse=True)
def _no_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    # An empty cache: whatever lies on the machine, nothing is found and nothing is asked for.
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))


def test_shipped_names_resolve_before_paths(tmp_path: Path) -> None:
    names = shipped_names()
    assert "tiny/hps.safetensors" in names
    (tmp_path / "tiny").mkdir()
    save_file(STATE, tmp_path / "tiny" / "hps.safetensors")
    assert resolve_file("tiny/hps.safetensors", tmp_path) == SHIPPED / "tiny/hps.safetensors"


def test_paths_are_relative_to_the_folder(tmp_path: Path) -> None:
    save_file(STATE, tmp_path / "mine.safetensors", {"kind": "clip"})
    for name in ("mine.safetensors", tmp_path / "mine.safetensors"):
        loaded = load_weights(name, tmp_path)
        assert loaded.path == tmp_path / "mine.safetensors"
        assert loaded.metadata == {"kind": "clip"}
        assert loaded.published is None
        assert {k: v.tolist() for k, v in loaded.state.items()} == {
            k: v.tolist() for k, v in STATE.items()
        }


@pytest.mark.parametrize("layout", ["plain", "state_dict"])
def test_torch_files_of_both_layouts(tmp_path: Path, layout: str) -> None:
    content = STATE if layout == "plain" else {"state_dict": STATE}
    torch.save(content, tmp_path / "m.pt")
    state = load_weights("m.pt", tmp_path).state
    assert set(state) == set(STATE)
    assert torch.equal(state["a"], STATE["a"])


def test_a_missing_published_judge_says_how_to_get_it() -> None:
    with pytest.raises(RewardError) as caught:
        resolve_file("hps-v2.1")
    text = str(caught.value)
    for part in ("HPS_v2.1_compressed.pt", "1.97 GB", "hf download xswu/HPSv2"):
        assert part in text
    with pytest.raises(
        RewardError, match=re.escape("sac+logos+ava1-l14-linearMSE.pth (0.00371 GB)")
    ):
        resolve_file("laion-aesthetic-v2")


def test_a_missing_file_names_what_is_there(tmp_path: Path) -> None:
    with pytest.raises(RewardError, match=r"'tiny/hsp\.safetensors' does not exist.*hps-v2\.1"):
        resolve_file("tiny/hsp.safetensors", tmp_path)
    with pytest.raises(RewardError, match=r"hf download org/repo folder/file\.safetensors"):
        resolve_file("org/repo/folder/file.safetensors", tmp_path)


def test_hub_files_come_from_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, str, str | None]] = []
    save_file(STATE, tmp_path / "cached.safetensors")

    def cached(repo: str, file: str, revision: str | None) -> str | None:
        asked.append((repo, file, revision))
        return str(tmp_path / "cached.safetensors") if revision in known else None

    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", cached)
    known = [None, "v1.0", PINNED]
    for name in ("org/repo/sub/file.pt", "org/repo/sub/file.pt@v1.0", "hps-v2", "clip-vit-l-14"):
        assert resolve_file(name).name == "cached.safetensors"
    assert asked == [
        ("org/repo", "sub/file.pt", None),
        ("org/repo", "sub/file.pt", "v1.0"),
        ("xswu/HPSv2", "HPS_v2_compressed.pt", PINNED),
        ("xswu/HPSv2", "HPS_v2_compressed.pt", None),  # only where the first is not there
        ("timm/vit_large_patch14_clip_224.openai", "open_clip_model.safetensors", None),
    ]
    known = ["v1.0"]  # another revision than the one wanted is not taken
    with pytest.raises(RewardError, match=r"hf download org/repo sub/file.pt --revision v2"):
        resolve_file("org/repo/sub/file.pt@v2")
    with pytest.raises(RewardError, match=f"hf download xswu/HPSv2 .* --revision {PINNED}"):
        resolve_file("hps-v2")


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


def test_published_files_are_known_by_name_id_and_file() -> None:
    hps = published("hps-v2.1")
    assert hps is not None
    assert published("xswu/HPSv2/HPS_v2.1_compressed.pt") is hps
    assert published("/data/HPS_v2.1_compressed.pt") is hps
    assert published("/data/open_clip_model.safetensors") is None  # every hub CLIP is called so
    assert published("tiny/hps.safetensors") is None
    assert len({e.name for e in PUBLISHED}) == len(PUBLISHED)
    assert all(len(e.sha256) == 64 for e in PUBLISHED if e.sha256)


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


def test_files_that_lie_elsewhere_say_how_to_fetch_them(tmp_path: Path) -> None:
    with pytest.raises(RewardError, match=r"curl -LO https://pai-.*/Third_Party/MPS_overall\.pth"):
        resolve_file("mps-overall", tmp_path)
    with pytest.raises(RewardError, match=r"ImageReward\.pt \(1\.79 GB\).*hf download THUDM/Image"):
        resolve_file("image-reward", tmp_path)
    # Every BERT has a vocab.txt: the name alone does not make a file that of bert-base-uncased.
    assert published("somewhere/vocab.txt") is None
