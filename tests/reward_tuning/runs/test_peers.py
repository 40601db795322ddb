"""Processes watch one another over real connections, which a thread of each reads."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest
from accelerate import Accelerator

from reward_tuning.errors import TuningError
from reward_tuning.runs.peers import Peers, connect, watch_peers

COMMAND = "reward-tuning resume run"
Ends = tuple[Peers, socket.socket, socket.socket]


def main_of_three() -> Ends:
    """The main process, and the other ends of its connections to processes 1 and 2."""
    ends = {rank: socket.socketpair() for rank in (1, 2)}
    ours = {rank: end[0] for rank, end in ends.items()}
    return Peers(ours, 3, lambda: COMMAND), ends[1][1], ends[2][1]


@pytest.fixture
def ends() -> Iterator[Ends]:
    peers, one, two = main_of_three()
    yield peers, one, two
    peers.close(done=True)
    for end in (one, two):
        end.close()


def test_nothing_is_wrong_while_all_are_connected(ends: Ends) -> None:
    peers, _, _ = ends
    assert not peers.explains(wait=0.1)
    peers.check()


def test_a_connection_that_closes_is_a_lost_process_and_the_others_hear_of_it(ends: Ends) -> None:
    peers, one, two = ends
    two.close()
    assert peers.explains()
    with pytest.raises(TuningError, match="process 2 of 3 has ended") as lost:
        peers.check()
    assert str(lost.value).endswith(f"Resume with: {COMMAND}")
    assert one.recv(64) == b"gone 2\n"


def test_a_process_that_says_it_is_done_is_not_lost(ends: Ends) -> None:
    peers, one, two = ends
    two.sendall(b"done\n")
    two.close()
    assert not peers.explains(wait=0.3)
    one.close()
    assert peers.explains()
    assert peers.lost == 1


def test_the_main_process_passes_on_which_one_was_lost() -> None:
    ours, theirs = socket.socketpair()
    peers = Peers({0: ours}, 3, lambda: COMMAND)
    theirs.sendall(b"gone 2\n")
    assert peers.explains()
    assert peers.lost == 2
    peers.close(done=False)
    theirs.close()


@pytest.mark.parametrize(("done", "said"), [(True, b"done\n"), (False, b"")])
def test_what_a_process_says_as_it_leaves(done: bool, said: bytes) -> None:
    peers, one, two = main_of_three()
    peers.close(done=done)
    assert [end.recv(64) for end in (one, two)] == [said, said]
    for end in (one, two):
        end.close()


def test_a_process_that_hangs_is_ended_after_a_grace() -> None:
    code = """
import socket, sys, time
from reward_tuning.runs import peers
peers.GRACE = 0.2
ours, theirs = socket.socketpair()
watch = peers.Peers({1: ours}, 2, lambda: "resume")
theirs.close()
time.sleep(60)
"""
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, timeout=50, check=False)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("error: process 1 of 2 has ended")


def test_a_single_process_watches_nobody() -> None:
    accelerator = Accelerator()
    assert connect(accelerator) == {}
    with pytest.raises(ZeroDivisionError), watch_peers(accelerator, lambda: COMMAND) as peers:
        peers.check()
        raise ZeroDivisionError  # stays what it is
