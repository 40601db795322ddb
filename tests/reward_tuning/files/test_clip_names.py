"""Names of written clips, and the refusal to overwrite."""

from pathlib import Path

import pytest

from reward_tuning.errors import TuningError
from reward_tuning.files.clip_names import (
    clip_paths,
    is_clip_file,
    preview_path,
    refuse_existing,
)


def test_a_file_for_one_clip_and_numbered_files_in_a_folder(tmp_path: Path) -> None:
    assert clip_paths(tmp_path / "a.gif", 1, ["mp4"]) == [[tmp_path / "a.gif"]]
    assert clip_paths(tmp_path / "clips.of-monday", 2, ["mp4", "png"]) == [
        [tmp_path / "clips.of-monday/0000.mp4", tmp_path / "clips.of-monday/0000.png"],
        [tmp_path / "clips.of-monday/0001.mp4", tmp_path / "clips.of-monday/0001.png"],
    ]
    (tmp_path / "folder.mp4").mkdir()
    assert not is_clip_file(tmp_path / "folder.mp4")
    assert clip_paths(tmp_path / "folder.mp4", 1, ["mp4"]) == [[tmp_path / "folder.mp4/0000.mp4"]]


@pytest.mark.parametrize(
    ("name", "count", "formats", "message"),
    [
        ("a.mp4", 2, ["mp4"], "a.mp4 is one file, but there are 2 prompts; give a folder"),
        ("a.webm", 1, ["mp4"], "a.webm; allowed: a clip that ends in .mp4, .gif, .png, or a fol"),
        ("folder", 1, ["mp4", "avi"], "--format: got 'avi'; allowed: mp4, gif, png"),
        ("note", 1, ["mp4"], "note is a file and not a clip; give a folder"),
    ],
)
def test_outputs_that_are_refused(
    tmp_path: Path, name: str, count: int, formats: list[str], message: str
) -> None:
    (tmp_path / "note").touch()
    with pytest.raises(TuningError) as caught:
        clip_paths(tmp_path / name, count, formats)
    assert message in str(caught.value)


def test_a_preview_has_the_clips_name_and_format() -> None:
    assert preview_path(Path("a/dog.mp4"), "mask") == Path("a/dog.mask.mp4")
    assert preview_path(Path("a/dog.v2.gif"), "heat-map") == Path("a/dog.v2.heat-map.gif")


def test_existing_files_are_named_and_counted(tmp_path: Path) -> None:
    paths = [tmp_path / f"{i}.mp4" for i in range(4)]
    refuse_existing(paths)
    paths[1].touch()
    with pytest.raises(TuningError, match=r"^--output: .*1\.mp4 exists and is not overwritten; gi"):
        refuse_existing(paths)
    paths[2].touch()
    paths[3].touch()
    with pytest.raises(TuningError, match=r"1\.mp4 is there \(and 2 more\) and is not .*; stop$"):
        refuse_existing(paths, message="{} is there", advice="stop")
