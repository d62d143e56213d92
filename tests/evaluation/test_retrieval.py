"""Retrieval by cosine: ranks, precision and chance, as a function, a module of `evaluate`, and a callback of a model."""

import numpy as np
import pytest
import torch
from datasets import Dataset
from sklearn.metrics import average_precision_score
from torch import nn
from transformers.modeling_outputs import ModelOutput

import tiny
import tiny_modalities
from docstrings import run_example
from hf_colearn import CoLearningTrainer, ModalityRetrieval, Retrieval, retrieval_metrics


def drawn(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def cosines(x, y):
    return (x / np.linalg.norm(x, axis=1, keepdims=True)) @ (y / np.linalg.norm(y, axis=1, keepdims=True)).T


def test_ranks_precision_and_chance_by_hand():
    run_example(retrieval_metrics)
    # The gallery lies at 0, 30, 60 and 90 degrees, of the ids a, b, a, b. The query b at 0 degrees finds them in the order
    # a b a b: hits at 2 and 4. The one at 90 finds b a b a: hits at 1 and 3.
    gallery = [[np.cos(x), np.sin(x)] for x in np.deg2rad([0, 30, 60, 90])]
    found = retrieval_metrics([[2.0, 0.0], [0.0, 3.0]], gallery, ["b", "b"], ["a", "b", "a", "b"], at=(1, 3))
    assert found == pytest.approx({
        "recall_at_1": 1 / 2, "recall_at_3": 1, "precision_at_1": 1 / 2, "precision_at_3": (1 / 3 + 2 / 3) / 2,
        "map": ((1 / 2 + 2 / 4) / 2 + (1 + 2 / 3) / 2) / 2, "median_rank": 1.5,
        # Two of four are relevant: none among the first three never happens. The first relevant one is at 1, 2, 3 in 3, 2, 1
        # of the six orders, so both middle ones of its ranks are 1 and 2; AP of 1100, 1010, 1001, 0110, 0101, 0011 is
        # 1, 5/6, 3/4, 7/12, 1/2, 5/12.
        "recall_at_1_by_chance": 1 / 2, "recall_at_3_by_chance": 1, "precision_at_1_by_chance": 1 / 2,
        "precision_at_3_by_chance": 1 / 2, "map_by_chance": (1 + 5 / 6 + 3 / 4 + 7 / 12 + 1 / 2 + 5 / 12) / 6,
        "median_rank_by_chance": 1.5,
    })  # fmt: skip


def test_average_precision_is_that_of_scikit_learn(monkeypatch):
    monkeypatch.setattr("hf_colearn.evaluation.retrieval._CHUNK", 50)  # of 20: two queries a chunk
    queries, gallery = drawn(15, 3), drawn(20, 3, seed=1)
    of_query, of_gallery = np.arange(15) % 4, np.arange(20) % 4
    found = retrieval_metrics(queries, gallery, of_query, of_gallery)
    rows = zip(of_query, cosines(queries, gallery), strict=True)
    expected = [average_precision_score(of_gallery == label, row) for label, row in rows]
    assert found["map"] == pytest.approx(np.mean(expected))


def test_partners_are_rows_and_their_chance_is_k_of_m():
    latents = torch.from_numpy(drawn(8, 3))
    found = retrieval_metrics(latents, 2 * latents)
    assert (found["recall_at_1"], found["map"], found["median_rank"]) == (1, 1, 1)
    assert found["recall_at_5_by_chance"] == pytest.approx(5 / 8) and found["recall_at_10_by_chance"] == 1
    assert found["median_rank_by_chance"] == 4.5
    assert found["map_by_chance"] == pytest.approx(
        np.mean(1 / np.arange(1, 9))
    )  # of one relevant: the mean of 1 / rank


def test_a_tie_counts_against():
    # All cosines are 1: the two others come before each partner.
    found = retrieval_metrics(np.ones((3, 2)), np.ones((3, 2)), at=(1, 3))
    assert (found["recall_at_1"], found["recall_at_3"], found["median_rank"]) == (0, 1, 3)
    assert found["map"] == pytest.approx(1 / 3)


def test_the_module_of_evaluate_gives_the_same_with_and_without_its_cache(tmp_path):
    run_example(Retrieval)
    queries, gallery, ids = drawn(6, 3), drawn(6, 3, seed=1), [0, 1, 2, 0, 1, 2]
    expected = retrieval_metrics(queries, gallery, ids, at=(2,))
    for options in ({"keep_in_memory": True}, {"cache_dir": str(tmp_path)}):
        metric = Retrieval(at=(2,), **options)
        assert metric.compute(predictions=queries, references=gallery, query_ids=ids) == pytest.approx(expected)


@pytest.mark.parametrize(
    "queries, gallery, options, texts",
    [
        (drawn(4), drawn(4, 3), {}, ["queries have the shape (4,)", "[N, D]"]),
        (drawn(0, 3), drawn(4, 3), {}, ["queries have the shape (0, 3)"]),
        (drawn(4, 2), drawn(4, 3), {}, ["2 wide, the gallery 3", "one space"]),
        (drawn(4, 3), drawn(5, 3), {}, ["4 ids of 4 queries and 4 of 5", "one each"]),
        (drawn(4, 3), drawn(4, 3), {"gallery_ids": range(4)}, ["without query_ids"]),
        (drawn(2, 3), drawn(2, 3), {"query_ids": "ab", "gallery_ids": "aa"}, ["belongs to query 1", "leave them out"]),
        (np.full((2, 3), np.nan), drawn(2, 3), {}, ["score nan in row 0 is not finite"]),
        (drawn(2, 3), drawn(2, 3), {"at": (0,)}, ["at=0", "at least 1"]),
    ],
)
def test_what_cannot_be_ranked_is_refused(queries, gallery, options, texts):
    with pytest.raises(ValueError) as caught:
        retrieval_metrics(queries, gallery, **options)
    assert all(text in str(caught.value) for text in texts), caught.value


# ---- in a trainer ----
class Senses(nn.Module):
    """Latents are the inputs."""

    def __init__(self):
        super().__init__()
        self.modalities, self.scale = ("image", "audio"), nn.Parameter(torch.ones(()))

    def forward(self, image_features, audio_features, labels=None, modality_mask=None):
        latents = {"image": image_features, "audio": audio_features}
        loss = None if labels is None else self.scale.square()
        return ModelOutput(
            loss=loss, logits=image_features * self.scale, modality_latents=latents, modality_mask=modality_mask
        )


def evaluated(callbacks, labels=(0, 1, 0, 1, 0, 1), mask=None, batch=4):
    columns = {"image_features": drawn(6, 3).astype("f"), "audio_features": drawn(6, 3, seed=1).astype("f")}
    columns |= ({} if labels is None else {"labels": list(labels)}) | ({} if mask is None else {"modality_mask": mask})
    dataset = Dataset.from_dict(columns).with_format("torch")
    trainer = CoLearningTrainer(
        Senses(), tiny.arguments("out", per_device_eval_batch_size=batch), eval_dataset=dataset, callbacks=callbacks
    )
    found = trainer.evaluate()
    logged = {name: value for name, value in trainer.state.log_history[-1].items() if "_to_" in name}
    assert logged == {name: value for name, value in found.items() if "_to_" in name}
    return logged


def expected(query, gallery, rows=slice(None), ids=None):
    features = {"image": drawn(6, 3).astype("f"), "audio": drawn(6, 3, seed=1).astype("f")}
    return retrieval_metrics(features[query][rows], features[gallery][rows], ids)


def test_a_callback_measures_an_evaluation_and_adds_it_to_what_is_returned():
    found = evaluated([ModalityRetrieval(), ModalityRetrieval([("audio", "image")], by="class", at=(1,))])
    by_class = expected("audio", "image", ids=[0, 1, 0, 1, 0, 1])
    assert found == pytest.approx(
        {f"eval_image_to_audio_{name}": value for name, value in expected("image", "audio").items()}
        | {f"eval_audio_to_image_{name}": value for name, value in expected("audio", "image").items()}
        | {f"eval_audio_to_image_{name}_by_class": x for name, x in by_class.items() if "5" not in name and "10" not in name}
    )  # fmt: skip


def test_samples_without_a_modality_or_a_label_are_left_out():
    mask = [[True, True], [True, False], [True, True], [False, True], [True, True], [True, True]]
    found = evaluated([ModalityRetrieval([("image", "audio")])], labels=None, mask=mask)
    assert found == pytest.approx(
        {f"eval_image_to_audio_{name}": value for name, value in expected("image", "audio", [0, 2, 4, 5]).items()}
    )
    assert not evaluated([ModalityRetrieval()], labels=None, mask=[[True, False]] * 6)  # nothing to retrieve


@pytest.mark.parametrize(
    "options, error, text",
    [
        ({"pairs": [("image", "speech")]}, ValueError, "no modality 'speech': it has image, audio"),
        ({"pairs": [("image", "audio"), ("image", "audio")]}, ValueError, "is there twice"),
        ({"pairs": [("image", "image")]}, ValueError, "of one modality"),
        ({"pairs": "image"}, TypeError, "pairs='image'"),
        ({"pairs": []}, TypeError, r"pairs=\[\]"),
        ({"by": "label"}, ValueError, "by='label'"),
    ],
)
def test_impossible_pairs_are_refused_before_anything_runs(options, error, text):
    with pytest.raises(error, match=text):
        CoLearningTrainer(tiny_modalities.model(), tiny.arguments("out"), callbacks=[ModalityRetrieval(**options)])


def test_retrieval_by_class_needs_labels():
    with pytest.raises(ValueError, match="found no labels in an evaluation batch"):
        evaluated([ModalityRetrieval(by="class")], labels=None)
