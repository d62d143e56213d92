"""Latents in half precision and in 8 bits."""

import numpy as np
import pytest

from hf_colearn.teachers.stored_latents import restored_latents, stored_latents


def test_int8_is_at_most_half_a_step_off():
    latents = np.random.default_rng(0).normal(size=(50, 16)).astype(np.float32) * np.logspace(-30, 20, 50)[:, None]
    latents = latents.astype(np.float32)
    values, scales = stored_latents(latents, "int8")
    assert values.dtype == np.int8 and np.abs(values.astype(int)).max(axis=1).tolist() == [127] * 50
    # the largest of a row is exact to float32's rounding, the others are off by half of largest / 127
    error = np.abs(restored_latents(values, scales) - latents).max(axis=1)
    assert (error <= np.abs(latents).max(axis=1) / 127 * (0.5 + 1e-5)).all()


def test_a_row_of_zeros_stays_one():
    values, scales = stored_latents(np.zeros((1, 3), dtype=np.float32), "int8")
    assert restored_latents(values, scales).tolist() == [[0.0, 0.0, 0.0]]


@pytest.mark.parametrize("dtype, exact", [("float32", 1 / 3), ("float16", 0.333251953125)])
def test_floats_keep_their_bits(dtype, exact):
    values, scales = stored_latents(np.array([[1 / 3]], dtype=np.float32), dtype)
    assert scales is None and values.dtype == dtype
    assert restored_latents(values).tolist() == [[np.float32(exact)]]  # 1365 / 4096 in half precision


def test_what_half_precision_cannot_hold_is_named():
    with pytest.raises(ValueError, match="dimension 1 of latent 2 is 70000: store float32 or int8"):
        stored_latents(np.array([[0, 0], [0, 0], [0, 7e4]], dtype=np.float32), "float16")
