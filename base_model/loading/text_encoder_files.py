"""Text encoder and tokenizer of a checkpoint, as transformers writes them from 4.41 on.

Published checkpoints have a flat config (`hidden_size` next to `vision_config`), tensors named
`model.layers` and `visual`, and a tokenizer with vocab.json and merges.txt. Newer versions nest the
config, name the tensors `model.language_model` and keep the tokenizer in tokenizer.json alone.
transformers reads both; faults that it accepts silently are refused here.
"""

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from base_model.errors import GeneratorError
from base_model.files.weight_files import WeightFiles, find_weights, read_json, shorten
from base_model.loading.name_prefixes import leading_wrappers
from base_model.networks.prompt_encoder import PromptEncoder

_TOKENIZER_ERRORS = (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError)
# Raised by transformers' constructors for sizes that describe no network.
_CONFIG_ERRORS = (ValueError, TypeError, ArithmeticError, LookupError, AttributeError)


def check_text_encoder(part: Path) -> WeightFiles:
    """Check the config and the file headers of a text encoder; read no weights.

    Returns:
        Its weight files.

    Raises:
        GeneratorError: It is no Qwen2-VL, or a file is missing or truncated.
    """
    config = read_json(part / "config.json")
    kind = config.get("model_type")
    if kind != "qwen2_vl":
        raise GeneratorError(
            f"{part}: the text encoder is {kind!r}, EasyAnimateV5.1 uses qwen2_vl. "
            "Use the text_encoder/ of a V5.1 checkpoint."
        )
    if config.get("quantization_config") is not None:
        raise GeneratorError(
            f"{part / 'config.json'}: quantization_config is set, so the weights are quantised, or "
            "were. Use the text_encoder/ of the checkpoint they were made from, or remove the key "
            "if they are plain bfloat16 or float32."
        )
    return find_weights(part)


def load_text_encoder(
    folder: Path, *, dtype: torch.dtype = torch.float32, device: str | torch.device = "cpu"
) -> PromptEncoder:
    """Load `folder/text_encoder` and `folder/tokenizer`, frozen, in eval mode.

    Raises:
        GeneratorError: They are not a Qwen2-VL with its tokenizer, or weights are missing.
    """
    from huggingface_hub.errors import StrictDataclassError
    from transformers import Qwen2VLForConditionalGeneration

    part = folder / "text_encoder"
    weights = check_text_encoder(part)  # names a truncated file before transformers opens it
    options: dict[str, Any] = {}
    if wrappers := leading_wrappers(weights.files):
        options["key_mapping"] = {f"^{re.escape(wrappers)}": ""}
    try:
        with _quiet():
            model, report = Qwen2VLForConditionalGeneration.from_pretrained(
                part,
                dtype=dtype,
                output_loading_info=True,
                local_files_only=True,
                use_safetensors=True,
                **options,
            )
    except (*_CONFIG_ERRORS, StrictDataclassError) as error:
        raise GeneratorError(
            f"{part / 'config.json'} describes no Qwen2-VL that can be built: "
            f"{_first_line(error)[:200]}. Copy the config.json of the checkpoint the weights come "
            "from."
        ) from error
    problems = [
        f"{len(report[key])} {what}: {shorten(sorted(map(str, report[key])))}"
        for key, what in (
            ("missing_keys", "missing"),
            ("unexpected_keys", "unexpected"),
            ("mismatched_keys", "of another shape"),
        )
        if report[key]
    ]
    if problems:
        raise GeneratorError(
            f"{part}: the weights do not fit config.json. Tensors {'; '.join(problems)}. "
            "Weights and config.json must be of the same checkpoint."
        )
    tokenizer = load_tokenizer(folder / "tokenizer")
    rows = model.get_input_embeddings().weight.shape[0]
    if len(tokenizer) > rows:
        raise GeneratorError(
            f"{folder / 'tokenizer'} has {len(tokenizer)} tokens, but {part} has {rows}. Use the "
            "tokenizer and the text encoder of one checkpoint."
        )
    return PromptEncoder(model.requires_grad_(False).eval().to(device), tokenizer)


def newer_than_easyanimate(folder: Path) -> tuple[str, ...]:
    """List what transformers 4.46, EasyAnimate's pin, cannot read in a text encoder and tokenizer.

    Args:
        folder: Folder of a checkpoint.

    Returns:
        One line for each problem; none for files like the published ones.
    """
    notes = []
    if "text_config" in read_json(folder / "text_encoder" / "config.json"):
        notes.append(
            "text_encoder/ has the format of a newer transformers: EasyAnimate's own environment "
            "(transformers 4.46) cannot open it; use the published Qwen2-VL-7B there"
        )
    here = {path.name for path in (folder / "tokenizer").iterdir()}
    if not {"vocab.json", "merges.txt"} <= here:
        notes.append(
            "tokenizer/ has no vocab.json and merges.txt, which EasyAnimate's Qwen2Tokenizer reads"
        )
    return tuple(notes)


def load_tokenizer(part: Path) -> Any:
    """Load a tokenizer from tokenizer.json, or from vocab.json and merges.txt (the slow kind).

    Args:
        part: Folder with tokenizer_config.json and, if that holds no chat template,
            chat_template.json or chat_template.jinja.

    Raises:
        GeneratorError: A file is missing or damaged.
    """
    from transformers import AutoTokenizer

    here = {path.name for path in part.iterdir()}
    # Without either, transformers builds a tokenizer that encodes every text to no tokens.
    if "tokenizer.json" not in here and not {"vocab.json", "merges.txt"} <= here:
        raise GeneratorError(
            f"{part} cannot be loaded: it holds neither tokenizer.json nor both vocab.json and "
            f"merges.txt, but {shorten(sorted(here)) or 'nothing'}. Download or copy it again."
        )
    if "tokenizer_config.json" not in here:
        raise GeneratorError(
            f"{part} cannot be loaded: tokenizer_config.json is missing, which names the special "
            "tokens. Download or copy it again."
        )
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            part,
            local_files_only=True,
            trust_remote_code=False,  # without it, transformers asks on the terminal
        )
    except Exception as error:
        # The tokenizers library raises bare Exceptions for damaged files.
        if type(error) is not Exception and not isinstance(error, _TOKENIZER_ERRORS):
            raise
        raise GeneratorError(
            f"{part} cannot be loaded: {_first_line(error)}. Download or copy it again."
        ) from error
    template = part / "chat_template.json"
    if not tokenizer.chat_template and template.is_file():
        tokenizer.chat_template = read_json(template).get("chat_template")
    return tokenizer


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Hide transformers' progress bar and its table of misfits, which are reported here."""
    from transformers.utils import logging

    shown, verbosity = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if shown:
            logging.enable_progress_bar()
