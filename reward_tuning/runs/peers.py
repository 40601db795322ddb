"""Whether the other processes of a run still live: one that ends early ends the others, too.

A collective operation with a process that is gone may wait for hours (NCCL). So each process keeps
a connection to the main one, which the system closes however a process ends.
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

GRACE = 10.0
"""Seconds that the main thread has to leave by itself; it may hang in a collective operation."""
CONNECTING = 60.0
DONE, GONE = "done", "gone"


class Peers:
    """Watches over the other processes.

    Args:
        connections: To the other processes, by their number: of the main process all, of the others
            the main one.
        processes: Of the run.
        resume: The command that goes on with the run.

    Attributes:
        lost: The process that ended early; None as long as none has.
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
        """Leave where another process has ended.

        Raises:
            TuningError: One has.
        """
        if self.lost is not None:
            raise TuningError(self.told())

    def explains(self, wait: float = 2.0) -> bool:
        """Whether a process has ended, which is why a collective operation failed.

        Args:
            wait: Seconds that the news may take longer than the failure.
        """
        return bool(self._connections) and self._noticed.wait(wait)

    def told(self) -> str:
        """The line for the person who started the run."""
        return (
            f"process {self.lost} of {self._processes} has ended, so the others stopped: its own "
            "message says why; if there is none, the system killed it, usually because memory ran "
            f"out. Resume with: {self._resume()}"
        )

    def close(self, *, done: bool) -> None:
        """End the watch; `done` tells the others that this process needs them no more."""
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
        """What a process says last, or nothing where it has just ended."""
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
        if not self._left.wait(GRACE):
            print(f"error: {self.told()}", file=sys.stderr, flush=True)
            os._exit(2)


@contextmanager
def watched(accelerator: Accelerator, resume: Callable[[], str]) -> Iterator[Peers]:
    """Watch over the processes of a run within the context.

    A failure of the body that another process's end explains is told as that.

    Args:
        accelerator: Of the run.
        resume: The command that goes on with the run.

    Raises:
        TuningError: Another process has ended.
    """
    peers = Peers(connect(accelerator), accelerator.num_processes, resume)
    done = False
    try:
        yield peers
        done = True
    except TuningError:
        raise
    except Exception as error:
        if peers.explains():
            raise TuningError(peers.told()) from error
        raise
    finally:
        peers.close(done=done)


def connect(accelerator: Accelerator) -> dict[int, socket.socket]:
    """Connect the other processes with the main one; nothing where there are none.

    Returns:
        The connections of this process, by the number of the other.

    Raises:
        TuningError: They do not reach one another.
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
                    if said != word:  # a stranger
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
