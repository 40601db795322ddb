"""Process in which the hub's library downloads.

It runs as `python -m base_model.files.hub_process JSON`. The argument holds `name`, `revision`,
`patterns` and `pulse`, a file. The process prints one line of JSON: `folder`, or `error` with the
reason. Progress bars go to stderr. The pulse file is touched whenever bytes arrive. File sizes
would not do: the library writes 10 MB at a time, which takes minutes on a slow line.
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
    """Run a download and return the folder, or the reason for the failure."""
    beat_on_bytes(functools.partial(os.utime, wanted["pulse"]))
    return download(wanted["name"], wanted["revision"], wanted["patterns"])


def download(name: str, revision: str | None, patterns: list[str]) -> dict[str, Any]:
    """Download a snapshot and return its folder, or the error as text."""
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
    """Call `beat` whenever Python's sockets or the library's progress bars receive something.

    The bars are those of hf_xet, whose transfers bypass Python's sockets. This is only for a
    separate
    process: the classes stay patched.
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
    """Return whether the hub's library or its client (httpx2, httpx, requests) raised this."""
    packages = {base.__module__.partition(".")[0] for base in type(error).__mro__}
    return bool(packages & {"huggingface_hub", "httpx2", "httpx", "requests"})


if __name__ == "__main__":
    sys.stdout.write(json.dumps(main(json.loads(sys.argv[1]))) + "\n")
