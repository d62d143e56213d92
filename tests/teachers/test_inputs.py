"""Images as a teacher reads them: as its student does, and told apart by all that is seen of them."""

import io

import datasets
import numpy as np
import pytest
import torch
from datasets import Dataset
from PIL import Image

import tiny_teachers
from hf_colearn import FrozenEncoder, TeacherBank
from hf_colearn.data.images import as_rgb, with_pixel_values
from hf_colearn.teachers.inputs import digest, image
from refusals import Refusals, assert_refused


refusals = Refusals()

GRAY = np.random.default_rng(0).integers(0, 256, (8, 8), np.uint8)
COLOUR = np.random.default_rng(1).integers(0, 256, (8, 8, 3), np.uint8)
DEEP = Image.fromarray(GRAY.astype(np.uint16) * 257)
CLEAR = Image.fromarray(np.dstack([COLOUR, GRAY]))
ON_WHITE = np.rint(COLOUR * (GRAY / 255)[..., None] + 255 - GRAY[..., None]).astype(np.uint8)
ON_BLACK = np.rint(COLOUR * (GRAY / 255)[..., None]).astype(np.uint8)
LYING = {"exif": b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\1\3\0\1\0\0\0\6\0\0\0\0\0\0\0"}  # orientation 6


def saved(picture, **options):
    file = io.BytesIO()
    picture.save(file, "PNG", **options)
    return file.getvalue()


def test_a_teacher_and_its_student_see_the_same_pixels():
    encoder, cells = tiny_teachers.vit(), [DEEP, CLEAR, Image.fromarray(GRAY / np.float32(255))]
    column = Dataset.from_dict({"image": cells, "label": [0] * 3}).cast_column("image", datasets.Image())

    student = with_pixel_values(column, encoder.processor)["pixel_values"][:]

    for inputs in (cells, column["image"], column.cast_column("image", datasets.Image(decode=False))["image"]):
        assert torch.equal(encoder.preprocess(inputs)["pixel_values"], student)


@pytest.mark.parametrize("background", ["white", (0, 0, 0)])
def test_a_bank_of_transparent_images_is_one_of_what_is_seen(background, tmp_path):
    encoder = tiny_teachers.vit()
    encoder = FrozenEncoder(encoder.model, encoder.processor, "cls", background=background)
    seen = [ON_WHITE if background == "white" else ON_BLACK, np.stack([GRAY] * 3, axis=-1)]

    bank = TeacherBank.encode(encoder, [CLEAR, DEEP], cache_dir=tmp_path, show_progress=False)

    torch.testing.assert_close(bank.lookup([0, 1]), encoder.encode(seen), atol=1e-6, rtol=0)
    other = FrozenEncoder(encoder.model, encoder.processor, "cls", background="red")
    assert TeacherBank.encode(other, [CLEAR, DEEP], tmp_path, show_progress=False).fingerprint != bank.fingerprint


def test_paths_are_opened_and_known_by_what_the_file_holds(tmp_path):
    file = tmp_path / "image.png"
    encoder, banks = tiny_teachers.vit(), []
    for pixels in (COLOUR, 255 - COLOUR):
        Image.fromarray(pixels).save(file)
        banks.append(TeacherBank.encode(encoder, [str(file)], cache_dir=tmp_path, show_progress=False))
        torch.testing.assert_close(banks[-1].lookup([0]), encoder.encode([pixels]), atol=1e-6, rtol=0)

    assert banks[0].fingerprint != banks[1].fingerprint
    assert digest(str(file), 0, "vision") == digest(file, 0, "vision") == digest({"path": str(file)}, 0)
    assert digest(str(file), 0) != digest(str(file), 0, "vision")  # for a teacher of texts it is a text


def palette(*colours, **info):
    picture = Image.new("P", (2, 2), 1)
    picture.putpalette([value for colour in colours for value in colour])
    picture.info |= info
    return picture


def changed(array, by=1):
    array = np.array(array)
    array[0, 0] ^= by
    return Image.fromarray(array)


DIFFERING = {
    "the lowest of 16 bits": (DEEP, changed(DEEP)),
    "palette": (palette([0] * 3, [9] * 3), palette([0] * 3, [8] * 3)),
    "palette under alpha": [one.convert("PA") for one in (palette([0] * 3, [9] * 3), palette([0] * 3, [8] * 3))],
    "alpha by colour": (palette([0] * 3, [9] * 3), palette([0] * 3, [9] * 3, transparency=1)),
    "alpha": (CLEAR, changed(CLEAR, np.array([0, 0, 0, 1], np.uint8))),
    "one colour invisible": [
        Image.open(io.BytesIO(saved(Image.fromarray(GRAY), **how))) for how in ({}, {"transparency": 0})
    ],
    "orientation": [Image.open(io.BytesIO(saved(Image.fromarray(GRAY), **how))) for how in ({}, LYING)],
    "orientation of a file": [saved(Image.fromarray(GRAY), **how) for how in ({}, LYING)],
    "booleans": (GRAY > 100, GRAY > 200),
}


@pytest.mark.parametrize("what", DIFFERING)
def test_images_that_differ_have_other_digests(what):
    one, other = DIFFERING[what]

    assert digest(one, 0, "vision") != digest(other, 0, "vision")
    assert digest(one, 0, "vision") == digest(one if isinstance(one, (bytes, np.ndarray)) else one.copy(), 0, "vision")


def test_an_image_given_as_such_is_turned_as_its_camera_was_held():
    lying = Image.open(io.BytesIO(saved(Image.fromarray(np.rot90(COLOUR, 1)), **LYING)))

    assert np.array_equal(image(lying, 0), COLOUR)
    assert np.array_equal(image(lying, 0), as_rgb(lying, 0))


# ---- what is refused ----
case = refusals.case


def encode(folder, *inputs):
    TeacherBank.encode(tiny_teachers.vit(), inputs, cache_dir=folder / "banks", show_progress=False)


@case(ValueError, "teacher input 1 is 'a red cat', where", "mend the inputs, or take a teacher of that modality")
def a_text_for_a_teacher_of_images(folder):
    yield
    encode(folder, CLEAR, "a red cat")


@case(ValueError, "teacher input 0 has values from 0 to 255 in an array of float64", "values / 255")
def an_array_of_floats_above_one(folder):
    pixels = np.linspace(0, 255, 64).reshape(8, 8)
    yield
    encode(folder, pixels)


@case(ValueError, "teacher input 1 has no pixels (0 x 4)", "remove it")
def an_input_without_pixels(folder):
    yield
    encode(folder, CLEAR, Image.new("RGB", (0, 4)))


@case(ValueError, "teacher input 0 has values up to 16 in mode 'I'", ".astype(np.uint8)")
def an_input_of_32_bits_that_may_be_8(folder):
    yield
    encode(folder, Image.fromarray((GRAY // 16 + 1).astype(np.int32)))


@case(ValueError, "teacher input 0 ('https://example.org/cat.png') is a URL", "download it")
def a_url_as_an_input(folder):
    yield
    encode(folder, "https://example.org/cat.png")


@case(ValueError, "background='see-through' is no colour", "#rrggbb")
def an_unknown_background_of_a_teacher(folder):
    encoder = tiny_teachers.vit()
    yield
    FrozenEncoder(encoder.model, encoder.processor, background="see-through")


@pytest.mark.parametrize(Refusals.NAMES, refusals.cases)
def test_it_is_refused(situation, error, texts, tmp_path):
    assert_refused(situation, error, texts, tmp_path)
