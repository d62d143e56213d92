"""The numbers that latents are stored as. Shapes: B rows, D dimensions."""

from collections.abc import Sequence

import numpy as np

from hf_colearn.utils.checks import check_choice


DTYPES = ("float32", "float16", "int8")
StoredLatents = tuple[np.ndarray, np.ndarray | None]  # (B, D), and the scales (B,) of int8
_LARGEST_INT8 = 127


def stored_latents(latents_BD: np.ndarray, dtype: str, rows: Sequence[int] | None = None) -> StoredLatents:
    r"""Latents as they are stored, and every row's scale, where they have one.

    Half precision keeps 11 bits of every number. For `"int8"` a row is divided by \\(s = \max_d |t_d| / 127\\) and rounded to
    the nearest integer, so that no number is farther off than s / 2; a row of zeros has the scale 1, and one of NaN, which
    holds no latent, the scale NaN.

    Args:
        latents_BD (`np.ndarray` of shape `(B, D)`): float32, finite but for rows of NaN.
        dtype (`str`): `"float32"`, `"float16"` or `"int8"`.
        rows (`Sequence[int]`, *optional*): By what number an error names each latent; by its place by default.

    Returns:
        `tuple`: `(B, D)` of that dtype, and for `"int8"` the scales `(B,)` float32, else None.

    Raises:
        ValueError: If a number is too large for half precision.

    Example:

    ```python
    >>> import numpy as np
    >>> from hf_colearn.teachers.stored_latents import restored_latents, stored_latents

    >>> values, scales = stored_latents(np.array([[254.0, -1.2, 0.0]], dtype=np.float32), "int8")
    >>> values.tolist(), scales.tolist(), restored_latents(values, scales).tolist()
    ([[127, -1, 0]], [2.0], [[254.0, -2.0, 0.0]])

    ```
    """
    check_choice("dtype", dtype, DTYPES)
    if dtype == "float32":
        return np.asarray(latents_BD, dtype=np.float32), None
    if dtype == "float16":
        if (too_large := np.abs(latents_BD) > np.finfo(np.float16).max).any():
            row, dimension = np.argwhere(too_large)[0]
            raise ValueError(
                f"dtype='float16' holds numbers up to {np.finfo(np.float16).max:g}, and dimension {dimension} of latent "
                f"{row if rows is None else rows[row]} is {latents_BD[row, dimension]:g}: store float32 or int8."
            )
        return latents_BD.astype(np.float16), None
    largest_B = np.abs(latents_BD).max(axis=1).astype(np.float32)
    scales_B = np.where(largest_B == 0, 1, largest_B / _LARGEST_INT8).astype(np.float32)
    rounded_BD = np.nan_to_num(np.rint(latents_BD / scales_B[:, None]))  # a denormal scale may round up the largest
    return np.clip(rounded_BD, -_LARGEST_INT8, _LARGEST_INT8).astype(np.int8), scales_B


def restored_latents(values_BD: np.ndarray, scales_B: np.ndarray | None = None) -> np.ndarray:
    """Stored latents as float32, `(B, D)`; `scales_B` are those of int8."""
    latents_BD = np.asarray(values_BD).astype(np.float32, copy=False)
    return latents_BD if scales_B is None else latents_BD * np.asarray(scales_B, dtype=np.float32)[:, None]
