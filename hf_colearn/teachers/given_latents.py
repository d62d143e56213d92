"""Latents that were computed elsewhere. Shapes: N inputs, D dimensions."""

from typing import Any

import numpy as np
import torch


def as_latents(latents: Any) -> np.ndarray:
    """A copy of latents as `(N, D)` float32 on the CPU; refuses what is no such array, or is not finite."""
    try:
        tensor = torch.as_tensor(latents)
        if tensor.is_complex():
            raise TypeError(f"they are {tensor.dtype}")
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(
            f"latents is a {type(latents).__name__} that makes no array of numbers ({error}): pass a tensor or array [N, D]."
        ) from error
    array_ND = tensor.detach().to("cpu", torch.float32, copy=True).contiguous().numpy()
    if array_ND.ndim != 2 or 0 in array_ND.shape:
        raise ValueError(f"latents of shape {tuple(array_ND.shape)} are no bank: pass [N, D] with N, D > 0.")
    bad_N = ~np.isfinite(array_ND).all(axis=1)
    if bad_N.any():
        raise ValueError(
            f"{bad_N.sum()} of {len(bad_N)} latents hold NaN or infinite values (the first is row {bad_N.argmax()}): "
            "look at the teacher's input there, or encode in float32."
        )
    return array_ND
