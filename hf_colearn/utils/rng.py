"""Random state of a run."""

import random
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch


def rng_state(device: torch.device) -> tuple[Any, ...]:
    """The random state of Python, NumPy, torch and the device."""
    of_device = None if device.type == "cpu" else torch.get_device_module(device).get_rng_state(device)
    return random.getstate(), np.random.get_state(), torch.get_rng_state(), of_device


def set_rng_state(state: tuple[Any, ...], device: torch.device) -> None:
    """Goes on from a state that [`rng_state`] gave."""
    python, numpy, of_torch, of_device = state
    random.setstate(python)
    np.random.set_state(numpy)
    torch.set_rng_state(of_torch)
    if of_device is not None:
        torch.get_device_module(device).set_rng_state(of_device, device)


@contextmanager
def preserve_rng_state(device: torch.device):
    """Restores the random state of Python, NumPy, torch and the device afterwards."""
    state = rng_state(device)
    try:
        yield
    finally:
        set_rng_state(state, device)
