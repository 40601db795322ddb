"""Event files that TensorBoard reads."""

import io
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.summary.writer import event_file_writer

from reward_tuning.files.clips import read_clip
from reward_tuning.runs.tensorboard import TensorBoard
from reward_tuning.runs.tracker_parts import Table, TrackerStart
from tests.reward_tuning.runs.listening_tracker import sample


def curve(folder: Path, name: str) -> list[tuple[int, float]]:
    board = EventAccumulator(str(folder))
    board.Reload()
    return [(event.step, event.value) for event in board.Scalars(name)]


def test_a_resumed_run_replaces_what_a_killed_one_logged_after_its_checkpoint(
    tmp_path: Path,
) -> None:
    first = TensorBoard(TrackerStart(tmp_path))
    for step in (0, 1, 2, 3):
        first.log(step, {"loss": step / 2})
    first.flush()  # and never closed
    assert curve(tmp_path, "loss") == [(0, 0.0), (1, 0.5), (2, 1.0), (3, 1.5)]
    second = TensorBoard(TrackerStart(tmp_path, 2))
    second.log(3, {"loss": 8.0, "reward/hps": 0.25})
    second.close(finished=True)
    assert curve(tmp_path, "loss") == [(0, 0.0), (1, 0.5), (2, 1.0), (3, 8.0)]
    assert curve(tmp_path, "reward/hps") == [(3, 0.25)]
    first.close(finished=True)


def events(folder: Path) -> EventAccumulator:
    board = EventAccumulator(str(folder))
    board.Reload()
    return board


def test_clips_are_animated_pictures_of_the_frames(tmp_path: Path) -> None:
    clip = sample(tmp_path)
    board = TensorBoard(TrackerStart(tmp_path))
    board.video(2, [clip])
    board.close(finished=True)
    (picture,) = events(tmp_path).Images("samples/00")
    assert (picture.step, picture.width, picture.height) == (2, 48, 32)
    with Image.open(io.BytesIO(picture.encoded_image_string)) as gif:
        assert (gif.format, gif.n_frames) == ("GIF", 5)
        durations = []
        for number, frame in enumerate(read_clip(clip.path)):
            gif.seek(number)
            durations.append(gif.info["duration"])
            shown = torch.from_numpy(np.asarray(gif.convert("RGB")).copy()) / 255
            # A GIF has 255 colours; noise in all of them is the worst case.
            assert (shown.permute(2, 0, 1) - frame).abs().mean() < 0.08
    assert abs(sum(durations) - 1000 * 5 / 8) <= 5  # milliseconds; a GIF counts in hundredths


def test_the_recipe_and_a_table_are_texts(tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("seed: 3\noutput: a*b\n")
    board = TensorBoard(TrackerStart(tmp_path))
    board.recipe(recipe, {})
    board.table(4, "evaluation", Table(("metric", "base"), [["a|b", 0.5]]))
    board.close(finished=False)
    again = TensorBoard(TrackerStart(tmp_path, 4))
    assert again.last_step == 4
    again.recipe(recipe, {})
    again.close(finished=True)
    texts = events(tmp_path).Tensors("recipe/text_summary")
    assert [event.tensor_proto.string_val[0] for event in texts] == [
        b"    seed: 3\n    output: a*b"
    ]
    (table,) = events(tmp_path).Tensors("evaluation/text_summary")
    assert table.step == 4
    assert table.tensor_proto.string_val[0].decode() == (
        "| metric | base |\n| --- | --- |\n| a\\|b | 0.5 |"
    )


def test_a_clock_set_back_keeps_the_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """TensorBoard reads files in the order of their names, which begin with a time."""
    real = time.time
    for steps, ahead in enumerate((90_000, 50_000, 0)):
        monkeypatch.setattr(time, "time", lambda ahead=ahead: real() + ahead)
        board = TensorBoard(TrackerStart(tmp_path, steps))
        for step in range(steps + 1, 4):
            board.log(step, {"loss": float(ahead)})
        board.close(finished=True)
    assert curve(tmp_path, "loss") == [(1, 90_000.0), (2, 50_000.0), (3, 0.0)]
    assert len(list(tmp_path.glob("events.out.tfevents.*"))) == 3


def test_writers_of_one_second_keep_their_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Names end with a number that is not padded: 9, 10."""
    monkeypatch.setattr(event_file_writer, "_global_uid", event_file_writer.AtomicCounter(0))
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now)
    for count in range(12):
        board = TensorBoard(TrackerStart(tmp_path, count))
        for step in (count + 1, count + 2):
            board.log(step, {"loss": float(count)})
        board.close(finished=False)
    assert curve(tmp_path, "loss") == [*((step + 1, float(step)) for step in range(12)), (13, 11.0)]
    assert max(len(file.name.split("~")) for file in tmp_path.iterdir()) == 2  # no name grows


def test_a_file_that_cannot_be_renamed_stops_no_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    later = tmp_path / "events.out.tfevents.9999999999.host.1.0"
    later.touch()

    def refused(path: Path, to: Path) -> None:
        raise PermissionError(13, "another program has it open", str(path))

    monkeypatch.setattr(Path, "rename", refused)
    with pytest.warns(UserWarning, match=f"{later.name} cannot be renamed .*another program"):
        TensorBoard(TrackerStart(tmp_path)).close(finished=True)


def test_a_run_without_a_checkpoint_begins_again(tmp_path: Path) -> None:
    first = TensorBoard(TrackerStart(tmp_path))
    for step in (0, 1, 2):
        first.log(step, {"loss": 1.0})
    first.close(finished=False)
    second = TensorBoard(TrackerStart(tmp_path, 0))
    second.log(0, {"loss": 5.0})
    second.close(finished=True)
    assert curve(tmp_path, "loss") == [(0, 5.0)]
