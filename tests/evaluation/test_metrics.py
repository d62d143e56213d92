import hf_colearn  # noqa: F401, I001  # first: its guard makes `import evaluate` work beside a CPU torch

import threading

import evaluate
import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score, f1_score, top_k_accuracy_score
from transformers import EvalPrediction, PreTrainedConfig, PreTrainedModel, Trainer, TrainingArguments
from transformers.utils import ModelOutput

from docstrings import run_example
from hf_colearn import multi_label_metrics, regression_metrics
from hf_colearn.evaluation.metrics import (
    Accuracy,
    MacroF1,
    MeanAveragePrecision,
    TopKAccuracy,
    classification_metrics,
)
from hf_colearn.utils.metric_names import called, is_error
from refusals import Refusals, assert_refused


@pytest.fixture
def scores_and_labels():
    """Scores [200, 7] rounded to one decimal, so that many tie; class 6 has no positive."""
    rng = np.random.default_rng(0)
    return np.round(rng.normal(size=(200, 7)), 1), rng.integers(0, 6, size=200)


def measured(metric, predictions, labels, **options):
    return metric(keep_in_memory=True, **options).compute(
        predictions=np.array(predictions), references=np.array(labels)
    )


def top_k(scores, labels, k):
    return measured(TopKAccuracy, scores, labels, k=k)[f"top{k}"]


def mean_average_precision(scores, labels):
    return tuple(measured(MeanAveragePrecision, scores, labels).values())


# ---- the arithmetic ----


def test_accuracy_counts_hits():
    assert measured(Accuracy, [0, 1, 2, 2], [0, 1, 1, 0]) == {"accuracy": 0.5}


def test_macro_f1_by_hand():
    # class 0: TP 1, FP 0, FN 1 -> 2/3; class 1: TP 1, FP 0, FN 1 -> 2/3; class 2: TP 0, FP 2, FN 0 -> 0
    assert measured(MacroF1, [0, 1, 2, 2], [0, 1, 1, 0]) == {"macro_f1": pytest.approx(4 / 9)}


def test_macro_f1_leaves_out_classes_that_never_occur():
    # class 0: 1; class 4: TP 1, FP 1, FN 1 -> 1/2; class 7: 0; class 9: TP 1, FP 1, FN 0 -> 2/3
    found = measured(MacroF1, [0, 9, 9, 4, 4], [0, 9, 4, 4, 7])
    assert found == {"macro_f1": pytest.approx((1 + 1 / 2 + 0 + 2 / 3) / 4)}


@pytest.mark.parametrize("k", [1, 3, 6])
def test_top_k_accuracy_equals_sklearn_without_ties(k):
    rng = np.random.default_rng(1)
    scores, labels = rng.normal(size=(100, 7)), rng.integers(0, 7, size=100)
    expected = top_k_accuracy_score(labels, scores, k=k, labels=np.arange(7))
    assert top_k(scores, labels, k) == pytest.approx(expected)


def test_of_equal_scores_the_lower_class_id_comes_first():
    # all tie: the top 2 are classes 0 and 1, for every sample
    assert top_k(np.zeros((4, 4)), [0, 1, 2, 3], k=2) == 0.5


@pytest.mark.parametrize("k", [0, 4, 5])
def test_top_k_refuses_a_k_that_always_or_never_hits(k):
    with pytest.raises(ValueError, match=f"k={k} and 4 classes"):
        top_k(np.zeros((2, 4)), [0, 1], k=k)


def test_average_precision_by_hand():
    # class 1 is ranked + - +, so precision is 1 at recall 1/2 and 2/3 at recall 1: (1 + 2/3) / 2; class 0 is perfect
    scores = np.array([[0.0, 3.0], [1.0, 2.0], [0.0, 1.0]])
    assert mean_average_precision(scores, [1, 0, 1]) == (pytest.approx((5 / 6 + 1) / 2), 0)


def test_tied_scores_enter_average_precision_together():
    # one threshold takes all four: precision 1/4 at recall 1; broken ties would give 1 or 1/4 by the order of samples
    for labels in ([1, 0, 0, 0], [0, 0, 0, 1]):
        scores = np.stack([1.0 - np.array(labels), np.ones(4)], axis=1)  # class 0 is perfect
        assert mean_average_precision(scores, labels) == ((0.25 + 1) / 2, 0)


def test_classes_without_positives_are_left_out_of_the_mean_and_counted(scores_and_labels):
    scores, labels = scores_and_labels
    value, excluded = mean_average_precision(scores, labels)
    assert value == pytest.approx(np.mean([average_precision_score(labels == c, scores[:, c]) for c in range(6)]))
    assert excluded == 1


