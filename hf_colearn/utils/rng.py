"""Random state of a run."""

import random
from contextlib import contextmanager

import numpy as np
import torch


@contextmanager
def preserve_rng_state(device: torch.device):
    """Restores the random state of Python, NumPy, torch and the device afterwards."""
    python, numpy = random.getstate(), np.random.get_state()
    devices = [] if device.type == "cpu" else [device]
    try:
        with torch.random.fork_rng(devices=devices, device_type="cuda" if device.type == "cpu" else device.type):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
