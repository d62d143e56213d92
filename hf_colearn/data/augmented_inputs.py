"""Augmented copies of sounds, pictures and sentences, to be encoded once and read as stored views.

A frozen encoder's features can be augmented only before the encoder. Copy v of sample i is drawn from (seed, v, i), so that
the same copies are made again and their bank is found in the cache. Shapes: T samples of a waveform.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image

from hf_colearn.data.augmentation import ImageAugmentation
from hf_colearn.data.images import as_rgb


_SPEEDS = (0.8, 0.9, 1.1, 1.25)  # few, as resampling is fast for small ratios alone
_SNR_DB = (5.0, 20.0)
_MOST_SILENCED, _WORDS_DROPPED = 0.2, 0.3
_SIDE, _CHUNK = 128, 64


def waveform_copies(waves: Sequence[np.ndarray], sampling_rate: int, view: int, seed: int = 0) -> list[np.ndarray]:
    """Waveforms `(T,)` at another speed (.8 to 1.25), a fifth of them silent at most, with white noise (5 to 20 dB)."""
    from torchaudio import functional as audio  # after the package's guard

    copies = []
    for i, wave_T in enumerate(waves):
        rng = np.random.default_rng([seed, view, i])
        faster_1T, _ = audio.speed(torch.from_numpy(wave_T)[None], sampling_rate, float(rng.choice(_SPEEDS)))
        length = faster_1T.shape[1]
        silent = int(rng.uniform(0, _MOST_SILENCED) * length)
        start = int(rng.integers(length - silent + 1))
        faster_1T[:, start : start + silent] = 0
        noise_1T = torch.from_numpy(rng.standard_normal((1, length), dtype=np.float32))
        snr_1 = torch.tensor([rng.uniform(*_SNR_DB)], dtype=torch.float32)
        copies.append(audio.add_noise(faster_1T, noise_1T, snr_1)[0].numpy())
    return copies


def sentence_copies(texts: Sequence[str], view: int, seed: int = 0) -> list[str]:
    """Sentences from which every word is left out with probability .3; at least one stays."""
    copies = []
    for i, text in enumerate(texts):
        rng, words = np.random.default_rng([seed, view, i]), text.split()
        kept = [word for word, draw in zip(words, rng.random(len(words)), strict=True) if draw >= _WORDS_DROPPED]
        copies.append(" ".join(kept or [str(rng.choice(words))]) if words else text)
    return copies


def picture_copies(images: Sequence[Any], view: int, seed: int = 0, mirror: bool = True) -> list[np.ndarray]:
    """Pictures `(128, 128, 3)` uint8, mirrored with probability .5, after RandAugment and random erasing
    ([`~hf_colearn.data.augmentation.ImageAugmentation`] with its defaults, without mixing).

    Args:
        images (`Sequence`): Of any size, in any form that [`~hf_colearn.data.images.as_rgb`] reads.
        view, seed (`int`): Which copy.
        mirror (`bool`, *optional*, defaults to `True`): Leave it out where left and right mean something, as in digits.
    """
    augment = ImageAugmentation(mean=[0.0] * 3, std=[1.0] * 3, mixup=0, cutmix=0, label_smoothing=0)
    copies: list[np.ndarray] = []
    for first in range(0, len(images), _CHUNK):
        resized = [
            np.asarray(as_rgb(images[row], row).resize((_SIDE, _SIDE), Image.Resampling.BICUBIC))
            for row in range(first, min(first + _CHUNK, len(images)))
        ]
        x_BCHW = torch.from_numpy(np.stack(resized)).permute(0, 3, 1, 2).float() / 255
        with torch.random.fork_rng(devices=[]):  # it draws from torch's generator
            torch.manual_seed(int(np.random.default_rng([seed, view, first]).integers(2**31)))
            is_mirrored_B = (torch.rand(len(x_BCHW)) < 0.5) & mirror
            x_BCHW = torch.where(is_mirrored_B[:, None, None, None], x_BCHW.flip(-1), x_BCHW)
            x_BCHW = augment({"pixel_values": x_BCHW})["pixel_values"]
        pixels_BHWC = (x_BCHW.clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous()
        copies.extend(pixels_BHWC.numpy())
    return copies
