"""Makes ``tests/golden/published_text_encoder.safetensors`` with EasyAnimate's own pins.

Not part of the tests. In an environment with transformers 4.46.3, tokenizers 0.20.3 and torch:

    python tests/published/make_text_encoder.py

A random Qwen2-VL whose config has the published keys at small numbers, saved by that transformers
(flat config, its tensor names), a slow tokenizer of ``vocab.json`` and ``merges.txt``, and what
they give for some prompts: token ids, and the penultimate hidden state as EasyAnimate's pipelines
take it (right padding to 256, the attention mask given).
"""

import json
import tempfile
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import Qwen2Tokenizer, Qwen2VLConfig, Qwen2VLForConditionalGeneration

HERE = Path(__file__).parent
GOLDEN = HERE.parent / "golden" / "published_text_encoder.safetensors"
PROMPTS = (
    "a red ball",
    "一个红色的球，从左往右",
    "  The dog's 12 bones -- it'll RUN!\nSecond line\t(naïve) 🐕",
)
# What Qwen2-VL's template does with text, written anew.
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if loop.first and message['role'] != 'system' %}"
    "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n{% endif %}"
    "<|im_start|>{{ message['role'] }}\n"
    "{% for part in message['content'] %}{{ part['text'] }}{% endfor %}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SPECIALS = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
)


def write_tokenizer(folder: Path) -> int:
    """The published set of files, without tokenizer.json; returns the first special token's id."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trained.train_from_iterator(
        ["system user assistant You are a helpful assistant.", *PROMPTS],
        trainers.BpeTrainer(vocab_size=320, initial_alphabet=alphabet, show_progress=False),
    )
    bpe = json.loads(trained.to_str())["model"]
    first = len(bpe["vocab"])
    folder.mkdir()
    (folder / "vocab.json").write_text(json.dumps(bpe["vocab"], ensure_ascii=False))
    merges = [m if isinstance(m, str) else " ".join(m) for m in bpe["merges"]]
    (folder / "merges.txt").write_text("\n".join(merges) + "\n")
    flags = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False}
    config = {
        "add_prefix_space": False,
        "added_tokens_decoder": {
            str(first + i): {"content": name, **flags, "special": True}
            for i, name in enumerate(SPECIALS)
        },
        "additional_special_tokens": SPECIALS[1:],
        "bos_token": None,
        "chat_template": CHAT_TEMPLATE,
        "clean_up_tokenization_spaces": False,
        "eos_token": "<|im_end|>",
        "padding_side": "left",
        "errors": "replace",
        "model_max_length": 32768,
        "pad_token": "<|endoftext|>",
        "split_special_tokens": False,
        "tokenizer_class": "Qwen2Tokenizer",
        "unk_token": None,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2))
    return first


def small_config(first: int) -> dict[str, Any]:
    """The published keys at small numbers."""
    config = json.loads((HERE / "text_encoder.json").read_text())
    ids = {name: first + i for i, name in enumerate(SPECIALS)}
    config["vision_config"] |= {"depth": 1, "embed_dim": 16, "num_heads": 2, "hidden_size": 48}
    return config | {
        "bos_token_id": ids["<|endoftext|>"],
        "eos_token_id": ids["<|im_end|>"],
        "vision_start_token_id": ids["<|vision_start|>"],
        "vision_end_token_id": ids["<|vision_end|>"],
        "vision_token_id": ids["<|vision_pad|>"],
        "image_token_id": ids["<|image_pad|>"],
        "video_token_id": ids["<|video_pad|>"],
        "hidden_size": 48,
        "intermediate_size": 48,
        "max_window_layers": 3,
        "num_attention_heads": 4,
        "num_hidden_layers": 3,
        "num_key_value_heads": 2,
        "rope_scaling": {"type": "mrope", "mrope_section": [2, 2, 2]},
        "vocab_size": first + len(SPECIALS) + 4,
        "torch_dtype": "float32",
    }


def main() -> None:
    """Write the golden file."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        first = write_tokenizer(folder / "tokenizer")
        torch.manual_seed(0)
        model = Qwen2VLForConditionalGeneration(Qwen2VLConfig(**small_config(first))).eval()
        for parameter in model.parameters():  # so that every weight counts
            torch.nn.init.normal_(parameter, mean=0.1 if parameter.ndim == 1 else 0.0, std=0.2)
        model.save_pretrained(folder / "text_encoder")
        tokenizer = Qwen2Tokenizer.from_pretrained(folder / "tokenizer")
        tensors = {}
        for i, prompt in enumerate(PROMPTS):
            text = tokenizer.apply_chat_template(
                [{"role": "user", "content": [{"type": "text", "text": prompt}]}],
                tokenize=False,
                add_generation_prompt=True,
            )
            tokens = tokenizer(
                [text],
                padding="max_length",
                max_length=256,
                truncation=True,
                return_attention_mask=True,
                padding_side="right",
                return_tensors="pt",
            )
            with torch.no_grad():
                output = model(**tokens, output_hidden_states=True)
            tensors[f"out.{i}"] = output.hidden_states[-2][0].contiguous()
            tensors[f"ids.{i}"] = tokens["input_ids"][0]
            tensors[f"mask.{i}"] = tokens["attention_mask"][0]
        weights = load_file(folder / "text_encoder" / "model.safetensors")
        tensors |= {f"weights.{key}": tensor for key, tensor in weights.items()}
        files = {
            path.relative_to(folder).as_posix(): path.read_text()
            for path in sorted(folder.rglob("*"))
            if path.suffix in (".json", ".txt")
        }
        save_file(
            tensors,
            GOLDEN,
            metadata={"files": json.dumps(files), "prompts": json.dumps(PROMPTS)},
        )


if __name__ == "__main__":
    main()
