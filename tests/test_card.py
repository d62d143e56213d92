import hf_colearn  # noqa: F401, I001  # first: its guard makes `import evaluate` work beside a CPU torch

import re

import numpy as np
import pytest
import transformers
from huggingface_hub import DatasetCard, EvalResult, ModelCard

from hf_colearn.analysis.compare import Arm, compare
from hf_colearn.hub.card import bank_card, multimodal_card, student_card


def make_student_card(**changes):
    given = {
        "model_name": "stamps-student",
        "repo_id": "someone/stamps-student",
        "pipeline_tag": "image-classification",
        "dataset_name": "Stamps",
        "dataset_type": "someone/stamps",
        "dataset_split": "test",
        "teacher": "all-MiniLM-L6, mean pooling",
        "pairing": "each image with its own sentence",
        "objective": "`latent`: mean squared error to the teacher's latent",
        "alpha": "heuristic",
        "comparison": "| arm | kind |\n| --- | --- |\n| base | baseline |",
        "verdict": "text: no claim.\naudio: no claim either.",
        "metrics": {"accuracy": 0.875, "macro_f1": 0.8125},
        "command": "python recipes/stamps.py \\\n    --seed 0",
    }
    return student_card(**{**given, **changes})


def make_bank_card(**changes):
    given = {
        "bank_name": "prompts-bank",
        "repo_id": "someone/prompts-bank",
        "teacher": "google-bert/bert-large-uncased",
        "revision": "6da4b6a26a1877e173fca3225479512db81a5e5b",
        "inputs": "class prompts",
        "pooling": "cls",
        "dtype": "float16",
        "num_rows": 4711,
        "num_distinct": 815,
        "dim": 1024,
        "fingerprint": "c0ffee",
    }
    return bank_card(**{**given, **changes})


def test_metadata_survives_the_way_through_a_file(tmp_path):
    card = make_student_card(base_model="google/vit-base-patch16-224", language="en", tags=["stamps"])
    card.save(tmp_path / "README.md")
    data = ModelCard.load(tmp_path / "README.md").data.to_dict()
    assert data == card.data.to_dict()
    assert data == {
        "base_model": "google/vit-base-patch16-224",
        "datasets": ["someone/stamps"],
        "language": "en",
        "library_name": "transformers",
        "license": "apache-2.0",
        "metrics": ["accuracy", "f1"],
        "pipeline_tag": "image-classification",
        "tags": ["co-learning", "hf_colearn", "stamps"],
        "model-index": [
            {
                "name": "stamps-student",
                "results": [
                    {
                        "task": {"type": "image-classification"},
                        "dataset": {"name": "Stamps", "type": "someone/stamps", "split": "test"},
                        "metrics": [
                            {"type": "accuracy", "value": 0.875, "name": "Accuracy"},
                            {"type": "f1", "value": 0.8125, "name": "Macro F1"},
                        ],
                    }
                ],
            }
        ],
    }


def test_every_metric_is_an_eval_result_as_a_plain_number():
    metrics = {"accuracy": np.float32(0.5), "top5": 1, "macro_f1": 0.25, "map": np.float64(0.75), "my_score": 0.125}
    results = ModelCard(make_student_card(metrics=metrics).content).data.eval_results
    assert all(isinstance(result, EvalResult) and isinstance(result.metric_value, float) for result in results)
    assert [(result.metric_type, result.metric_value) for result in results] == [
        ("accuracy", 0.5),
        ("top_5_accuracy", 1.0),
        ("f1", 0.25),
        ("mean_average_precision", 0.75),
        ("my_score", 0.125),
    ]


def test_every_argument_is_in_the_body():
    body = make_student_card().text
    for text in (
        "# stamps-student",
        "Measured on Stamps, split `test`",
        "| Accuracy | 0.875 |\n| Macro F1 | 0.8125 |\n",
        "- text: no claim.\n- audio: no claim either.\n",
        "\n| arm | kind |\n| --- | --- |\n| base | baseline |\n",
        "all-MiniLM-L6, mean pooling",
        "each image with its own sentence",
        "`latent`: mean squared error to the teacher's latent",
        "**Alpha:** heuristic",
        "python recipes/stamps.py \\\n    --seed 0",
        'AutoModelForImageClassification.from_pretrained("someone/stamps-student")',
        'AutoModelForImageClassification.from_pretrained("someone/stamps-student", trust_remote_code=True)',
        "Can One Modality Model Synergize Training of Other Modality Models?",
        "Facilitating Multimodal Classification via Dynamically Learning Modality Gap",
    ):
        assert text in body
    assert "{{" not in body and "{%" not in body


def test_no_number_appears_that_was_not_passed_in():
    body = make_student_card(metrics={"accuracy": 0.875}).text
    # 0.875, "MiniLM-L6", the seed of the command, "1 - sum", and the years of the papers (each in key and year)
    assert sorted(re.findall(r"\d+(?:\.\d+)?", body)) == sorted(
        ["0.875", "6", "0", "1", "2025", "2025", "2024", "2024"]
    )


