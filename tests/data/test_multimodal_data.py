"""Batches of several modalities, samples that lack some, one modality alone, and datasets that do not fit."""

import pickle

import numpy as np
import pytest
import torch
from datasets import Array3D, ClassLabel, Dataset, Features, Image, List, Value
from transformers import BertTokenizer, DataCollatorWithPadding

import hf_colearn  # noqa: F401, I001  # first: its guard
from hf_colearn import MultimodalCollator, with_sample_ids
from hf_colearn.data.columns import with_lazy_input
from hf_colearn.data.multimodal import (
    check_modalities,
    mismatched,
    missing_as_none,
    only_modality,
    without_modality,
)
from refusals import Refusals, assert_refused


def tokenizer():
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "b"]
    return BertTokenizer(vocab={word: index for index, word in enumerate(words)})


COLLATORS = {"image": None, "text": DataCollatorWithPadding(tokenizer())}


def sample(value, tokens, label=0):
    """A sample of an image of one value and a text of so many tokens; None for what it lacks."""
    image = None if value is None else [[[float(value)] * 2] * 2]
    ids = None if tokens is None else [5] * tokens
    mask = None if tokens is None else [1] * tokens
    return {"text_input_ids": ids, "image_pixel_values": image, "text_attention_mask": mask, "label": label}


def pairs(samples=20):
    """Samples with an image of shape (1, 2, 2), an encoded picture, a text and a label."""
    features = Features(
        {
            "image_pixel_values": Array3D((1, 2, 2), "float32"),
            "image_picture": Image(),
            "text_input_ids": List(Value("int64")),
            "text_attention_mask": List(Value("int64")),
            "label": ClassLabel(names=["x", "y"]),
        }
    )
    columns = {
        "image_pixel_values": [np.full((1, 2, 2), i, np.float32) for i in range(samples)],
        "image_picture": [np.full((2, 2, 3), i, np.uint8) for i in range(samples)],
        "text_input_ids": [[5] * (1 + i % 3) for i in range(samples)],
        "text_attention_mask": [[1] * (1 + i % 3) for i in range(samples)],
        "label": [i % 2 for i in range(samples)],
    }
    return with_sample_ids(Dataset.from_dict(columns, features=features))


def absent(dataset, column):
    plain = dataset.with_format(None).select_columns(["sample_id", column])
    return {row["sample_id"] for row in plain if row[column] is None}


# ---- the collator ----
def test_each_modality_is_padded_by_its_own_collator():
    batch = MultimodalCollator(COLLATORS)([sample(1, 2), sample(2, 3, label=1)])
    assert list(batch) == ["labels", "image_pixel_values", "text_input_ids", "text_attention_mask"]
    assert batch["labels"].tolist() == [0, 1]
    assert batch["image_pixel_values"].shape == (2, 1, 2, 2)
    assert batch["text_input_ids"].tolist() == [[5, 5, 0], [5, 5, 5]]
    assert batch["text_attention_mask"].tolist() == [[1, 1, 0], [1, 1, 1]]


def test_absent_rows_are_zeros_and_the_mask_says_so():
    batch = MultimodalCollator(COLLATORS)([sample(None, 2), sample(2, None, label=1), sample(3, 1)])
    assert list(batch)[0] == "labels" and list(batch)[-1] == "modality_mask"
    assert batch["modality_mask"].tolist() == [[False, True], [True, False], [True, True]]
    assert batch["modality_mask"].dtype == torch.bool
    assert batch["image_pixel_values"][:, 0, 0, 0].tolist() == [0, 2, 3]
    assert batch["text_input_ids"].tolist() == [[5, 5], [0, 0], [5, 0]]


