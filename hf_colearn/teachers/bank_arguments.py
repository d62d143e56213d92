"""What a bank is made of: a teacher and its inputs, or latents that were computed elsewhere. N inputs, D dimensions."""

from typing import Any

import numpy as np
import torch

from hf_colearn.teachers.bank_inputs import check_inputs
from hf_colearn.teachers.encoder import FrozenEncoder
from hf_colearn.utils.checks import check_integer, check_path


def check_encoding(encoder: Any, inputs: Any, cache_dir: Any, batch_size: Any) -> None:
    """Refuses what cannot be encoded, or not so."""
    if not isinstance(encoder, FrozenEncoder):
        shown = f"the text '{encoder}'" if isinstance(encoder, str) else f"a {type(encoder).__name__}"
        raise TypeError(
            f"encoder is {shown}: pass a teacher, such as `FrozenEncoder.from_pretrained(name_or_folder)`."
        )
    check_inputs(inputs)
    check_integer("batch_size", batch_size, least=1)
    if cache_dir is not None:
        check_path("cache_dir", cache_dir)


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
