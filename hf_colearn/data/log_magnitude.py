"""Log-magnitude spectrograms, the audio input of published work on modality imbalance.

Source: the released code of OGM-GE (Peng et al., CVPR 2022; github.com/GeWu-Lab/OGM-GE_CVPR2022,
`dataset/CramedDataset.py` and `dataset/VGGSoundDataset.py`) and of its successors, by way of `librosa.stft`.
"""

from typing import Any

import torch
from datasets import Dataset

from hf_colearn.data.audio import read_waveform
from hf_colearn.data.lazy import with_lazy_input


def log_magnitude(wave_T: torch.Tensor, n_fft: int = 512, hop_length: int = 353) -> torch.Tensor:
    """`log(|STFT| + 1e-7)` with a periodic Hann window of `n_fft` samples.

    The frames are centred, with zeros beyond both ends, as librosa does it from 0.10 on (it mirrored the ends before).

    Args:
        wave_T (`torch.Tensor` of shape `(T,)`): Samples, clipped to [-1, 1] as published.
        n_fft, hop_length (`int`, *optional*): In samples.

    Returns:
        `torch.Tensor` of shape `(1, n_fft // 2 + 1, T // hop_length + 1)`, low frequencies in the first row.
    """
    spectrum = torch.stft(
        wave_T.clamp(-1, 1),
        n_fft,
        hop_length,
        window=torch.hann_window(n_fft),
        pad_mode="constant",
        return_complex=True,
    )
    return (spectrum.abs() + 1e-7).log()[None]


def with_log_magnitude(
    dataset: Dataset,
    seconds: float = 3.0,
    sampling_rate: int = 22_050,
    n_fft: int = 512,
    hop_length: int = 353,
    column: str = "audio",
    out: str = "audio_pixel_values",
    random_start: bool = False,
) -> Dataset:
    """Lets a dataset compute the spectrogram of every clip as it is read, see [`~hf_colearn.data.lazy.with_lazy_input`].

    A clip is repeated until it fills the time, and cut. The defaults are those of CREMA-D and give `(1, 257, 188)`;
    VGGSound takes `seconds=5, sampling_rate=16_000, n_fft=256, hop_length=128`, which gives `(1, 129, 626)`, with a random
    start for training (the released code draws one for testing as well).

    Args:
        dataset ([`datasets.Dataset`]): With a column that [`~hf_colearn.data.audio.read_waveform`] reads; a video file's
            sound is read too, where torchcodec is installed.
        seconds (`float`, *optional*, defaults to 3.0): The time that a spectrogram spans.
        sampling_rate (`int`, *optional*, defaults to 22050): In Hz, what clips are resampled to.
        n_fft, hop_length (`int`, *optional*, defaults to 512 and 353): In samples.
        column (`str`, *optional*, defaults to `"audio"`): The clips' column.
        out (`str`, *optional*, defaults to `"audio_pixel_values"`): The input's name; float32.
        random_start (`bool`, *optional*, defaults to `False`): Whether a clip that is longer is cut at a random place,
            drawn from torch's global generator, instead of its start.

    Raises:
        ValueError: If the numbers give no spectrogram or there is no such column; when a sample is read, if its clip
            is bad, naming the file.
    """
    if not (n_fft > 1 and hop_length > 0 and round(seconds * sampling_rate) >= n_fft):
        raise ValueError(
            f"seconds={seconds} at sampling_rate={sampling_rate} with n_fft={n_fft} and hop_length={hop_length} give no "
            "spectrogram: pass a hop of at least 1 sample, and a time that holds n_fft samples."
        )
    make = _LogMagnitude(round(seconds * sampling_rate), sampling_rate, n_fft, hop_length, random_start)
    return with_lazy_input(dataset, column, out, make)


class _LogMagnitude:
    def __init__(self, length: int, sampling_rate: int, n_fft: int, hop_length: int, random_start: bool):
        self.length, self.sampling_rate, self.n_fft, self.hop_length = length, sampling_rate, n_fft, hop_length
        self.random_start = random_start

    def __call__(self, cell: Any) -> torch.Tensor:
        wave_T = torch.from_numpy(read_waveform(cell, "the audio", self.sampling_rate)[0])
        wave_T = wave_T.repeat(-(-self.length // len(wave_T)))
        start = int(torch.randint(len(wave_T) - self.length + 1, ())) if self.random_start else 0
        return log_magnitude(wave_T[start : start + self.length], self.n_fft, self.hop_length)
