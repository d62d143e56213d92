"""Reports of runs with a budget of labels, and of several labels or of values a sample."""

import json

import numpy as np

from hf_colearn.analysis.report import report
from hf_colearn.analysis.run import Run, Samples
from hf_colearn.analysis.runs import arm_at


N, WIDTH = 30, 4
KINDS = {"baseline": "baseline", "text": "colearned", "permuted": "null"}


def make_run(arm, kind, seed, score, metric="accuracy", labels=None, predictions=None, confidences=None, **facts):
    rng = np.random.default_rng(seed + len(arm))
    latents = rng.normal(size=(N, WIDTH)).astype(np.float32)
    if labels is None:
        labels = np.arange(N) % 3
        predictions = np.where(rng.random(N) < score, labels, (labels + 1) % 3)
        confidences = np.full(N, 0.8)
    train = Samples(labels, latents, None if kind == "baseline" else latents + 1)
    history = [{"step": 1, "epoch": 0.5, "loss": 2.0}, {"step": 2, "epoch": 1.0, "loss": 1.0}]
    facts = {"num_train": 30, "parameters": 9, "class_names": ["a", "b", "c"], **facts}
    metrics = {metric: score + 0.01 * seed}
    return Run(
        arm, kind, seed, metrics, history, 1.0, labels, predictions, confidences, Samples(labels, latents), train, facts=facts
    )  # fmt: skip


def written(runs, folder, **info):
    found = report(runs, folder, info, methods=())
    return found, json.loads((folder / "report.json").read_text()), (folder / "report.html").read_text()


def test_a_budget_of_labels_comes_first_and_the_rest_is_of_one_level(tmp_path):
    runs = [make_run("label oracle", "reference", seed, 0.9) for seed in (0, 1, 2)]
    for seed in (0, 1, 2):
        for level, gain in ((1, 0.0), (2, 0.2), (10, 0.2)):
            for arm, kind in KINDS.items():
                score = 0.4 + 0.01 * level + (gain + 0.001 * seed**2 if arm == "text" else 0)
                counts = {"num_labelled": 3 * level, "num_paired": 30 if kind == "colearned" else None}
                sweep = {"variable": "labels a class", "level": level}
                runs.append(make_run(arm_at(arm, "labels a class", level), kind, seed, score, sweep=sweep, **counts))
    found, content, page = written(runs, tmp_path, student={"arm": "text, 2 labels a class"})
    assert found.headline == "The teacher's content helped at 2 and 10 labels a class, and not at 1."
    assert "3 to 30 of 30 labelled, 30 paired" in page
    assert page.index('alt="accuracy of every arm over the labels a class.') == page.index(
        'alt="'
    )  # the first picture
    first = found.sections[0]
    assert [picture.name for picture in first.pictures] == ["budget"]
    rows = {row[0]: row for row in first.tables[0].rows}
    assert list(rows) == ["label oracle", *KINDS] and len(rows["text"]) == 5
    assert rows["text"][3].startswith("63.17 [")  # 0.4 + 0.02 + 0.2, and of seeds 0.01 + 0.005 / 3
    assert all(section.lead.startswith("At 2 labels a class. ") for section in found.sections[1:])
    arms = found.sections[1].tables[0].rows
    assert {row[0]: row[2] for row in arms} == {
        "label oracle": "91.00",
        "baseline": "43.00",
        "text": "63.17",
        "permuted": "43.00",
    }
    assert "sweep" not in content["findings"]  # that of one arm beside a single baseline
    assert [level["level"] for level in content["comparison"]["levels"]] == [1, 2, 10]
    assert len(content["runs"]) == len(runs)


def test_several_labels_a_sample_have_f1_by_label_and_no_classes(tmp_path):
    labels = np.zeros((N, 3), dtype=np.int8)
    labels[:10, 0] = labels[5:25, 1] = 1
    labels[0, 1] = -100
    facts = {"problem_type": "multi_label_classification", "class_names": ["happy", "loud", "never"]}
    runs = []
    for seed in (0, 1):
        for arm, kind in KINDS.items():
            said = (labels == 1).astype(np.int8)
            said[: 5 + seed if arm == "baseline" else 0, 0] = 0  # 5 or 4 of 10 are found: F1 of 2/3 or 4/7
            score = 0.8 if arm == "text" else 0.6
            runs.append(make_run(arm, kind, seed, score, "f1_macro", labels, said, said * 0.9, **facts))
    found, content, _ = written(runs, tmp_path)
    assert content["findings"]["arms"]["tables"][0]["header"][2] == "macro F1 [%]"
    fairness = content["findings"]["fairness"]
    table = next(table for table in fairness["tables"] if table["header"][0] == "labels")
    assert [row[:4] for row in table["rows"]] == [["happy", "10", "61.9", "100.0"], ["loud", "20", "100.0", "100.0"]]
    told = " ".join(fairness["notes"])
    assert "1 of 3 labels have no test sample" in told and "no calibration" in told
    latents = content["findings"]["latents"]
    assert latents["tables"][0]["header"] == ["arm", "uniformity", "CKA to baseline", "Procrustes to baseline"]
    assert any("No maps" in note for note in latents["notes"])


def test_a_regression_has_predicted_over_true_values_and_no_classes(tmp_path):
    true = np.linspace(20, 60, N, dtype=np.float32)
    runs = []
    for seed in (0, 1):
        for arm, kind in KINDS.items():
            facts = {"problem_type": "regression", "class_names": None}
            run = make_run(arm, kind, seed, 0.7 if arm == "text" else -0.2, "r2", true, true + 1, **facts)
            run.metrics |= {"mse": 12.5, "num_unlabelled": 4}
            runs.append(run)
    found, content, page = written(runs, tmp_path)
    arms = content["findings"]["arms"]
    assert arms["tables"][0]["header"][2] == "R² [× 100]" and arms["tables"][0]["rows"][0][2] == "-19.50"
    assert arms["tables"][1] == {"header": ["arm", "mean squared error"], "rows": [[arm, "12.5"] for arm in KINDS]}
    assert any("pp = hundredths of R²" in note for note in arms["notes"])
    predictions = next(section for section in found.sections if section.name == "predictions")
    assert [picture.alt for picture in predictions.pictures] == [
        f"Predicted over true values of '{arm}'" for arm in ("baseline", "text", "permuted")
    ]
    assert "fairness" not in content["findings"] and "a regression has no classes" in page


def test_a_comparison_on_an_error_is_refused_by_name(tmp_path):
    runs = [make_run(arm, kind, seed, 0.5, "mse") for seed in (0, 1) for arm, kind in KINDS.items()]
    found, _, _ = written(runs, tmp_path)
    assert found.comparison is None and "metric='mse' is lower where it is better" in found.headline
