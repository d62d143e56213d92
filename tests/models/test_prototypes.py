"""The head of class vectors: its arithmetic, learned vectors and scale, further classes, and what a checkpoint keeps.

Its programs, cards and pipelines are in `tests/hub`.
"""

import pytest
import torch
from transformers import AutoModelForImageClassification

import tiny
from docstrings import run_example
from hf_colearn import CoLearningForFeatureClassification, FeatureBackboneConfig
from hf_colearn.models.prototypes import PrototypeHead, as_class_vectors


VECTORS = {"cat": torch.tensor([3.0, 4.0]), "car": torch.tensor([0.0, -2.0])}
LATENTS = torch.tensor([[6.0, 8.0], [5.0, 0.0]])
# Directions: cat (.6, .8), car (0, -1); the latents (.6, .8) and (1, 0). Cosines: 1 and -.8; .6 and 0.
COSINES = torch.tensor([[1.0, -0.8], [0.6, 0.0]])


def head(learned=False, scale=10.0, learned_scale=False):
    made = PrototypeHead(2, 2, learned, scale, learned_scale)
    made.set_vectors(torch.stack([*VECTORS.values()]))
    return made


def student(vectors=VECTORS, **options):
    torch.manual_seed(0)
    config = FeatureBackboneConfig(feature_dim=3)
    made = CoLearningForFeatureClassification.from_backbone(
        config, head="prototypes", class_vectors=vectors, latent_norm="none", **options
    )
    return made.eval()


FEATURES = torch.tensor([[1.0, 2.0, 3.0], [-1.0, 0.5, 0.0]])


@pytest.mark.parametrize("options", [{}, {"learned": True}, {"learned_scale": True}])
@pytest.mark.parametrize("scale", [10.0, 2.5])
def test_logits_are_scaled_cosines_by_hand(options, scale):
    torch.testing.assert_close(head(scale=scale, **options)(LATENTS), scale * COSINES)


def test_neither_length_matters_and_a_latent_of_0_gives_every_class_the_same_logit():
    given = head()
    torch.testing.assert_close(given(100 * LATENTS), given(LATENTS))
    given.set_vectors(7 * given.class_vectors)
    torch.testing.assert_close(given(LATENTS), 10 * COSINES)
    assert given(torch.zeros(1, 2)).tolist() == [[0, 0]]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_comes_back_and_cosines_are_of_float32(dtype):
    # The latents' squares, 300^2, are beyond float16; bfloat16 keeps 8 significant bits.
    found = head().to(dtype)(torch.tensor([[180.0, 240.0], [300.0, 0.0]], dtype=dtype))
    assert found.dtype == dtype
    torch.testing.assert_close(found.float(), 10 * COSINES, atol=0.04, rtol=0)


def test_fixed_vectors_are_no_parameters_and_learned_ones_get_a_gradient():
    fixed, learned = head(), head(learned=True, learned_scale=True)
    assert not list(fixed.parameters()) and set(dict(learned.named_parameters())) == {"class_vectors", "log_scale"}
    learned(LATENTS)[0, 1].backward()
    # Of logit s cos(z, car) = -8: d / d log s is the logit itself, and the gradient is orthogonal to the vector.
    assert learned.log_scale.grad.item() == pytest.approx(-8)
    gradient = learned.class_vectors.grad
    assert gradient[0].tolist() == [0, 0] and (gradient[1] @ VECTORS["car"]).item() == pytest.approx(0, abs=1e-6)
    # |d cos / d v| = sqrt(1 - cos^2) / |v| = .6 / 2, times 10.
    assert gradient[1].norm().item() == pytest.approx(3)


def test_names_and_their_order_are_those_of_the_vectors_or_of_the_labels():
    assert student().config.id2label == {0: "cat", 1: "car"} and student().config.latent_dim == 2
    turned = student(id2label={0: "car", 1: "cat"})
    assert torch.equal(turned.classifier.class_vectors, torch.stack([VECTORS["car"], VECTORS["cat"]]))
    assert torch.equal(as_class_vectors(VECTORS, 2, ["car", "cat"]), turned.classifier.class_vectors)


@pytest.mark.parametrize("options", [{}, {"learned_class_vectors": True, "learned_logit_scale": True}])
def test_a_student_gains_classes_without_training_and_stays_as_it_was(options):
    run_example(CoLearningForFeatureClassification.with_classes)
    given = student(**options)
    grown = given.with_classes({"lynx": torch.tensor([3.0, 4.0]), "tram": torch.tensor([1.0, 0.0])})
    alone = given.with_classes({"lynx": torch.tensor([3.0, 4.0]), "tram": torch.tensor([1.0, 0.0])}, keep=False)
    with torch.no_grad():
        before, after, new = (each(FEATURES).logits for each in (given, grown, alone))
    assert grown.config.id2label == {0: "cat", 1: "car", 2: "lynx", 3: "tram"} and grown.config.num_labels == 4
    assert torch.equal(after[:, :2], before) and torch.equal(after[:, 2:], new)
    assert torch.equal(after[:, 2], after[:, 0])  # of the same vector
    assert given.config.num_labels == 2 and given.classifier.class_vectors.shape == (2, 2)
    labels = torch.tensor([3, 0])
    expected = torch.nn.functional.cross_entropy(after, labels)
    assert grown(FEATURES, labels=labels).loss.item() == pytest.approx(expected.item())


@pytest.mark.parametrize("options", [{}, {"learned_class_vectors": True, "learned_logit_scale": True}])
def test_a_student_with_more_classes_comes_back_from_its_folder(options, tmp_path):
    given = student(logit_scale=4.0, **options).with_classes({"lynx": torch.tensor([1.0, 1.0])})
    given.save_pretrained(tmp_path)
    read = CoLearningForFeatureClassification.from_pretrained(tmp_path)
    assert read.config.id2label == {0: "cat", 1: "car", 2: "lynx"}
    assert isinstance(read.classifier.class_vectors, torch.nn.Parameter) is bool(options)
    with torch.no_grad():
        assert torch.equal(read(FEATURES).logits, given(FEATURES).logits)


def test_a_student_of_pictures_comes_back_by_the_auto_class(tmp_path):
    given = tiny.student(head="prototypes", class_vectors=torch.eye(10, 24), dtype="bfloat16").eval()
    given.save_pretrained(tmp_path)
    read = AutoModelForImageClassification.from_pretrained(tmp_path, dtype="bfloat16").eval()
    pixels = torch.randn(2, 1, 8, 8, dtype=torch.bfloat16)
    with torch.no_grad():
        logits = read(pixel_values=pixels).logits
        assert torch.equal(logits, given(pixel_values=pixels).logits) and logits.dtype == torch.bfloat16
