"""A run's LoRA on a hub: what would be uploaded, and the upload, as one commit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

from huggingface_hub import CommitOperationAdd, HfApi
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalTokenNotFoundError
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

from reward_tuning.errors import TuningError
from reward_tuning.sharing.card import finished_recipe, model_card, shown_clips
from reward_tuning.sharing.public_recipe import public_recipe

CLIENTS = [import_module(name) for name in ("httpx", "httpx2") if find_spec(name)]
"""HTTP clients of the versions of huggingface_hub; it lets their connection errors through."""
REFUSALS: tuple[type[Exception], ...] = (
    HfHubHTTPError,
    LocalTokenNotFoundError,
    OSError,
    *(client.TransportError for client in CLIENTS),
)


@dataclass(frozen=True)
class Upload:
    """One file of an upload.

    Attributes:
        name: Its path in the repository.
        content: A file on the disk, or the bytes themselves.
    """

    name: str
    content: Path | bytes

    @property
    def size(self) -> int:
        """Size in bytes."""
        return len(self.content) if isinstance(self.content, bytes) else self.content.stat().st_size


def uploads(run: Path, *, title: str | None = None, licence: str | None = None) -> list[Upload]:
    """Return what an upload of a run holds: card, LoRA, clips, evaluation and recipe.

    Checkpoints, metrics and the report stay on this machine.

    Args:
        run: Folder of a finished reward tuning.
        title: Heading of the card; None makes one.
        licence: Identifier of the LoRA's licence; None states none.

    Raises:
        TuningError: The run is not finished, or a file is damaged or a link out of the run folder.
    """
    _check_inside(run)
    finished_recipe(run)
    card = model_card(run, title=title, licence=licence)
    files = [Upload("README.md", card.encode())]
    files += [Upload(one.name, one) for one in sorted((run / "lora").iterdir()) if one.is_file()]
    clips = run / "samples" / "before-after"
    files += [Upload(f"clips/{one['file']}", clips / one["file"]) for one in shown_clips(run)]
    files.append(Upload("evaluation.json", run / "evaluation.json"))
    files.append(Upload("recipe.yaml", public_recipe(run / "recipe.yaml").encode()))
    return files


def _check_inside(run: Path) -> None:
    """Refuse links that lead out of a run folder, which may come from others.

    Raises:
        TuningError: Names the first.
    """
    root = run.resolve()
    shared = [run / "recipe.yaml", run / "evaluation.json", *(run / "lora").glob("*")]
    shared += [run / "samples" / "prompts.json", *(run / "samples" / "before-after").glob("*")]
    for path in shared:
        if not path.resolve().is_relative_to(root):
            raise TuningError(
                f"{path} is a link to {path.resolve()}, outside of the run folder, and would be "
                "uploaded; put the file itself there, or remove the link"
            )


def check_repo_id(repo: str) -> None:
    """Check the name of a repository, before anything is read or sent.

    Raises:
        TuningError: It is not `owner/name` as hubs allow it.
    """
    try:
        validate_repo_id(repo)
    except HFValidationError as error:
        raise TuningError(f"{repo!r} is no repository: {error}") from error
    if repo.count("/") != 1:
        raise TuningError(f"{repo!r} is no repository; give owner/name, such as me/my-lora")


def existing_files(repo: str, api: HfApi) -> list[str] | None:
    """Return the files that the repository has now; None if there is no such repository.

    Raises:
        TuningError: The hub cannot be reached or refuses.
    """
    try:
        return api.list_repo_files(repo) if api.repo_exists(repo) else None
    except REFUSALS as error:
        raise _refused(repo, error) from error


def push(files: Sequence[Upload], repo: str, *, private: bool, api: HfApi) -> str:
    """Upload files to a repository, which is created where there is none; all or nothing.

    Args:
        files: From `uploads`.
        repo: `owner/name`.
        private: Visibility of a new repository; an existing one keeps its own.
        api: Client of the hub, which holds address and token.

    Returns:
        Address of the commit.

    Raises:
        TuningError: The hub cannot be reached or refuses; nothing of the commit is visible then.
    """
    operations = [
        CommitOperationAdd(
            one.name, one.content if isinstance(one.content, bytes) else str(one.content)
        )
        for one in files
    ]
    try:
        api.create_repo(repo, private=private, exist_ok=True)
        done = api.create_commit(repo, operations, commit_message="Upload a LoRA of reward-tuning")
    except REFUSALS as error:
        raise _refused(repo, error) from error
    return str(done.commit_url)


def _refused(repo: str, error: Exception) -> TuningError:
    """Turn an error of the hub into one with the next step; it never holds the token."""
    response = getattr(error, "response", None)
    status = getattr(response, "status_code", None)
    if status in (401, 403) or isinstance(error, LocalTokenNotFoundError):
        advice = "log in with `hf auth login`, with a token that may write there"
    elif status is not None:
        advice = "see the message above, and push again"
    else:
        advice = "check the connection (HF_ENDPOINT names another hub), and push again"
    said = getattr(error, "server_message", None) or str(error)
    first = " ".join(said.split())[:300] or type(error).__name__
    code = "" if status is None else f"{status} "
    return TuningError(f"the hub did not take {repo}: {code}{first}; {advice}")
