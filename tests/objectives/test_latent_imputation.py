"""The objective of imputed latents: its arithmetic, its gradient, what counts, and what it refuses."""

import pytest
import torch

import tiny
import tiny_modalities
from docstrings import run_example
from hf_colearn import CoLearningBatch, LatentImputation
from hf_colearn.objectives.objective import IMPUTABLE


LATENTS = {"image": [[1.0, 1.0], [5.0, 5.0], [4.0, 0.0]], "audio": [[0.0, 2.0], [0.0, 0.0], [1.0, 1.0]]}
IMPUTED = {"image": [[1.0, 3.0], [0.0, 0.0], [0.0, 0.0]], "audio": [[0.0, 2.0], [9.0, 9.0], [1.0, 0.0]]}
MASK = [[True, True], [True, False], [True, True]]


def outputs(mask=MASK):
    made = {
        "modality_latents": {name: torch.tensor(values, requires_grad=True) for name, values in LATENTS.items()},
        "imputed_latents": {name: torch.tensor(values, requires_grad=True) for name, values in IMPUTED.items()},
    }
    return made | ({} if mask is None else {"modality_mask": torch.tensor(mask)})


def loss(mask=MASK, **batch):
    made = outputs(mask)
    return LatentImputation()(made, CoLearningBatch(**batch))["imputation"], made


def test_the_example_of_its_documentation_runs():
    run_example(LatentImputation)


def test_it_is_the_mean_over_the_latents_that_have_another_of_their_sample():
    # image: (0 + 4) / 2 = 2 and (16 + 0) / 2 = 8; audio: 0 and (0 + 1) / 2 = 0.5; sample 1 has one modality.
    assert loss()[0].item() == pytest.approx((2 + 8 + 0 + 0.5) / 4)
    # All there: image (25 + 25) / 2 = 25, audio 81 more of sample 1.
    assert loss(mask=None)[0].item() == pytest.approx((10.5 + 25 + 81) / 6)


def test_no_gradient_flows_into_the_target_or_from_what_does_not_count():
    value, made = loss()
    value.backward()
    assert all(z.grad is None for z in made["modality_latents"].values())
    gradient = made["imputed_latents"]["image"].grad
    # 2 (imputed - true) / D / 4 latents that count
    assert gradient.tolist() == [[0.0, 0.5], [0.0, 0.0], [-1.0, 0.0]]


def test_where_nothing_counts_it_is_0_with_a_gradient_of_0():
    value, made = loss([[True, False], [False, True], [True, False]])
    value.backward()
    assert value.item() == 0 and not made["imputed_latents"]["audio"].grad.any()


def test_the_mean_is_over_the_whole_step_where_its_count_is_known():
    # 4 latents here of 8 a micro-batch on average: half of the micro-batch's mean
    value, _ = loss(step_counts={IMPUTABLE: torch.tensor(8.0)})
    assert value.item() == pytest.approx(10.5 / 8)


def test_a_model_that_imputes_nothing_is_refused():
    for net, kind in (
        (tiny_modalities.model(), "CoLearningForMultimodalClassification"),
        (tiny.student(), "CoLearningFor"),
    ):
        with pytest.raises(ValueError, match=rf"{kind}\w* has none: build it with .*imputation='centroids'"):
            LatentImputation().check(net, {})
    with pytest.raises(ValueError, match="no `imputed_latents`: build it with"):
        LatentImputation()({"modality_latents": {}}, CoLearningBatch())
    LatentImputation().check(tiny_modalities.model(imputation="centroids"), {})
    assert repr(LatentImputation()) == "LatentImputation()"
