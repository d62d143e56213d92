"""Students of precomputed features."""

import pytest
import torch

from hf_colearn import CoLearningForFeatureClassification, FeatureBackboneConfig


def student(**options):
    config = FeatureBackboneConfig(feature_dim=2, **options)
    return CoLearningForFeatureClassification.from_backbone(config, latent_dim=3, num_labels=2).eval()


def test_features_are_standardised_by_statistics_that_are_saved_with_the_weights(tmp_path):
    given = student(standardized=True)
    given.backbone.set_statistics(torch.tensor([[1.0, 5.0], [3.0, 5.0]]), scale=0.5)  # means 2, 5; deviations 1, 0
    features = given.backbone(torch.tensor([[4.0, 6.0]])).last_hidden_state
    assert features.flatten().tolist() == [0.5 * 2, 0.5 * 1]
    given.save_pretrained(tmp_path)
    read = CoLearningForFeatureClassification.from_pretrained(tmp_path)
    x_BF = torch.tensor([[4.0, 6.0]])
    assert torch.equal(read(x_BF).logits, given(x_BF).logits)


@pytest.mark.parametrize(("standardized", "shape"), [(False, (4, 2)), (True, (4, 3)), (True, (1, 2))])
def test_statistics_that_the_backbone_cannot_have_are_refused(standardized, shape):
    with pytest.raises(ValueError, match="give no statistics"):
        student(standardized=standardized).backbone.set_statistics(torch.zeros(shape))
