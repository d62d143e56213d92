"""Two views of a batch, and where they come from."""

import numpy as np
import pytest
import torch
from PIL import Image

from hf_colearn.data.augmented_inputs import picture_copies, sentence_copies, waveform_copies
from hf_colearn.data.views import FlipAndShift, StoredViews, TwoViews


NAN = float("nan")


def test_strong_views_come_after_the_weak_ones_without_labels_and_targets():
    batch = {
        "features": torch.tensor([[1.0], [2.0]]),
        "labels": torch.tensor([4, -100]),
        "teacher_latents_text": torch.tensor([[0.5], [0.6]]),
        "sample_ids": torch.tensor([7, 9]),
        "scale": torch.tensor(3.0),
    }
    twice = TwoViews(strong=lambda b: {**b, "features": 10 * b["features"]})(batch)
    assert twice["features"].tolist() == [[1], [2], [10], [20]]
    assert twice["labels"].tolist() == [4, -100, -100, -100]
    assert twice["sample_ids"].tolist() == [7, 9, 7, 9] and twice["views"].tolist() == [0, 0, 1, 1]
    assert twice["teacher_latents_text"][:2, 0].tolist() == pytest.approx([0.5, 0.6])
    assert twice["teacher_latents_text"][2:].isnan().all() and twice["scale"].item() == 3
    assert batch["labels"].tolist() == [4, -100] and "views" not in batch  # the given batch is left alone


def test_the_strong_view_of_a_number_or_soft_label_has_none():
    twice = TwoViews()({"features": torch.zeros(1, 1), "labels": torch.tensor([0.5])})
    assert twice["labels"][0] == 0.5 and twice["labels"][1].isnan()


def test_a_view_that_changes_the_rows_is_refused():
    with pytest.raises(ValueError, match=r"'features' of the strong views is of shape \(1, 1\)"):
        TwoViews(strong=lambda b: {"features": b["features"][:1]})({"features": torch.zeros(2, 1)})


def test_stored_views_are_those_of_the_samples_and_all_of_them_are_drawn():
    views = StoredViews(torch.arange(30.0).reshape(10, 3, 1))  # sample i has the views 3 i, 3 i + 1 and 3 i + 2
    ids = torch.arange(10).flip(0).repeat(20)
    batch = views({"features": torch.zeros(200, 1), "sample_ids": ids})
    drawn = batch["features"][:, 0].long()
    assert torch.equal(drawn // 3, ids) and sorted(set((drawn % 3).tolist())) == [0, 1, 2]
    assert TwoViews(strong=views).needs_sample_ids and not TwoViews().needs_sample_ids


def test_a_weak_view_is_mirrored_or_shifted_by_an_eighth_at_most():
    x_W = torch.arange(16.0)
    images = x_W.expand(64, 1, 16, 16).contiguous()
    torch.manual_seed(0)
    shifted = FlipAndShift(flip=False)({"pixel_values": images})["pixel_values"]
    # A column from the middle moves by up to 16 / 8 = 2 pixels, and the pictures stay monotonous there.
    assert {int(v) for v in shifted[:, 0, 8, 8]} == {6, 7, 8, 9, 10}
    assert (shifted[:, 0, :, 3:13].diff(dim=-1) == 1).all()
    mirrored = FlipAndShift(shift=0)({"pixel_values": images})["pixel_values"]
    assert {tuple(row.tolist()) for row in mirrored[:, 0, 0]} == {tuple(x_W.tolist()), tuple(x_W.flip(0).tolist())}


def test_augmented_copies_differ_by_view_and_are_the_same_when_made_again():
    rng = np.random.default_rng(0)
    waves = [rng.standard_normal(1600).astype(np.float32)]
    pictures = [Image.fromarray(rng.integers(0, 255, (20, 20, 3), dtype=np.uint8))]
    sentences = ["one two three four five six seven eight"]
    for make in (lambda v: waveform_copies(waves, 16000, v), lambda v: picture_copies(pictures, v)):
        first, again, other = make(0)[0], make(0)[0], make(1)[0]
        assert np.array_equal(first, again) and not np.array_equal(first, other)
    first = sentence_copies(sentences, 0)
    assert first == sentence_copies(sentences, 0) != sentence_copies(sentences, 1)
    assert set(first[0].split()) < set(sentences[0].split())
    assert sentence_copies(["word"], 0) == ["word"]  # one stays
