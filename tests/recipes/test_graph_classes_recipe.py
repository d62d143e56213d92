"""Emoji by what is known of their classes: the recipe at small size, and where its null controls fall."""

from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import tiny
from hf_colearn import (
    CoLearningForFeatureClassification,
    FeatureBackboneConfig,
    classification_metrics,
    few_shot_prototypes,
    permuted_classes,
    wordnet_vectors,
)
from hf_colearn.experiments.graph_classes import (
    PERMUTED,
    EncodedEmoji,
    LaterClassesTrainer,
    class_arms,
    few_shot_arms,
    shot_vectors,
    unseen_arms,
)
from hf_colearn.teachers.few_shot_prototypes import text_to_latents
from tiny_recipes import main_of, write_vision_teacher


QUICK = ["--small", "--report", "false", "--images_per_class", "6"]


@pytest.fixture(scope="module")
def quick(tmp_path_factory):
    return [*QUICK, "--image_model", write_vision_teacher(tmp_path_factory.mktemp("encoder"))]


@pytest.mark.parametrize("of_task", [class_arms, unseen_arms])
def test_every_arm_has_its_null_control_and_as_many_settings(of_task):
    arms = {arm.name: arm for arm in of_task()}
    for name, arm in arms.items():
        if arm.kind == "colearned":
            assert arms[name + PERMUTED].kind == "null" and arms[name + PERMUTED].grid == arm.grid
    assert {len(arm.grid) for arm in (*of_task(), *few_shot_arms())} == {3}
    assert len({len(set(arm.setting)) for arm in few_shot_arms()}) == 1


def test_heads_of_every_kind_are_compared_with_their_null_controls(quick, tmp_path):
    arms = [
        "ordinary head",
        "one-hot vectors",
        "WordNet eigenvectors",
        "concepts as targets",
        "WordNet paths, permuted",
    ]
    report = main_of("graph_classes", tmp_path, *quick, "--arms", *arms)
    assert sorted(run["arm"] for run in report["runs"]) == sorted(arms)
    assert report["samples"]["test"] == 8 * 6  # 6 of each of the 8 categories
    assert all(0 < run["metrics"]["path_similarity"] <= 1 for run in report["runs"])


def test_classes_that_come_later_are_known_without_training(quick, tmp_path):
    report = main_of("graph_classes", tmp_path, *quick, "--task", "few_shot")
    kinds = {arm["name"]: arm["kind"] for arm in report["comparison"]["arms"]}
    assert list(kinds.values()) == ["baseline", "colearned", "null"]
    assert report["samples"]["test"] == 3 * 6  # of the 3 new classes alone


@pytest.mark.parametrize("arm", few_shot_arms(), ids=lambda arm: arm.name)
def test_new_classes_have_the_numbers_of_their_labels_in_whatever_order_their_shots_come(arm, tmp_path):
    torch.manual_seed(0)
    centres_CF = 3 * torch.eye(6)  # classes 0 to 2 are seen, those after them come later; their texts say the same
    labels_N = np.arange(3).repeat(8)
    seen = EncodedEmoji(centres_CF[labels_N], centres_CF[labels_N], labels_N, ["a", "b", "c"], centres_CF[:3])
    shots = EncodedEmoji(
        centres_CF[[5, 3, 4]], centres_CF[[5, 3, 4]], np.array([2, 0, 1]), list("def"), centres_CF[3:]
    )
    student = CoLearningForFeatureClassification.from_backbone(
        FeatureBackboneConfig(6), 8, 3, head="prototypes", learned_class_vectors=True, latent_norm="none"
    )
    arguments = tiny.arguments(tmp_path, max_steps=1)
    metrics = classification_metrics(("accuracy",))
    trainer = LaterClassesTrainer(
        student,
        arguments,
        train_dataset=seen.dataset(),
        compute_metrics=metrics,
        examples=shots.dataset(),
        later=partial(shot_vectors, arm=arm, seed=0, seen=seen, shots=shots),
    )
    trainer.train()
    assert trainer.model.config.id2label == {0: "d", 1: "e", 2: "f"}
    found = trainer.evaluate(shots.dataset())["eval_accuracy"]
    assert found == 1 or arm.kind == "null"


