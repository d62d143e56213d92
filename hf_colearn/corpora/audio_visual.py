"""Videos with sound as a recipe takes them: T frames of S x S pixels and the sound of a clip, and the backbones of the two."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from datasets import Dataset
from transformers import AutoImageProcessor, PreTrainedConfig, ResNetConfig
from transformers.image_utils import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

from hf_colearn.corpora.base import HubOptions
from hf_colearn.data.audio import with_log_magnitude
from hf_colearn.data.video import with_frames


MODALITIES = ("video", "audio")


def resnet18(**fields: Any) -> ResNetConfig:
    """ResNet-18 (He et al., CVPR 2016), 11 M weights, 512 features."""
    return ResNetConfig(hidden_sizes=[64, 128, 256, 512], depths=[2, 2, 2, 2], layer_type="basic", **fields)


def frame_processor(size: int, checkpoint: str | None = None) -> ViTImageProcessorPil:
    """The image processor of frames that are resized to a square whole, `size` pixels wide.

    Mean and deviation are those of a backbone's image processor (a Hub id or a folder), by default ImageNet's.
    """
    mean, std = IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
    if checkpoint is not None:
        own = AutoImageProcessor.from_pretrained(checkpoint)
        mean, std = own.image_mean, own.image_std
    return ViTImageProcessorPil(size={"height": size, "width": size}, image_mean=list(mean), image_std=list(std))


@dataclass
class ClipOptions(HubOptions):
    """What the recipes of videos with sound take beside their other options; inherit from both."""

    video_backbone: str = field(default="resnet18", metadata={"help": "Of frames: resnet18, resnet_tiny, or an id."})
    audio_backbone: str = field(
        default="resnet18", metadata={"help": "Of spectrograms, of one channel: resnet18, resnet_tiny, or an id."}
    )
    frames: int = field(default=1, metadata={"help": "Frames of a clip, evenly spread over it."})
    image_size: int = field(default=224, metadata={"help": "Pixels of a frame's side."})
    seconds: float = field(default=3.0, metadata={"help": "Of sound; a shorter clip is repeated."})
    random_start: bool = field(default=False, metadata={"help": "Cut the sound anywhere in training, not its start."})
    sampling_rate: int = field(default=22_050, metadata={"help": "Of the sound, in Hz."})
    n_fft: int = field(default=512, metadata={"help": "Samples of a spectrogram's window."})
    hop_length: int = field(default=353, metadata={"help": "Samples from one window to the next."})

    def processor(self, named: Mapping[str, Any]) -> ViTImageProcessorPil:
        """Of the frames; `named` are the backbones that are no checkpoints."""
        return frame_processor(self.image_size, None if self.video_backbone in named else self.video_backbone)

    def backbones(self, named: Mapping[str, Callable[..., PreTrainedConfig]]) -> dict[str, str | PreTrainedConfig]:
        """Of video and audio, as [`CoLearningForMultimodalClassification.from_backbones`] takes them.

        `named` are configurations by name, made with `num_channels`: 3 for frames, 1 for spectrograms; another name is a
        Hub id or a folder.
        """
        asked = {"video": (self.video_backbone, 3), "audio": (self.audio_backbone, 1)}
        return {
            modality: named[name](num_channels=channels) if name in named else name
            for modality, (name, channels) in asked.items()
        }

    def inputs(self, splits: Mapping[str, Dataset], processor: Any) -> dict[str, Dataset]:
        """Lets the splits read `video_pixel_values` `(T, 3, S, S)` and `audio_pixel_values` `(1, frequencies, times)`.

        They have `video`, `audio` and `label`, which becomes `labels`. Frames, crops, flips and, with `random_start`, the
        sound's place are random in `train` alone.
        """
        spectrogram = (float(self.seconds), self.sampling_rate, self.n_fft, self.hop_length)
        read = {}
        for split, part in splits.items():
            train = split == "train"
            part = with_frames(part, processor, self.frames, train=train)
            read[split] = with_log_magnitude(part, *spectrogram, random_start=train and self.random_start)
        return read
