"""Objectives: named terms from outputs and targets."""

import logging
import math
from pathlib import Path

import pytest
import torch
from transformers.modeling_outputs import ModelOutput

import families
import processes
import tiny
from hf_colearn import CoLearningTrainer, Combined, Consistency, ConstantAlpha, LatentMatching, Paired, SoftLabels
from hf_colearn.objectives.contrastive_alignment import ContrastiveAlignment
from hf_colearn.objectives.distances import jensen_shannon, latent_distance
from hf_colearn.objectives.distribution_alignment import DistributionAlignment
from hf_colearn.objectives.info_nce import info_nce
from hf_colearn.objectives.misaligned_pairs import MisalignedPairs
from hf_colearn.objectives.objective import CoLearningBatch
from hf_colearn.teachers.pairing import PairedFraction
from refusals import Refusals, assert_refused
from scripts.match_two import SAMPLES, WITH_TARGET, gradients, student


def batch_of(targets):
    return CoLearningBatch(targets={"teacher": targets})


def test_latent_matching_gives_the_term_that_it_names():
    objective = LatentMatching(reduction="sum")
    terms = objective({"latents": torch.zeros(2, 3)}, batch_of(torch.ones(2, 3)))
    assert tuple(terms) == objective.terms == ("latent",)
    assert terms["latent"].item() == 3  # 1 + 1 + 1, the same for both samples


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        # z = (1, 2), t = (0, 0): squares 1 and 4; Huber 0.5 and 1.5
        ({}, 2.5),
        ({"reduction": "sum"}, 5.0),
        ({"loss": "smooth_l1"}, 1.0),
        ({"loss": "smooth_l1", "reduction": "sum"}, 2.0),
    ],
)
def test_latent_matching_hands_its_options_to_the_loss(options, expected):
    outputs = ModelOutput(latents=torch.tensor([[1.0, 2.0]]))
    assert LatentMatching(**options)(outputs, batch_of(torch.zeros(1, 2)))["latent"].item() == expected


def test_latent_matching_reads_a_students_output():
    student = families.student("vit")
    with torch.no_grad():
        output = student(**families.inputs("vit"))
        term = LatentMatching(loss="cosine")(output, batch_of(torch.ones(2, 24)))["latent"]
    torch.testing.assert_close(term, latent_distance(output.latents, torch.ones(2, 24), "cosine"))


@pytest.mark.parametrize(("name", "value"), [("loss", "l2"), ("reduction", "none"), ("reduction", "batchmean")])
def test_an_unknown_option_is_refused_by_its_value(name, value):
    with pytest.raises(ValueError, match=f"{name}='{value}' is unknown: choose one of"):
        LatentMatching(**{name: value})


def test_its_representation_tells_its_options():
    assert repr(LatentMatching("cosine", "sum")) == "LatentMatching(loss='cosine', reduction='sum')"


# ---- samples without a target ----
@pytest.fixture(scope="module")
def of_two_processes(tmp_path_factory):
    """What each of two processes found."""
    folder = tmp_path_factory.mktemp("two")
    processes.forked(Path(__file__).parents[1] / "scripts" / "match_two.py", folder=folder, processes=2)
    return [torch.load(folder / f"result_{rank}.pt") for rank in range(2)]


@pytest.mark.parametrize("loss", ["mse", "cosine"])
@pytest.mark.parametrize("case", WITH_TARGET)
def test_two_processes_match_the_samples_that_have_a_target_as_one_does(of_two_processes, case, loss):
    alone = gradients(case, loss, student(), slice(0, SAMPLES))
    found = [result[case, loss] for result in of_two_processes]
    torch.testing.assert_close((found[0]["loss"] + found[1]["loss"]) / 2, alone["loss"])  # what is logged
    for result in found:
        torch.testing.assert_close(result["gradients"], alone["gradients"])
    assert any(grad.any() for grad in alone["gradients"]) == (case != "none")
    if case == "on one":
        assert found[0]["loss"] == 0 and found[1]["loss"] > alone["loss"]


def train(digits, pairing, **options):
    trainer = CoLearningTrainer(
        tiny.student(),
        tiny.arguments(max_steps=3, alpha=0.5, **options),
        train_dataset=digits,
        bank=tiny.bank(rows=256) if pairing is not None else None,
        pairing=pairing,
    )
    trainer.train()
    losses = [entry for entry in trainer.state.log_history if "loss_latent" in entry]
    return losses, [p.detach().clone() for p in trainer.model.parameters()]


