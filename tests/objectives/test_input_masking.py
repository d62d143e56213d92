"""Hidden positions: how many and which, where they lie in the inputs of every modality, and what is refused."""

import numpy as np
import pytest
import torch

import tiny
from families import AUDIO, FAMILIES, IMAGE
from hf_colearn.objectives.input_masking import Positions, hidden_positions, positions_in, random_bits
from hf_colearn.utils.draws import draw_bits
from mechanism_cases import dense


IDS = torch.arange(40)


def hidden(ids=IDS, count=16, grid=None, ratio=0.5, span=1, **drawn):
    """Of samples of so many positions each, or of `count` in a list by sample."""
    lengths = torch.as_tensor(count).expand(len(ids))
    eligible = torch.arange(int(lengths.max())) < lengths[:, None]
    return hidden_positions(ids, eligible, grid or (eligible.shape[1],), ratio, span, **drawn)


# ---- how many and which ----
def test_bits_on_the_device_are_those_of_numpy():
    ids = np.array([0, 1, 7, 2**40])
    found = random_bits(3, 1, 5, torch.from_numpy(ids)).numpy().view(np.uint64)
    assert (found == draw_bits(ids, epoch=5, seed=3, stream=1)).all()


def test_a_share_of_what_is_no_padding_is_hidden_but_neither_nothing_nor_all():
    # round(.3 * 10) of 10, one of one, one of two (round(.9 * 2) would be all), none of none
    for count, ratio, expected in ((10, 0.3, 3), (1, 0.5, 1), (2, 0.9, 1), (3, 0.01, 1), (0, 0.5, 0)):
        found = hidden(torch.arange(2), [count, 12], ratio=ratio)
        assert found[0].sum() == expected and not found[0, count:].any()


def test_masks_depend_on_sample_step_and_seed_and_not_on_the_batch():
    whole = hidden(step=4, seed=7)
    assert torch.equal(hidden(IDS[[5, 3]], step=4, seed=7), whole[[5, 3]])
    # padding of longer samples beside it is no part of a sample
    assert torch.equal(hidden(IDS[:2], [16, 30], step=4, seed=7)[0, :16], whole[0])
    for other in ({"step": 5, "seed": 7}, {"step": 4, "seed": 8}):
        assert not torch.equal(hidden(**other), whole)
    assert len({tuple(row.tolist()) for row in whole}) == len(IDS)
    # each position is hidden half of the time: of 40 samples, 20 with a deviation of sqrt(40) / 2 = 3.2
    assert (whole.sum(dim=0) - 20).abs().max() < 4 * 3.2


def test_neighbours_are_hidden_together_from_a_random_place_on():
    found = hidden(span=4)
    assert (found.sum(dim=1) == 8).all()
    # 8 of 16 in blocks of 4, the first and last of which may be cut: two whole ones, or one and parts of two
    begins = (found & ~torch.roll(found, 1, dims=1)).sum(dim=1)
    assert begins.max() <= 3 and len({tuple(row.tolist()) for row in found}) > 6

    # Of a grid of 2 x 4 most samples see one block of 100 x 100 alone, which is hidden row by row: the first half, one row.
    rows = hidden(count=8, grid=(2, 4), span=100)
    assert (rows == torch.tensor([True] * 4 + [False] * 4)).all(dim=1).float().mean() > 0.8


# ---- where they lie ----
LAYOUTS = {
    "vit": Positions("pixel_values", (2, 2), (2, 3), first=1),  # 8 x 8 in patches of 4, behind [CLS]
    "resnet": Positions("pixel_values", (1, 1), (2, 3)),  # a map of one cell
    "bert": Positions("input_ids", (12,), (1,)),
    "wav2vec2": Positions("input_values", (12,), (1,)),  # 4000 samples, a frame every 320 of them
    "whisper": Positions("input_features", (50,), (2,)),  # 100 frames, a stride of 2
}


