"""The hash of an adapter's content, whatever file it is in."""

from __future__ import annotations

import hashlib
import json

from reward_tuning.files.hashes import tensor_sha256
from reward_tuning.lora.adapter import LoraWeights
from reward_tuning.lora.names import tensors_by_name


def adapter_sha256(weights: LoraWeights) -> str:
    """Hash an adapter's rank, alpha, module paths and factors.

    Args:
        weights: Adapter in float32 on the CPU, as `lora_weights` and `import_adapter` return it.

    Returns:
        64 hexadecimal digits, which depend neither on the order of the modules nor on the file. A
        format that multiplies alpha / rank into the factors rounds them unless that is a power of
        2, and then the hash differs.
    """
    digest = hashlib.sha256(json.dumps([weights.rank, float(weights.alpha)]).encode())
    for name, tensor in sorted(tensors_by_name(weights.state).items()):
        about = json.dumps([name, list(tensor.shape), str(tensor.dtype)])
        digest.update(f"\n{about} {tensor_sha256(tensor)}".encode())
    return digest.hexdigest()
