"""Which ImageNet class a label means: WordNet ids, names, numbers, and what is refused."""

import numpy as np
import pytest
from datasets import ClassLabel, Dataset, Features, Value
from transformers import ResNetConfig

from docstrings import run_example
from hf_colearn.corpora.imagenet_classes import (
    classes_of_labels,
    imagenet_classes_of,
    imagenet_names,
    imagenet_wnids,
    outputs_of_model,
    words_of,
)


def labelled(labels, feature):
    return Dataset.from_dict({"label": labels}, features=Features({"label": feature}))


def hub_names():
    """ImageNet's names as the Hub's dataset has them: a ClassLabel allows no two equal ones."""
    return [*imagenet_names()[:517], "crane2", *imagenet_names()[518:]]


def test_the_thousand_classes_are_in_imagenets_order():
    wnids, names = imagenet_wnids(), imagenet_names()
    assert len(wnids) == len(names) == 1000
    assert wnids == sorted(set(wnids))
    # The first, the golden retriever, the two cranes and the last, as everybody's class lists have them.
    known = {0: "n01440764", 207: "n02099601", 134: "n02012849", 517: "n03126707", 999: "n15075141"}
    assert {index: wnids[index] for index in known} == known
    assert (names[0], names[207], names[999]) == (
        "tench, Tinca tinca",
        "golden retriever",
        "toilet tissue, toilet paper, bathroom tissue",
    )


def test_labels_become_words_for_a_prompt():
    run_example(words_of)


def test_labels_are_known_by_id_full_name_or_first_synonym():
    labels = ["n15075141", "tench, Tinca tinca", "goldfish", "Cardigan", "cardigan"]
    assert classes_of_labels(labels) == [999, 0, 1, 264, 474]


@pytest.mark.parametrize("label", ["crane", "maillot"])
def test_an_ambiguous_name_is_refused_with_the_ids_to_choose_from(label):
    with pytest.raises(ValueError, match=f"'{label}' is the name of more than one .*n0.*, n0.*use WordNet ids"):
        classes_of_labels(["tench", label])


@pytest.mark.parametrize("label", ["n00000001", "Tinca tinca", "dog", "7", "", "TENCH"])
def test_an_unknown_label_is_named(label):
    with pytest.raises(ValueError, match=f"1 of 2 labels are no ImageNet class, such as '{label}'"):
        classes_of_labels(["goldfish", label])


def test_two_labels_of_one_class_are_refused():
    with pytest.raises(ValueError, match="'tench', 'n01440764' mean the same"):
        classes_of_labels(["tench", "goldfish", "n01440764"])


def test_a_thousand_numbered_folders_are_imagenets_numbers_in_whatever_order():
    # As ImageNet-V2 is distributed: folders sort as texts, so the third one is 10.
    folders = sorted(map(str, range(1000)))
    assert folders[2] == "10"
    assert classes_of_labels(folders) == [int(folder) for folder in folders]


def test_ten_numbered_labels_are_a_numbering_of_their_own():
    with pytest.raises(ValueError, match="10 of 10 labels are no ImageNet class"):
        classes_of_labels([str(digit) for digit in range(10)])


def test_a_thousand_names_in_order_settle_the_ambiguous_ones():
    assert classes_of_labels(hub_names()) == list(range(1000))
    assert classes_of_labels(imagenet_names()) == list(range(1000))
    with pytest.raises(ValueError, match="'crane'"):
        classes_of_labels(imagenet_names()[::-1])


def test_class_labels_map_to_imagenets_classes():
    dataset = labelled([0, 1, 1], ClassLabel(names=["n02099601", "n01440764"]))
    assert imagenet_classes_of(dataset, "label") == {0: 207, 1: 0}
    assert imagenet_classes_of(dataset.to_iterable_dataset(), "label") == {0: 207, 1: 0}


def test_texts_list_only_the_classes_that_are_there():
    dataset = labelled(["n02099601", "n01440764", "n02099601"], Value("string"))
    expected = {"n01440764": 0, "n02099601": 207}
    assert imagenet_classes_of(dataset, "label") == expected
    assert imagenet_classes_of(dataset.to_iterable_dataset(), "label") == expected
    # A stream need not be read for its labels where all 1000 classes compete anyway.
    everything = imagenet_classes_of(dataset.to_iterable_dataset(), "label", only_present=False)
    assert set(everything.values()) == set(range(1000))
    assert everything["n02099601"] == everything["golden retriever"] == 207
    assert "crane" not in everything


def test_integers_are_imagenets_own_where_they_cannot_be_another_numbering():
    assert imagenet_classes_of(labelled([207, 0, 207], Value("int64")), "label") == {0: 0, 207: 207}
    everything = labelled(np.arange(1000), Value("int64"))
    assert imagenet_classes_of(everything, "label") == {index: index for index in range(1000)}
    own = labelled(np.arange(200), Value("int64"))
    for dataset in (own, own.to_iterable_dataset()):
        with pytest.raises(ValueError, match="integers 0 to 199, which may be the dataset's own numbering of 200"):
            imagenet_classes_of(dataset, "label")


@pytest.mark.parametrize(
    ("labels", "feature", "message"),
    [
        ([0, 1000], Value("int64"), "holds 1000: ImageNet's classes are numbered from 0 to 999"),
        ([-1, 5], Value("int64"), "holds -1"),
        (["tench", None], Value("string"), "samples without a label"),
        ([], Value("string"), "no samples"),
        ([0.5], Value("float32"), "labels are a ClassLabel, texts or integers"),
    ],
)
def test_labels_that_are_none_are_refused(labels, feature, message):
    with pytest.raises(ValueError, match=message):
        imagenet_classes_of(labelled(labels, feature), "label")


def config_of(labels):
    return ResNetConfig(id2label=dict(enumerate(labels)))


def test_a_models_outputs_are_known_by_its_labels():
    assert outputs_of_model(config_of(["n02099601", "tench"])) == ({207: 0, 0: 1}, ())
    assert outputs_of_model(config_of(imagenet_names()))[0] == {index: index for index in range(1000)}
    # MobileNet has a background in front: class 0 is its output 1.
    outputs, notes = outputs_of_model(config_of(["background", *imagenet_names()]))
    assert outputs == {index: index + 1 for index in range(1000)}
    assert notes == ("1 of the model's outputs name no ImageNet class and never compete",)


def test_a_thousand_outputs_without_names_are_taken_to_be_in_imagenets_order_and_it_is_said():
    outputs, notes = outputs_of_model(ResNetConfig(num_labels=1000))
    assert outputs == {index: index for index in range(1000)}
    assert "taken to be in ImageNet's order" in notes[0]


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (ResNetConfig(num_labels=10), "none of the model's 10 labels is an ImageNet class, such as 'LABEL_0'"),
        (config_of(["cat", "dog"]), "such as 'cat'"),
        (config_of(["tench", "n01440764"]), "outputs 0 and 1 of the model are both"),
    ],
)
def test_a_model_of_other_classes_is_refused(config, message):
    with pytest.raises(ValueError, match=message):
        outputs_of_model(config)
