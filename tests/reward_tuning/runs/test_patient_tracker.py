"""A tracker that fails loses nothing for good, and never the run."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.reward_tuning.runs.listening_tracker import Listener, patient, sample


def test_all_calls_pass_while_nothing_fails(tmp_path: Path) -> None:
    listener = Listener()
    tracker, lines = patient(listener)
    tracker.log(1, {"loss": 2.0})
    tracker.video(1, [sample(tmp_path)])
    tracker.flush()
    tracker.close(finished=True)
    assert [call[0] for call in listener.calls] == [1, 1, "flush", "close"]
    assert lines == []


def test_what_failed_is_sent_at_the_next_checkpoint_in_order() -> None:
    listener = Listener()
    tracker, lines = patient(listener)
    listener.error = ConnectionError("the network is down")
    tracker.log(1, {"loss": 1.0})
    listener.error = None
    tracker.log(2, {"loss": 2.0})  # waits behind the first
    assert listener.calls == []
    assert len(lines) == 1
    assert "listener failed at step 1: the network is down. The run goes on" in lines[0]
    tracker.flush()
    assert listener.calls == [(1, {"loss": 1.0}), (2, {"loss": 2.0}), ("flush",)]
    tracker.log(3, {"loss": 3.0})
    tracker.close(finished=True)
    assert listener.calls[3:] == [(3, {"loss": 3.0}), ("close", True)]
    assert len(lines) == 1


def test_what_never_arrived_is_named_at_the_end(tmp_path: Path) -> None:
    listener = Listener()
    tracker, lines = patient(listener)
    tracker.log(1, {"loss": 1.0})
    listener.error = ConnectionError("down")
    for step in range(2, 9):
        tracker.log(step, {"loss": 1.0})
    tracker.video(8, [sample(tmp_path)])
    tracker.flush()
    tracker.close(finished=True)
    assert len(lines) == 2
    assert "listener lacks numbers (7), clips (1) of steps 2 to 8: down." in lines[1]
    assert listener.calls == [(1, {"loss": 1.0})]


def test_an_unusable_value_does_not_hold_up_the_others() -> None:
    class Choosy(Listener):
        def log(self, step: int, scalars: object) -> None:
            if step == 2:
                raise ValueError("no such name")
            self.calls.append((step,))

    listener = Choosy()
    tracker, lines = patient(listener)
    for step in (1, 2, 3):
        tracker.log(step, {})
    tracker.close(finished=True)
    assert listener.calls == [(1,), (3,), ("close", True)]
    assert "lacks numbers (1) of step 2: no such name" in lines[-1]


def test_a_down_network_is_asked_three_times_at_a_checkpoint() -> None:
    asked = []

    class Down(Listener):
        def log(self, step: int, scalars: object) -> None:
            asked.append(step)
            raise TimeoutError

    tracker, _ = patient(Down())
    for step in range(1, 10):
        tracker.log(step, {})
    assert asked == [1]
    tracker.flush()
    assert asked == [1, 1, 2, 3]


def test_an_end_that_fails_is_told() -> None:
    listener = Listener()
    tracker, lines = patient(listener)
    listener.error = TimeoutError("600 seconds")
    tracker.close(finished=True)
    assert lines[0].startswith("tracking: listener lacks its end: 600 seconds.")


def test_a_full_disk_still_ends_the_run() -> None:
    listener = Listener()
    tracker, lines = patient(listener)
    listener.error = OSError(28, "No space left on device")
    with pytest.raises(OSError, match="No space left"):
        tracker.log(1, {})
    assert lines == []


def test_a_stop_by_the_person_is_not_held_back() -> None:
    class Stopped(Listener):
        def log(self, step: int, scalars: object) -> None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        patient(Stopped())[0].log(1, {})
