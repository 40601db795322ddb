"""Event files that TensorBoard reads."""

from pathlib import Path

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from reward_tuning.runs.tensorboard import TensorBoard


def curve(folder: Path, name: str) -> list[tuple[int, float]]:
    board = EventAccumulator(str(folder))
    board.Reload()
    return [(event.step, event.value) for event in board.Scalars(name)]


def test_a_resumed_run_replaces_what_a_killed_one_logged_after_its_checkpoint(
    tmp_path: Path,
) -> None:
    first = TensorBoard(tmp_path, 0)
    for step in (0, 1, 2, 3):
        first.log(step, {"loss": step / 2})
    first.flush()  # and never closed
    assert curve(tmp_path, "loss") == [(0, 0.0), (1, 0.5), (2, 1.0), (3, 1.5)]
    second = TensorBoard(tmp_path, 2)
    second.log(3, {"loss": 8.0, "reward/hps": 0.25})
    second.close()
    assert curve(tmp_path, "loss") == [(0, 0.0), (1, 0.5), (2, 1.0), (3, 8.0)]
    assert curve(tmp_path, "reward/hps") == [(3, 0.25)]
    first.close()
