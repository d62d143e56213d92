"""Images of every mode, form and orientation are seen as they are: expected pixels are worked out by hand."""

import io
import struct
from pathlib import Path

import datasets
import numpy as np
import pytest
import torch
from datasets import Array2D, Array3D, Dataset, Features, Value
from PIL import Image
from transformers.image_utils import load_image
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

from docstrings import run_example
from hf_colearn.data.augmented_inputs import picture_copies
from hf_colearn.data.bad_samples import without_bad_samples
from hf_colearn.data.images import (
    ImageTransform,
    as_rgb,
    make_image_processor,
    with_image_transform,
    with_pixel_values,
)
from hf_colearn.data.video import read_images
from hf_colearn.models.grayscale import GrayscaleImageProcessor
from refusals import Refusals, assert_refused


refusals = Refusals()


def one(mode, *values, palette=None, **info):
    """A picture of one row."""
    image = Image.new(mode, (len(values), 1))
    if palette:
        image.putpalette(palette)
    for x, value in enumerate(values):
        image.putpixel((x, 0), value)
    image.info |= info
    return image


def sixteen(mode, dtype="<u2"):
    return Image.frombytes(mode, (5, 1), np.array([0, 128, 129, 32768, 65535], dtype).tobytes())


def grays(*levels):
    return [[level] * 3 for level in levels]


# 16 bits by 257: 128 / 257 = .498, 129 / 257 = .502, 32768 / 257 = 127.5019, 65535 / 257 = 255.
SIXTEEN = grays(0, 0, 1, 128, 255)
RED, GREEN = [200, 0, 0], [0, 200, 0]
# A fifth (51 / 255) of a colour on white: 200 / 5 + 255 * 4 / 5 = 244, 100 / 5 + 204 = 224, 0 + 204 = 204.
FIFTH_OF_RED, FIFTH_OF_100 = [244, 204, 204], 224
MODES = {
    "1": (one("1", 0, 255), grays(0, 255)),
    "L": (one("L", 0, 7, 255), grays(0, 7, 255)),
    "L, one value invisible": (one("L", 0, 7, transparency=7), grays(0, 255)),
    "LA": (one("LA", (100, 255), (100, 51), (100, 0)), grays(100, FIFTH_OF_100, 255)),
    "La": (one("La", (100, 255), (20, 51)), grays(100, FIFTH_OF_100)),  # 20 is 100 times a fifth
    "P": (one("P", 1, 0, palette=RED + GREEN), [GREEN, RED]),
    "P, one colour invisible": (one("P", 1, 0, palette=RED + GREEN, transparency=1), [[255] * 3, RED]),
    "P, alpha by colour": (one("P", 1, 0, palette=RED + GREEN, transparency=b"\x33\xff"), [GREEN, FIFTH_OF_RED]),
    "RGB": (one("RGB", (1, 2, 3)), [[1, 2, 3]]),
    "RGB, one colour invisible": (one("RGB", (1, 2, 3), (1, 2, 4), transparency=(1, 2, 3)), [[255] * 3, [1, 2, 4]]),
    # Of 16 bits Pillow reads the upper 8 of the pixels, and both bytes of the invisible colour: 256 = 1 << 8.
    "RGB of 16 bits, one colour invisible": (
        one("RGB", (1, 2, 3), (1, 2, 4), transparency=(256, 512, 768)),
        [[255] * 3, [1, 2, 4]],
    ),
    "RGBA": (one("RGBA", (1, 2, 3, 255), (200, 0, 0, 51), (9, 9, 9, 0)), [[1, 2, 3], FIFTH_OF_RED, [255] * 3]),
    "RGBa": (one("RGBa", (1, 2, 3, 255), (40, 0, 0, 51)), [[1, 2, 3], FIFTH_OF_RED]),
    "RGBX": (one("RGBX", (1, 2, 3, 0)), [[1, 2, 3]]),
    # (255 - cyan) (255 - black) / 255 = 204 * 204 / 255 = 163.2
    "CMYK": (one("CMYK", (0, 255, 255, 0), (51, 0, 0, 51)), [[255, 0, 0], [163, 204, 204]]),
    "YCbCr": (one("YCbCr", (100, 128, 128)), grays(100)),
    "HSV": (one("HSV", (0, 0, 200), (0, 255, 200)), [[200] * 3, RED]),
    # L* = 100 * 136 / 255 = 53.33 is Y = ((53.33 + 16) / 116)^3 = .2135, in sRGB 255 (1.055 Y^(1 / 2.4) - .055) = 127.
    "LAB": (one("LAB", (136, 128, 128)), grays(127)),
    "I": (Image.fromarray(np.array([[0, 128, 129, 32768, 65535]], np.int32)), SIXTEEN),
    "I;16": (sixteen("I;16"), SIXTEEN),
    "I;16B": (sixteen("I;16B", ">u2"), SIXTEEN),
    "I;16L": (sixteen("I;16L"), SIXTEEN),
    "F": (Image.fromarray(np.array([[0, 0.2, 0.502, 1]], np.float32)), grays(0, 51, 128, 255)),  # .502 * 255 = 128.01
}
MODES["PA"] = (MODES["P"][0].convert("RGBA").convert("PA"), [GREEN, RED])
MODES["I;16, one value invisible"] = (sixteen("I;16"), grays(0, 255, 1, 128, 255))
MODES["I;16, one value invisible"][0].info["transparency"] = 128


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_is_scaled_by_its_range_and_transparency_is_white(mode):
    image, expected = MODES[mode]

    seen = as_rgb(image, 0)

    assert seen.mode == "RGB"
    np.testing.assert_allclose(np.asarray(seen)[0], expected, atol=1 if mode == "LAB" else 0)


