"""What alpha is fitted to: the outer loss, and the labelled samples that it is measured on."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from datasets import Dataset
from transformers import PrinterCallback

import tiny
from hf_colearn import CoLearningForMultimodalClassification, CoLearningTrainer, ContrastiveAlignment, LearnedAlpha
from hf_colearn.alpha.outer_loss import modality_loss
from hf_colearn.alpha.outer_split import split_outer
from hf_colearn.data.multimodal import MultimodalCollator
from hf_colearn.objectives.objective import CoLearningBatch
from scripts.learn_alpha import digits_in_halves


HALF = tiny.vit(image_size=(4, 8), patch_size=2)


def trainer(outer, model=None, **kwargs):
    torch.manual_seed(0)
    if model is None:
        model = CoLearningForMultimodalClassification.from_backbones(
            {"upper": HALF, "lower": HALF}, latent_dim=16, num_labels=10, fusion="concat", **kwargs
        )
    built = CoLearningTrainer(
        model,
        tiny.arguments("out", max_steps=2, optim="sgd", learning_rate=0.02),
        train_dataset=digits_in_halves(),
        data_collator=MultimodalCollator({"upper": None, "lower": None}),
        objective=ContrastiveAlignment(0.5),
        alpha=LearnedAlpha("contrastive", solver="identity", interval=2, outer_split=32, batch_size=16, outer=outer),
    )
    built.remove_callback(PrinterCallback)
    return built


def gradient(run):
    run.alpha.updates = 0
    return run.alpha.measure(torch.optim.SGD(run.model.parameters(), 0.1)).gradients["contrastive"].item()


# ---- the outer loss ----
def heads_by_hand(outputs, batch):
    """Of a batch in which every sample has a label and both modalities."""
    return sum(F.cross_entropy(logits_BC, batch.labels) for logits_BC in outputs["modality_logits"].values())


@pytest.mark.parametrize("modality_loss_weight", [0.0, 0.5])
def test_the_heads_losses_are_the_outer_loss(modality_loss_weight):
    # With a weight of 0 the heads are probes, whose gradient still reaches the encoders.
    run = trainer("modalities", modality_loss_weight=modality_loss_weight)
    found = gradient(run)
    run.alpha.outer = heads_by_hand
    assert found == pytest.approx(gradient(run), rel=1e-4)
    run.alpha.outer = "fused"
    fused = gradient(run)
    assert abs(found / fused - 1) > 0.05 and found != 0


def test_by_default_it_is_the_task_loss():
    run = trainer("fused")
    found = gradient(run)
    run.alpha.outer = lambda outputs, batch: outputs["loss"]
    assert gradient(run) == pytest.approx(found, rel=1e-5)


def test_the_gradient_of_probes_reaches_the_encoders():
    """A small step of the encoders alone changes the heads' losses by minus its length times the gradient's square."""
    run = trainer("modalities")
    outer = run._prepare_input(run.batches.collator(False)([run.outer_dataset[i] for i in range(16)]))
    batch = CoLearningBatch.taken_from(outer)
    encoders = [weight for name, weight in run.model.encoders.named_parameters() if "classifier" not in name]

    def loss():
        return modality_loss(run.model.eval()(**outer), batch, run.model)

    before = loss()
    slopes = torch.autograd.grad(before, encoders, allow_unused=True, materialize_grads=True)
    with torch.no_grad():
        for weight, slope in zip(encoders, slopes, strict=True):
            weight -= 1e-3 * slope
        expected = -1e-3 * sum(slope.square().sum() for slope in slopes)
        assert (loss() - before).item() == pytest.approx(expected.item(), rel=0.1) and expected < -1e-4


def test_each_head_counts_the_labelled_samples_that_have_its_modality():
    a_BC, b_BC = torch.randn(2, 4, 3, generator=torch.Generator().manual_seed(0))
    model = trainer("fused").model
    labels = torch.tensor([0, 2, -100, 1])
    mask = torch.tensor([[True, True], [True, False], [True, True], [False, True]])
    outputs = {"modality_logits": {"upper": a_BC, "lower": b_BC}, "modality_mask": mask}
    found = modality_loss(outputs, CoLearningBatch(labels), model)
    # upper: samples 0 and 1 (2 has no label, 3 no such modality); lower: 0 and 3
    a, b = a_BC.log_softmax(1), b_BC.log_softmax(1)
    assert found.item() == pytest.approx(-(a[0, 0] + a[1, 2]).item() / 2 - (b[0, 0] + b[3, 1]).item() / 2)
    none_has_lower = {**outputs, "modality_mask": torch.tensor([[True, False]] * 4)}
    found = modality_loss(none_has_lower, CoLearningBatch(labels), model)
    assert found.item() == pytest.approx(-(a[0, 0] + a[1, 2] + a[3, 1]).item() / 3)


def test_a_run_lowers_the_outer_loss_that_it_is_given():
    run = trainer("modalities")
    run.train()
    assert run.alpha.updates == 1 and run.alpha.weights() != {"contrastive": 0.5}
    assert "outer='modalities'" in repr(run.alpha)


def test_an_outer_loss_that_does_not_fit_is_refused_before_the_first_step():
    student = CoLearningTrainer(
        tiny.student(),
        tiny.arguments("out", max_steps=1),
        train_dataset=tiny.digits(128),
        bank=tiny.bank(128),
        alpha=LearnedAlpha("latent", outer="modalities", interval=1, outer_split=32),
    )
    with pytest.raises(ValueError, match="CoLearningForImageClassification has none .* outer='fused'"):
        student.train()
    for wrong, shown in (
        (lambda outputs, batch: outputs["logits"].square().mean(dim=0), r"of shape \(10,\)"),
        (lambda outputs, batch: 1.0, "a float"),
    ):
        run = trainer(wrong)
        with pytest.raises(ValueError, match=f"the outer loss is {shown}, where a scalar tensor"):
            run.train()
        assert run.state.global_step == 0


# ---- the outer split ----
def labelled_alone(labels, split, **kwargs):
    """Ids of both sides."""
    train = Dataset.from_dict({"labels": labels, "sample_id": list(range(len(labels)))})
    parts = split_outer(train, None, split, 0, "sample_id", **kwargs)
    return [set(part["sample_id"][:]) for part in parts]


@pytest.mark.parametrize("missing", [None, -100])
def test_samples_without_a_label_stay_in_the_training_set(missing):
    labels = [i % 2 if i < 20 else missing for i in range(100)]
    inner, outer = labelled_alone(labels, 0.5)
    assert len(outer) == 10 and max(outer) < 20 and inner == set(range(100)) - outer
    assert sum(i % 2 for i in outer) == 5  # class by class


@pytest.mark.parametrize(
    "labels",
    [
        [float(i) if i < 20 else float("nan") for i in range(100)],
        [[1.0, 0.0, -100.0] if i < 20 else [-100.0, float("nan"), -100.0] for i in range(100)],
    ],
    ids=["regression", "several labels"],
)
def test_labels_without_classes_are_cut_at_random(labels):
    inner, outer = labelled_alone(labels, 6)
    assert len(outer) == 6 and max(outer) < 20 and inner == set(range(100)) - outer


def test_an_outer_split_without_labels_is_refused():
    with pytest.raises(ValueError, match="none of the 4 training samples has a label in 'labels'"):
        labelled_alone([-100] * 4, 0.5)
    train = Dataset.from_dict({"labels": [0, 1], "sample_id": [0, 1]})
    for given, shown in (
        ({"labels": [None, -100]}, "2 samples without labels .none of them in 'labels'"),
        ({"input": [1.0]}, "1 samples without labels .the columns input, sample_id"),
    ):
        given = Dataset.from_dict({**given, "sample_id": [7, 8][: len(next(iter(given.values())))]})
        with pytest.raises(ValueError, match=shown):
            split_outer(train, None, given, 0, "sample_id", 2)


def test_a_given_outer_split_is_of_its_labelled_samples():
    train = Dataset.from_dict({"labels": [0, 1], "sample_id": [0, 1]})
    given = Dataset.from_dict({"labels": [0, -100, 1, None], "sample_id": [5, 6, 7, 8]})
    inner, outer = split_outer(train, None, given, 0, "sample_id", 2)
    assert inner is train and outer["sample_id"][:] == [5, 7]
    with pytest.raises(ValueError, match="outer_split has 2 samples for 3 classes"):
        split_outer(train, None, given, 0, "sample_id", 3)
    # several labels are no classes: any number of samples may do
    tags = Dataset.from_dict({"labels": np.eye(3)[:2].tolist()})
    assert len(split_outer(train, None, tags, 0, "sample_id", 3)[1]) == 2
