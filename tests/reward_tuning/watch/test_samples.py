"""Sample clips: what there is, and that nothing else is served."""

from __future__ import annotations

from pathlib import Path

import pytest

from reward_tuning.watch.samples import MOST_PROMPT, Samples
from tests.reward_tuning.watch.run_files import write_clip, write_run


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_run(tmp_path / "run")


def test_clips_are_listed_as_they_come(root: Path) -> None:
    samples = Samples(root)
    assert samples.steps() == {0: ["00.mp4"]}
    write_clip(root, 20, b"2")
    write_clip(root, 20, b"2", "01.png")
    write_clip(root, 5, b"1")
    write_clip(root, 5, b"half written", ".01.mp4.tmp-7")
    (root / "samples/before-after").mkdir()
    (root / "samples/step-000030").mkdir()  # without clips yet
    assert samples.steps() == {0: ["00.mp4"], 5: ["00.mp4"], 20: ["00.mp4", "01.png"]}
    assert list(samples.steps()) == [0, 5, 20]


def test_a_run_without_clips_has_none(tmp_path: Path) -> None:
    samples = Samples(tmp_path)
    assert (samples.steps(), samples.prompts()) == ({}, {})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('[{"file": "00.mp4", "prompt": "<b>红"}]', {"00.mp4": "<b>红"}),
        ('[{"file": "../00.mp4", "prompt": "a"}, {"file": "00.mp4", "prompt": 3}, 7]', {}),
        ("{}", {}),
        ("[{", {}),
    ],
)
def test_prompts_are_texts_of_clips(root: Path, text: str, expected: dict[str, str]) -> None:
    (root / "samples/prompts.json").write_text(text)
    assert Samples(root).prompts() == expected


def test_a_prompt_as_long_as_a_novel_is_cut(root: Path) -> None:
    (root / "samples/prompts.json").write_text(f'[{{"file": "00.mp4", "prompt": "{"a" * 9000}"}}]')
    assert Samples(root).prompts() == {"00.mp4": "a" * MOST_PROMPT}


@pytest.mark.parametrize(
    ("step", "name"),
    [
        ("step-000000", "../../recipe.yaml"),
        ("step-000000/..", "00.mp4"),
        ("..", "recipe.yaml"),
        ("step-000000", "prompts.json"),
        ("step-000000", "00.mp4/"),
        ("step-000000", "00.mp4\n"),
        ("step-000000", "01.mp4"),
        ("step-000000", ""),
        ("/etc", "passwd"),
        ("before-after", "00.mp4"),
    ],
)
def test_only_clips_are_served(root: Path, step: str, name: str) -> None:
    samples = Samples(root)
    assert samples.file("step-000000", "00.mp4") == root / "samples/step-000000/00.mp4"
    assert samples.file(step, name) is None


def test_a_link_out_of_the_run_is_not_served_whatever_leads_there(root: Path) -> None:
    secret = root.parent / "secret"
    secret.mkdir()
    (secret / "00.mp4").write_bytes(b"secret")
    samples = Samples(root)
    (root / "samples/step-000000/01.mp4").symlink_to(secret / "00.mp4")
    (root / "samples/step-000001").symlink_to(secret)
    assert samples.file("step-000000", "01.mp4") is None
    assert samples.file("step-000001", "00.mp4") is None
    # but a link within the run is
    (root / "samples/step-000000/02.mp4").symlink_to(root / "samples/step-000000/00.mp4")
    assert samples.file("step-000000", "02.mp4") is not None
    whole = root.parent / "other/samples"
    whole.parent.mkdir()
    whole.symlink_to(root / "samples")
    assert Samples(whole.parent).file("step-000000", "00.mp4") is None
