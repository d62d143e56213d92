"""Grayscale images of one channel, for students whose backbone has `num_channels=1`; travels with their checkpoints."""

import os
from typing import Any

import numpy as np
from PIL import Image
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

from .image_modes import to_rgb
from .processor_file import nest


class GrayscaleImageProcessor(ViTImageProcessorPil):
    """An image processor that gives one channel, `pixel_values` `(B, 1, height, width)`.

    `pipeline("image-classification")` converts every image to RGB; a grayscale one then has three equal channels, of which
    one is kept. An image with colours is refused. Given to the processor itself, images of 16 bits, floats and transparent
    ones are converted as in training ([`~hf_colearn.models.image_modes.to_rgb`]); a pipeline has lost them before: give it
    `to_rgb(image)`.

    Args:
        image_mean, image_std (`list[float]`, *optional*, default to `[0.5]`): One value each, of pixels in [0, 1].
        kwargs: As of [`ViTImageProcessorPil`], such as `size={"height": 28, "width": 28}`, `resample` or `do_normalize`.
    """

    image_mean = [0.5]
    image_std = [0.5]

    def process_image(self, image: Any, *args, **kwargs) -> np.ndarray:
        # Where transformers takes an image apart into channels, `[channels, height, width]`.
        image = to_rgb(image) if isinstance(image, Image.Image) else image
        pixels_CHW = super().process_image(image, *args, **kwargs)
        if len(pixels_CHW) not in (1, 3) or (pixels_CHW != pixels_CHW[:1]).any():
            raise ValueError(
                f"the image, of {len(pixels_CHW)} channels {pixels_CHW.shape[1]} x {pixels_CHW.shape[2]}, has colours, and "
                "the student takes grayscale: pass it so, such as `image.convert('L')`, or as an array `(H, W, 1)`."
            )
        return pixels_CHW[:1]

    def save_pretrained(self, save_directory: str | os.PathLike, **kwargs) -> list[str]:
        # In `processor_config.json`, or a pipeline would ask for trust in a video processor.
        return nest(super().save_pretrained(save_directory, **kwargs)[0], "image_processor")


GrayscaleImageProcessor.register_for_auto_class("AutoImageProcessor")