def saved(image, encoding="PNG", **options):
    file = io.BytesIO()
    image.save(file, encoding, **options)
    return file.getvalue()


def test_the_example_of_the_docstring_runs():
    run_example(as_rgb)


def test_a_file_of_eight_bits_is_seen_as_pillow_decodes_it():
    pixels_HWC = np.random.default_rng(0).integers(0, 256, (9, 7, 3), np.uint8)
    for content in (saved(Image.fromarray(pixels_HWC), "JPEG"), saved(Image.fromarray(pixels_HWC[..., 0]), "JPEG")):
        assert np.array_equal(as_rgb(content, 0), Image.open(io.BytesIO(content)).convert("RGB"))


def test_a_cmyk_jpeg_that_is_stored_inverted_is_not_a_negative():
    content = saved(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "JPEG", quality=100)  # as Adobe's programs write it

    assert np.abs(np.asarray(as_rgb(content, 0)) - [255.0, 0, 0]).max() <= 2


def test_the_background_can_be_chosen():
    half = one("RGBA", (200, 0, 0, 51))

    # 200 / 5 = 40 on black; on (0, 0, 100): 100 * 4 / 5 = 80
    assert as_rgb(half, 0, background="black").getpixel((0, 0)) == (40, 0, 0)
    assert as_rgb(half, 0, background=(0, 0, 100)).getpixel((0, 0)) == (40, 0, 80)


GRAY = np.array([[0, 51, 102], [153, 204, 255]], np.uint8)
COLOUR = np.stack([GRAY, GRAY[::-1], GRAY // 2], axis=-1)
TO_GRAY = np.repeat(GRAY[..., None], 3, axis=-1)


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (GRAY, TO_GRAY),
        (GRAY[..., None], TO_GRAY),
        (np.stack([GRAY, np.full_like(GRAY, 255)], axis=-1), TO_GRAY),
        (COLOUR, COLOUR),
        (np.concatenate([COLOUR, np.zeros_like(COLOUR[..., :1])], axis=-1), np.full_like(COLOUR, 255)),
        (np.tile(COLOUR, (4, 4, 1)).transpose(2, 0, 1), np.tile(COLOUR, (4, 4, 1))),
        (torch.from_numpy(np.tile(COLOUR, (4, 4, 1))).permute(2, 0, 1), np.tile(COLOUR, (4, 4, 1))),
        (GRAY.astype(np.uint16) * 257, TO_GRAY),
        (GRAY.astype(">u2") * 257, TO_GRAY),
        (COLOUR.astype(np.uint16) * 257 - (COLOUR > 0) * np.uint16(128), COLOUR),  # 128 / 257 = .498 less
        (COLOUR / 255, COLOUR),
        (torch.from_numpy(COLOUR / 255).to(torch.bfloat16).float(), COLOUR),
        (GRAY > 100, np.where(TO_GRAY > 100, 255, 0)),
    ],
)
def test_arrays_are_scaled_by_their_types_range(array, expected):
    atol = 0.51 if isinstance(array, torch.Tensor) and array.is_floating_point() else 0  # 8 bits of bfloat16

    np.testing.assert_allclose(np.asarray(as_rgb(array, 0)), expected, atol=atol)


