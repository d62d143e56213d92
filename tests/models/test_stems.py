"""What makes tokens of a modality: by hand, and which options and inputs are refused."""

import pytest
import torch

from hf_colearn import TrunkBackboneConfig
from hf_colearn.models.stems import make_stem
from hf_colearn.models.trunk_configuration import check_stem


WIDTH = 2


def stem(**options):
    """With 0 for positions and modality, so that the tokens are the inputs' alone."""
    made = make_stem(check_stem("image", options), WIDTH)
    made.reset_parameters()
    with torch.no_grad():
        made.positions_TH.zero_(), made.modality_H.zero_()
    return made


def filled(module, weight, bias=0.0):
    with torch.no_grad():
        module.weight.fill_(weight), module.bias.fill_(bias)


def test_patches_are_read_row_by_row():
    made = stem(kind="patches", image_size=4, patch_size=2, num_channels=1)
    filled(made.projection, 1.0)
    tokens, mask = made(torch.arange(16.0).reshape(1, 1, 4, 4))
    # 0 + 1 + 4 + 5, 2 + 3 + 6 + 7, 8 + 9 + 12 + 13, 10 + 11 + 14 + 15
    assert tokens[0, :, 0].tolist() == [10, 18, 42, 50] and tokens.shape == (1, 4, WIDTH) and mask is None


def test_frames_are_read_in_time_and_may_be_fewer():
    made = stem(kind="frames", num_bands=2, max_length=6, patch_length=2)
    filled(made.projection, 1.0)
    spectrogram = torch.tensor([[1.0, 2.0, 3.0, 4.0], [10.0, 20.0, 30.0, 40.0]])[None, None]
    tokens, _ = made(spectrogram)
    assert tokens[0, :, 0].tolist() == [33, 77]  # 1 + 2 + 10 + 20, 3 + 4 + 30 + 40


def test_columns_of_a_table_are_standardised_and_scale_vectors_of_their_own():
    made = stem(kind="table", num_columns=2)
    made.standardization.set_statistics(torch.tensor([[1.0, 5.0], [3.0, 5.0]]))  # means 2, 5; deviations 1, 0
    with torch.no_grad():
        made.columns_FH.copy_(torch.tensor([[1.0, 10.0], [2.0, 20.0]]))
    assert made(torch.tensor([[4.0, 6.0]]))[0].tolist() == [[[2, 20], [2, 20]]]  # (4 - 2) / 1 and 6 - 5


def test_a_vector_becomes_several_tokens_or_each_of_several_vectors_one():
    made = stem(kind="features", feature_dim=1, num_tokens=3)
    with torch.no_grad():
        made.projection.weight.copy_(torch.arange(6.0)[:, None]), made.projection.bias.zero_()
    assert made(torch.tensor([[2.0]]))[0].tolist() == [[[0, 2], [4, 6], [8, 10]]]
    made = stem(kind="features", feature_dim=1, max_length=4)
    filled(made.projection, 1.0)
    mask = torch.tensor([[1, 1, 0]])
    tokens, found = made(torch.tensor([[[1.0], [2.0], [0.0]]]), mask)
    assert tokens[0, :, 0].tolist() == [1, 2, 0] and found is mask


def test_every_token_has_its_position_and_its_modality():
    made = stem(kind="tokens", vocab_size=5, max_length=4)
    with torch.no_grad():
        made.positions_TH.copy_(torch.arange(4.0)[:, None] * 100), made.modality_H.fill_(7.0)
        made.embedding.weight.copy_(torch.arange(5.0)[:, None].expand(-1, WIDTH))
    assert made(torch.tensor([[3, 1, 1]]))[0][0, :, 0].tolist() == [10, 108, 208]


TABLE = {"kind": "table", "num_columns": 2}
PATCHES = {"kind": "patches", "image_size": 4, "patch_size": 2, "num_channels": 1}
FRAMES = {"kind": "frames", "num_bands": 2, "max_length": 8}
VECTORS = {"kind": "features", "feature_dim": 3}


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"num_columns": 2}, "pass a dict with a kind"),
        ({"kind": "pixels"}, "kind of image='pixels' is unknown"),
        ({"kind": "table"}, "'image' lacks num_columns: a stem of kind 'table' has num_columns"),
        ({**TABLE, "width": 3}, "'image' has no option width"),
        ({**TABLE, "num_columns": 0}, "num_columns=0 of 'image' is no width"),
        ({**PATCHES, "image_size": 5}, r"image_size=\[5, 5\] of 'image' is no multiple of patch_size=\[2, 2\]"),
        ({**PATCHES, "patch_size": [2]}, "is no size: pass a number or"),
        ({**FRAMES, "patch_length": 3}, "max_length=8 of 'image' is no multiple of patch_length=3"),
        ({**VECTORS, "num_tokens": 2, "max_length": 2}, "Leave one of them out"),
    ],
)
def test_options_that_make_no_stem_are_refused(options, text):
    with pytest.raises(ValueError, match=text):
        check_stem("image", options)


@pytest.mark.parametrize(
    ("trunk", "text"),
    [
        ({"hidden_dim": 8}, r"no options \['hidden_dim'\]"),
        ({"model_type": "gpt2"}, "model_type='gpt2' is unknown"),
        ({"hidden_size": 10, "num_attention_heads": 4}, "hidden_size=10 of the trunk is no multiple"),
        (None, "the trunk is None"),
    ],
)
def test_what_is_no_trunk_is_refused(trunk, text):
    with pytest.raises(ValueError, match=text):
        TrunkBackboneConfig(TABLE, trunk)


@pytest.mark.parametrize(
    ("options", "shape", "text"),
    [
        (PATCHES, (1, 3, 4, 4), "pass .B, 1, 4, 4."),
        (FRAMES, (1, 1, 2, 6), "a multiple of 4"),
        (FRAMES, (1, 1, 2, 12), "at most 8 frames"),
        (TABLE, (1, 3), "num_columns"),
        (VECTORS, (1, 4), "feature_dim=4"),
        ({**VECTORS, "num_tokens": 2}, (1, 5, 3), "with num_tokens=1"),
        ({**VECTORS, "max_length": 4}, (1, 5, 3), "max_length=4: cut them"),
    ],
)
def test_inputs_of_another_shape_are_refused(options, shape, text):
    with pytest.raises(ValueError, match=text):
        stem(**options)(torch.zeros(shape))
