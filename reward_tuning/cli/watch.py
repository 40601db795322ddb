"""`reward-tuning watch`: a live page of runs that train."""

from pathlib import Path
from typing import Annotated

import typer


def watch(
    folder: Annotated[Path, typer.Argument(help="A run folder, or a folder of several")],
    port: Annotated[
        int, typer.Option(help="Port on this machine; 0 = a free one", min=0, max=65535)
    ] = 0,
    browser: Annotated[bool, typer.Option("--open", help="Open the page in a browser")] = False,
) -> None:
    """Show runs live in a browser: curves, sample clips, the time left; pause and stop them.

    Only this machine can open the page, by the address that is printed. Ctrl-C ends it.
    """
    from reward_tuning.watch.access import new_token
    from reward_tuning.watch.run_folders import checked_root, run_folders
    from reward_tuning.watch.server import bound_socket, serve, watch_app

    root = checked_root(folder)
    bound, token = bound_socket(port), new_token()
    app = watch_app(root, token)
    port = bound.getsockname()[1]
    address = f"http://127.0.0.1:{port}/{token}/"
    count = len(run_folders(root))
    runs = "1 run" if count == 1 else f"{count} runs" if count else "no run yet, waiting for one"
    print(f"{root}: {runs}\n{address}", flush=True)
    print(f"from another machine first: ssh -L {port}:127.0.0.1:{port} THIS-MACHINE", flush=True)
    if browser:
        typer.launch(address)
    serve(app, bound)
