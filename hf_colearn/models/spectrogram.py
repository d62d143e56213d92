"""Waveforms as log-mel images, for audio students with an image backbone.

This file travels with the checkpoints that need it. Shapes: B clips, T samples of a clip, H mel bands, W frames.
"""

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from transformers import BatchFeature, FeatureExtractionMixin
from transformers.audio_utils import mel_filter_bank

from .processor_file import nest


_DYNAMIC_RANGE_DB = 80.0  # below a clip's loudest point


class SpectrogramFeatureExtractor(FeatureExtractionMixin):
    """Log-mel spectrograms as images `[1, H, W]`, low frequencies in the first row.

    Every clip is cut to its first `seconds`, or padded with silence at its end. The hop is
    `seconds * sampling_rate // (W - 1)` samples. Powers are in dB, down to 80 dB below the clip's loudest point, and
    standardised by the clip's own mean and standard deviation. Save it beside the student, and
    `pipeline("audio-classification")` takes waveforms.

    Args:
        size (`tuple[int, int]`, *optional*, defaults to `(112, 112)`): H mel bands and W frames.
        sampling_rate (`int`, *optional*, defaults to 16000): In Hz, of the waveforms; the bands reach up to half of it.
        seconds (`float`, *optional*, defaults to 1.0): The time that an image spans.
        n_fft (`int`, *optional*, defaults to 1024): Samples of a Fourier transform; the window is padded to it.
        window_seconds (`float`, *optional*, defaults to 0.025): The Hann window's length.

    Raises:
        ValueError: If the numbers do not give such an image.

    Example:

    ```python
    >>> import numpy as np
    >>> from hf_colearn.models.spectrogram import SpectrogramFeatureExtractor

    >>> extractor = SpectrogramFeatureExtractor(size=(40, 20), sampling_rate=8000)
    >>> extractor(np.random.randn(8000), sampling_rate=8000, return_tensors="pt")["pixel_values"].shape
    torch.Size([1, 1, 40, 20])
    ```
    """

    model_input_names = ["pixel_values"]

    def __init__(
        self,
        size: Sequence[int] = (112, 112),
        sampling_rate: int = 16_000,
        seconds: float = 1.0,
        n_fft: int = 1024,
        window_seconds: float = 0.025,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.size, self.sampling_rate, self.seconds = list(size), sampling_rate, seconds
        self.n_fft, self.window_seconds = n_fft, window_seconds
        (height, width), length, window = size, self._length, self._window
        if height < 1 or width < 2 or length < width - 1:
            raise ValueError(
                f"size=({height}, {width}) does not fit {length} samples (seconds={seconds} at "
                f"sampling_rate={sampling_rate}): pass H of at least 1, W of at least 2, and at least W - 1 samples."
            )
        if not 0 < window <= n_fft:
            raise ValueError(
                f"a window of {window} samples does not fit n_fft={n_fft}: pass n_fft of at least {window}."
            )
        if empty := int((self._bands() == 0).all(dim=0).sum()):
            raise ValueError(
                f"{empty} of the {height} mel bands hold no frequency of n_fft={n_fft} at {sampling_rate} Hz: pass a "
                "larger n_fft or fewer bands."
            )

    @property
    def _length(self) -> int:
        return round(self.seconds * self.sampling_rate)

    @property
    def _window(self) -> int:
        return round(self.window_seconds * self.sampling_rate)

    def _bands(self) -> torch.Tensor:
        """Triangles on the HTK mel scale, `[n_fft // 2 + 1, H]`."""
        bands = mel_filter_bank(
            self.n_fft // 2 + 1, self.size[0], 0.0, self.sampling_rate / 2, self.sampling_rate, mel_scale="htk"
        )
        return torch.from_numpy(bands).float()

    def __call__(
        self, raw_speech: Any, sampling_rate: int | None = None, return_tensors: str | None = None
    ) -> BatchFeature:
        """
        Args:
            raw_speech (`np.ndarray` or a list of them): Mono waveforms `(T,)` of floats.
            sampling_rate (`int`): Theirs in Hz, which has to be the extractor's.
            return_tensors (`str`, *optional*): `"pt"` or `"np"`.

        Returns:
            [`BatchFeature`]: `pixel_values` `(B, 1, H, W)` float32.

        Raises:
            ValueError: Naming the clip that is empty, silent, of several channels or not finite, or the other rate.
        """
        if sampling_rate != self.sampling_rate:
            raise ValueError(
                f"sampling_rate={sampling_rate}, and the student takes {self.sampling_rate} Hz: resample the waveform to "
                f"that, and pass sampling_rate={self.sampling_rate}."
            )
        clips = raw_speech if isinstance(raw_speech, (list, tuple)) else [raw_speech]
        if clips and isinstance(clips[0], (int, float)):
            clips = [clips]
        waves_BT = torch.zeros(len(clips), self._length)
        for number, clip in enumerate(clips):
            start = self._read_start(np.asarray(clip), number)
            waves_BT[number, : len(start)] = torch.from_numpy(start)
        height, width = self.size
        spectrum_BFW = torch.stft(  # F frequencies
            waves_BT,
            self.n_fft,
            hop_length=self._length // (width - 1),
            window=torch.hann_window(self._window),
            win_length=self._window,
            pad_mode="constant",
            return_complex=True,
        )
        spectrum_BFW = spectrum_BFW[:, :, :width]
        power_BFW = spectrum_BFW.real**2 + spectrum_BFW.imag**2  # a third of the time of `abs() ** 2`
        image_BHW = 10 * (self._bands().T @ power_BFW).clamp(min=1e-10).log10()
        image_BHW = image_BHW.maximum(image_BHW.amax(dim=(1, 2), keepdim=True) - _DYNAMIC_RANGE_DB)
        mean_B11, std_B11 = image_BHW.mean(dim=(1, 2), keepdim=True), image_BHW.std(dim=(1, 2), keepdim=True)
        pixels_B1HW = ((image_BHW - mean_B11) / std_B11)[:, None]
        return BatchFeature({"pixel_values": pixels_B1HW.numpy()}, tensor_type=return_tensors)

    def _read_start(self, wave: np.ndarray, number: int) -> np.ndarray:
        """The first seconds of a clip, in float32."""
        if wave.ndim != 1 or not wave.size:
            raise ValueError(
                f"clip {number} is a waveform of shape {wave.shape}, and the student takes one channel: pass its samples "
                "`(T,)`, such as one channel of a stereo clip or their mean."
            )
        if not np.issubdtype(wave.dtype, np.floating):
            raise ValueError(f"clip {number} has samples of {wave.dtype}: pass floats, full scale being 1.")
        start = wave[: self._length].astype(np.float32)
        if not np.isfinite(start).all():
            raise ValueError(f"clip {number} has samples that are NaN or infinite: repair it, or leave it out.")
        if np.ptp(start) == 0:
            raise ValueError(
                f"the first {self.seconds} s of clip {number} are silent, and silence is no spectrogram: cut the clip to "
                "where its sound begins, or leave it out."
            )
        return start

    def save_pretrained(self, save_directory: str | os.PathLike, **kwargs) -> list[str]:
        # In `processor_config.json`, or `AutoProcessor` would ask for trust in an image processor.
        return nest(super().save_pretrained(save_directory, **kwargs)[0], "feature_extractor")


SpectrogramFeatureExtractor.register_for_auto_class("AutoFeatureExtractor")