def test_a_modality_that_the_whole_batch_lacks_has_no_columns():
    batch = MultimodalCollator(COLLATORS)([sample(None, 2), sample(None, 1)])
    assert list(batch) == ["labels", "text_input_ids", "text_attention_mask", "modality_mask"]
    assert batch["modality_mask"].tolist() == [[False, True]] * 2
    assert "image_pixel_values" not in MultimodalCollator(COLLATORS)([{"text_input_ids": [5]}])  # no column at all


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ({"labels": 1}, torch.tensor([1])),
        ({"label": np.int64(1)}, torch.tensor([1])),
        ({"labels": torch.tensor([0.25, 0.75])}, torch.tensor([[0.25, 0.75]])),
        ({"labels": [0.25, 0.75]}, torch.tensor([[0.25, 0.75]])),
    ],
)
def test_labels_are_classes_or_soft(labels, expected):
    found = MultimodalCollator({"image": None})([{"image_x": torch.zeros(2), **labels}])["labels"]
    assert torch.equal(found, expected) and found.dtype == expected.dtype


def test_columns_of_no_modality_are_left_out():
    batch = MultimodalCollator({"image": None})([{"image_x": torch.zeros(2), "sample_id": 3, "note": "n"}])
    assert list(batch) == ["image_x"]


def test_a_sample_without_anything_is_named():
    with pytest.raises(ValueError, match="sample 1 of the batch has none of the modalities image, text"):
        MultimodalCollator(COLLATORS)([sample(1, 1), sample(None, None)])
    with pytest.raises(ValueError, match="sample 77 has none"):
        MultimodalCollator(COLLATORS)([{**sample(None, None), "sample_id": 77}])


def test_a_modality_that_is_there_in_part_is_named():
    broken = sample(1, 2) | {"text_attention_mask": None}
    with pytest.raises(
        ValueError, match="sample 1 of the batch has 'text' in part: text_attention_mask is None and text_i"
    ):
        MultimodalCollator(COLLATORS)([sample(1, 1), broken])


def test_the_collator_reaches_workers():
    assert list(pickle.loads(pickle.dumps(MultimodalCollator(COLLATORS)))([sample(1, 1)]))[0] == "labels"


# ---- samples that lack a modality ----
def test_a_share_of_the_samples_loses_a_modality_in_all_its_columns():
    dataset = pairs()
    found = without_modality(dataset, "image", share=0.3, seed=1)
    gone = absent(found, "image_pixel_values")
    assert len(gone) == 6 and gone == absent(found, "image_picture")
    assert absent(found, "text_input_ids") == set() and found.features == dataset.features
    assert found["sample_id"][:] == list(range(20)) and found["label"][:] == dataset["label"][:]
    for row in found:
        if row["sample_id"] not in gone:
            assert row["image_pixel_values"][0][0][0] == row["sample_id"]
            assert row["image_picture"].getpixel((0, 0)) == (row["sample_id"],) * 3
    assert absent(without_modality(dataset, "image", share=0.3, seed=1), "image_picture") == gone
    assert absent(without_modality(dataset, "image", share=0.3, seed=2), "image_picture") != gone
    assert len(absent(without_modality(dataset, "text", share=1.0), "text_input_ids")) == 20


def test_a_selected_and_shuffled_dataset_keeps_its_rows():
    dataset = pairs().shuffle(seed=3).select(range(5, 15))
    found = without_modality(dataset, "text", share=0.5)
    assert found["sample_id"][:] == dataset["sample_id"][:]
    assert len(absent(found, "text_input_ids")) == 5


@pytest.mark.parametrize("kind", ["torch", "numpy"])
def test_formats_that_fail_on_missing_cells_are_replaced(kind):
    dataset = pairs().remove_columns("image_picture").with_format(kind)
    found = without_modality(dataset, "image", share=0.5)
    batch = MultimodalCollator(COLLATORS)(found.__getitems__(list(range(20))))
    assert batch["modality_mask"].sum().item() == 30
    is_here = batch["modality_mask"][:, 0]
    assert batch["image_pixel_values"].dtype == torch.float32 and batch["labels"].dtype == torch.int64
    assert torch.equal(batch["image_pixel_values"][:, 0, 0, 0], torch.arange(20) * is_here)


