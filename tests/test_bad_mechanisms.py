"""Bad input of class vectors, captions, sequences and imputation: refused with the value and the way out, before anything is
trained or written. What a single objective refuses is in its own tests.
"""

import numpy as np
import pytest
import torch
from datasets import Dataset

import tiny
from hf_colearn import (
    CaptionGeneration,
    CoLearningTrainer,
    ConstantAlpha,
    DenseMatching,
    LatentImputation,
    LatentMatching,
    ModalityCentroids,
    SequenceBank,
    Teacher,
    zero_shot,
)
from hf_colearn.models.lora import with_lora
from mechanism_cases import (
    CLASSES,
    IDS,
    LATENT,
    SAMPLES,
    bank,
    captions,
    dense,
    frames,
    imputing,
    longer_sequences,
    modalities,
    of_class_vectors,
    sequences,
    student,
    vectors,
    with_heads,
)
from refusals import Refusals, assert_refused


refusals = Refusals()
case = refusals.case
NAMES = ("cat", "dog", "owl")


@pytest.mark.parametrize(Refusals.NAMES, refusals.cases)
def test_it_is_refused_before_anything_is_trained_or_written(situation, error, texts, tmp_path):
    assert_refused(situation, error, texts, tmp_path)


def trainer(folder, model, data=None, **options):
    data = {"train_dataset": vectors(())} if data is None else data
    return CoLearningTrainer(model, tiny.arguments(folder / "out", max_steps=1), **data, **options)


def by_name(width=LATENT, names=NAMES):
    return {name: torch.ones(width) + torch.arange(width) * row for row, name in enumerate(names)}


# ---- class vectors ----
@case(ValueError, "the vector of 'cat' is of shape (3,)", "width 4 a class, the student's latent_dim")
def vectors_of_another_width_than_the_latent(folder):
    yield
    student(head="prototypes", class_vectors=by_name(3), num_labels=None)


@case(ValueError, "of shape (3, 5)", "width 4 a class")
def a_tensor_of_vectors_of_another_width(folder):
    yield
    student(head="prototypes", class_vectors=torch.ones(3, 5))


@case(ValueError, "the class vectors have the widths [2, 4]", "one and the same")
def vectors_of_two_widths(folder):
    yield
    student(head="prototypes", class_vectors={**by_name(4), "owl": torch.ones(2)}, num_labels=None, latent_dim=None)


@case(ValueError, "class 'lynx' has no vector", "'cat', 'dog', 'owl'", "one for every class")
def a_class_without_a_vector(folder):
    names = {"id2label": dict(enumerate([*NAMES, "lynx"])), "num_labels": None}
    yield
    student(head="prototypes", class_vectors=by_name(), **names)


@case(ValueError, "a vector of 'owl', which is none of the 2 classes", "student.with_classes")
def a_vector_of_a_class_that_is_not_trained_on(folder):
    yield
    student(head="prototypes", class_vectors=by_name(), id2label={0: "cat", 1: "dog"}, num_labels=None)


@case(ValueError, "2 class vectors for 3 classes", "one a class")
def fewer_vectors_than_classes(folder):
    yield
    student(head="prototypes", class_vectors=torch.ones(2, LATENT), id2label=dict(enumerate(NAMES)), num_labels=None)


@case(ValueError, "the vector of class 'dog' is 0 or not finite", "mend it")
def a_vector_without_a_direction(folder):
    yield
    student(head="prototypes", class_vectors={**by_name(), "dog": torch.zeros(LATENT)}, num_labels=None)


@case(ValueError, "the vector of class '1' is 0 or not finite")
def a_vector_that_is_not_finite(folder):
    broken = torch.ones(CLASSES, LATENT)
    broken[1, 2] = torch.nan
    yield
    student(head="prototypes", class_vectors=broken)


@case(ValueError, "has no class vectors", "learned_class_vectors=True")
def class_vectors_that_are_missing(folder):
    yield
    student(head="prototypes")


@case(ValueError, "belong to head='prototypes', and the head is 'bottleneck'")
def class_vectors_of_another_head(folder):
    yield
    student(class_vectors=by_name(), num_labels=None)


@case(ValueError, "class_vectors_from='WordNet' belongs to head='prototypes'")
def a_source_of_vectors_of_another_head(folder):
    yield
    student(class_vectors_from="WordNet")


@case(TypeError, "class_vectors_from=3 names no source", "in words")
def a_source_that_is_no_text(folder):
    yield
    of_class_vectors(class_vectors_from=3)


@case(ValueError, "logit_scale=0 scales no cosine", "a positive number")
def a_scale_of_0(folder):
    yield
    of_class_vectors(logit_scale=0)


@case(ValueError, "a regression has no classes", "'bottleneck'")
def class_vectors_of_a_regression(folder):
    yield
    student(head="prototypes", learned_class_vectors=True, num_labels=1)


@case(ValueError, "such as 7", "num_labels=3")
def a_label_without_a_class_vector(folder):
    columns = {"features": np.ones((4, 4), np.float32), "labels": [0, 1, 2, 7]}
    run = trainer(folder, of_class_vectors(), {"train_dataset": Dataset.from_dict(columns).with_format("torch")})
    yield
    run.train()


