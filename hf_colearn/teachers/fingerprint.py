"""Fingerprints by content: 128 bits of xxHash, as hexadecimal text."""

import json
from collections.abc import Mapping
from typing import Any

import torch
import xxhash


def of_json(value: Any) -> str:
    """Of a value of plain types; the order of a dictionary's keys does not matter."""
    return xxhash.xxh3_128_hexdigest(json.dumps(value, sort_keys=True, default=str).encode())


def of_weights(weights: Mapping[str, torch.Tensor]) -> str:
    """Of weights and buffers by name, so that another revision, a fine-tuned or an edited model is another one."""
    digest = xxhash.xxh3_128()
    for name, weight in sorted(weights.items()):
        digest.update(f"{name}{weight.dtype}{tuple(weight.shape)}".encode())
        digest.update(weight.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()