@pytest.mark.parametrize(
    "form", [str, Path, lambda path: Path(path).read_bytes(), lambda path: {"path": path, "bytes": None}]
)
def test_a_path_is_opened(form, tmp_path):
    sixteen("I;16").save(tmp_path / "deep.png")

    assert np.asarray(as_rgb(form(str(tmp_path / "deep.png")), 0))[0].tolist() == SIXTEEN


# ---- orientation ----
def exif(*entries):
    """A camera's tags, each number, type, count and value."""
    tags = b"".join(struct.pack("<HHI", *entry[:3]) + entry[3].ljust(4, b"\0") for entry in entries)
    return b"Exif\0\0II*\0\x08\0\0\0" + struct.pack("<H", len(entries)) + tags + b"\0" * 4


def held(orientation, *others):
    return exif((0x0112, 3, 1, bytes([orientation])), *others)


# What a camera stores of an upright picture (EXIF 2.3, table 6): 6 is to be turned by 90 degrees clockwise, 8 back.
STORED = {
    1: COLOUR,
    2: COLOUR[:, ::-1],
    3: COLOUR[::-1, ::-1],
    4: COLOUR[::-1],
    5: COLOUR.transpose(1, 0, 2),
    6: np.rot90(COLOUR, 1),
    7: COLOUR[::-1, ::-1].transpose(1, 0, 2),
    8: np.rot90(COLOUR, -1),
}


@pytest.mark.parametrize("orientation", STORED)
def test_a_picture_is_upright_as_file_as_image_and_as_column(orientation, tmp_path):
    stored = Image.fromarray(np.ascontiguousarray(STORED[orientation]))
    stored.save(tmp_path / "turned.png", exif=held(orientation))
    column = Dataset.from_dict({"image": [str(tmp_path / "turned.png")]}).cast_column("image", datasets.Image())

    for cell in (tmp_path / "turned.png", Image.open(tmp_path / "turned.png"), column[0]["image"]):
        assert np.array_equal(as_rgb(cell, 0), COLOUR)
        assert np.array_equal(as_rgb(as_rgb(cell, 0), 0), COLOUR)  # and is not turned twice


def test_a_tag_that_a_camera_wrote_oddly_keeps_no_picture_from_being_turned():
    resolution_as_text = (0x011A, 2, 4, b"abc\0")
    content = saved(Image.fromarray(np.rot90(COLOUR, 1)), exif=held(6, resolution_as_text))

    assert np.array_equal(as_rgb(content, 0), COLOUR)


def test_of_several_frames_and_pages_the_first_is_seen():
    frames = [Image.new("RGB", (2, 2), colour) for colour in ("red", "blue")]
    for encoding in ("GIF", "TIFF"):
        content = saved(frames[0], encoding, save_all=True, append_images=frames[1:])
        assert Image.open(io.BytesIO(content)).n_frames == 2
        assert as_rgb(content, 0).getpixel((0, 0)) == (255, 0, 0)


# ---- what a student is given ----
PLAIN = ViTImageProcessorPil(do_resize=False, do_normalize=False)  # pixels from 0 to 1
MIXED = {
    "deep": Image.fromarray(GRAY.astype(np.uint16) * 257),
    "float": Image.fromarray((GRAY / 255).astype(np.float32)),
    "transparent": Image.fromarray(np.dstack([COLOUR, GRAY])),
}
# Of alpha a: colour a / 255 + 255 (1 - a / 255)
ON_WHITE = np.rint((COLOUR * (GRAY / 255)[..., None]) + 255 - GRAY[..., None])
ON_BLACK = np.rint(COLOUR * (GRAY / 255)[..., None])


def column_of(images, feature=None):
    features = Features({"image": feature or datasets.Image(), "label": Value("int64")})
    return Dataset.from_dict({"image": images, "label": [0] * len(images)}, features=features)


def in_255(pixels_BCHW):
    return np.asarray(pixels_BCHW).transpose(0, 2, 3, 1) * 255