def test_a_comparison_fits_into_the_card_as_it_is():
    arms = [Arm("base", "baseline", [0.5, 0.6]), Arm("a|b", "colearned", [0.7, 0.9]), Arm("n", "null", [0.5, 0.5])]
    comparison = compare(arms)
    body = make_student_card(comparison=comparison.to_markdown(), verdict=comparison.verdict).text
    assert comparison.to_markdown() in body
    assert f"- {comparison.verdict}\n" in body


@pytest.mark.parametrize(
    ("pipeline_tag", "auto_class"),
    [
        ("audio-classification", "AutoModelForAudioClassification"),
        ("text-classification", "AutoModelForSequenceClassification"),
    ],
)
def test_other_modalities_are_loaded_with_their_own_class(pipeline_tag, auto_class):
    assert f"= {auto_class}.from_pretrained(" in make_student_card(pipeline_tag=pipeline_tag).text
    assert hasattr(transformers, auto_class)


def test_data_that_is_not_on_the_hub_is_not_linked():
    data = make_student_card(dataset_type="digits").data.to_dict()
    assert "datasets" not in data
    assert data["model-index"][0]["results"][0]["dataset"]["type"] == "digits"


def test_texts_with_yaml_and_jinja_marks_are_kept_as_they_are():
    card = ModelCard(make_student_card(model_name="a: 'b' # c", teacher="{{ secret }} --- {% x %}").content)
    assert card.data.model_name == "a: 'b' # c"
    assert "{{ secret }} --- {% x %}" in card.text


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pipeline_tag": "object-detection"}, "pipeline_tag='object-detection'.*image-classification"),
        ({"metrics": {}}, "metrics is empty"),
        ({"metrics": {"accuracy": 0.5, "map": float("nan")}}, "metric 'map' is nan"),
    ],
)
def test_what_no_card_can_be_made_of_is_named(changes, message):
    with pytest.raises(ValueError, match=message):
        make_student_card(**changes)


def test_bank_card_states_what_the_bank_is(tmp_path):
    card = make_bank_card(license="mit", language="en", source_datasets=["someone/prompts"], tags=["bert"])
    card.save(tmp_path / "README.md")
    loaded = DatasetCard.load(tmp_path / "README.md")
    assert loaded.data.to_dict() == {
        "language": "en",
        "license": "mit",
        "pretty_name": "prompts-bank",
        "source_datasets": ["someone/prompts"],
        "tags": ["co-learning", "hf_colearn", "teacher-bank", "bert"],
    }
    rows = dict(re.findall(r"^\| (.+) \| (.+) \|$", loaded.text, flags=re.MULTILINE))
    del rows["---"]
    assert rows == {
        "teacher": "google-bert/bert-large-uncased",
        "revision": "6da4b6a26a1877e173fca3225479512db81a5e5b",
        "inputs": "class prompts",
        "pooling": "cls",
        "dtype of the teacher": "float16",
        "rows": "4711",
        "distinct latents": "815",
        "dimensions": "1024",
        "fingerprint": "`c0ffee`",
    }
    assert 'TeacherBank.from_hub("someone/prompts-bank")' in loaded.text


def test_bank_of_local_weights_has_no_revision():
    assert "| revision | none: local weights |" in make_bank_card(revision=None).text


def test_a_multimodal_card_holds_every_metric_of_every_modality(tmp_path):
    card = multimodal_card(
        model_name="Digits",
        repo_id="someone/digits",
        dataset_name="AV-digits",
        dataset_type="av-digits",
        dataset_split="test",
        arm="learned",
        objective="ContrastiveAlignment(temperature=0.07)",
        alpha="learned; from 0.500 to 0.100",
        comparison="| arm | kind |\n| --- | --- |\n| ce | baseline |",
        verdict="learned: no claim.",
        modalities="| arm | fused |\n| --- | --- |\n| ce | 80.00 |",
        metrics={"accuracy": 0.8, "accuracy_image": 0.6, "accuracy_given_audio": 0.5},
        command="accelerate launch recipes/av_digits.py --small",
    )
    card.save(tmp_path / "README.md")
    again = ModelCard.load(tmp_path / "README.md")
    found = {result.metric_name: result.metric_value for result in again.data.eval_results}
    assert found == {"Accuracy": 0.8, "accuracy_image": 0.6, "accuracy_given_audio": 0.5}
    assert again.data.pipeline_tag is None and again.data.library_name == "transformers"
    for text in ("from 0.500 to 0.100", "| ce | baseline |", "| ce | 80.00 |", "learned: no claim.", "someone/digits"):
        assert text in again.text
    with pytest.raises(ValueError, match="metrics is empty"):
        multimodal_card(**{**dict.fromkeys(_NAMES, "x"), "metrics": {}})


_NAMES = (
    *("model_name", "repo_id", "dataset_name", "dataset_type", "dataset_split", "arm", "objective", "alpha"),
    *("comparison", "verdict", "modalities", "command"),
)