def test_other_formats_and_transforms_stay():
    dataset = pairs()
    assert without_modality(dataset, "image", share=0.5).format == dataset.format
    transformed = dataset.with_transform(doubled)
    found = without_modality(transformed, "text", share=0.5)
    assert found.format["format_kwargs"] == transformed.format["format_kwargs"]
    assert sum(row["text_length"] is None for row in found) == 10


def doubled(batch):
    lengths = [None if ids is None else 2 * len(ids) for ids in batch["text_input_ids"]]
    return {"text_length": lengths, "image_values": batch["image_pixel_values"], "label": batch["label"]}


@pytest.mark.parametrize(
    ("name", "share", "message"),
    [
        ("image", 1.5, "share=1.5"),
        ("image", -0.1, "share=-0.1"),
        ("smell", 0.5, "'smell' has no column.*text_input_ids"),
    ],
)
def test_shares_and_modalities_that_there_are_not_are_refused(name, share, message):
    with pytest.raises(ValueError, match=message):
        without_modality(pairs(), name, share)


# ---- sweeps over the pairing ----
SHARES = (0, 0.1, 0.25, 0.5, 1)


def shown(dataset, column="image_pixel_values"):
    """By sample, whose image it has; None where it has none."""
    cells = dataset.with_format(None)[column][:]
    return np.array([None if cell is None else cell[0][0][0] for cell in cells])


def test_a_share_of_the_samples_gets_the_modality_of_another_in_all_its_columns():
    dataset = pairs()
    found = mismatched(dataset, "image", share=0.5, seed=1)
    sources = shown(found)
    wrong = sources != np.arange(20)
    assert wrong.sum() == 10 and sorted(sources) == list(range(20))  # nothing is lost
    assert [row["image_picture"].getpixel((0, 0))[0] for row in found] == sources.tolist()
    for column in ("text_input_ids", "text_attention_mask", "label", "sample_id"):
        assert found[column][:] == dataset[column][:]
    assert found.features == dataset.features and found.column_names == dataset.column_names
    assert (shown(mismatched(dataset, "image", 0.5, seed=1)) == sources).all()
    assert (shown(mismatched(dataset, "image", 0.5, seed=2)) != sources).any()
    assert (shown(mismatched(dataset, "image", 0)) == np.arange(20)).all()


def test_samples_that_are_mismatched_stay_so_at_larger_shares():
    wrong = [shown(mismatched(pairs(), "image", share)) != np.arange(20) for share in SHARES]
    assert [w.sum() for w in wrong] == [0, 2, 5, 10, 20]
    assert all((larger >= smaller).all() for smaller, larger in zip(wrong[:-1], wrong[1:], strict=True))


def test_samples_that_lack_a_modality_go_on_lacking_it_when_the_others_are_mismatched():
    lacking = without_modality(pairs(), "image", share=0.4, seed=5)
    before, after = shown(lacking), shown(mismatched(lacking, "image", 1.0))
    is_here = before != None  # noqa: E711  (element by element)
    assert is_here.sum() == 12 and ((after != None) == is_here).all()  # noqa: E711
    assert (after != before)[is_here].all() and sorted(after[is_here]) == sorted(before[is_here])


@pytest.mark.parametrize("change", [mismatched, without_modality])
def test_selections_formats_and_transforms_stay_in_a_sweep(change):
    selected = pairs().shuffle(seed=3).select(range(5, 15))
    found = change(selected, "text", 0.5)
    assert found["sample_id"][:] == selected["sample_id"][:]
    assert change(pairs(), "image", 0.5).format == pairs().format
    transformed = pairs().with_transform(doubled)
    found = change(transformed, "text", 0.5)
    assert found.format["format_kwargs"] == transformed.format["format_kwargs"]
    tensors = change(pairs().remove_columns("image_picture").with_format("torch"), "image", 0.5)
    batch = MultimodalCollator(COLLATORS)(tensors.__getitems__(list(range(20))))
    assert batch["image_pixel_values"].shape == (20, 1, 2, 2) and batch["labels"].dtype == torch.int64