def test_a_column_gives_what_its_images_are(tmp_path):
    paths = [str(tmp_path / f"{name}.{'tif' if name == 'float' else 'png'}") for name in MIXED]
    for path, image in zip(paths, MIXED.values(), strict=True):
        image.save(path)
    wanted = np.stack([TO_GRAY, TO_GRAY, ON_WHITE])

    for column in (column_of(list(MIXED.values())), column_of(paths), column_of(paths, Value("string"))):
        stored = with_pixel_values(column, PLAIN)["pixel_values"][:]
        np.testing.assert_allclose(in_255(stored), wanted, atol=1e-3)
    lazily = with_image_transform(column_of(paths), ImageTransform(whole(3, 2), train=False))[:]["pixel_values"]
    np.testing.assert_allclose(in_255(lazily), wanted, atol=1e-3)


def whole(width, height, channels=3):
    """A processor of pictures of that size, which leaves them as they are."""
    kind = ViTImageProcessorPil if channels == 3 else GrayscaleImageProcessor
    return kind(size={"height": height, "width": width}, do_normalize=False)


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("channels", [3, 1])
def test_a_transform_sees_depth_background_and_channels(train, channels):
    everything = {"scale": (1, 1), "ratio": (1.5, 1.5), "hflip": False}
    transform = ImageTransform(whole(3, 2, channels), train, **everything, background="black")

    pixels = in_255(transform({"image": [*MIXED.values(), saved(MIXED["deep"])], "label": [0] * 4})["pixel_values"])

    wanted = np.stack([TO_GRAY, TO_GRAY, ON_BLACK, TO_GRAY])
    if channels == 1:  # ITU-R 601
        wanted = (wanted @ [0.299, 0.587, 0.114])[..., None]
    np.testing.assert_allclose(pixels, wanted, atol=0.51 if channels == 1 else 1e-3)


def test_the_background_of_a_student_can_be_chosen():
    pixels = with_pixel_values(column_of([MIXED["transparent"]]), PLAIN, background="black")["pixel_values"][:]

    np.testing.assert_allclose(in_255(pixels)[0], ON_BLACK, atol=1e-3)


@pytest.mark.parametrize("mode", ["RGB", "L", "I;16"])
def test_the_mode_of_a_column_does_not_clip(mode):
    column = column_of([MIXED["deep"]], datasets.Image(mode=mode))

    eager = with_pixel_values(column, PLAIN)["pixel_values"][:]
    lazy = with_image_transform(column, ImageTransform(whole(3, 2), train=False))[:]["pixel_values"]

    for pixels in (eager, lazy):
        np.testing.assert_allclose(in_255(pixels)[0], TO_GRAY, atol=1e-3)


def test_a_column_of_arrays_is_read_in_its_type():
    for dtype, factor in (("uint8", 1), ("uint16", 257)):
        for array, feature, expected in ((GRAY, Array2D, TO_GRAY), (COLOUR, Array3D, COLOUR)):
            column = column_of([array.astype(dtype) * factor], feature(array.shape, dtype))
            pixels = with_pixel_values(column, PLAIN)["pixel_values"][:]
            np.testing.assert_allclose(in_255(pixels)[0], expected, atol=1e-3)


def test_a_student_of_one_channel_sees_colours_as_gray_without_normalisation_too():
    processor = GrayscaleImageProcessor(do_resize=False, do_normalize=False)

    pixels = with_pixel_values(column_of([Image.fromarray(COLOUR)]), processor)["pixel_values"][:]

    np.testing.assert_allclose(in_255(pixels)[0, ..., 0], COLOUR @ [0.299, 0.587, 0.114], atol=0.51)


def test_a_published_grayscale_processor_sees_what_the_student_was_trained_on():
    processor = GrayscaleImageProcessor(do_resize=False, do_normalize=False)
    clear = Image.fromarray(np.dstack([GRAY, np.full_like(GRAY, 51)]))  # a fifth of each level on white

    pixels = processor([MIXED["deep"], MIXED["float"], clear], return_tensors="np")["pixel_values"]

    np.testing.assert_allclose(pixels[:, 0] * 255, [GRAY, GRAY, GRAY / 5 + 204], atol=0.51)


def test_a_pipeline_sees_what_the_student_was_trained_on_where_it_is_handed_that():
    for image in MIXED.values():
        assert np.array_equal(load_image(as_rgb(image, 0)), as_rgb(image, 0))  # what `pipeline` does to an image first
    assert np.asarray(load_image(MIXED["deep"])).max(axis=-1).tolist() != GRAY.tolist()  # Pillow clips it