def test_a_trainer_takes_samples_without_a_target_as_they_come(digits):
    whole, all_weights = train(digits, Paired())
    budget_of_all, same_weights = train(digits, PairedFraction(Paired(), 1.0))
    assert [entry["loss_latent"] for entry in whole] == [entry["loss_latent"] for entry in budget_of_all]
    assert all(map(torch.equal, all_weights, same_weights))

    none, _ = train(digits, PairedFraction(Paired(), 0.0))
    half, weights = train(digits, PairedFraction(Paired(), 0.5))
    assert [entry["loss_latent"] for entry in none] == [0, 0, 0]
    assert all(0 < entry["loss_latent"] < 10 for entry in half)
    assert all(p.isfinite().all() for p in weights)


class Spread:
    """An objective of a user: two terms, no base class."""

    terms = ("near", "small")

    def __call__(self, outputs, batch):
        return {"near": latent_distance(outputs["latents"], batch.target), "small": outputs["latents"].pow(2).mean()}


def test_any_object_with_terms_can_be_trained(digits):
    trainer = CoLearningTrainer(
        tiny.student(),
        tiny.arguments(max_steps=2),
        train_dataset=digits,
        bank=tiny.bank(),
        pairing=tiny.random_prompt(),
        objective=Spread(),
        alpha=ConstantAlpha({"near": 0.5, "small": 0.25}),
    )
    trainer.train()
    steps = [entry for entry in trainer.state.log_history if "loss_near" in entry]
    assert len(steps) == 2
    for entry in steps:
        mixed = 0.25 * entry["loss_task"] + 0.5 * entry["loss_near"] + 0.25 * entry["loss_small"]
        assert entry["loss"] == pytest.approx(mixed, abs=1e-4)
        assert (entry["alpha_near"], entry["alpha_small"]) == (0.5, 0.25)


NAMES = ("image", "text", "speech")
PRESENCE = torch.tensor([[1, 1, 1], [1, 0, 1], [0, 1, 1], [1, 1, 0], [1, 1, 1], [1, 1, 1]], dtype=torch.bool)
LABELS = torch.tensor([0, 1, 0, 2, 1, 0])
ALIGNMENTS = [ContrastiveAlignment(), DistributionAlignment()]


def outputs(names=NAMES, **kwargs):
    """Of 6 samples: latents of width 5, logits of 4 classes."""
    generator = torch.Generator().manual_seed(0)
    return ModelOutput(
        modality_latents={name: torch.randn(6, 5, generator=generator) for name in names},
        modality_logits={name: torch.randn(6, 4, generator=generator) for name in names},
        **kwargs,
    )


def key_of(alignment):
    return {"contrastive": "modality_latents", "distribution": "modality_logits"}[alignment.terms[0]]


@pytest.mark.parametrize("presence", [None, PRESENCE])
def test_contrastive_alignment_is_the_sum_over_the_pairs_of_modalities(presence):
    given = outputs(modality_mask=presence, labels=LABELS)
    z = given["modality_latents"]
    expected = 0
    for one, other in (("image", "text"), ("image", "speech"), ("text", "speech")):
        i, j = NAMES.index(one), NAMES.index(other)
        both = torch.ones(6, dtype=torch.bool) if presence is None else presence[:, i] & presence[:, j]
        expected = expected + info_nce(z[one][both], z[other][both], 1 / 0.2, labels_B=LABELS[both])

    terms = ContrastiveAlignment(0.2, mask_same_class=True)(given, CoLearningBatch(LABELS))

    assert tuple(terms) == ContrastiveAlignment.terms == ("contrastive",)
    torch.testing.assert_close(terms["contrastive"], expected)
    torch.testing.assert_close(
        ContrastiveAlignment(0.2, mask_same_class=True, direct=True)(given, CoLearningBatch(LABELS))["contrastive"],
        expected,
    )
    assert ContrastiveAlignment(0.2)(given, CoLearningBatch())["contrastive"] > expected  # more negatives


@pytest.mark.parametrize("presence", [None, PRESENCE])
def test_distribution_alignment_is_the_sum_over_the_pairs_of_heads(presence):
    given = outputs(modality_mask=presence)
    logits = given["modality_logits"]
    expected = 0
    for one, other in (("image", "text"), ("image", "speech"), ("text", "speech")):
        i, j = NAMES.index(one), NAMES.index(other)
        both = torch.ones(6, dtype=torch.bool) if presence is None else presence[:, i] & presence[:, j]
        expected = expected + jensen_shannon(logits[one][both], logits[other][both])

    terms = DistributionAlignment()(given, CoLearningBatch())

    assert tuple(terms) == DistributionAlignment.terms == ("distribution",)
    torch.testing.assert_close(terms["distribution"], expected)


