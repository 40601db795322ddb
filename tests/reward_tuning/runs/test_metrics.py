"""Rows of metrics.jsonl and of the trackers; the clock of a step's phases."""

import json
import math
from pathlib import Path
from typing import Any

import pytest

from reward_tuning.errors import TuningError
from reward_tuning.runs.metrics import MetricsLog, last_row
from tests.reward_tuning.runs.listening_tracker import Listener, patient, sample, tensorboard


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def write(path: Path, *steps: int) -> None:
    log = MetricsLog(path, steps[0] - 1)
    for step in steps:
        log.write({"step": step, "loss": step / 2})
    log.flush()
    log.close()


def test_rows_after_the_checkpoint_are_written_anew(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    write(path, 1, 2, 3, 4, 5)
    with path.open("a") as file:
        file.write('{"step": 6, "lo')  # killed while writing
    write(path, 4, 5, 6)
    assert [row["step"] for row in rows(path)] == [1, 2, 3, 4, 5, 6]


def test_nan_and_infinity_become_null(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path / "metrics.jsonl", 0)
    seen = {"step": 0, "grad_norm": math.nan, "adjoint_norm": None}
    log.write({"step": 1, "loss": math.nan, "reward": {"hps": math.inf}, "active_steps": [seen]})
    log.close()
    text = (tmp_path / "metrics.jsonl").read_text()
    assert "NaN" not in text
    assert "Infinity" not in text
    assert json.loads(text) == {
        "step": 1,
        "loss": None,
        "reward": {"hps": None},
        "active_steps": [{"step": 0, "grad_norm": None, "adjoint_norm": None}],
    }


def test_tensorboard_has_the_same_numbers(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    log = MetricsLog(tmp_path / "metrics.jsonl", 0, [tensorboard(tmp_path)])
    for step in (1, 2):
        log.write(
            {
                "step": step,
                "reward": {"hps": 0.25 * step},
                "drift": None,
                "active_steps": [{"step": 7, "grad_norm": 2.0, "adjoint_norm": 4.0}],
            }
        )
    log.close()
    board = EventAccumulator(str(tmp_path))
    board.Reload()
    assert sorted(board.Tags()["scalars"]) == [
        "reward/hps",
        "step-07/adjoint_norm",
        "step-07/grad_norm",
    ]
    assert [(e.step, e.value) for e in board.Scalars("reward/hps")] == [(1, 0.25), (2, 0.5)]


def test_a_full_disk_is_told(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").symlink_to("/dev/full")
    log = MetricsLog.__new__(MetricsLog)
    log._path = tmp_path / "metrics.jsonl"
    with pytest.raises(TuningError, match=r"metrics.jsonl could not be written: No space left"):
        log.write({"step": 1})


def test_what_trackers_receive(tmp_path: Path) -> None:
    listener = Listener()
    log = MetricsLog(tmp_path / "metrics.jsonl", 0, [patient(listener)[0]])
    log.track({"step": 0, "held_out": {"loss": 2.0}})
    log.write({"step": 1, "loss": 1.0, "epoch": None, "guards": {"motion": 0.5}})
    log.samples(1)  # there are none
    clip = sample(tmp_path / "samples/step-000001", 3)
    (tmp_path / "samples/prompts.json").write_text(
        json.dumps([{"file": "03.mp4", "prompt": clip.prompt, "seed": 1}])
    )
    log.samples(1)
    log.samples(2, of=1)  # an earlier checkpoint is exported
    log.evaluation(2, {"base": {"loss": 2.0, "by_level": {}}, "tuned": None})
    log.flush()
    log.close(finished=False)
    assert listener.calls == [
        (0, {"held_out/loss": 2.0}),
        (1, {"loss": 1.0, "guards/motion": 0.5}),
        (1, [("samples/03", "03.mp4", clip.prompt)]),
        (2, [("samples/03", "03.mp4", clip.prompt)]),
        ("flush",),
        ("close", False),
    ]


def test_the_final_evaluation_is_numbers_and_a_table(tmp_path: Path) -> None:
    listener = Listener()
    log = MetricsLog(tmp_path / "metrics.jsonl", 0, [patient(listener)[0]])
    change = {"mean": 0.25, "low": 0.1, "high": math.nan}
    means = {"base": {"hps": 1.0}, "tuned": {"hps": 1.25}}
    log.evaluation(4, {"prompts": 8, **means, "difference": {"hps": change}})
    (numbers, table) = listener.calls
    assert numbers == (
        4,
        {
            "evaluation/base/hps": 1.0,
            "evaluation/tuned/hps": 1.25,
            "evaluation/difference/hps": 0.25,
        },
    )
    assert table[:2] == (4, "evaluation")
    assert list(table[2].rows[0]) == ["hps", "measure", 1.0, 1.25, 0.25, 0.1, None, 8]  # type: ignore[attr-defined]


def test_a_tracker_that_lacks_steps_receives_them_from_the_run_folder(tmp_path: Path) -> None:
    write(tmp_path / "metrics.jsonl", 1, 2, 3, 4, 5)
    for step in (0, 2, 4):
        sample(tmp_path / f"samples/step-{step:06d}")
    new, lacking, complete = Listener(), Listener(last_step=2), Listener(last_step=5)
    log = MetricsLog(
        tmp_path / "metrics.jsonl", 3, [patient(one)[0] for one in (new, lacking, complete)]
    )
    clips = [("samples/00", "00.mp4", "")]
    assert new.calls == [
        (0, clips),
        (1, {"loss": 0.5}),
        (2, {"loss": 1.0}),
        (2, clips),
        (3, {"loss": 1.5}),
    ]
    assert lacking.calls == [(3, {"loss": 1.5})]
    assert complete.calls == []
    log.close()


def test_a_run_that_begins_again_sends_its_first_clips_once(tmp_path: Path) -> None:
    sample(tmp_path / "samples/step-000000")
    new = Listener()
    log = MetricsLog(tmp_path / "metrics.jsonl", 0, [patient(new)[0]])
    assert new.calls == []  # the frame draws them and gives them
    log.close()


def test_the_last_row_that_was_written(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    assert last_row(path) == -1
    path.write_text('{"step": 1}\n{"step": 2}\n{"step": 3, "lo')
    assert last_row(path) == 2
