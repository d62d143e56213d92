"""Labels from one-hot to uniform."""

import pytest
import torch

from hf_colearn.data.soft_labels import SmoothedLabels


def test_a_share_of_the_label_is_spread_over_all_classes():
    batch = {"labels": torch.tensor([2, 0]), "image_pixel_values": torch.ones(2, 1)}
    smoothed = SmoothedLabels(4, 0.4)(batch)
    # 0.6 on the label, and a tenth on each of the four
    torch.testing.assert_close(smoothed["labels"], torch.tensor([[0.1, 0.1, 0.7, 0.1], [0.7, 0.1, 0.1, 0.1]]))
    assert batch["labels"].tolist() == [2, 0] and smoothed["image_pixel_values"] is batch["image_pixel_values"]
    torch.testing.assert_close(SmoothedLabels(4, 1.0)(batch)["labels"], torch.full((2, 4), 0.25))
    torch.testing.assert_close(SmoothedLabels(4, 0)(batch)["labels"], torch.eye(4)[[2, 0]])


def test_no_label_stays_none():
    smoothed = SmoothedLabels(3, 0.3)({"labels": torch.tensor([1, -100])})["labels"]
    torch.testing.assert_close(smoothed[0], torch.tensor([0.1, 0.8, 0.1]))
    assert smoothed[1].isnan().all()


def test_a_share_outside_0_to_1_is_refused():
    with pytest.raises(ValueError, match="share=1.1"):
        SmoothedLabels(4, 1.1)
