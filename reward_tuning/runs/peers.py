"""Watch the other processes of a run: one that ends early ends the others, too.

A collective operation with a process that is gone may wait for hours (NCCL). So each process keeps
a connection to the main one, which the operating system closes however a process ends.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import selectors
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from accelerate import Accelerator
from accelerate.utils import broadcast_object_list

from reward_tuning.errors import TuningError
from reward_tuning.runs.control import RunStopped
from reward_tuning.runs.guards import EndedByGuard
from reward_tuning.runs.out_of_memory import SharedOutOfMemory
from reward_tuning.runs.undone import UndoneStep

GRACE = 7.0
"""Seconds for the main thread to leave by itself; it may hang in a collective operation."""
CONNECTING = 60.0
"""Seconds for all processes to connect: they have met already, so only a firewall takes longer."""
DONE, GONE = "done", "gone"
AGREED = (RunStopped, UndoneStep, SharedOutOfMemory, EndedByGuard)
"""Errors that every process raises at the same point of a sound run."""


class Peers:
    """A thread that watches the other processes.

    Args:
        connections: Connections to other processes by their number: the main process has one to
            each, the others have one to the main process.
        processes: Number of processes of the run.
        resume: Return the command that resumes the run.

    Attributes:
        lost: Number of the process that ended early; None as long as none has.
    """

    def __init__(
        self, connections: dict[int, socket.socket], processes: int, resume: Callable[[], str]
    ) -> None:
        self.lost: int | None = None
        self._connections = connections
        self._processes = processes
        self._resume = resume
        self._closing = threading.Event()
        self._noticed = threading.Event()
        self._left = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="peers", daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Check that every other process is alive.

        Raises:
            TuningError: One has ended.
        """
        if self.lost is not None:
            raise TuningError(self.message())

    def explains(self, wait: float = 2.0) -> bool:
        """Return whether a lost process explains the failure of a collective operation.

        Args:
            wait: Seconds to wait for the news, which may arrive after the failure.
        """
        return bool(self._connections) and self._noticed.wait(wait)

    def message(self) -> str:
        """Return the error for the person who started the run."""
        return (
            f"process {self.lost} of {self._processes} has ended, so the others stopped: its own "
            "message says why; if there is none, the system killed it, usually because memory ran "
            f"out. Resume with: {self._resume()}"
        )

    def close(self, *, done: bool) -> None:
        """End the watch.

        Args:
            done: Tell the others that this process is finished, not lost.
        """
        self._left.set()
        self._closing.set()
        for connection in self._connections.values():
            with contextlib.suppress(OSError):
                if done:
                    connection.sendall(f"{DONE}\n".encode())
                connection.shutdown(socket.SHUT_RDWR)
        self._thread.join(1.0)
        for connection in self._connections.values():
            connection.close()

    def _watch(self) -> None:
        with selectors.DefaultSelector() as selector:
            for rank, connection in self._connections.items():
                selector.register(connection, selectors.EVENT_READ, rank)
            while selector.get_map() and not self._closing.is_set():
                for key, _ in selector.select(0.5):
                    said = self._heard(self._connections[key.data])
                    if self._closing.is_set():
                        return
                    if said == DONE:
                        selector.unregister(key.fileobj)
                        continue
                    _, _, named = said.partition(" ")
                    self._notice(int(named) if named else key.data)
                    return

    @staticmethod
    def _heard(connection: socket.socket) -> str:
        """Return the last line of a process; empty where it ended without one."""
        said = b""
        with contextlib.suppress(OSError):
            while not said.endswith(b"\n"):
                more = connection.recv(64)
                if not more:
                    break
                said += more
        return said.decode().strip()

    def _notice(self, rank: int) -> None:
        self.lost = rank
        self._noticed.set()
        for connection in self._connections.values():
            with contextlib.suppress(OSError):
                connection.sendall(f"{GONE} {rank}\n".encode())
        # The main thread raises at its next event. Where it hangs in a collective operation, only
        # the end of the process frees it.
        if not self._left.wait(GRACE):
            print(f"error: {self.message()}", file=sys.stderr, flush=True)
            os._exit(2)


@contextmanager
def leaving_together(accelerator: Accelerator) -> Iterator[None]:
    """Let no process leave the context before the others, at its end or by an error of `AGREED`.

    The main process closes trackers and status within it. A launcher ends all processes as soon as
    one has failed, so a process that left earlier would cut this short.

    Args:
        accelerator: Processes of the run. Where one leaves by another error, the wait of the others
            ends by that of `watch_peers`.
    """
    try:
        yield
    except AGREED:
        accelerator.wait_for_everyone()
        raise
    accelerator.wait_for_everyone()


@contextmanager
def watch_peers(accelerator: Accelerator, resume: Callable[[], str]) -> Iterator[Peers]:
    """Watch the processes of a run within the context.

    A failure of the body that the end of another process explains is reported as that.

    Args:
        accelerator: Processes of the run.
        resume: Return the command that resumes the run.

    Raises:
        TuningError: Another process has ended.
    """
    peers = Peers(connect(accelerator), accelerator.num_processes, resume)
    done = False
    try:
        yield peers
        done = True
    except AGREED:
        done = True
        raise
    except TuningError:
        raise
    except Exception as error:
        if peers.explains():
            raise TuningError(peers.message()) from error
        raise
    finally:
        peers.close(done=done)


def connect(accelerator: Accelerator) -> dict[int, socket.socket]:
    """Connect every process with the main one; do nothing where there is only one.

    Returns:
        The connections of this process, by the number of the other.

    Raises:
        TuningError: The processes cannot reach one another.
    """
    if accelerator.num_processes == 1:
        return {}
    rank = accelerator.process_index
    found: dict[int, socket.socket] = {}
    address = os.environ.get("MASTER_ADDR") or "127.0.0.1"
    local = address in ("localhost", "127.0.0.1")
    meeting: list[object] = [None, None]
    try:
        if accelerator.is_main_process:
            with socket.create_server(("127.0.0.1" if local else "", 0)) as server:
                server.settimeout(CONNECTING)
                word = secrets.token_hex(16)
                meeting = [server.getsockname()[1], word]
                broadcast_object_list(meeting)
                while len(found) < accelerator.num_processes - 1:
                    connection, _ = server.accept()
                    connection.settimeout(CONNECTING)
                    said, _, who = Peers._heard(connection).partition(" ")
                    if said != word:  # not one of ours, such as a port scanner
                        connection.close()
                        continue
                    found[int(who)] = connection
        else:
            broadcast_object_list(meeting)
            port, agreed = meeting
            assert isinstance(port, int)
            found[0] = socket.create_connection((address, port), CONNECTING)
            found[0].sendall(f"{agreed} {rank}\n".encode())
    except OSError as error:
        raise TuningError(
            f"process {rank} of {accelerator.num_processes} cannot reach the others at "
            f"{address}: {error}; check MASTER_ADDR and any firewall between the machines"
        ) from error
    for connection in found.values():
        connection.settimeout(None)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    return found