def test_the_column_that_a_transform_reads_is_mismatched():
    raw = Dataset.from_dict({"image": list(range(8)), "audio": list(range(8)), "label": [0, 1] * 4})
    lazy = with_lazy_input(raw, "image", "image_x", lambda cell: torch.tensor([float(cell)]))
    lazy = with_lazy_input(lazy, "audio", "audio_x", lambda cell: torch.tensor([float(cell)]))
    found = mismatched(lazy, "audio", 1.0)
    assert [row["image_x"].item() for row in found] == list(range(8))
    assert sorted(row["audio_x"].item() for row in found) == list(range(8))
    assert all(row["image_x"] != row["audio_x"] for row in found)


def paired(fraction):
    return without_modality(pairs(), "image", 1 - fraction)


def test_a_growing_paired_fraction_keeps_the_pairs_that_a_smaller_one_had():
    kept = [set(range(20)) - absent(paired(share), "image_picture") for share in SHARES]
    assert [len(k) for k in kept] == [0, 2, 5, 10, 20]
    assert all(smaller <= larger for smaller, larger in zip(kept[:-1], kept[1:], strict=True))
    assert absent(paired(0.25), "text_input_ids") == set()
    for share, of_share in zip(SHARES, kept, strict=True):
        sources = shown(paired(share))
        assert {i for i in range(20) if sources[i] == i} == of_share


def test_wrong_pairs_of_a_paired_fraction_are_exchanged_within_it():
    found = mismatched(paired(0.5), "image", 0.4)
    sources = shown(found)
    assert sum(source is not None for source in sources) == 10
    assert sum(source is not None and source != i for i, source in enumerate(sources)) == 4


def test_shares_and_modalities_of_a_sweep_that_there_are_not_are_refused():
    with pytest.raises(ValueError, match="share=1.5 is no share"):
        mismatched(pairs(), "image", 1.5)
    with pytest.raises(ValueError, match="'smell' has no column.*text_input_ids"):
        mismatched(pairs(), "smell", 0.5)


def test_a_single_sample_has_nobody_to_exchange_with():
    with pytest.raises(ValueError, match="share=0.05 of 20 samples with 'image' is a single one"):
        mismatched(pairs(), "image", 0.05)


# ---- one modality ----
def test_one_modality_has_its_columns_without_prefix_and_the_samples_that_have_it():
    dataset = without_modality(pairs(), "text", share=0.25)
    gone = absent(dataset, "text_input_ids")
    found = only_modality(dataset, "text")
    assert set(found.column_names) == {"input_ids", "attention_mask", "label", "sample_id"}
    assert set(found["sample_id"][:]) == set(range(20)) - gone
    assert all(len(row["input_ids"]) == 1 + row["sample_id"] % 3 for row in found)
    tensors = only_modality(pairs().with_format("torch"), "image")
    assert tensors[3]["pixel_values"].shape == (1, 2, 2)
    lacking = only_modality(without_modality(pairs().with_format("torch"), "image", share=0.5), "image")
    assert len(lacking) == 10 and isinstance(lacking[0]["pixel_values"], torch.Tensor)


def test_one_modality_of_a_transformed_dataset():
    dataset = without_modality(pairs(), "text", share=0.25).with_transform(doubled)
    found = only_modality(dataset, "text")
    assert len(found) == 15
    assert found[0].keys() == {"length", "label"} and all(row["length"] for row in found)
    pickle.dumps(found.format["format_kwargs"])
    with pytest.raises(ValueError, match="'smell' has no column"):
        only_modality(dataset, "smell")


# ---- datasets that do not fit ----
def test_a_dataset_that_fits_passes_and_nothing_of_it_is_decoded():
    def broken(batch):
        raise AssertionError("the transform ran")

    partly = without_modality(pairs(), "text", share=0.25)
    for dataset in (pairs(), pairs().with_format("torch"), partly, partly.with_transform(broken)):
        check_modalities(dataset, ("image", "text"))
    check_modalities(pairs().to_iterable_dataset(), ("image", "text"))


