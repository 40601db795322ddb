"""The published judges: which file, how large, from where, and what it needs to run."""

from __future__ import annotations

from dataclasses import dataclass

_HPS_REPO = "xswu/HPSv2"
_HPS_REVISION = "697403c78157020a1ae59d23f111aa58ced35b0a"
_LAION_REPO = "https://github.com/christophschuhmann/improved-aesthetic-predictor"


@dataclass(frozen=True)
class PublishedFile:
    """One published checkpoint.

    Attributes:
        name: what a recipe may write.
        kind: the judge it is for; ``tower`` for the CLIP under an aesthetic head.
        repo: hub repository, or the address of a git repository.
        file: name in that repository.
        size: bytes, where the publisher states or the reference measured it.
        sha256: of the file, where known; checked on every load.
        architecture: open_clip's model name.
        tower: published name of the CLIP under a head.
        revision: commit of the repository that the record speaks of; ``None`` for its newest.
    """

    name: str
    kind: str
    repo: str
    file: str
    size: int | None
    sha256: str | None
    architecture: str | None = None
    tower: str | None = None
    revision: str | None = None

    @property
    def from_git(self) -> bool:
        """Whether the file lies in a git repository instead of on the hub."""
        return self.repo.startswith("https://")

    @property
    def fetch(self) -> str:
        """The command that fetches the file."""
        if self.from_git:
            return f"git clone --depth 1 {self.repo}"
        return fetch_command(self.repo, self.file, self.revision)


def fetch_command(repo: str, file: str, revision: str | None) -> str:
    """The command that fetches a file of the hub into its cache."""
    return f"hf download {repo} {file}" + (f" --revision {revision}" if revision else "")


PUBLISHED = (
    PublishedFile(
        "hps-v2.1",
        "hps",
        _HPS_REPO,
        "HPS_v2.1_compressed.pt",
        1_972_490_005,
        "c57a38fb4a2f7e7c15bf00da2ea377cdf165448b4dd1052a484c215a998c9837",
        "ViT-H-14",
        revision=_HPS_REVISION,
    ),
    PublishedFile(
        "hps-v2",
        "hps",
        _HPS_REPO,
        "HPS_v2_compressed.pt",
        1_972_484_501,
        "07cb0d20626232204ca3a6ec53ff5984e7e53212a8a7b0e0ec2bac1bdaf125a1",
        "ViT-H-14",
        revision=_HPS_REVISION,
    ),
    PublishedFile(
        "clip-vit-h-14",
        "clip",
        "laion/CLIP-ViT-H-14-laion2B-s32B-b79K",
        "open_clip_model.safetensors",
        None,
        None,
        "ViT-H-14",
    ),
    PublishedFile(
        "clip-vit-l-14",
        "clip",
        "timm/vit_large_patch14_clip_224.openai",
        "open_clip_model.safetensors",
        None,
        None,
        # "ViT-L-14" would only warn about the missing QuickGELU and give wrong features.
        "ViT-L-14-quickgelu",
    ),
    PublishedFile(
        "laion-aesthetic-v2",
        "aesthetic",
        _LAION_REPO,
        "sac+logos+ava1-l14-linearMSE.pth",
        3_714_759,
        "21dd590f3ccdc646f0d53120778b296013b096a035a2718c9cb0d511bff0f1e0",
        tower="clip-vit-l-14",
    ),
)


def published(text: str) -> PublishedFile | None:
    """The published file that a recipe's name, hub id, or file name means."""
    base = text.replace("\\", "/").rsplit("/", 1)[-1]
    for entry in PUBLISHED:
        if text in (entry.name, f"{entry.repo}/{entry.file}"):
            return entry
        # open_clip names every file on the hub alike: such a name alone means nothing.
        if base == entry.file and not base.startswith("open_clip_"):
            return entry
    return None
