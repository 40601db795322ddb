"""`reward-tuning push`: upload a run's LoRA, with its card, to a hub."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from reward_tuning.errors import TuningError


def push(
    run: Annotated[Path, typer.Argument(help="Folder of a finished run")],
    repo: Annotated[str, typer.Argument(help="Repository on the hub: owner/name")],
    public: Annotated[
        bool, typer.Option("--public", help="Make a new repository public; default: private")
    ] = False,
    title: Annotated[str | None, typer.Option(help="Heading of the card")] = None,
    licence: Annotated[
        str | None,
        typer.Option("--licence", "--license", help="Of the LoRA, such as apache-2.0"),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Upload without asking")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only list what would be uploaded")
    ] = False,
) -> None:
    """Upload LoRA, model card, clips, evaluation and recipe; list them first, then ask.

    The token is the one of `hf auth login`, or HF_TOKEN. HF_ENDPOINT names another hub.
    """
    from reward_tuning.cli.output import print_table
    from reward_tuning.sharing.push import check_repo_id, existing_files, uploads
    from reward_tuning.sharing.push import push as upload

    check_repo_id(repo)
    files = uploads(run, title=title, licence=licence)
    from huggingface_hub import HfApi

    api = HfApi()
    there = None if dry_run else existing_files(repo, api)
    rows = [
        [size_text(one.size), one.name, "replaces" * (one.name in (there or []))] for one in files
    ]
    print_table(f"To {repo}", ["size", "file", ""], rows)
    if dry_run:
        print("nothing was uploaded (--dry-run)")
        return
    state = "exists" if there is not None else f"is created, {'public' if public else 'private'}"
    print(f"{repo} {state}")
    if not yes and not (sys.stdin.isatty() and typer.confirm("Upload?")):
        raise TuningError("nothing was uploaded; confirm with --yes")
    print(upload(files, repo, private=not public, api=api))


def size_text(size: int) -> str:
    """Return a file's size in bytes, kB or MB.

    Args:
        size: In bytes.
    """
    if size < 1000:
        return f"{size} bytes"
    return f"{size / 1e3:.1f} kB" if size < 1e6 else f"{size / 1e6:.1f} MB"