@pytest.mark.parametrize("family", LAYOUTS)
def test_positions_of_a_student_are_found_in_its_inputs(family):
    kind, config, inputs = FAMILIES[family]
    student = kind.from_backbone(config(), 4, 2, dense=True).eval()
    given = inputs(torch.Generator().manual_seed(0))
    with torch.no_grad():
        length = student(**given).dense_latents.shape[1]
    assert positions_in(student, given, length) == LAYOUTS[family]


def test_maps_of_pictures_are_cells_of_spectrograms_columns_and_videos_have_frames():
    pictures, sounds = (kind.from_backbone(tiny.resnet(), 4, 2, dense=True).eval() for kind in (IMAGE, AUDIO))
    pixels = torch.zeros(1, 1, 32, 64)
    with torch.no_grad():
        cells, columns = (model(pixel_values=pixels).dense_latents.shape[1] for model in (pictures, sounds))
    # strides of 8: 4 x 8 cells, 8 columns
    assert positions_in(pictures, {"pixel_values": pixels}, cells) == Positions("pixel_values", (4, 8), (2, 3))
    assert positions_in(sounds, {"pixel_values": pixels}, columns) == Positions("pixel_values", (8,), (3,))
    video = {"pixel_values": pixels.expand(1, 3, 1, 32, 64)}
    assert positions_in(pictures, video, 3) == Positions("pixel_values", (3,), (1,))


@pytest.mark.parametrize(
    ("positions", "shape", "hidden_at", "expected"),
    [
        # the second of 2 x 2 patches of a picture of 4 x 4: rows 0 and 1, columns 2 and 3
        (Positions("x", (2, 2), (2, 3), first=1), (1, 1, 4, 4), [1], {(0, y, x) for y in (0, 1) for x in (2, 3)}),
        # 4 positions of 10 samples: 0 0 0 1 1 2 2 2 3 3
        (Positions("x", (4,), (1,)), (1, 10), [2], {(5,), (6,), (7,)}),
        # 2 positions of 4 frames of 2 bands
        (Positions("x", (2,), (2,)), (1, 2, 4), [1], {(band, frame) for band in (0, 1) for frame in (2, 3)}),
    ],
    ids=["patches", "waveform", "frames"],
)
def test_the_input_is_hidden_where_its_positions_are_and_nowhere_else(positions, shape, hidden_at, expected):
    hidden_BG = torch.zeros(1, np.prod(positions.grid), dtype=torch.bool)
    hidden_BG[0, hidden_at] = True
    found = positions.hide({"x": torch.ones(shape), "other": 3}, hidden_BG, 0)
    assert {tuple(place) for place in (found["x"][0] == 0).nonzero().tolist()} == expected
    assert found["other"] == 3


@pytest.mark.parametrize(
    ("inputs", "length", "message"),
    [
        ({"features": torch.zeros(2, 5)}, 1, r"of shape \(2, 5\), one vector a sample.*pass \[B, T, F\]"),
        ({"inputs_embeds": torch.zeros(2, 5, 4)}, 5, r"none of the inputs \['inputs_embeds'\] can be masked"),
        ({"input_values": torch.zeros(2, 64, 128)}, 14, "spectrograms of AST"),
        ({"pixel_values": torch.zeros(2, 1, 8, 8)}, 3, "where the positions of a .* lie in pixel_values is unknown"),
    ],
)
def test_inputs_without_positions_of_their_own_are_refused(inputs, length, message):
    model = torch.nn.Linear(2, 2) if "pixel_values" in inputs else dense()()
    with pytest.raises(ValueError, match=message):
        positions_in(model, inputs, length)


def test_positions_that_are_no_grid_are_refused():
    student = IMAGE.from_backbone(tiny.vit(), 4, 2, dense=True)
    with pytest.raises(ValueError, match=r"the 3 positions of the backbone 'vit' lie on no grid"):
        positions_in(student, {"pixel_values": torch.zeros(2, 1, 8, 8)}, 3)
