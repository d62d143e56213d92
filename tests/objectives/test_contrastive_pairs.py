"""Pairs of modalities that have a contrastive loss, and modalities that meet in a third one."""

import pytest
import torch

import tiny_modalities
from hf_colearn import ConstantAlpha, ContrastiveAlignment
from hf_colearn.objectives.info_nce import info_nce
from hf_colearn.objectives.objective import CoLearningBatch
from tiny_modalities import data, model, trainer


NAMES = ("image", "text", "speech")
ANCHORED = [("image", "text"), ("image", "speech")]


def latents():
    generator = torch.Generator().manual_seed(0)
    return {name: torch.randn(6, 5, generator=generator, requires_grad=True) for name in NAMES}


def test_only_the_pairs_that_are_named_have_a_loss():
    # Of two orthogonal latents a pair of modalities has log(1 + 1/e) = .3133.
    eyes = {"modality_latents": {name: torch.eye(2) for name in NAMES}}
    of_pairs = {
        pairs: ContrastiveAlignment(1.0, pairs=pairs) for pairs in (None, tuple(ANCHORED), (("text", "speech"),))
    }
    found = [objective(eyes, CoLearningBatch())["contrastive"].item() for objective in of_pairs.values()]
    assert found == pytest.approx([3 * 0.31326, 2 * 0.31326, 0.31326], abs=1e-5)


def test_a_batch_mixes_samples_of_either_pair():
    z = latents()
    # Three samples of an image and a sentence, two of an image and speech, one of a sentence and speech, which has no pair.
    mask = torch.tensor([[1, 1, 0]] * 3 + [[1, 0, 1]] * 2 + [[0, 1, 1]], dtype=torch.bool)
    objective = ContrastiveAlignment(0.5, pairs=ANCHORED)
    loss = objective({"modality_latents": z, "modality_mask": mask}, CoLearningBatch())["contrastive"]
    expected = info_nce(z["image"][:3], z["text"][:3], 2.0) + info_nce(z["image"][3:5], z["speech"][3:5], 2.0)
    torch.testing.assert_close(loss, expected)
    loss.backward()
    assert {name: z[name].grad.any(dim=1).tolist() for name in NAMES} == {
        "image": [True] * 5 + [False], "text": [True] * 3 + [False] * 3, "speech": [False] * 3 + [True] * 2 + [False],
    }  # fmt: skip


def test_a_model_without_classes_learns_from_pairs_without_labels(tmp_path):
    mask = [[row % 3 != i for i in (0, 1, 2)] for row in range(16)]
    net = model(NAMES, classes=None, id2label={})
    run = trainer(
        None, net, data(names=NAMES, modality_mask=mask).remove_columns("labels"), tmp_path, max_steps=2,
        objective=ContrastiveAlignment(pairs=ANCHORED), alpha=ConstantAlpha(1.0, "contrastive"),
    )  # fmt: skip
    before = {name: weight.clone() for name, weight in net.state_dict().items()}
    run.train()
    moved = {name for name, weight in net.state_dict().items() if not torch.equal(weight, before[name])}
    assert {name.split(".")[1] for name in moved} == set(NAMES)
    assert [entry["loss_task"] for entry in run.state.log_history if "loss" in entry] == [0, 0]


@pytest.mark.parametrize(
    "pairs, error, text",
    [
        ("image", TypeError, "pairs='image'"),
        ([("image", "text", "speech")], TypeError, "two names each"),
        ([], TypeError, r"pairs=\[\]"),
        ([("image", "image")], ValueError, "of one modality"),
        ([("image", "text"), ("text", "image")], ValueError, r"\('text', 'image'\) .* is there twice"),
    ],
)
def test_lists_that_are_no_pairs_are_refused(pairs, error, text):
    with pytest.raises(error, match=text):
        ContrastiveAlignment(pairs=pairs)


def test_a_pair_that_the_model_lacks_is_refused_when_the_trainer_is_built():
    with pytest.raises(ValueError, match="no modality 'text': it has image, audio"):
        tiny_modalities.trainer(
            None, objective=ContrastiveAlignment(pairs=ANCHORED), alpha=ConstantAlpha(1.0, "contrastive")
        )


def test_its_representation_tells_the_pairs():
    assert repr(ContrastiveAlignment(pairs=[("image", "text")])).endswith("direct=False, pairs=[('image', 'text')])")
