"""Pictures of every mode, and arrays, as RGB of 8 bits; travels with the checkpoints of grayscale students.

Pillow's own `convert("RGB")` clips pictures of 16 bits to white and floats to black, and forgets transparency.
Shapes: H x W pixels, C channels.
"""

from typing import Any

import numpy as np
from PIL import ExifTags, Image, ImageColor


WHITE = "white"
Colour = str | tuple[int, int, int]  # as Pillow names colours, or red, green and blue from 0 to 255

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}  # by EXIF orientation


class UnclearImage(ValueError):
    """A picture whose pixels have no clear meaning; `problem` goes on after its name."""

    @property
    def problem(self) -> str:
        return self.args[0]

    def __str__(self) -> str:
        return f"the image {self.problem}"


def to_rgb(image: Image.Image, background: Colour = WHITE) -> Image.Image:
    """A picture of any of Pillow's modes in RGB, upright, opaque, scaled by its mode's range.

    Of RGB, L and 1 nothing but the number of channels changes. 16 bits (`I;16`) are divided by 257 and rounded, since
    65535 / 257 = 255. `I` must hold 16 bits, too, and `F` numbers from 0 to 1. CMYK, YCbCr, HSV and LAB are converted by
    Pillow. Palettes are looked up, and transparency of any kind is composited on the background. A picture is turned as
    its EXIF orientation says. Of an animation, or a file of several pages, the frame that it stands at is taken, which is
    the first one of a file just opened.

    Args:
        image (`PIL.Image.Image`): H x W pixels.
        background (`str` or `tuple[int, int, int]`, *optional*, defaults to `"white"`): What is seen through transparency.

    Raises:
        UnclearImage: If there are no pixels, or numbers outside of the mode's range.
        ValueError: If the background is no colour.
    """
    image = upright(image)
    invisible = image.info.get("transparency")  # of files without alpha: the one value that is not to be seen
    if image.mode == "F" or image.mode.startswith("I"):
        values_HW = np.asarray(image)
        image = Image.fromarray(eight_bits(values_HW, f"mode '{image.mode}'"))
        if isinstance(invisible, int):
            image.putalpha(Image.fromarray(np.where(values_HW == invisible, 0, 255).astype(np.uint8)))
    elif image.mode == "RGB" and isinstance(invisible, tuple) and max(invisible) > 255:
        image = image.copy()  # of a PNG of 16 bits, of which Pillow reads the upper 8
        image.info["transparency"] = tuple(value >> 8 for value in invisible)
    if image.has_transparency_data:
        image = image.convert("LA") if image.mode == "La" else image
        canvas = Image.new("RGBA", image.size, rgb_of(background))
        image = Image.alpha_composite(canvas, image.convert("RGBA"))
    return image.convert("RGB")


def upright(image: Image.Image) -> Image.Image:
    """The picture turned and mirrored as its EXIF orientation says; itself where that says nothing.

    Raises:
        UnclearImage: If it has no pixels.
    """
    if 0 in image.size:
        raise UnclearImage(f"has no pixels ({image.width} x {image.height}): remove it.")
    turn = _TURNS.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    if turn is None:
        return image
    # Not `ImageOps.exif_transpose`, which writes all tags anew and fails at those that a camera wrote oddly.
    image = image.transpose(turn)
    for name in ("exif", "Raw profile type exif", "XML:com.adobe.xmp", "xmp"):  # that is where Pillow looks for them
        image.info.pop(name, None)
    return image


def rgb_of(colour: Colour) -> tuple[int, int, int]:
    """Red, green and blue of a colour from 0 to 255; a ValueError if it is none."""
    try:
        if isinstance(colour, str):
            return ImageColor.getrgb(colour)[:3]
        red, green, blue = colour
        if all(value in range(256) for value in colour):
            return red, green, blue
    except (TypeError, ValueError):
        pass
    raise ValueError(f"background={colour!r} is no colour: pass a name, '#rrggbb', or three numbers from 0 to 255.")


def picture_of(array: Any) -> Image.Image:
    """An array as a picture: gray, gray with alpha, RGB or RGBA of 8 bits.

    Args:
        array (`np.ndarray`): `(H, W)`, `(H, W, C)`, or `(C, H, W)` where the last dimension is no number of channels;
            uint8, uint16, bool, or floats from 0 to 1.

    Raises:
        UnclearImage: If it is of another shape, has no pixels, or its numbers fit no range.
    """
    shape = array.shape
    if array.ndim == 3 and shape[-1] not in (1, 2, 3, 4) and shape[0] in (1, 3, 4):
        array = np.moveaxis(array, 0, -1)
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[-1] not in (1, 2, 3, 4)):
        raise UnclearImage(
            f"is an array of shape {shape}, which is no picture: pass (height, width), (height, width, channels) or "
            "(channels, height, width) with 1 to 4 channels."
        )
    if not array.size:
        raise UnclearImage(f"has no pixels (an array of shape {shape}): remove it.")
    levels = np.ascontiguousarray(eight_bits(array, f"an array of {array.dtype}"))
    return Image.fromarray(levels[..., 0] if levels.ndim == 3 and levels.shape[-1] == 1 else levels)


def eight_bits(values: np.ndarray, what: str) -> np.ndarray:
    """Pixels of any type as uint8 of the same shape, scaled by the type's range; `what` names them in errors.

    Integers wider than 16 bits must hold 16: from 0 to 65535, and above 255, or they may as well be of 8 bits.
    """
    if values.dtype == np.uint8:
        return values
    if values.dtype == np.bool_:
        return values.astype(np.uint8) * 255
    if values.dtype.kind not in "iuf":
        raise UnclearImage(f"is {what}, which holds no numbers: pass uint8, uint16, bool, or floats from 0 to 1.")
    low, high = values.min(), values.max()
    if values.dtype.kind == "f":
        if not (np.isfinite(low) and np.isfinite(high)):
            raise UnclearImage(f"has NaN or infinite values in {what}: mend or remove it.")
        if low < -1e-6 or high > 1 + 1e-6:
            raise UnclearImage(
                f"has values from {low:g} to {high:g} in {what}, where floats are read from 0 to 1: scale them, such as "
                "`values / 255`."
            )
        return np.rint(values.clip(0, 1) * 255).astype(np.uint8)
    if low < 0 or high > 65535:
        raise UnclearImage(
            f"has values from {low} to {high} in {what}, where 16 bits are read from 0 to 65535: scale them to floats "
            "from 0 to 1."
        )
    if 0 < high < 256 and values.dtype.newbyteorder("=") != np.uint16:
        raise UnclearImage(
            f"has values up to {high} in {what}, which may be 8 bits or dark ones of 16: say which by "
            "`np.asarray(image).astype(np.uint8)` or `.astype(np.uint16)`."
        )
    return ((values.astype(np.uint32) + 128) // 257).astype(np.uint8)