def test_frames_and_augmented_copies_are_read_alike(tmp_path):
    for name in ("deep", "transparent"):
        MIXED[name].save(tmp_path / f"{name}.png")

    frames_T3HW = read_images([tmp_path / "deep.png", tmp_path / "transparent.png"], "the clip")
    copies = [picture_copies([image], view=0) for image in (MIXED["deep"], Image.fromarray(TO_GRAY))]

    assert np.array_equal(frames_T3HW.permute(0, 2, 3, 1), [TO_GRAY, ON_WHITE])
    assert np.array_equal(copies[0][0], copies[1][0])


def test_images_without_a_clear_meaning_can_be_left_out():
    out_of_range = Image.fromarray(GRAY.astype(np.float32))
    data = column_of([MIXED["float"], out_of_range, MIXED["deep"]])

    good, bad = without_bad_samples(data, as_rgb, "image")

    assert len(good) == 2
    assert [(sample.row, "the image in row 1 has values from 0 to 255 in mode 'F'" in sample.problem) for sample in bad] == [(1, True)]  # fmt: skip  # noqa: E501


# ---- what is refused ----
case = refusals.case


@case(ValueError, "the image in row 1 has values from 0 to 255 in mode 'F'", "from 0 to 1", "values / 255")
def floats_from_0_to_255(_):
    yield
    with_pixel_values(column_of([MIXED["float"], Image.fromarray(GRAY.astype(np.float32))]), PLAIN)


@case(ValueError, "NaN or infinite values in an array of float64", "mend or remove it")
def an_array_with_nan(_):
    yield
    as_rgb(np.full((2, 2), np.nan), 0)


@case(ValueError, "values up to 255 in mode 'I'", "which may be 8 bits", ".astype(np.uint8)")
def eight_bits_in_integers_of_32(_):
    yield
    as_rgb(Image.fromarray(GRAY.astype(np.int32)), 0)


@case(ValueError, "values from 0 to 70000 in mode 'I'", "scale them to floats from 0 to 1")
def more_than_16_bits(_):
    yield
    as_rgb(Image.fromarray(np.array([[0, 70000]], np.int32)), 0)


@case(ValueError, "the image has values from 0 to 255 in mode 'F'", "values / 255")
def floats_from_0_to_255_for_a_published_processor(_):
    yield
    GrayscaleImageProcessor()(Image.fromarray(GRAY.astype(np.float32)))


@case(ValueError, "an array of shape (5, 4, 7), which is no picture", "(height, width, channels)")
def an_array_of_seven_channels(_):
    yield
    as_rgb(np.zeros((5, 4, 7), np.uint8), 0)


@case(ValueError, "an array of complex64", "pass uint8, uint16, bool, or floats from 0 to 1")
def complex_pixels(_):
    yield
    as_rgb(np.zeros((2, 2), np.complex64), 0)


@case(ValueError, "the image in row 7 has no pixels (0 x 3)", "remove it")
def an_image_without_pixels(_):
    yield
    ImageTransform(make_image_processor(8), train=True)(
        {"image": [Image.new("L", (0, 3))], "label": [0], "sample_id": [7]}
    )


@case(ValueError, "the image in row 0 ('https://example.org/cat.png') is a URL", "download it")
def a_url_as_a_students_image(_):
    yield
    with_pixel_values(column_of(["https://example.org/cat.png"], Value("string")), PLAIN)


@case(ValueError, "row 0 holds 'cat.png'", "no file has that name", "mend the row")
def a_path_that_does_not_exist(folder):
    yield
    ImageTransform(make_image_processor(8), train=False)({"image": ["cat.png"], "label": [0]})


@case(ValueError, "row 0 holds list where", "of numbers of no known type", "np.asarray(cell, np.uint8)")
def lists_of_numbers(_):
    column = column_of([COLOUR], Array3D(COLOUR.shape, "uint8"))
    yield
    with_image_transform(column, ImageTransform(make_image_processor(8), train=True))[0]


@case(ValueError, "background='whitish' is no colour", "'#rrggbb'")
def an_unknown_background(_):
    yield
    with_pixel_values(column_of([MIXED["transparent"]]), PLAIN, background="whitish")


@case(ValueError, "background=(0, 0, 256) is no colour", "three numbers from 0 to 255")
def a_background_out_of_range(_):
    yield
    ImageTransform(make_image_processor(8), train=True, background=(0, 0, 256))


@pytest.mark.parametrize(Refusals.NAMES, refusals.cases)
def test_it_is_refused(situation, error, texts, tmp_path):
    assert_refused(situation, error, texts, tmp_path)
