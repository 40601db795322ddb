import json
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from torch import Tensor
from transformers import Qwen2Tokenizer, Qwen2VLConfig, Qwen2VLForConditionalGeneration

from base_model.generator import Generator, load_generator
from tests.goldens import load_golden, write_checkpoint

# What Qwen2-VL's template does with text, written anew.
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if loop.first and message['role'] != 'system' %}"
    "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n{% endif %}"
    "<|im_start|>{{ message['role'] }}\n"
    "{% for part in message['content'] %}{{ part['text'] }}{% endfor %}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The golden 7B-style transformer and VAE, in the original layout. Do not change it."""
    return write_checkpoint(tmp_path_factory.mktemp("checkpoint"))


@pytest.fixture
def generator(checkpoint: Path) -> Generator:
    return load_generator(checkpoint, text_encoder=False)


@pytest.fixture(scope="session")
def inputs() -> dict[str, Tensor]:
    tensors = load_golden("sampling_7b_style").tensors
    return {key.removeprefix("in."): t for key, t in tensors.items() if key.startswith("in.")}


def small_tokenizer(model_max_length: int) -> Qwen2Tokenizer:
    specials = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trained.train_from_iterator(
        ["system user assistant You are a helpful assistant.", "a red ball", "一个红色的球"],
        trainers.BpeTrainer(
            vocab_size=320,
            special_tokens=specials,
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
            show_progress=False,
        ),
    )
    bpe = json.loads(trained.to_str())["model"]
    tokenizer = Qwen2Tokenizer(
        vocab=bpe["vocab"],
        merges=[tuple(merge) for merge in bpe["merges"]],
        additional_special_tokens=specials[1:],
        model_max_length=model_max_length,
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


@pytest.fixture(scope="session")
def text_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``text_encoder/`` and ``tokenizer/`` of a random Qwen2-VL, 48 wide. Do not change it."""
    folder = tmp_path_factory.mktemp("text")
    tokenizer = small_tokenizer(model_max_length=96)
    config = Qwen2VLConfig(
        text_config={
            "vocab_size": len(tokenizer),
            "hidden_size": 48,
            "intermediate_size": 64,
            "num_hidden_layers": 3,
            "num_attention_heads": 3,
            "num_key_value_heads": 1,
            "max_position_embeddings": 256,
            "bos_token_id": 0,
            "eos_token_id": 2,
            "rope_scaling": {
                "type": "mrope",
                "rope_type": "default",
                "mrope_section": [2, 3, 3],
            },
        },
        vision_config={"depth": 1, "embed_dim": 16, "num_heads": 2, "hidden_size": 48},
        tie_word_embeddings=True,
    )
    torch.manual_seed(0)
    Qwen2VLForConditionalGeneration(config).save_pretrained(folder / "text_encoder")
    tokenizer.save_pretrained(folder / "tokenizer")
    return folder
