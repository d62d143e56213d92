"""ImageNet-C's corruptions: made on the fly, or found in the archive.

Made here, a corruption meets the 224 x 224 centre crop of the image whose shorter side is 256, and the result goes
through a JPEG of quality 85, both as in ImageNet-C (Hendrycks & Dietterich, ICLR 2019). What differs from its files:
`corrupt-tta` blurs motion and snow along an evenly weighted line, where ImageMagick weighed it as a Gaussian, swaps
the pixels of glass blur properly, draws frost from six textures instead of five, and sizes elastic transforms by 224
where the released code has 244; the random numbers are other ones. So a number of the archive and a number of ours
are close, not equal: say which it is.
"""

import io
import itertools
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import xxhash
from datasets.utils.py_utils import temp_seed
from PIL import Image


CORRUPTIONS = {
    "noise": ("gaussian_noise", "shot_noise", "impulse_noise"),
    "blur": ("defocus_blur", "glass_blur", "motion_blur", "zoom_blur"),
    "weather": ("snow", "frost", "fog", "brightness"),
    "digital": ("contrast", "elastic_transform", "pixelate", "jpeg_compression"),
}
SEVERITIES = (1, 2, 3, 4, 5)
CROP = 224
_IMPULSE_AMOUNTS = (0.03, 0.06, 0.09, 0.17, 0.27)  # of pixels, by severity; as in ImageNet-C

Condition = tuple[str, int]  # a corruption and its severity


def all_conditions() -> list[Condition]:
    """The 15 corruptions, each at severities 1 to 5."""
    return [(name, severity) for group in CORRUPTIONS.values() for name in group for severity in SEVERITIES]


def check_can_corrupt() -> None:
    """Raises an ImportError where corruptions cannot be made, before any work is done."""
    if find_spec("corrupt_tta") is None:
        raise ImportError(
            "making ImageNet-C's corruptions needs corrupt-tta: `pip install 'hf-colearn[robustness]'`, or pass the "
            "folder of the ImageNet-C archive."
        )


def centre_crop(image: Image.Image) -> Image.Image:
    """The shorter side to 256 pixels (bilinear), then the central 224 x 224, as ImageNet-C was cut."""
    scale = 256 / min(image.size)
    width, height = (max(256, int(side * scale)) for side in image.size)
    left, top = (width - CROP) // 2, (height - CROP) // 2
    return image.resize((width, height), Image.Resampling.BILINEAR).crop((left, top, left + CROP, top + CROP))


def corrupt_image(image: Image.Image, corruption: str, severity: int) -> Image.Image:
    """An RGB image of 224 x 224, corrupted; the same on every run and process, since the pixels are the seed."""
    if (corruption, severity) not in all_conditions():
        names = [*itertools.chain(*CORRUPTIONS.values())]
        raise ValueError(
            f"'{corruption}' at severity {severity} is not in ImageNet-C: it has {names}, severities 1 to 5."
        )
    from corrupt_tta import corrupt

    pixels_HWC = np.asarray(image)
    seed = xxhash.xxh32_intdigest(pixels_HWC.tobytes() + f"{corruption}{severity}".encode())
    if corruption == "impulse_noise":  # corrupt-tta draws it from a generator that cannot be seeded
        from skimage.util import random_noise

        amount = _IMPULSE_AMOUNTS[severity - 1]
        corrupted_HWC = random_noise(pixels_HWC / 255, mode="s&p", amount=amount, rng=seed) * 255
    else:
        with temp_seed(seed):  # of NumPy, which corrupt-tta draws from
            corrupted_HWC = corrupt(pixels_HWC, severity, corruption)
    if corruption == "frost" and np.array_equal(corrupted_HWC, pixels_HWC):
        raise RuntimeError("corrupt-tta cannot read its frost textures: install it again (corrupt-tta>=0.1.7).")
    file = io.BytesIO()
    Image.fromarray(np.asarray(corrupted_HWC).astype(np.uint8)).save(file, "JPEG", quality=85)
    return Image.open(file).convert("RGB")


def find_archive(folder: str | Path) -> dict[Condition, Path]:
    """The class-folder trees of an ImageNet-C archive, by corruption and severity, in ImageNet-C's order.

    The folder holds `gaussian_noise/1/n01440764/*.JPEG` and so on, also below the archive's groups
    (`noise/gaussian_noise/1/...`). Other corruptions, such as `extra/speckle_noise`, are left alone.
    """
    found = {}
    for group, names in CORRUPTIONS.items():
        for name, severity, parent in itertools.product(names, SEVERITIES, (".", group)):
            if (place := Path(folder, parent, name, str(severity))).is_dir():
                found[name, severity] = place
    if not found:
        raise ValueError(
            f"'{folder}' holds none of ImageNet-C's folders, such as `gaussian_noise/1` or `noise/gaussian_noise/1`: "
            "unpack the archive's tar files there."
        )
    return found
