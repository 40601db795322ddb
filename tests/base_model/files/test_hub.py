"""Downloads through the hub's own library, from a hub on the loopback."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from base_model.errors import GeneratorError
from base_model.files.hub import HUB_ID, parts_of, verify
from base_model.files.hub import download as fetch
from tests.base_model.fake_hub import FakeHub, serving

ROOT = Path(__file__).parents[3]
WEIGHTS = "transformer/diffusion_pytorch_model.safetensors"
SCRIPT = """
import sys
from base_model.errors import GeneratorError
from base_model.files.hub import download, parts_of
try:
    print(download(sys.argv[1], parts_of(["transformer", "vae"])))
except GeneratorError as error:
    print(error)
    sys.exit(2)
"""


class Done(NamedTuple):
    code: int
    out: str
    err: str


Download = Callable[..., Done]


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[FakeHub]:
    folder = tmp_path / "published"
    contents = {
        "model_index.json": b"{}",
        "README.md": b"about",
        "modeling.py": b"raise SystemExit('code of the hub was run')",
        "scheduler/scheduler_config.json": b'{"shift": 3.0}',
        "transformer/config.json": b'{"in_channels": 33}',
        "transformer/own.py": b"raise SystemExit('code of the hub was run')",
        "transformer/old.bin": b"\x80pickle",
        WEIGHTS: bytes(range(256)) * 4000,
        "vae/config.json": b'{"latent_channels": 16}',
        "vae/diffusion_pytorch_model.safetensors": bytes(range(255, -1, -1)) * 40,
        "text_encoder/model.safetensors": b"not wanted here" * 1000,
    }
    for name, content in contents.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    with serving(FakeHub(folder)) as served:
        yield served


@pytest.fixture
def download(hub: FakeHub, tmp_path: Path) -> Download:
    """In a process of its own: the library reads the hub's address once, when it is imported."""

    def run(name: str, **environment: str) -> Done:
        told = {"HF_ENDPOINT": hub.address, "HF_HOME": str(tmp_path / "home"), **environment}
        ran = subprocess.run(
            [sys.executable, "-c", SCRIPT, name],
            cwd=ROOT,
            env={**os.environ, "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1", **told},
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        return Done(ran.returncode, ran.stdout.strip(), ran.stderr)

    return run


def files(folder: Path) -> list[str]:
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


def test_data_alone_of_one_commit(hub: FakeHub, download: Download) -> None:
    done = download("org/name")
    assert done.code == 0, done.err
    folder = Path(done.out)
    assert folder.name == "a" * 40
    assert files(folder) == [
        "model_index.json",
        "scheduler/scheduler_config.json",
        "transformer/config.json",
        WEIGHTS,
        "vae/config.json",
        "vae/diffusion_pytorch_model.safetensors",
    ]
    assert (folder / WEIGHTS).read_bytes() == hub.files[WEIGHTS]
    assert "100%" in done.err  # the library's own bars

    asked = len(hub.asked)
    assert download("org/name").out == done.out
    assert download("org/name", HF_HUB_OFFLINE="1").out == done.out
    assert len(hub.asked) == asked  # from the cache
    assert Path(download("org/name@v1").out).name == "b" * 40
    assert Path(download(f"org/name@{'a' * 40}").out).name == "a" * 40


def test_what_was_cut_off_goes_on(hub: FakeHub, download: Download) -> None:
    block = 10 * 1024 * 1024  # what the library writes at a time
    hub.files[WEIGHTS] = bytes(range(256)) * (block // 256 * 2 + 8)
    hub.cut[WEIGHTS] = 1
    done = download("org/name")
    assert done.code == 0, done.err
    assert [first for name, first in hub.asked if name == WEIGHTS] == [0, block]
    assert (Path(done.out) / WEIGHTS).read_bytes() == hub.files[WEIGHTS]


def test_a_wrong_file_is_named_deleted_and_fetched_again(hub: FakeHub, download: Download) -> None:
    """Of the right size, so that only its hash tells."""
    hub.wrong.add(WEIGHTS)
    done = download("org/name")
    assert done.code == 2
    assert done.out.startswith(f"{WEIGHTS} of ")
    assert f"not the hub's {hub.hash(WEIGHTS)}. It has been deleted" in done.out
    hub.wrong.clear()
    before = len(hub.asked)
    done = download("org/name")
    assert done.code == 0, done.out
    assert hub.asked[before:] == [(WEIGHTS, 0)]
    assert (Path(done.out) / WEIGHTS).read_bytes() == hub.files[WEIGHTS]


def test_damage_on_the_disk(hub: FakeHub, download: Download) -> None:
    folder = Path(download("org/name").out)
    for name in ("vae/config.json", WEIGHTS):  # named by git's hash and by SHA-256
        blob = (folder / name).resolve()
        content = bytearray(blob.read_bytes())
        content[0] ^= 1
        blob.write_bytes(content)
        with pytest.raises(GeneratorError, match=rf"{name} of .* is damaged"):
            verify(folder)
        assert not (folder / name).exists()
    verify(folder)
    assert WEIGHTS in files(Path(download("org/name").out))


def test_files_are_read_once(download: Download) -> None:
    folder = Path(download("org/name").out)
    blob = (folder / WEIGHTS).resolve()
    stat = blob.stat()
    content = bytearray(blob.read_bytes())
    content[0] ^= 1
    blob.write_bytes(content)
    os.utime(blob, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    verify(folder)  # same size and time: not read again
    (folder.parent.parent / "reward-tuning-verified.json").write_text('{"')
    with pytest.raises(GeneratorError, match="is damaged"):
        verify(folder)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("org/other", "RepositoryNotFoundError"),
        ("org/name@v9", "RevisionNotFoundError"),
        ("org/name--x", "HFValidationError"),
    ],
)
def test_what_is_not_there(download: Download, name: str, reason: str) -> None:
    done = download(name)
    assert done.code == 2, done.err
    assert f"The checkpoint '{name}' is not in the local cache and could not be down" in done.out
    assert reason in done.out
    assert f"hf download {name.partition('@')[0]} --local-dir FOLDER" in done.out


def test_no_connection(hub: FakeHub, download: Download) -> None:
    done = download("org/name", HF_ENDPOINT="http://127.0.0.1:9")  # nobody listens there
    assert done.code == 2
    assert "could not be downloaded" in done.out
    assert not hub.asked


@pytest.mark.parametrize("where", ["revision", "tree", "head", "body"])
def test_a_hub_that_never_answers(hub: FakeHub, download: Download, where: str) -> None:
    """It accepts the connection; without a limit the first two wait for ever."""
    hub.silent = where
    began = time.monotonic()
    done = download("org/name", REWARD_TUNING_HUB_TIMEOUT="2")
    assert time.monotonic() - began < 30
    assert done.code == 2, done.err
    assert "Traceback" not in done.err
    assert len(done.out.splitlines()) == 1
    assert f"{hub.address} has sent nothing for 2 seconds (REWARD_TUNING_HUB_TIMEOUT" in done.out
    assert "hf download org/name --local-dir FOLDER" in done.out
    if where == "body":  # and nothing stands in the way of the next call
        hub.silent = ""
        hub.closing.set()
        assert download("org/name").code == 0


def test_a_silent_hub_and_a_full_cache(hub: FakeHub, download: Download) -> None:
    before = download("org/name")
    hub.silent = "revision"
    done = download("org/name", REWARD_TUNING_HUB_TIMEOUT="2")
    assert (done.code, done.out) == (0, before.out), done.err
    assert "so 'org/name' is used as it is in the local cache. Set HF_HUB_OFFLINE=1" in done.err


def test_a_slow_hub_is_not_a_silent_one(hub: FakeHub, download: Download) -> None:
    """Six seconds for one file, at a limit of two."""
    hub.files[WEIGHTS] = bytes(range(256)) * 4000 * 12
    hub.pause = 0.5
    assert download("org/name", REWARD_TUNING_HUB_TIMEOUT="2").code == 0


@pytest.mark.parametrize("limit", ["soon", "0", "-1", "inf", "nan"])
def test_a_limit_that_is_none(monkeypatch: pytest.MonkeyPatch, hub: FakeHub, limit: str) -> None:
    monkeypatch.setenv("REWARD_TUNING_HUB_TIMEOUT", limit)
    with pytest.raises(
        GeneratorError, match=rf"REWARD_TUNING_HUB_TIMEOUT is '{limit}'; give the seconds"
    ):
        fetch("org/name", ["*.json"])
    assert not hub.asked


@pytest.mark.parametrize(
    ("text", "revision"),
    [("org/name", None), ("o/n@v1.0", "v1.0"), ("o/n@refs/pr/3", "refs/pr/3")],
)
def test_names(text: str, revision: str | None) -> None:
    found = HUB_ID.fullmatch(text)
    assert found is not None
    assert found["revision"] == revision


@pytest.mark.parametrize("text", ["name", "org/name@", "org/name@v1@v2", "org/name@/x", "a/b/c"])
def test_no_names(text: str) -> None:
    assert HUB_ID.fullmatch(text) is None


def test_patterns_are_of_data() -> None:
    endings = {pattern.rpartition(".")[2] for pattern in parts_of(["transformer", "tokenizer"])}
    assert endings == {"json", "safetensors", "txt", "jinja", "model"}