def test_a_modality_that_a_transform_makes_passes():
    raw = Dataset.from_dict({"image": [1, None, 3], "words": ["a", "b", "c"]})

    def transform(batch):
        values = [None if x is None else torch.full((2,), float(x)) for x in batch["image"]]
        return {"image_x": values, "text_x": [torch.zeros(1) for _ in batch["words"]]}

    check_modalities(raw.with_transform(transform), ("image", "text"))
    with pytest.raises(ValueError, match="'smell' has no column.*image_x, text_x"):
        check_modalities(raw.with_transform(transform), ("image", "smell"))
    with pytest.raises(ValueError, match="'image' is absent in every one of the 3"):
        check_modalities(without_modality(raw, "image", 1.0).with_transform(transform), ("image", "text"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.remove_columns(["image_pixel_values", "image_picture"]), "'image' has no column.*text_input_ids"),
        (lambda d: d.remove_columns(["image_pixel_values", "image_picture"]).to_iterable_dataset(), "no column"),
        (lambda d: without_modality(d, "text", 1.0), "'text' is absent in every one of the 20 samples"),
        (
            lambda d: without_modality(d, "text", 0.2).with_format("torch"),
            "'text' is missing in 4 samples.*missing_as_none",
        ),
        (
            lambda d: without_modality(without_modality(d, "text", 0.9), "image", 0.9),
            "18 samples have none of the modalities image, text",
        ),
        (
            lambda d: d.map(lambda row, i: {"text_input_ids": None} if i == 7 else {}, with_indices=True),
            "row 7 .*in part",
        ),
    ],
)
def test_a_dataset_that_does_not_fit_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        check_modalities(change(pairs()), ("image", "text"))


def test_the_row_that_is_named_is_that_of_the_selection():
    lacks = Dataset.from_dict({"image_x": [[1.0], None, [1.0], None], "text_x": [[1.0], None, None, [1.0]]})
    with pytest.raises(ValueError, match="1 samples have none of the modalities image, text, such as row 2:"):
        check_modalities(lacks.select([3, 0, 1, 2]).select([0, 1, 2, 3]), ("image", "text"))


def test_missing_as_none_gives_tensors_of_what_holds_numbers():
    found = missing_as_none({"a": [[1.5], None], "b": [1, 2], "c": ["x", None], "d": [["y"], [True]]})
    assert found["a"][0].dtype == torch.float32 and found["a"][1] is None
    assert found["b"][1].dtype == torch.int64 and found["c"] == ["x", None]
    assert found["d"][0] == ["y"] and found["d"][1].dtype == torch.bool


def test_of_lazy_inputs_only_the_kept_modality_is_made():
    made = []

    def make(name):
        def note(cell):
            made.append(name)
            return torch.tensor([float(cell)])

        return note

    stored = Dataset.from_dict({"image": [1, 2], "audio": [3, 4], "label": [0, 1]})
    both = with_lazy_input(stored, "image", "image_pixel_values", make("image"))
    both = with_lazy_input(both, "audio", "audio_input_values", make("audio"))
    sample = only_modality(both, "audio")[1]
    assert sample.keys() == {"input_values", "labels"} and sample["input_values"].item() == 4
    assert set(made) == {"audio"}


# ---- bad input ----
REFUSALS = Refusals()
case = REFUSALS.case


@pytest.mark.parametrize(Refusals.NAMES, REFUSALS.cases)
def test_bad_input_is_refused_with_the_way_out(situation, error, texts, tmp_path):
    assert_refused(situation, error, texts, tmp_path)


@case(TypeError, "collators=['image', 'text'] names no modality", "'image': None")
def modalities_without_collators(folder):
    yield
    MultimodalCollator(["image", "text"])


@case(TypeError, "the collator of 'text' is a str", "a function, or None")
def a_tokenizer_by_name(folder):
    yield
    MultimodalCollator({"image": None, "text": "bert-base-uncased"})


@case(TypeError, "the collator of 'text' is a tokenizer", "`DataCollatorWithPadding(tokenizer)`")
def a_tokenizer_for_a_collator(folder):
    yield
    MultimodalCollator({"image": None, "text": tokenizer()})
