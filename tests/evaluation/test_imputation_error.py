"""The error of imputed latents relative to that of their mean."""

import pytest
import torch

import tiny_modalities
from hf_colearn import CoLearningBatch, ImputationError


def measured(mask=None, training=False, batches=1):
    metric = ImputationError()
    for batch in torch.arange(4).chunk(batches):
        outputs = {
            "modality_latents": {
                "image": torch.tensor([[0.0], [2.0], [4.0], [100.0]])[batch],
                "audio": torch.ones(4, 1)[batch],
            },
            "imputed_latents": {
                "image": torch.tensor([[1.0], [2.0], [2.0], [0.0]])[batch],
                "audio": torch.zeros(4, 1)[batch],
            },
            "modality_mask": None if mask is None else torch.tensor(mask)[batch],
        }
        metric.on_outputs(outputs, CoLearningBatch(), tiny_modalities.model(), training)
    return metric.metrics(training)


@pytest.mark.parametrize("batches", [1, 2])
def test_it_is_the_squared_error_over_the_variance_of_what_counts(batches):
    # Of the first three, of mean 2: (1 + 0 + 4) / (4 + 0 + 4). The last has no audio; audio is constant, which has no value.
    mask = [[True, True], [True, True], [True, True], [True, False]]
    assert measured(mask, batches=batches) == {"imputation_error_image": pytest.approx(5 / 8)}


def test_without_a_mask_all_samples_count():
    # mean 26.5: 26.5² + 24.5² + 22.5² + 73.5² = 7211; error 1 + 0 + 4 + 100²
    assert measured(training=True) == {"imputation_error_image": pytest.approx(10005 / 7211)}


def test_a_model_without_imputation_is_named():
    with pytest.raises(ValueError, match="ImputationError reads .*imputed_latents .*or leave the callback out"):
        ImputationError().on_outputs({"modality_latents": {}}, CoLearningBatch(), tiny_modalities.model(), False)
