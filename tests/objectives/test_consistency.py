"""FixMatch's consistency of two views."""

import math

import pytest
import torch

from hf_colearn import CoLearningBatch, Consistency


VIEWS = torch.tensor([0, 0, 1, 1])


def test_a_confident_class_of_the_weak_view_is_the_label_of_the_strong_one():
    # softmax (4, 0) = .982 counts, (2, 0) = .881 does not; the strong view's cross-entropy with class 0 is
    # log(1 + e^(1 - 0)) at logits (0, 1), and the other sample counts 0 in the mean over two.
    logits = torch.tensor([[4.0, 0.0], [2.0, 0.0], [0.0, 1.0], [0.0, 9.0]])
    term = Consistency()({"logits": logits}, CoLearningBatch(views=VIEWS))["consistency"]
    assert term.item() == pytest.approx(math.log1p(math.e) / 2)
    both = Consistency(threshold=0.88)({"logits": logits}, CoLearningBatch(views=VIEWS))["consistency"]
    assert both.item() == pytest.approx((math.log1p(math.e) + math.log1p(math.exp(9))) / 2)


def test_the_weak_view_gets_no_gradient():
    logits = torch.tensor([[4.0, 0.0], [0.0, 4.0], [0.0, 0.0], [0.0, 0.0]], requires_grad=True)
    Consistency()({"logits": logits}, CoLearningBatch(views=VIEWS))["consistency"].backward()
    # Of log-softmax at (0, 0): p - onehot, over the two samples.
    assert logits.grad.tolist() == [[0, 0], [0, 0], [-0.25, 0.25], [0.25, -0.25]]


@pytest.mark.parametrize("views", [None, torch.tensor([0, 1]), torch.tensor([0, 0, 1])])
def test_a_batch_without_two_views_is_refused(views):
    with pytest.raises(ValueError, match="augment=TwoViews"):
        Consistency()(
            {"logits": torch.zeros(3 if views is not None and len(views) == 3 else 4, 2)}, CoLearningBatch(views=views)
        )


def test_what_cannot_be_a_threshold_or_a_class_is_refused():
    with pytest.raises(ValueError, match="threshold=1.5"):
        Consistency(1.5)
    with pytest.raises(ValueError, match="no regression"):
        Consistency()({"logits": torch.zeros(4, 1)}, CoLearningBatch(views=VIEWS))