def test_unseen_classes_are_told_by_vectors_that_training_has_not_seen(quick, tmp_path):
    report = main_of(
        "graph_classes", tmp_path, *quick, "--task", "unseen", "--arms", "random vectors", "WordNet paths"
    )
    assert report["samples"]["test"] == 3 * 6 and len(report["runs"]) == 2


# ---- null controls, on features of which the answer is known ----
SEEN, NEW = ["dog", "cat", "horse", "truck", "hammer", "chair"], ["wolf", "saw"]


def pictures(names, vectors, count, seed):
    """Features that are a linear map of what WordNet says of the class, with noise."""
    generator = torch.Generator().manual_seed(seed)
    map_DF = torch.randn(len(SEEN), 16, generator=torch.Generator().manual_seed(0))
    clean_NF = torch.stack([vectors[name] for name in names for _ in range(count)]) @ map_DF
    labels_N = torch.arange(len(names)).repeat_interleave(count)
    return clean_NF + 0.05 * torch.randn(clean_NF.shape, generator=generator), labels_N


def trained(vectors, features_NF, labels_N):
    torch.manual_seed(0)
    student = CoLearningForFeatureClassification.from_backbone(
        FeatureBackboneConfig(16), head="prototypes", class_vectors=vectors, latent_norm="none"
    )
    optimizer = torch.optim.AdamW(student.parameters(), lr=0.02)
    for _ in range(60):
        optimizer.zero_grad()
        student(features=features_NF, labels=labels_N).loss.backward()
        optimizer.step()
    return student.eval()


@torch.no_grad()
def accuracy(student, features_NF, labels_N):
    return (student(features=features_NF).logits.argmax(-1) == labels_N).float().mean().item()


def test_a_new_class_is_known_by_its_place_in_the_graph_and_not_by_another_ones():
    of_wordnet = wordnet_vectors([*SEEN, *NEW], anchors=SEEN, synsets={"saw": "saw.n.02"})
    mean_D = torch.stack([of_wordnet[name] for name in SEEN]).mean(dim=0)
    vectors = {name: vector_D - mean_D for name, vector_D in of_wordnet.items()}
    student = trained({name: vectors[name] for name in SEEN}, *pictures(SEEN, vectors, 20, seed=1))
    later_NF, labels_N = pictures(NEW, vectors, 50, seed=2)
    new = {name: vectors[name] for name in NEW}
    assert accuracy(student.with_classes(new, keep=False), later_NF, labels_N) > 0.9
    assert accuracy(student.with_classes(permuted_classes(new, 0), keep=False), later_NF, labels_N) < 0.1


def test_text_makes_prototypes_of_one_picture_better_and_another_classes_text_worse():
    generator = torch.Generator().manual_seed(0)
    centres_CD, map_DE = torch.randn(32, 8, generator=generator), torch.randn(8, 8, generator=generator)
    seen_C = torch.arange(24).repeat_interleave(10)

    def drawn(classes_N):  # latents scatter widely around their class, texts tell of the class alone
        noise_ND = torch.randn(len(classes_N), 8, generator=generator)
        return centres_CD[classes_N] + 1.2 * noise_ND, centres_CD[classes_N] @ map_DE

    latents_ND, texts_NE = drawn(seen_C)
    generate = text_to_latents(texts_NE, latents_ND)
    new_C = torch.arange(24, 32)
    shots_CD, shot_texts_CE = drawn(new_C)
    test_ND, _ = drawn(new_C.repeat_interleave(50))
    names = [str(int(label)) for label in new_C]
    generated = {name: generate(text_E[None]) for name, text_E in zip(names, shot_texts_CE, strict=True)}

    def score(of):
        prototypes_CD = torch.stack([*few_shot_prototypes(shots_CD, names, of, text_weight=1).values()])
        cosines_NC = F.normalize(test_ND, dim=1) @ F.normalize(prototypes_CD, dim=1).T
        return (np.repeat(np.arange(8), 50) == cosines_NC.argmax(1).numpy()).mean()

    assert score(generated) > score(None) + 0.05
    assert score(permuted_classes(generated, 0)) < score(None) - 0.05


def test_a_task_that_is_unknown_is_refused_before_training(tmp_path):
    with pytest.raises(ValueError, match="task='zero' is unknown"):
        main_of("graph_classes", tmp_path, *QUICK, "--task", "zero")
    assert not (tmp_path / "runs").exists()