def test_a_learned_temperature_gets_a_gradient():
    log_scale = torch.tensor(math.log(1 / 0.2), requires_grad=True)
    loss = ContrastiveAlignment("learned")(outputs(logit_scale=log_scale.exp()), CoLearningBatch())["contrastive"]
    loss.backward()
    torch.testing.assert_close(loss, ContrastiveAlignment(0.2)(outputs(), CoLearningBatch())["contrastive"])
    # By a central difference in the logarithm of the scale.
    above, below = (
        ContrastiveAlignment(0.2 * math.exp(-step))(outputs(), CoLearningBatch())["contrastive"]
        for step in (0.01, -0.01)
    )
    assert log_scale.grad.item() == pytest.approx((above - below).item() / 0.02, rel=1e-2)
    assert abs(log_scale.grad.item()) > 0.1


@pytest.mark.parametrize("temperature", [0, 0.0, -0.07, math.inf, math.nan, "fixed"])
def test_a_temperature_that_cannot_divide_is_refused_by_its_value(temperature):
    with pytest.raises(ValueError, match=f"temperature={temperature!r} cannot divide"):
        ContrastiveAlignment(temperature)


def test_a_learned_temperature_that_the_model_lacks_is_refused_with_the_way_out():
    with pytest.raises(ValueError, match="build the model with `learned_temperature=True`"):
        ContrastiveAlignment("learned")(outputs(), CoLearningBatch())


def test_masking_a_class_without_labels_is_refused():
    with pytest.raises(ValueError, match="mask_same_class=True needs the `labels`"):
        ContrastiveAlignment(mask_same_class=True)(outputs(), CoLearningBatch())


@pytest.mark.parametrize("wrap", [lambda objective: objective, MisalignedPairs])
@pytest.mark.parametrize("alignment", ALIGNMENTS, ids=repr)
def test_modalities_that_do_not_fit_are_refused_by_name_and_size(alignment, wrap):
    key, objective = key_of(alignment), wrap(alignment)
    with pytest.raises(ValueError, match=f"output `{key}` holds only 'image'"):
        objective(outputs(names=("image",)), CoLearningBatch())
    with pytest.raises(ValueError, match=f"output `{key}` holds nothing"):
        objective({"latents": torch.ones(2, 3)}, CoLearningBatch())
    with pytest.raises(ValueError, match="6 samples of 'image' but 5 of 'text'"):
        objective({key: {"image": torch.ones(6, 3), "text": torch.ones(5, 3)}}, CoLearningBatch())
    with pytest.raises(ValueError, match="of 'image' are 3 wide and those of 'text' 4"):
        objective({key: {"image": torch.ones(6, 3), "text": torch.ones(6, 4)}}, CoLearningBatch())
    with pytest.raises(ValueError, match=r"`modality_mask` has the shape \(6, 2\).*image, text, speech"):
        objective(outputs(modality_mask=PRESENCE[:, :2]), CoLearningBatch())


def test_a_batch_of_one_pair_is_told_once(caplog):
    one = {"modality_latents": {"image": torch.ones(1, 3), "audio": torch.ones(1, 3)}}
    logging.Logger.warning_once.cache_clear()  # another test may have had the warning
    losses = [ContrastiveAlignment()(one, CoLearningBatch())["contrastive"].item() for _ in range(2)]
    assert losses == [0, 0]
    assert sum("has no negatives" in record.message for record in caplog.records) == 1


def test_a_modality_that_no_sample_has_costs_nothing():
    presence = PRESENCE.clone()
    presence[:, 2] = False
    given = outputs(modality_mask=presence)
    both = presence[:, 0] & presence[:, 1]
    z, logits = given["modality_latents"], given["modality_logits"]
    torch.testing.assert_close(
        ContrastiveAlignment(0.5)(given, CoLearningBatch())["contrastive"], info_nce(z["image"], z["text"], 2.0, both)
    )
    torch.testing.assert_close(
        DistributionAlignment()(given, CoLearningBatch())["distribution"],
        jensen_shannon(logits["image"], logits["text"], both),
    )