# ---- as evaluate metrics ----


def test_metrics_of_class_ids_combine_and_take_batches(tmp_path):
    combined = evaluate.combine([Accuracy(cache_dir=tmp_path), MacroF1(cache_dir=tmp_path)])
    combined.add_batch(predictions=[0, 1], references=[0, 1])
    combined.add_batch(predictions=torch.tensor([2, 2]), references=torch.tensor([1, 0]))
    assert combined.compute() == {"accuracy": 0.5, "macro_f1": pytest.approx(4 / 9)}


def test_metrics_of_scores_combine(tmp_path, scores_and_labels):
    scores, labels = scores_and_labels
    combined = evaluate.combine([TopKAccuracy(k=2, cache_dir=tmp_path), MeanAveragePrecision(cache_dir=tmp_path)])
    value, excluded = mean_average_precision(scores, labels)
    assert combined.compute(predictions=scores, references=labels) == {
        "top2": top_k(scores, labels, 2),
        "map": value,
        "map_excluded_classes": excluded,
    }


def test_two_processes_share_a_metric_through_its_cache(tmp_path):
    results = {}

    def process(i):
        metric = MacroF1(num_process=2, process_id=i, experiment_id="run", cache_dir=tmp_path, timeout=20)
        metric.add_batch(predictions=[i, 1], references=[0, 1])
        results[i] = metric.compute()

    threads = [threading.Thread(target=process, args=(i,)) for i in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    # predictions 0 1 1 1, labels 0 1 0 1: F1 of class 0 is 2/3, of class 1 it is 4/5
    assert results == {0: {"macro_f1": pytest.approx((2 / 3 + 4 / 5) / 2)}, 1: None}


def test_a_metric_of_class_ids_refuses_scores(tmp_path):
    with pytest.raises(ValueError, match="don't match the expected format"):
        Accuracy(cache_dir=tmp_path).compute(predictions=[[0.1, 0.9]], references=[1])


@pytest.mark.parametrize("metric", [Accuracy, MacroF1, TopKAccuracy, MeanAveragePrecision])
def test_in_memory_nothing_is_written_and_the_result_is_that_of_the_cache(
    metric, tmp_path, monkeypatch, scores_and_labels
):
    scores, labels = scores_and_labels
    predictions = scores if "scores (N, C)" in metric.forms[0] else scores.argmax(axis=1)
    monkeypatch.setattr("evaluate.config.HF_METRICS_CACHE", tmp_path / "cache")
    found = metric(keep_in_memory=True).compute(predictions=predictions, references=labels)
    assert not (tmp_path / "cache").exists()
    batches = metric(keep_in_memory=True)
    for rows in (slice(0, 150), slice(150, 200)):
        batches.add_batch(predictions=predictions[rows], references=labels[rows])
    assert found == batches.compute() == metric().compute(predictions=predictions, references=labels)


# ---- for the Trainer ----


def test_compute_metrics_names_every_metric(scores_and_labels):
    logits, labels = scores_and_labels
    results = classification_metrics()(EvalPrediction(predictions=logits, label_ids=labels))
    softmax = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    assert results == {
        "accuracy": np.mean(logits.argmax(axis=1) == labels),
        "top5": top_k(logits, labels, 5),
        "macro_f1": pytest.approx(f1_score(labels, logits.argmax(axis=1), average="macro")),
        "map": pytest.approx(np.mean([average_precision_score(labels == c, softmax[:, c]) for c in range(6)])),
        "map_excluded_classes": 1,
    }


def test_map_does_not_move_when_a_constant_is_added_to_the_logits_of_a_sample(scores_and_labels):
    logits, labels = scores_and_labels
    shifted = logits + np.arange(len(logits))[:, None]
    compute_metrics = classification_metrics(metrics=("map",))
    plain, moved = (compute_metrics(EvalPrediction(predictions=x, label_ids=labels)) for x in (logits, shifted))
    assert moved["map"] == pytest.approx(plain["map"])


def test_map_ranks_samples_whose_probability_rounds_to_one():
    # Both probabilities of class 0 round to 1, yet the positive (margin 100) ranks above the negative (margin 90).
    logits = np.array([[100.0, 0.0], [90.0, 0.0]], dtype=np.float32)
    results = classification_metrics(("map",))(EvalPrediction(predictions=logits, label_ids=np.array([0, 1])))
    assert results["map"] == 1.0


def test_samples_without_a_label_are_left_out_and_counted(scores_and_labels):
    logits, labels = scores_and_labels
    is_labelled = np.arange(200) % 3 > 0
    compute_metrics = classification_metrics()
    found = compute_metrics(EvalPrediction(predictions=logits, label_ids=np.where(is_labelled, labels, -100)))
    expected = compute_metrics(EvalPrediction(predictions=logits[is_labelled], label_ids=labels[is_labelled]))
    assert found == {**expected, "num_unlabelled": 67} and "num_unlabelled" not in expected


def test_top5_is_left_out_with_five_classes():
    evaluation = EvalPrediction(predictions=np.eye(5), label_ids=np.arange(5))
    assert classification_metrics(("accuracy", "top5"))(evaluation) == {"accuracy": 1.0}


class _Model(PreTrainedModel):
    config_class = PreTrainedConfig

    def __init__(self, config):
        super().__init__(config)
        self.linear = torch.nn.Linear(2, 2)
        self.post_init()

    def forward(self, x, labels):
        logits = self.linear(x)
        return ModelOutput(loss=torch.nn.functional.cross_entropy(logits, labels), logits=logits, latents=x)


def test_the_trainer_calls_it_and_the_way_out_of_a_tuple_works(tmp_path):
    data = [{"x": [1.0, 0.0], "labels": 0}, {"x": [0.0, 1.0], "labels": 1}]
    args = TrainingArguments(output_dir=tmp_path, use_cpu=True, report_to="none")
    trainer = Trainer(_Model(PreTrainedConfig()), args, eval_dataset=data, compute_metrics=classification_metrics())
    with pytest.raises(ValueError, match="tuple of 2 arrays.*ignore_keys"):
        trainer.evaluate()
    assert 0 <= trainer.evaluate(ignore_keys=["latents"])["eval_accuracy"] <= 1


@pytest.mark.parametrize(
    ("logits", "labels", "message"),
    [
        ([[0.0, 1.0], [np.nan, 0.0]], [0, 1], "score nan in row 1 is not finite, in 1 of 2 rows"),
        ([[0.0, np.inf]], [0], "score inf in row 0"),
        ([[0.0, 1.0], [1.0, 0.0]], [0, 2], "label 2 of sample 1 is out of range for 2 classes"),
        ([[0.0, 1.0], [1.0, 0.0]], [-100, -1], "label -1 of sample 1 is negative"),
        ([[0.0, 1.0], [1.0, 0.0]], [-100, -100], "none of the 2 samples has a label"),
        ([[0.0, 1.0]], [0.5], "one integer label a sample"),
        ([[0.0, 1.0]], [0, 1], "for 2 labels, got shape"),
        ([0.0, 1.0], [0, 1], "for 2 labels, got shape"),
        (np.zeros((0, 2)), [], "nothing to measure"),
    ],
)
def test_bad_input_is_named(logits, labels, message):
    with pytest.raises(ValueError, match=message):
        classification_metrics()(EvalPrediction(predictions=np.array(logits), label_ids=np.array(labels)))


@pytest.mark.parametrize(
    "documented", [classification_metrics, multi_label_metrics, regression_metrics, is_error, called]
)
def test_examples_show_what_they_return(documented):
    run_example(documented)


def test_an_unknown_metric_is_named():
    with pytest.raises(ValueError, match="recall@1"):
        classification_metrics(("accuracy", "recall@1"))


# ---- of several modalities ----


def test_metrics_of_heads_and_subsets_are_over_the_samples_that_have_them():
    def right(*flags):  # logits that predict class 0, which every sample has
        return np.array([[1.0, 0.0] if flag else [0.0, 1.0] for flag in flags])

    modality_mask = np.array([[True, True], [True, False], [True, True], [False, True]])
    heads = {"image": right(1, 0, 1, 0), "audio": right(1, 1, 0, 0)}
    subsets = {"image": right(0, 1, 1, 1), "audio": right(1, 0, 1, 0)}
    evaluation = EvalPrediction((right(1, 1, 1, 0), heads, modality_mask, subsets), np.zeros(4, dtype=np.int64))
    # image: samples 0, 1, 2; audio: samples 0, 2, 3
    assert classification_metrics(("accuracy",))(evaluation) == {
        "accuracy": 3 / 4,
        "accuracy_image": pytest.approx(2 / 3),
        "accuracy_audio": pytest.approx(1 / 3),
        "accuracy_given_image": pytest.approx(2 / 3),
        "accuracy_given_audio": pytest.approx(2 / 3),
    }


def test_a_subset_needs_all_of_its_modalities_even_where_names_contain_each_other():
    names = ("a", "b_a", "c")  # "b_a" is one modality, and "a_c" two
    modality_mask = np.array([[True, False, True], [False, True, True]])
    wrong = np.array([[0.0, 1.0], [0.0, 1.0]])
    subsets = {"b_a": wrong, "a_c": wrong, "b_a_c": wrong, "a_b_a": wrong}
    evaluation = EvalPrediction((wrong, dict.fromkeys(names, wrong), modality_mask, subsets), np.array([0, 1]))
    found = classification_metrics(("accuracy",))(evaluation)
    assert found["accuracy_given_a_c"] == 0  # sample 0 alone
    assert found["accuracy_given_b_a"] == found["accuracy_given_b_a_c"] == 1  # sample 1 alone
    assert "accuracy_given_a_b_a" not in found  # nobody has both


def test_a_modality_that_no_sample_has_gives_no_metrics():
    logits, modality_mask = np.eye(2), np.array([[True, False], [True, False]])
    pair = {"image": logits, "audio": logits}
    found = classification_metrics()(EvalPrediction((logits, pair, modality_mask, pair), np.array([0, 1])))
    assert not any("audio" in name for name in found)
    assert {"macro_f1_image", "map_image", "map_excluded_classes_given_image"} < found.keys()


def test_the_trainer_evaluates_heads_and_subsets_with_a_remainder_batch(tmp_path):
    import tiny
    from hf_colearn import CoLearningForMultimodalClassification, FeatureBackboneConfig, MultimodalCollator

    torch.manual_seed(0)
    model = CoLearningForMultimodalClassification.from_backbones(
        {"image": tiny.resnet(), "sound": FeatureBackboneConfig(feature_dim=3)},
        latent_dim=4,
        num_labels=3,
        learned_temperature=True,
    )
    rng = np.random.default_rng(0)
    data = [
        {
            "image_pixel_values": None if i in (2, 7) else rng.normal(size=(1, 8, 8)).astype(np.float32),
            "sound_features": None if i in (4, 5, 6) else rng.normal(size=3).astype(np.float32),
            "labels": i % 3,
        }
        for i in range(11)
    ]
    collator = MultimodalCollator({"image": None, "sound": None})
    args = TrainingArguments(
        output_dir=tmp_path, use_cpu=True, report_to="none", per_device_eval_batch_size=4, remove_unused_columns=False
    )
    metrics = classification_metrics(("accuracy",))
    trainer = Trainer(model, args, data_collator=collator, eval_dataset=data, compute_metrics=metrics)
    found = trainer.evaluate()
    with torch.no_grad():
        output = model.eval()(**collator(data))
    labels = torch.arange(11) % 3

    def of(logits, rows):
        return (logits.argmax(1) == labels)[rows].float().mean().item()

    image, sound = output.modality_mask.unbind(1)
    assert (image.sum(), sound.sum()) == (9, 8)
    expected = {
        "eval_accuracy": of(output.logits, image | sound),
        "eval_accuracy_image": of(output.modality_logits["image"], image),
        "eval_accuracy_sound": of(output.modality_logits["sound"], sound),
        "eval_accuracy_given_image": of(output.subset_logits["image"], image),
        "eval_accuracy_given_sound": of(output.subset_logits["sound"], sound),
    }
    assert {name: found[name] for name in expected} == pytest.approx(expected)
    assert {name for name in found if "accuracy" in name} == expected.keys()
    logits, heads, modality_mask, subsets = trainer.predict(data).predictions
    assert modality_mask.tolist() == output.modality_mask.tolist()
    np.testing.assert_allclose(logits, output.logits, atol=1e-5)
    np.testing.assert_allclose(heads["sound"], output.modality_logits["sound"], atol=1e-5)
    np.testing.assert_allclose(subsets["image"], output.subset_logits["image"], atol=1e-5)


# ---- bad input ----
REFUSALS = Refusals()
case = REFUSALS.case


@pytest.mark.parametrize(Refusals.NAMES, REFUSALS.cases)
def test_bad_input_is_refused_with_the_way_out(situation, error, texts, tmp_path):
    assert_refused(situation, error, texts, tmp_path)


@case(TypeError, "metrics='accuracy' is no list of names", "('accuracy',)")
def a_single_metric_by_name(folder):
    yield
    classification_metrics("accuracy")


@case(ValueError, "metrics=() measures nothing", "choose from")
def no_metric_at_all(folder):
    yield
    regression_metrics(())
