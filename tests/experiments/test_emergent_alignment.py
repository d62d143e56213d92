"""Emergent alignment on vectors of one source: who meets whom in training, and what is found by whom."""

import numpy as np
import pytest
import torch
from datasets import ClassLabel, Dataset

import tiny
from hf_colearn.experiments.emergent_alignment import EmergentAlignment, alignment_arms, triples


ARMS = {arm.name: arm for arm in alignment_arms()}
ROLES = {"anchor": "image", "query": "text", "found": "speech"}
SAMPLES, HELD_OUT, CLASSES = 160, 40, 4


def source():
    """Views of one source, whose classes are clusters, through matrices of their own; and the classes."""
    drawn = np.random.default_rng(0)
    labels = np.arange(SAMPLES + HELD_OUT) % CLASSES
    common = drawn.normal(size=(len(labels), 4)) + 2 * drawn.normal(size=(CLASSES, 4))[labels]
    views = {name: common @ drawn.normal(size=(4, 8)) for name in ("image", "text", "speech")}
    return {name: torch.tensor(x, dtype=torch.float32) for name, x in views.items()}, labels


def aligned():
    features, labels = source()
    known = {name: x[:SAMPLES] for name, x in features.items()}
    widths = {"latent_dim": 8, "hidden_dim": 16, "scales": dict.fromkeys(features, 1.0)}
    return EmergentAlignment(known, labels[:SAMPLES], **ROLES, **widths)


def recall_at_5(arm, folder):
    features, _ = source()
    held_out = Dataset.from_dict({f"{name}_features": x[SAMPLES:].numpy() for name, x in features.items()})
    fields = {
        "max_steps": 40,
        "learning_rate": 8e-3,
        "per_device_train_batch_size": 64,
        "per_device_eval_batch_size": 64,
    }
    torch.manual_seed(0)
    trainer = aligned().make_trainer(ARMS[arm], tiny.arguments(folder, logging_steps=40, **fields))
    trainer.train()
    return trainer.evaluate(held_out.with_format("torch"))["eval_text_to_speech_recall_at_5"]


def test_what_never_met_is_found_through_what_both_met_and_no_null_finds_it(tmp_path):
    found = {arm: recall_at_5(arm, tmp_path) for arm in ARMS}
    # By chance 5 of 40 are .125; who knows the class alone has 5 of its 10.
    assert found["query alone"] < 0.25 and found["permuted pairs"] < 0.25
    assert 0.25 < found["pairs by class"] < 0.65
    assert found["emergent alignment"] > 0.9 and found["direct pairs"] > 0.9


@pytest.mark.parametrize("arm", [arm for arm in ARMS if arm != "direct pairs"])
def test_no_sample_has_both_modalities_that_are_compared(arm):
    pairs = aligned().training_pairs(ARMS[arm], seed=1)
    mask = dict(zip(("image", "text", "speech"), pairs["modality_mask"][:].bool().T, strict=True))
    assert not (mask["text"] & mask["speech"]).any() and mask["image"].all()
    assert int(mask["text"].sum()) == 80 and int(mask["speech"].sum()) == (0 if arm == "query alone" else 80)
    for name, here in mask.items():  # nothing can be read of what is absent
        assert torch.equal(pairs[f"{name}_features"][:].isnan().any(dim=1), ~here)
    texts, speech = (pairs["image_features"][:][mask[name]] for name in ("text", "speech"))
    assert not torch.cdist(texts, speech).eq(0).any()  # halves of other samples


@pytest.mark.parametrize(
    "arm, own, of_class", [("emergent alignment", 1, 1), ("permuted pairs", 0, None), ("pairs by class", 0, 1)]
)
def test_a_pair_has_the_own_speech_or_that_of_another_sample_perhaps_of_its_class(arm, own, of_class):
    features, labels = source()
    pairs = aligned().training_pairs(ARMS[arm], seed=1)
    rows = pairs["modality_mask"][:][:, 2].bool()
    image, speech = (
        torch.cdist(pairs[f"{name}_features"][:][rows], features[name][:SAMPLES]).argmin(dim=1).numpy()
        for name in ("image", "speech")
    )
    assert np.mean(image == speech) == own
    assert sorted(image) == sorted(speech)
    assert of_class is None or np.mean(labels[image] == labels[speech]) == of_class


def test_every_arm_has_as_many_settings_and_its_pairs_are_drawn_by_the_seed():
    assert {len(arm.grid) for arm in ARMS.values()} == {3}
    one, again, other = (aligned().training_pairs(ARMS["permuted pairs"], seed) for seed in (0, 0, 1))
    assert torch.equal(one["image_features"][:], again["image_features"][:])
    assert not torch.equal(one["image_features"][:], other["image_features"][:])


def test_a_sentence_that_is_there_twice_is_asked_once():
    features = {"text": torch.eye(3), "speech": torch.eye(3)}
    split = Dataset.from_dict({"text": ["b", "a", "b"], "label": [0, 1, 1]})
    tested = triples(features, split.cast_column("label", ClassLabel(names=["x", "y"])))
    assert (tested["text"][:], tested["label"][:].tolist()) == (["a", "b"], [1, 0])
    assert tested["speech_features"][:].argmax(dim=1).tolist() == [1, 0]
