"""The process in which the hub's library downloads.

It runs as `python -m base_model.files.hub_process JSON`. The argument holds `name`,
`revision`, `patterns` and `pulse`, a file. One line of JSON comes back on stdout: `folder`,
or `error` with the reason. Progress bars go to stderr. Whenever bytes arrive the pulse is
touched: the files' sizes would not do, for the library writes 10 MB at a time, which a slow line
needs minutes for.
"""

import functools
import json
import os
import socket
import ssl
import sys
from collections.abc import Callable
from typing import Any


def main(wanted: dict[str, Any]) -> dict[str, Any]:
    """What the parent wants to know of a download: the folder, or why there is none."""
    beat_on_bytes(functools.partial(os.utime, wanted["pulse"]))
    return download(wanted["name"], wanted["revision"], wanted["patterns"])


def download(name: str, revision: str | None, patterns: list[str]) -> dict[str, Any]:
    """The snapshot's folder, or the error as a person reads it."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError

    try:
        return {"folder": snapshot_download(name, revision=revision, allow_patterns=patterns)}
    except (HFValidationError, OSError) as error:
        return _told(error)
    except Exception as error:
        if not _from_the_network(error):
            raise
        return _told(error)


def beat_on_bytes(beat: Callable[[], None]) -> None:
    """Calls `beat` whenever Python's sockets or the library's progress bars receive something.

    The bars are those of hf_xet, whose transfers do not pass Python's sockets. Only for a process
    of its own: the classes are changed for good.
    """
    from huggingface_hub.utils import tqdm  # type: ignore[attr-defined]

    def beating(owner: type, name: str, received: Callable[[Any, tuple[Any, ...]], object]) -> None:
        method = getattr(owner, name)

        @functools.wraps(method)
        def call(self: Any, *args: Any, **options: Any) -> Any:
            result = method(self, *args, **options)
            if received(result, args):
                beat()
            return result

        setattr(owner, name, call)

    for owner in (socket.socket, ssl.SSLSocket):
        for name in ("recv", "recv_into"):
            beating(owner, name, lambda result, args: result)
    beating(tqdm, "update", lambda result, args: args and args[0])


def _told(error: Exception) -> dict[str, Any]:
    reason = (str(error).strip() or "no reason given").splitlines()[0].rstrip(".")
    return {"error": f"{type(error).__name__}: {reason}"}


def _from_the_network(error: Exception) -> bool:
    """Whether the hub's library or the client it uses raised this: httpx2, httpx or requests."""
    packages = {base.__module__.partition(".")[0] for base in type(error).__mro__}
    return bool(packages & {"huggingface_hub", "httpx2", "httpx", "requests"})


if __name__ == "__main__":
    sys.stdout.write(json.dumps(main(json.loads(sys.argv[1]))) + "\n")
