"""A student's latents of positions: which they are, which are padding, and what pooling makes of them."""

import pytest
import torch
from transformers import ResNetModel

import tiny
from hf_colearn import (
    CoLearningForAudioClassification,
    CoLearningForFeatureClassification,
    CoLearningForImageClassification,
    CoLearningForSequenceClassification,
    FeatureBackboneConfig,
)
from hf_colearn.models.dense import positions


MASK = torch.tensor([[1, 1, 1], [1, 0, 0]])


def features(**kwargs):
    config = FeatureBackboneConfig(feature_dim=4, hidden_dims=[5])
    return CoLearningForFeatureClassification.from_backbone(config, latent_dim=2, num_labels=3, dense=True, **kwargs)


def test_without_a_norm_the_latent_is_the_mean_of_those_of_the_positions_that_count():
    student, x_BTF = features(latent_norm="none"), torch.randn(2, 3, 4)

    outputs = student(x_BTF, attention_mask=MASK)

    assert outputs.dense_mask.tolist() == MASK.bool().tolist()
    torch.testing.assert_close(outputs.latents[0], outputs.dense_latents[0].mean(0))
    torch.testing.assert_close(outputs.latents[1], outputs.dense_latents[1, 0])


def test_without_a_mask_every_position_counts():
    assert features()(torch.randn(2, 3, 4)).dense_mask.all()


def test_a_training_head_reads_every_position():
    student = features(training_heads={"dense": {"out_features": 7, "reads": "dense_latents"}})

    outputs = student(torch.randn(2, 3, 4))

    expected = student.training_heads["dense"](outputs.dense_latents)
    torch.testing.assert_close(outputs.training_outputs["dense"], expected)
    assert expected.shape == (2, 3, 7)


@pytest.mark.parametrize(
    ("student", "backbone", "inputs", "shape"),
    [
        # 8 x 8 pixels in patches of 4 are 4, and the class token before them.
        (CoLearningForImageClassification, tiny.vit, {"pixel_values": torch.randn(2, 1, 8, 8)}, (2, 5)),
        (CoLearningForSequenceClassification, tiny.bert, {"input_ids": torch.tensor([[2, 3, 4], [2, 0, 0]])}, (2, 3)),
    ],
    ids=["patches", "tokens"],
)
def test_there_is_a_latent_of_every_token(student, backbone, inputs, shape):
    model = student.from_backbone(backbone(), latent_dim=6, num_labels=2, dense=True)

    outputs = model(**inputs)

    assert outputs.dense_latents.shape == (*shape, 6) and outputs.dense_mask.shape == shape


def test_of_a_feature_map_they_are_its_cells_and_of_a_spectrogram_its_columns():
    # Two rows of three columns; the channel counts the cells: 0 1 2 / 3 4 5.
    outputs = type("Outputs", (), {"last_hidden_state": torch.arange(6.0).view(1, 1, 2, 3)})
    model = ResNetModel(tiny.resnet())

    cells, mask = positions(model, outputs, None, is_time=False)
    columns, _ = positions(model, outputs, None, is_time=True)

    assert cells.flatten().tolist() == [0, 1, 2, 3, 4, 5] and mask.all()
    assert columns.flatten().tolist() == [1.5, 2.5, 3.5]  # (0 + 3) / 2, (1 + 4) / 2, (2 + 5) / 2


def test_of_sound_a_short_clip_has_fewer_positions_than_its_batch():
    model = CoLearningForAudioClassification.from_backbone(tiny.wav2vec2(), latent_dim=4, num_labels=2, dense=True)
    mask_BL = torch.ones(2, 800, dtype=torch.long)
    mask_BL[1, 400:] = 0

    outputs = model(torch.randn(2, 800), attention_mask=mask_BL)

    counts = outputs.dense_mask.sum(1).tolist()
    assert counts[0] == outputs.dense_latents.shape[1] and 0 < counts[1] < counts[0]


def test_by_default_a_student_gives_none():
    student = CoLearningForFeatureClassification.from_backbone(FeatureBackboneConfig(feature_dim=4), 2, 3)

    assert student(torch.randn(2, 3, 4)).dense_latents is None
