"""Small videos with sound, really encoded: FFmpeg by way of torchcodec."""

import numpy as np
import pytest
import torch


def _torchcodec_loads():
    try:
        import torchcodec.decoders
        import torchcodec.encoders  # noqa: F401
    except (ImportError, OSError, RuntimeError):
        return False
    return True


needs_ffmpeg = pytest.mark.skipif(not _torchcodec_loads(), reason="torchcodec or FFmpeg's libraries cannot be loaded")


def ramp(count, step=10, size=32):
    """Frames `(T, 3, H, W)` of one brightness each, `step * index`: a decoded frame tells its own index."""
    levels = torch.arange(count, dtype=torch.uint8) * step
    return levels.view(-1, 1, 1, 1).expand(count, 3, size, size).contiguous()


def texture(size=64, seed=0):
    """A smooth image `(H, W)` in [0, 255] whose motion can be seen, periodic in both directions."""
    noise = np.random.default_rng(seed).normal(size=(size, size))
    frequencies = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.fftfreq(size)[None])
    smooth = np.fft.ifft2(np.fft.fft2(noise) * np.exp(-((frequencies * 14) ** 2))).real
    return ((smooth - smooth.min()) * 255 / np.ptp(smooth)).astype(np.uint8)


def tone(frequency, seconds, rate=16_000):
    return (0.5 * np.sin(2 * np.pi * frequency * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


def write_video(path, frames, sound=None, rate=16_000, fps=25):
    """A file in the format of its suffix, as lossless as its codec can be."""
    from torchcodec.encoders import Encoder

    path.parent.mkdir(parents=True, exist_ok=True)
    encoder = Encoder()
    options = {"crf": 1} if path.suffix == ".mp4" else {"extra_options": {"qscale": 1}}
    video = encoder.add_video(height=frames.shape[2], width=frames.shape[3], frame_rate=fps, **options)
    # Not every format has a codec for every rate, so sound is stored at 22,050 Hz.
    audio = None if sound is None else encoder.add_audio(sample_rate=rate, num_channels=1, out_sample_rate=22_050)
    with encoder.open_file(str(path)):
        video.add_frames(frames)
        if audio is not None:
            audio.add_samples(torch.from_numpy(sound)[None])
    return path


def levels(frames):
    """The mean brightness of each of `(T, C, H, W)`."""
    return frames.float().mean(dim=(1, 2, 3)).tolist()