# ---- classes that are added ----
def of_names():
    return student(head="prototypes", class_vectors=by_name(), num_labels=None)


@case(ValueError, "the student knows the class 'dog' already", "keep=False")
def a_class_that_is_known(folder):
    known = of_names()
    yield
    known.with_classes({"dog": torch.ones(LATENT)})


@case(ValueError, "the vector of 'lynx' is of shape (5,)", "width 4")
def a_new_vector_of_another_width(folder):
    known = of_names()
    yield
    known.with_classes({"lynx": torch.ones(5)})


@case(TypeError, "the new classes by name", "with_classes({'lynx': vector})")
def new_classes_without_names(folder):
    known = of_names()
    yield
    known.with_classes(torch.ones(2, LATENT))


@case(ValueError, "'lynx' alone leaves nothing to choose between", "at least 2")
def a_single_class_that_replaces_all(folder):
    known = of_names()
    yield
    known.with_classes({"lynx": torch.ones(LATENT)}, keep=False)


@case(ValueError, "the student was trained on the class 'dog'", "generalised_zero_shot")
def an_unseen_class_that_was_trained_on(folder):
    known = of_names()
    yield
    zero_shot(known, {"lynx": torch.ones(LATENT), "dog": torch.ones(LATENT)})


@case(ValueError, "head='bottleneck' has no class vectors to add to", "head='prototypes'")
def classes_for_a_head_that_is_linear(folder):
    known = student()
    yield
    known.with_classes({"lynx": torch.ones(LATENT)})


@case(ValueError, "the student has adapters", "model.merge_and_unload()")
def classes_for_a_student_with_adapters_and_fixed_vectors(folder):
    known = with_lora(of_names(), rank=2)
    yield
    known.with_classes({"lynx": torch.ones(LATENT)})


# ---- targets ----
@case(ValueError, "row 15 of the bank of 'captions' is an empty caption", "WherePaired")
def a_caption_that_is_empty(folder):
    given = {"captions": Teacher(SequenceBank.from_ids([[0, 1]] * 15 + [[0]], num_ids=IDS))}
    decoder = with_heads(captions={"vocab_size": IDS})()
    yield
    trainer(folder, decoder, teachers=given, objective=CaptionGeneration())


@case(ValueError, "sequence 1", "at least one", "WherePaired")
def a_caption_without_a_token(folder):
    yield
    SequenceBank.from_ids([[0, 1], []])


@case(ValueError, "none of the 2 sequences holds an id", "pass ids for some of them")
def ids_of_which_all_are_missing(folder):
    yield
    SequenceBank.from_ids([[-100, -100], [-100]])


@case(ValueError, "the bank of 'captions' holds sequences", "one vector a sample", "DenseMatching")
def captions_that_are_matched_as_vectors(folder):
    given = {"captions": Teacher(captions())}
    yield
    trainer(folder, student(), teachers=given)


@case(ValueError, "lengths='exact'", "1 positions in the student and 3 frames", "lengths='interpolate' or 'nearest'")
def sequences_without_a_common_length_rule(folder):
    order = {"train_sampling_strategy": "sequential", "output_dir": folder / "out"}
    run = CoLearningTrainer(
        dense()(),
        tiny.arguments(max_steps=1, **order),
        bank=longer_sequences(),
        objective=DenseMatching(),
        **frames((), ()),
    )
    yield
    run.train()


@case(ValueError, "lengths='stretch' is unknown", "exact, interpolate, nearest")
def a_length_rule_that_there_is_not(folder):
    yield
    DenseMatching(lengths="stretch")


@case(ValueError, "one latent a sample", "build the student with `dense=True`")
def sequences_for_a_student_that_is_not_dense(folder):
    yield
    trainer(folder, student(), bank=sequences(), objective=DenseMatching())


@case(ValueError, "a TeacherBank with one vector a row", "SequenceBank", "LatentMatching")
def vectors_that_are_matched_as_sequences(folder):
    yield
    trainer(folder, dense()(), frames((), ()), bank=bank(), objective=DenseMatching())


# ---- absent modalities ----
@case(ValueError, "0 training samples have all modalities, and num_centroids=2", "imputation_options")
def samples_of_which_none_is_complete(folder):
    options = {"objective": LatentImputation(), "alpha": ConstantAlpha(0.5, "imputation")}
    yield
    trainer(folder, imputing(), modalities((), range(SAMPLES)), callbacks=[ModalityCentroids()], **options)


@case(ValueError, "imputation='centroids' has no centroids yet", "ModalityCentroids()")
def centroids_that_nobody_computes(folder):
    options = {"objective": LatentImputation(), "alpha": ConstantAlpha(0.5, "imputation")}
    run = trainer(folder, imputing(), modalities((), ()), **options)
    yield
    run.train()


@case(ValueError, "teaches an imputation", "imputation='centroids'")
def an_imputation_of_a_student(folder):
    yield
    trainer(folder, student(), objective=LatentImputation(), alpha=ConstantAlpha(0.5, "imputation"))


def test_the_same_input_mended_trains(tmp_path):
    run = trainer(tmp_path, of_class_vectors(), bank=bank(), objective=LatentMatching())
    run.train()
    assert run.state.global_step == 1
