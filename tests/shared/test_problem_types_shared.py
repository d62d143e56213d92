"""Several labels and a regression on real data: tags of emoji from their pictures, seconds of speech from a sentence."""

import csv
from pathlib import Path

import numpy as np
import pytest
from huggingface_hub import ModelCard
from PIL import Image
from sklearn.decomposition import PCA, TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer

from hf_colearn import multi_label_metrics, regression_metrics
from hf_colearn.analysis.runs import compare_runs, read_runs
from problem_types import Problem, local_predictions, published_predictions


DATA = Path(__file__).resolve().parents[2].parent / "shared" / "data"
if not DATA.is_dir():
    pytest.skip("needs the developers' ../shared", allow_module_level=True)

TAGS = ["animal", "button", "face", "food", "hand", "man", "person", "woman"]  # each of 55 to 162 emoji


def rows_of(folder):
    with (DATA / folder / "metadata.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return [rows[i] for i in np.random.default_rng(0).permutation(len(rows))]


def latents_of(texts, dim=24):
    """Sentences as a teacher sees them: words and parts of words, standardised `(N, D)`."""
    counts = TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 4)).fit_transform(texts)
    z_ND = TruncatedSVD(dim, random_state=0).fit_transform(counts)
    return z_ND / z_ND.std(axis=0)


def few_labelled(labels, count):
    return [label if i < count else None for i, label in enumerate(labels)]


def tags_of_emoji():
    """Pictures of 1,000 emoji, of which 300 have their tags, learn from all their names."""
    rows = rows_of("emoji-64")
    pictures = [Image.open(DATA / "emoji-64" / "noto" / row["file_name"]).convert("RGBA") for row in rows]
    white = [Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture) for picture in pictures]
    pixels = np.stack([np.asarray(picture.convert("RGB").resize((8, 8))).ravel() for picture in white]) / 255
    x_NF = PCA(32, whiten=True, random_state=0).fit(pixels[:1000]).transform(pixels)
    labels = [[float(tag in row["tags"].split("|")) for tag in TAGS] for row in rows]
    names = latents_of([row["label_text"] for row in rows[:1000]])
    return Problem(
        x_NF[:1000], few_labelled(labels[:1000], 300), names, x_NF[1000:], labels[1000:], len(TAGS),
        multi_label_metrics(), dict(enumerate(TAGS)),
    )  # fmt: skip


def seconds_of_speech():
    """English sentences of 500 stamps, of which 100 have the seconds that the French one takes, learn from the French."""
    rows = rows_of("tuxpaint-stamps-128")
    english = latents_of([row["text_en"] for row in rows])
    length = np.array([[len(row["text_en"]), row["text_en"].count(" ")] for row in rows])
    x_NF = np.concatenate([english, length / length.std(axis=0)], axis=1)
    seconds = [float(row["seconds"]) for row in rows]
    french = latents_of([row["text_fr"] for row in rows[:500]])
    return Problem(
        x_NF[:500], few_labelled(seconds[:500], 100), french, x_NF[500:], seconds[500:], 1, regression_metrics()
    )


PROBLEMS = {"multi_label_classification": tags_of_emoji, "regression": seconds_of_speech}


@pytest.fixture(scope="module")
def experiments(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    problems = {kind: make() for kind, make in PROBLEMS.items()}
    return {
        kind: (problem, folder / kind, problem.run(folder / kind, seeds=(0, 1))) for kind, problem in problems.items()
    }


@pytest.mark.parametrize("kind", PROBLEMS)
def test_arms_with_few_labels_learn_and_are_compared_over_seeds(kind, experiments):
    problem, folder, _ = experiments[kind]
    runs, info = read_runs([folder])
    comparison = compare_runs(runs, info["metric"])
    chance = np.mean(problem.test_labels) if kind == "multi_label_classification" else 0
    assert {arm.name: arm.kind for arm in comparison.arms} == {
        "baseline": "baseline", "teacher": "colearned", "shuffled": "null",
    }  # fmt: skip
    assert comparison.n_seeds == 2 and min(arm.mean.mean for arm in comparison.arms) > chance + 0.05
    labelled, everyone = {"multi_label_classification": (300, 1000), "regression": (100, 500)}[kind]
    for run in runs:
        assert run.problem_type == kind and len(run.labels) == len(problem.test)
        assert (run.facts["num_train"], run.facts["num_labelled"]) == (everyone, labelled)
        assert run.facts["num_paired"] == (None if run.arm == "baseline" else everyone)
    card = ModelCard.load(folder / "student" / "README.md")
    assert f"{labelled} of {everyone:,} samples labelled, {everyone:,} paired" in card.text
    assert comparison.to_markdown() in card.text


def test_published_students_predict_the_same_where_they_are_loaded_back(experiments, tmp_path):
    students = {kind: (folder / "student", problem.test) for kind, (problem, folder, _) in experiments.items()}
    for kind, (known, logits) in published_predictions(students, tmp_path / "home").items():
        assert known == kind
        np.testing.assert_allclose(logits, local_predictions(*students[kind]), atol=1e-5)
