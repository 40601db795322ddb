"""Cache text states on disk: each prompt is encoded once, and the encoder need not stay loaded.

Qwen2-VL-7B takes 17 GB for a few seconds of a run; its states are 1.8 MB per prompt. Each prompt
has a safetensors file, named by a hash of everything that the states depend on.
"""

import gc
import hashlib
import json
import logging
import os
import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from reward_tuning.errors import TuningError
from reward_tuning.files.hashes import sampled_bytes, tensor_sha256, text_sha256

logger = logging.getLogger(__name__)

Encode = Callable[[Sequence[str]], Tensor]
"""From b prompts to their states `(b, l, d)`."""

BATCH = 8  # prompts encoded, then written: a run that stops keeps the earlier batches
WHOLE, SAMPLES = (
    64 * 2**20,
    256,
)  # bytes up to which a file is hashed whole; samples of a larger one


def checkpoint_fingerprint(folders: Iterable[Path]) -> str:
    """Fingerprint the content of a checkpoint's folders, in a second even for 17 GB.

    Args:
        folders: Folders such as `text_encoder/` and `tokenizer/`.

    Returns:
        Hexadecimal SHA-256 over names, sizes and content; of files above 64 MB, over 256 samples.

    Raises:
        TuningError: A folder does not exist or has no file.
    """
    digest = hashlib.sha256()
    for folder in folders:
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        if not files:
            raise TuningError(
                f"no files in {folder}, so its states cannot be identified; check the checkpoint"
            )
        for path in files:
            size = path.stat().st_size
            digest.update(f"{folder.name}/{path.relative_to(folder).as_posix()} {size}\n".encode())
            for content in sampled_bytes(path, whole=WHOLE, samples=SAMPLES):
                digest.update(content)
    return digest.hexdigest()


class TextCache:
    """The states of prompts under one encoder.

    Args:
        folder: Folder of the files, created on the first write. Several runs may share it.
        fingerprint: `checkpoint_fingerprint` of the encoder's weights and tokenizer.
        max_length: Number of tokens l of the states; part of the key.
        dtype: Type of the states; part of the key.
    """

    def __init__(
        self,
        folder: str | Path,
        fingerprint: str,
        *,
        max_length: int = 256,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.folder = Path(folder)
        self.fingerprint = fingerprint
        self.max_length = max_length
        self.dtype = dtype

    def path(self, prompt: str) -> Path:
        """Return the file of a prompt's states."""
        about = [self.fingerprint, prompt, self.max_length, str(self.dtype)]
        key = text_sha256(json.dumps(about))
        return self.folder / f"{key}.safetensors"

    def encode(
        self, prompts: Iterable[str], encoder_factory: Callable[[], Encode]
    ) -> dict[str, Tensor]:
        """Read or compute the states of prompts.

        Args:
            prompts: Prompts; repeated ones are encoded once.
            encoder_factory: Builds the encoder; called only if a state is missing. The encoder is
                freed before this returns.

        Returns:
            Prompt to its states `(l, d)` on the CPU, in `dtype`.

        Raises:
            TuningError: The encoder returns another shape, or the disk is full.
        """
        states: dict[str, Tensor] = {}
        missing: list[str] = []
        for prompt in dict.fromkeys(prompts):
            found = self._read(prompt)
            if found is None:
                missing.append(prompt)
            else:
                states[prompt] = found
        if missing:
            self._compute(missing, encoder_factory, states)
        return states

    def _compute(
        self,
        missing: Sequence[str],
        encoder_factory: Callable[[], Encode],
        states: dict[str, Tensor],
    ) -> None:
        encoder = encoder_factory()
        for start in range(0, len(missing), BATCH):
            batch = missing[start : start + BATCH]
            with torch.no_grad():
                encoded = encoder(batch)
            if encoded.ndim != 3 or encoded.shape[:2] != (len(batch), self.max_length):
                raise TuningError(
                    f"the text encoder returned states {tuple(encoded.shape)} for {len(batch)} "
                    f"prompts; expected ({len(batch)}, {self.max_length}, d)"
                )
            for prompt, state in zip(batch, encoded, strict=True):
                # A copy: a view would keep, and write, the whole batch.
                states[prompt] = state.to("cpu", self.dtype, copy=True).contiguous()
                self._write(prompt, states[prompt])
        del encoder
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def _read(self, prompt: str) -> Tensor | None:
        path = self.path(prompt)
        if not path.exists():
            return None
        try:
            with safe_open(path, framework="pt") as file:
                about = file.metadata() or {}
                state: Tensor = file.get_tensor("states")
        except (SafetensorError, OSError) as error:
            problem = str(error)
        else:
            whole = about.get("prompt") == prompt and about.get("sha256") == tensor_sha256(state)
            if whole and state.shape[:1] == (self.max_length,) and state.dtype == self.dtype:
                return state
            problem = "its content does not fit its checksum"
        logger.warning("text cache: %s is damaged (%s); encoding %r again", path, problem, prompt)
        return None

    def _write(self, prompt: str, state: Tensor) -> None:
        about = {"prompt": prompt, "encoder": self.fingerprint, "sha256": tensor_sha256(state)}
        path = self.path(prompt)
        temporary: Path | None = None
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=self.folder, suffix=".part", delete=False) as file:
                temporary = Path(file.name)
                file.write(save({"states": state}, metadata=about))
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except OSError as error:
            if temporary is not None:
                temporary.unlink(missing_ok=True)
            raise TuningError(
                f"text cache: cannot write {path} ({error.strerror}); free some space or choose "
                "another folder, then start again; states written so far are kept"
            ) from error
        except BaseException:
            if temporary is not None:
                temporary.unlink(missing_ok=True)
            raise
