"""The arms that every multimodal recipe compares."""

import pytest

from hf_colearn import CoLearningArguments
from hf_colearn.experiments.multimodal import MultimodalOptions, multimodal_arms


TRAINING = {
    name: getattr(CoLearningArguments("out", report_to="none"), name)
    for name in CoLearningArguments.__dataclass_fields__
}


def test_more_constant_alphas_are_an_arm_each_and_the_references_are_each_modality_and_their_late_ensemble():
    arms = multimodal_arms(MultimodalOptions(alphas=[0.1, 0.75]), TRAINING | {"alpha": 0.3}, ["image", "audio"])
    by_name = {arm.name: arm for arm in arms}
    weights = {name: by_name[name].alpha(seed=0).weights() for name in ("constant", "alpha 0.1", "alpha 0.75")}
    assert {name: of_arm["contrastive"] for name, of_arm in weights.items()} == {
        "constant": 0.3, "alpha 0.1": 0.1, "alpha 0.75": 0.75,
    }  # fmt: skip
    references = [arm.name for arm in arms if arm.kind == "reference"]
    assert references == ["image alone", "audio alone", "late ensemble"]
    assert [by_name[name].alpha(seed=0).outer for name in ("learned", "learned by modality")] == [
        "fused",
        "modalities",
    ]


@pytest.mark.parametrize("field,value", [("alpha_schedule", "heuristic"), ("alpha_outer", "modalities")])
def test_what_the_arms_differ_in_is_refused_as_an_argument(field, value):
    with pytest.raises(ValueError, match=f"{field}='{value}' is what the .*arms differ in: .*--arms ce"):
        multimodal_arms(MultimodalOptions(), TRAINING | {field: value}, ["image", "audio"])


def test_an_alpha_that_is_no_share_is_refused_before_anything_is_loaded():
    with pytest.raises(ValueError, match="alpha=1.5 for the term 'alphas' is outside"):
        MultimodalOptions(alphas=[0.5, 1.5])