@pytest.mark.parametrize("alignment", ALIGNMENTS, ids=repr)
def test_misaligned_pairs_are_pairs_of_other_samples(alignment):
    given = outputs(modality_mask=PRESENCE)
    # The rows 0 .. 5 of text become 5, 0, 1, ..., those of speech 4, 5, 0, ...
    orders = {"image": [0, 1, 2, 3, 4, 5], "text": [5, 0, 1, 2, 3, 4], "speech": [4, 5, 0, 1, 2, 3]}
    by_hand = {
        key: {name: given[key][name][orders[name]] for name in NAMES}
        for key in ("modality_latents", "modality_logits")
    }
    by_hand["modality_mask"] = torch.stack([PRESENCE[orders[name], i] for i, name in enumerate(NAMES)], dim=1)

    objective = MisalignedPairs(alignment)
    terms = objective(given, CoLearningBatch())

    assert tuple(terms) == objective.terms == alignment.terms
    (term,) = terms.values()
    torch.testing.assert_close(term, alignment(by_hand, CoLearningBatch())[alignment.terms[0]])
    assert abs(term - alignment(given, CoLearningBatch())[alignment.terms[0]]) > 1e-3
    assert given["modality_mask"].equal(PRESENCE)  # left as they were
    assert given["modality_latents"]["text"].equal(outputs()["modality_latents"]["text"])


def test_a_batch_too_small_to_misalign_counts_for_nothing_and_says_so(caplog):
    two = {"modality_latents": {name: torch.ones(2, 3, requires_grad=True) for name in NAMES}}
    term = MisalignedPairs(ContrastiveAlignment())(two, CoLearningBatch())["contrastive"]
    term.backward()
    assert term.item() == 0
    assert all(z.grad.count_nonzero() == 0 for z in two["modality_latents"].values())
    assert "batch of 2 samples cannot be rotated so that no two of 3 modalities meet" in caplog.text


def test_representations_of_alignments_tell_their_options():
    assert (
        repr(ContrastiveAlignment()) == "ContrastiveAlignment(temperature=0.07, mask_same_class=False, direct=False)"
    )
    wrapped = MisalignedPairs(ContrastiveAlignment("learned", mask_same_class=True, direct=True))
    assert repr(wrapped) == (
        "MisalignedPairs(ContrastiveAlignment(temperature='learned', mask_same_class=True, direct=True))"
    )
    assert repr(DistributionAlignment()) == "DistributionAlignment()"


def test_soft_labels_are_cross_entropy_to_the_teachers_probabilities_by_hand():
    # softmax(ln 3, 0) = (3/4, 1/4): 0.5 ln(4/3) + 0.5 ln 4 of the first sample; the second has no target, whatever its logits
    logits = torch.tensor([[math.log(3), 0.0], [9.0, 0.0]], requires_grad=True)
    targets = torch.tensor([[0.5, 0.5], [math.nan, math.nan]])
    objective = SoftLabels("classes")
    found = objective({"logits": logits}, CoLearningBatch(targets={"classes": targets}))
    assert found["soft_labels"].item() == pytest.approx(0.5 * math.log(4 / 3) + 0.5 * math.log(4))
    (slope,) = torch.autograd.grad(found["soft_labels"], logits)
    assert slope[0].tolist() == pytest.approx([0.25, -0.25]) and not slope[1].any()  # p - q
    none = objective({"logits": logits[:1]}, CoLearningBatch(targets={"classes": targets[1:]}))
    assert none["soft_labels"].item() == 0
    with pytest.raises(ValueError, match="a probability for each of the 2 classes"):
        objective({"logits": logits}, CoLearningBatch(targets={"classes": torch.ones(2, 3)}))


# ---- bad input ----
REFUSALS = Refusals()
case = REFUSALS.case


@pytest.mark.parametrize(Refusals.NAMES, REFUSALS.cases)
def test_bad_input_is_refused_with_the_way_out(situation, error, texts, tmp_path):
    assert_refused(situation, error, texts, tmp_path)


@case(TypeError, "Combined is given a str", "pass an object with `terms`")
def a_name_among_objectives(folder):
    yield
    Combined(LatentMatching(), "contrastive")


@case(ValueError, "Combined is given no objective", "pass at least one")
def no_objective_to_combine(folder):
    yield
    Combined()


@case(TypeError, "MisalignedPairs is given the class ContrastiveAlignment", "pass an object")
def the_class_of_an_objective(folder):
    yield
    MisalignedPairs(ContrastiveAlignment)


@case(TypeError, "teachers='text' is no list of names", "('text',)")
def a_single_teacher_by_name(folder):
    yield
    LatentMatching(teachers="text")  # would be four teachers: t, e, x and t


@case(ValueError, "temperature=None cannot divide cosines", "'learned'")
def no_temperature(folder):
    yield
    ContrastiveAlignment(temperature=None)


@case(ValueError, "threshold='0.95' is no probability", "such as 0.95")
def a_threshold_that_is_a_text(folder):
    yield
    Consistency("0.95")


@case(TypeError, "teacher=None is no name of a teacher", "`teachers=`")
def soft_labels_of_no_teacher(folder):
    yield
    SoftLabels(None)
