import hf_colearn  # noqa: F401, I001  # first: its guard makes `import evaluate` work beside a CPU torch

import dataclasses
import json
import re

import numpy as np
import pytest
import torch
import transformers
import yaml
from huggingface_hub import DatasetCard, EvalResult, ModelCard
from transformers import ResNetConfig

import tiny
from hf_colearn import CoLearningArguments, CoLearningForImageClassification, ConstantAlpha, HeuristicAlpha
from hf_colearn.analysis.statistics.compare import Arm, compare
from hf_colearn.hub.card import adapter_card, measured_emissions, student_card
from hf_colearn.hub.record import RECORD, TrainingRecord, base_models, hardware, public, public_argv
from hf_colearn.objectives.contrastive_alignment import ContrastiveAlignment
from hf_colearn.objectives.latent_matching import LatentMatching
from hf_colearn.teachers.bank_card import bank_card
from tiny_records import a_record


COMPARISON = compare(
    [Arm("base", "baseline", [0.5, 0.6]), Arm("a|b", "colearned", [0.7, 0.9]), Arm("n", "null", [0.5, 0.5])]
)


@pytest.fixture
def folder(tmp_path):
    """A student's folder by its names; the weights do not matter to a card."""
    path = tmp_path / "runs" / "stamps" / "student"
    path.mkdir(parents=True)
    return path


def a_card(folder, record=None, **changes):
    (record or a_record()).save(folder)
    comparison = f"- {COMPARISON.verdict}\n\n{COMPARISON.to_markdown()}"
    given = {"title": "stamps-student", "pipeline_tag": "image-classification", "comparison": comparison}
    return student_card(folder, **{**given, **changes})


# ---- the metadata ----
def test_metadata_survives_the_way_through_a_file(folder):
    card = a_card(folder, a_record(base_model=["google/vit-base-patch16-224"]), language="en", tags=["stamps"])
    card.save(folder / "README.md")
    data = ModelCard.load(folder / "README.md").data.to_dict()
    assert data == card.data.to_dict()
    assert data == {
        "base_model": ["google/vit-base-patch16-224"],
        "base_model_relation": "finetune",
        "datasets": ["someone/stamps"],
        "language": "en",
        "library_name": "transformers",
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


def test_every_metric_is_an_eval_result_and_a_row_also_those_that_the_hub_has_no_name_for(folder):
    scores = {"accuracy": np.float64(0.5), "top5": 1, "macro_f1": 0.25, "map": 0.75, "accuracy_given_audio": 0.12345}
    card = a_card(folder, a_record(scores=scores))
    results = ModelCard(card.content).data.eval_results
    assert all(isinstance(result, EvalResult) and isinstance(result.metric_value, float) for result in results)
    assert [(result.metric_type, result.metric_value) for result in results] == [
        ("accuracy", 0.5),
        ("top_5_accuracy", 1.0),
        ("f1", 0.25),
        ("mean_average_precision", 0.75),
        ("accuracy_given_audio", 0.12345),
    ]
    assert (
        "| Accuracy             | 0.5000 |\n| Top-5 accuracy       | 1.0000 |\n| Macro F1             | 0.2500 |\n"
        "| Macro mAP            | 0.7500 |\n| accuracy_given_audio | 0.1235 |\n\n## Did the teacher help?" in card.text
    )


def test_data_and_backbones_that_are_not_on_the_hub_are_not_linked(folder):
    dataset = {"name": "Digits", "type": "digits", "split": "test", "samples": 40}
    data = a_card(folder, a_record(dataset=dataset)).data.to_dict()
    assert not {"datasets", "base_model", "base_model_relation"} & data.keys()
    assert data["model-index"][0]["results"][0]["dataset"]["type"] == "digits"


def test_a_student_that_was_not_evaluated_claims_nothing(folder):
    card = a_card(folder, TrainingRecord(), comparison=None)
    assert not {"model-index", "metrics"} & card.data.to_dict().keys()
    for text in (
        "Not evaluated yet.",
        "Not known: this card was written without a comparison",
        "L = L_task\n",
        "a script of its own",
        "| not measured |",
    ):
        assert text in card.text


# ---- the body ----
def test_everything_that_was_given_is_in_the_body(folder):
    body = a_card(folder, stock_class="ResNetForImageClassification", all_runs=(6, 720.0)).text
    for text in (
        "# stamps-student",
        "Measured on Stamps, split `test` (40 samples)",
        f"- {COMPARISON.verdict}\n",
        COMPARISON.to_markdown(),
        "**Arm of the comparison:** a|b, seed 0\n",
        "**Teacher:** MiniLM, frozen (pooling mean)\n",
        "**Pairing:** each image with its own sentence\n",
        "`LatentMatching(loss='mse', reduction='sum')`",
        "**Alpha:** `ConstantAlpha({'latent': 0.3})`; constant\n",
        "\nL = (1 - 0.3) * L_task + 0.3 * L_latent\n",
        "| training of this model | 12.3 s |\n| training of all 6 runs of the comparison | 0.20 h |\n",
        "| hardware | A processor, 2 threads |\n| energy | not measured |\n",
        "as a stock `ResNetForImageClassification` with the same logits",
        "hf-colearn recipe stamps --run --arms 'a|b' 'my arm' --seeds 2\n",
        f'hf-colearn card "{folder}" --check\n',
        "author = {Lee, Jae-Jun and Yoon, Sung Whan}",
        "author = {Yang, Yang and Wan, Fengqiang and Jiang, Qing-Yuan and Xu, Yi}",
    ):
        assert text in body
    assert "{{" not in body and "{%" not in body and "None" not in body and "\n\n\n" not in body


def test_no_number_appears_that_was_not_passed_in(folder):
    record = a_record(alpha_history=[], scores={"accuracy": 0.875}, versions={}, argv=[], seconds=None)
    card = a_card(folder, record, comparison=None)
    body = card.text.replace(str(folder), "").replace(f"hf_colearn {record.hf_colearn}", "")
    # The score and its 40 samples, seed 0, the 0.3 of the alpha's repr, the threads; of the equation "1 - alpha"; the
    # years of the papers and the volume of one.
    expected = ["0.8750", "40", "0", "0.3", "2", "1", "2025", "2024", "37"]
    assert sorted(re.findall(r"(?<!\w)\d+(?:\.\d+)?", body)) == sorted(expected)


REGRESSION = {"problem_type": "regression", "scores": {"r2": -0.25, "mse": 0.000012346, "pearson": 0.5}}
SEVERAL = {"problem_type": "multi_label_classification", "scores": {"mean_average_precision": 0.75, "f1_micro": 0.5}}


def test_a_regression_is_told_as_one_and_an_error_keeps_its_digits(folder):
    card = a_card(folder, a_record(**REGRESSION))
    data = card.data.to_dict()
    assert data["tags"] == ["co-learning", "hf_colearn", "regression"]
    assert data["pipeline_tag"] == "image-classification"  # by which transformers loads it
    results = data["model-index"][0]["results"][0]
    assert results["task"] == {"type": "image-regression"}
    assert [(metric["type"], metric["value"]) for metric in results["metrics"]] == [
        ("r_squared", -0.25), ("mse", 0.000012346), ("pearsonr", 0.5),
    ]  # fmt: skip
    assert "A student for regression on images. It sees" in card.text
    assert "It predicts values: `model(...).logits`. A pipeline shows them as scores.\n" in card.text
    rows = [[cell.strip() for cell in row] for row in re.findall(r"^\| (.+?) \| (.+?) \|$", card.text, re.MULTILINE)]
    assert rows[2:5] == [["R2", "-0.2500"], ["MSE", "0.00001235"], ["Pearson correlation", "0.5000"]]
    assert "class" not in card.text.replace("pipeline_tag: image-classification", "").split("## How it was trained")[0]


def test_several_labels_are_told_with_what_the_scores_mean(folder):
    card = a_card(folder, a_record(**SEVERAL))
    data = card.data.to_dict()
    assert data["tags"][-1] == "multi-label-classification"
    assert data["model-index"][0]["results"][0]["task"] == {"type": "image-classification"}
    assert "A student for multi-label image-classification." in card.text
    assert "Every class has a probability of its own, `model(...).logits.sigmoid()`" in card.text
    both = a_card(folder, a_record(**SEVERAL), pipeline_tag=None, modalities="| table |").text
    assert "A multi-label classifier that reads several modalities" in both and "a probability of its own" in both


@pytest.mark.parametrize("problem", [{}, REGRESSION, SEVERAL])
def test_a_student_of_precomputed_features_has_no_pipeline_and_its_own_class(folder, problem):
    card = a_card(folder, a_record(**problem), pipeline_tag="feature-classification")
    kind = {"regression": "regression on", "multi_label_classification": "multi-label classification of"}
    words = kind.get(problem.get("problem_type"), "classification of")
    assert f"A student for {words} precomputed features." in card.text
    assert "pipeline_tag" not in card.data.to_dict()
    assert f'CoLearningForFeatureClassification.from_pretrained("{folder}")' in card.text
    assert f'AutoModel.from_pretrained("{folder}", trust_remote_code=True)' in card.text
    assert (
        "import hf_colearn  #" not in card.text and "A pipeline shows" not in card.text and "\n\n\n" not in card.text
    )


def test_samples_without_a_label_are_told(folder):
    dataset = a_record().dataset
    assert "(40 samples; 3 more have no label)." in a_card(folder, a_record(dataset={**dataset, "unlabelled": 3})).text
    assert "(40 samples)." in a_card(folder, a_record(dataset={**dataset, "unlabelled": 0})).text
    counts = {"num_train": 1200, "num_labelled": 24, "num_paired": 1200}
    told = "- **Training samples:** 24 of 1,200 samples labelled, 1,200 paired\n"
    assert told in a_card(folder, a_record(training_samples=counts)).text
    assert "Training samples" not in a_card(folder, a_record(training_samples={**counts, "num_labelled": 1200})).text


def test_a_record_of_an_earlier_version_lacks_only_what_was_not_there(folder):
    path = a_record().save(folder)
    content = json.loads(path.read_text())
    del content["problem_type"], content["training_samples"], content["other_scores"]
    path.write_text(json.dumps(content))
    assert TrainingRecord.load(folder) == a_record()


def test_published_numbers_stand_in_a_column_of_their_own(folder):
    body = a_card(folder, published="77.83 -> 78.54 % on ImageNet (Lee & Yoon, ICLR 2025)").text
    rows = [[cell.strip() for cell in row.split("|")[1:-1]] for row in re.findall(r"^\|.*\|$", body, re.MULTILINE)]
    start = rows.index(["metric", "value", "published"])
    assert rows[start + 2 : start + 4] == [
        ["Accuracy", "0.8750", "77.83 -> 78.54 % on ImageNet (Lee & Yoon, ICLR 2025)"],
        ["Macro F1", "0.8125", "-"],
    ]
    assert body.count("77.83") == 1
    assert "| published |" not in a_card(folder).text


def test_an_alpha_that_moves_is_followed_in_a_table(folder):
    history = [{"epoch": float(t), "alpha": 0.5 - t / 100} for t in range(1, 16)]
    body = a_card(folder, a_record(alpha="LearnedAlpha({'latent': 0.35}, ...)", alpha_history=history)).text
    assert "from 0.490 at first to 0.350 in the end" in body and "learned, by the gradient" in body
    assert "\nL = (1 - alpha) * L_task + alpha * L_latent\n" in body
    # 8 of 15 rows, from the first to the last in equal steps of 2
    rows = re.findall(r"^\| (\d+) +\| (0\.\d{3}) \|$", body, flags=re.MULTILINE)
    assert rows == [(str(t), f"{0.5 - t / 100:.3f}") for t in range(1, 16, 2)]


def test_several_terms_have_an_alpha_each(folder):
    history = [{"epoch": 1.0, "alpha_latent": 0.2, "alpha_contrastive": 0.1}]
    record = a_record(terms=["latent", "contrastive"], alpha="ConstantAlpha({...})", alpha_history=history)
    assert "\nL = (1 - 0.2 - 0.1) * L_task + 0.2 * L_latent + 0.1 * L_contrastive\n" in a_card(folder, record).text


@pytest.mark.parametrize(
    ("pipeline_tag", "auto_class", "sample"),
    [
        ("image-classification", "AutoModelForImageClassification", '"picture.png"'),
        ("audio-classification", "AutoModelForAudioClassification", '"clip.wav"'),
        ("text-classification", "AutoModelForSequenceClassification", '"A sentence."'),
    ],
)
def test_a_modality_is_loaded_with_its_own_class_and_with_a_pipeline_where_there_is_a_processor(
    folder, pipeline_tag, auto_class, sample
):
    without = a_card(folder, pipeline_tag=pipeline_tag).text
    assert f'= {auto_class}.from_pretrained("{folder}", trust_remote_code=True)' in without
    assert "pipeline(" not in without and "AutoProcessor" not in without
    assert hasattr(transformers, auto_class)
    (folder / "preprocessor_config.json").write_text("{}")
    with_one = a_card(folder, pipeline_tag=pipeline_tag).text
    assert f'pipeline("{pipeline_tag}", model="{folder}")\nclassify({sample})' in with_one
    assert f'pipeline("{pipeline_tag}", model="{folder}", trust_remote_code=True)' in with_one
    assert "AutoProcessor.from_pretrained(" in with_one


def test_all_python_of_a_card_is_python(folder):
    (folder / "adapter").mkdir()
    for name in ("image", "text"):
        (folder / name).mkdir()
        (folder / name / "tokenizer_config.json").write_text("{}")
    one = a_card(folder, pipeline_tag=None, modalities="| arm | fused |\n| --- | --- |\n| ce | 80.00 |").text
    for body in (one, a_card(folder, stock_class="ViT").text):
        blocks = re.findall(r"```python\n(.*?)```", body, flags=re.DOTALL)
        assert len(blocks) >= 4
        for block in blocks:
            compile(block, "card", "exec")
    assert f'text = AutoProcessor.from_pretrained("{folder}", subfolder="text")' in one
    assert f'Model.from_pretrained("{folder}", subfolder="base")' in one
    assert f'(base, "{folder}", subfolder="adapter")' in one


def test_a_multimodal_card_has_no_pipeline_and_its_arms_by_modality(folder):
    table = "| arm | fused |\n| --- | --- |\n| ce | 80.00 |"
    record = a_record(scores={"accuracy": 0.8, "accuracy_image": 0.6}, teacher=None)
    card = ModelCard(a_card(folder, record, pipeline_tag=None, modalities=table).content)
    found = {result.metric_name: result.metric_value for result in card.data.eval_results}
    assert found == {"Accuracy": 0.8, "accuracy_image": 0.6}
    assert card.data.pipeline_tag is None and "multimodal" in card.data.tags
    assert f"\n\n{table}\n\n- {COMPARISON.verdict}" in card.text and "Teacher" not in card.text
    assert f'CoLearningForMultimodalClassification.from_pretrained("{folder}")' in card.text


def test_energy_is_what_codecarbon_has_measured(folder):
    assert measured_emissions(folder) is None
    for name, kwh, kg in (("a", 0.001, 0.0004), ("b", 0.002, 0.0006)):
        (folder / name).mkdir()
        (folder / name / "emissions.csv").write_text(f"run_id,emissions,energy_consumed\nx,{kg},{kwh}\n")
    assert measured_emissions(folder) == pytest.approx((0.003, 0.001))
    card = a_card(folder, emissions=measured_emissions(folder))
    assert "| energy | 0.003 kWh, 1 g of CO2 equivalents (codecarbon, all runs together) |" in card.text
    assert card.data.to_dict()["co2_eq_emissions"]["emissions"] == pytest.approx(1)  # in grams


def test_texts_with_yaml_and_jinja_marks_are_kept_as_they_are(folder):
    record = a_record(teacher={"words": "{{ secret }} --- {% x %}"})
    card = ModelCard(a_card(folder, record, title="a: 'b' # c").content)
    assert card.data.model_name == "a: 'b' # c"
    assert "{{ secret }} --- {% x %}" in card.text


def test_a_task_that_no_card_can_be_made_for_is_named(folder):
    with pytest.raises(ValueError, match="pipeline_tag='object-detection'.*image-classification"):
        a_card(folder, pipeline_tag="object-detection")


def test_an_adapters_card_names_its_base(folder):
    (folder / "adapter").mkdir()
    config = {"base_model_name_or_path": "someone/student-base"}
    (folder / "adapter" / "adapter_config.json").write_text(json.dumps(config))
    a_record().save(folder)
    card = adapter_card(folder, title="Stamps", pipeline_tag="image-classification")
    data = ModelCard(card.content).data
    assert (data.base_model, data.base_model_relation, data.library_name) == (
        "someone/student-base",
        "adapter",
        "peft",
    )
    assert {result.metric_name: result.metric_value for result in data.eval_results} == {
        "Accuracy": 0.875,
        "Macro F1": 0.8125,
    }
    for text in (
        'Model.from_pretrained("someone/student-base")',
        f'(base, "{folder}/adapter")',
        "| Accuracy | 0.8750 |",
    ):
        assert text in card.text


# ---- the record ----
def test_the_record_of_a_training_comes_back_without_tokens_and_folders(folder, tmp_path):
    args = CoLearningArguments(
        str(tmp_path / "out"), hub_token="hf_abcdefghijklmnop", logging_steps=7, lr_scheduler_kwargs={"min_lr": 0.1},
        deepspeed=None, run_name="mine", seed=3,
    )  # fmt: skip
    args.accelerator_config = str(tmp_path / "accelerator.json")
    history = [
        {"loss": 1.0, "epoch": 1.0, "alpha": 0.6},
        {"eval_loss": 2.0, "epoch": 1.0},
        {"epoch": 2.0, "alpha": 0.4},
    ]
    argv = ["--hub_token", "hf_abcdefghijklmnop", "--seeds", "2"]
    record = TrainingRecord.of(args, history, LatentMatching(), HeuristicAlpha(), argv=argv, seconds=float("nan"))
    text = record.save(folder).read_text()
    assert "hf_abc" not in text and "hub_token" not in text.lower() and str(tmp_path) not in text
    loaded = TrainingRecord.load(folder)
    assert loaded.alpha_history == [{"epoch": 1.0, "alpha": 0.6}, {"epoch": 2.0, "alpha": 0.4}]
    assert (loaded.terms, loaded.alpha, loaded.seed) == (["latent"], "HeuristicAlpha('latent')", 3)
    assert loaded.arguments["logging_steps"] == 7 and loaded.arguments["lr_scheduler_kwargs"] == {"min_lr": 0.1}
    assert loaded.arguments["accelerator_config"] == "accelerator.json"
    assert not {"output_dir", "run_name", "logging_dir"} & loaded.arguments.keys()
    assert (loaded.seconds, loaded.argv, loaded.versions["torch"]) == (None, ["--seeds", "2"], torch.__version__)
    assert TrainingRecord.load(loaded.save(folder).parent) == loaded


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("--seeds 5 --arms a b", "--seeds 5 --arms a b"),
        ("--output_dir runs/x --alpha 0.3", "--alpha 0.3"),
        ("--output-dir=/tmp/x --small", "--small"),
        ("--hub_token hf_x --push_to_hub_token=hf_y --alpha -1", "--alpha -1"),
        ("--data_dir /home/me/IMAGENET --audio_dir=/data/FSDD/", "--data_dir IMAGENET --audio_dir=FSDD"),
        ("--data_dir ~/IMAGENET --config recipes/x.yaml", "--data_dir IMAGENET --config recipes/x.yaml"),
        (r"--data_dir C:\data\FSDD", "--data_dir FSDD"),
        ("--data_dir ../data/FSDD --config ../x.yaml", "--data_dir FSDD --config x.yaml"),
    ],
)
def test_a_command_line_is_shown_without_tokens_results_and_folders(given, kept):
    assert public_argv(given.split()) == kept.split()


def test_values_of_all_kinds_become_json():
    value = {"a": (1, float("inf")), "token": "x", "b": {"c_token": "y", "d": torch.float32}, "e": True, "f": None}
    assert public(value) == {"a": [1, None], "b": {"d": "torch.float32"}, "e": True, "f": None}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[1]", "no record of a training"),
        ("{", "no record of a training"),
        ({"argv": ["--seeds", 5]}, "5 is no text"),
        ({"recipe": 7}, "7 is no text"),
        ({"scores": [0.9]}, r"the scores are \[0.9\]"),
        ({"dataset": {}}, "the dataset of the scores"),
        ({"dataset": {"name": "x", "type": "x", "split": "x", "samples": 0}}, "on 0 samples"),
    ],
)
def test_a_damaged_record_is_refused(folder, content, message):
    if isinstance(content, dict):
        content = json.dumps(dataclasses.asdict(a_record()) | content)
    (folder / RECORD).write_text(content)
    with pytest.raises(ValueError, match=message):
        TrainingRecord.load(folder)


def test_a_folder_without_a_record_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="has no colearning.json"):
        student_card(tmp_path, title="x", pipeline_tag="image-classification")


def test_terms_are_named_after_the_objective():
    args = CoLearningArguments("out")
    assert TrainingRecord.of(args, [], ContrastiveAlignment()).terms == ["contrastive"]
    assert TrainingRecord.of(args, []).terms == []


def test_an_alpha_that_was_never_logged_is_known_all_the_same(folder):
    record = TrainingRecord.of(
        CoLearningArguments("out"), [{"train_loss": 1.0, "epoch": 2.0}], LatentMatching(), ConstantAlpha(0.4)
    )
    assert record.alpha_history == [{"epoch": 2.0, "alpha": 0.4}]
    assert "\nL = (1 - 0.4) * L_task + 0.4 * L_latent\n" in a_card(folder, record, comparison=None).text


def test_base_models_are_hub_ids_and_not_folders(tmp_path):
    for name, ids in (("microsoft/resnet-18", ["microsoft/resnet-18"]), (str(tmp_path), []), ("", [])):
        config = ResNetConfig(embedding_size=4, hidden_sizes=[4], depths=[1], layer_type="basic")
        config._name_or_path = name
        assert base_models(CoLearningForImageClassification.from_backbone(config, 3, num_labels=2)) == ids
    assert base_models(tiny.student(ResNetConfig(hidden_sizes=[4], depths=[1], embedding_size=4))) == []


def test_hardware_names_the_processor_and_no_host():
    assert re.fullmatch(r".+, 3 processes of \d+ threads?", hardware(torch.device("cpu"), 3))
    assert hardware(torch.device("meta"), 2) == "2 x meta"


# ---- a bank's card ----
def test_a_banks_card_states_what_the_bank_is():
    description = {
        "teacher": "google-bert/bert-large-uncased", "revision": "6da4b6a", "pooling": "cls", "dtype": "float16",
        "fingerprint": "c0ffee", "modality": "text", "has_index": True,
    }  # fmt: skip
    given = {"repo_id": "someone/prompts", "num_rows": 4711, "num_distinct": 815, "dim": 1024}
    metadata = {"license": "mit", "language": "en", "source_datasets": ["someone/texts"], "inputs": "class prompts"}
    card = DatasetCard(bank_card(description, **given, **metadata).content)
    assert card.data.to_dict() == {
        "language": "en",
        "license": "mit",
        "pretty_name": "Teacher bank prompts",
        "source_datasets": ["someone/texts"],
        "tags": ["co-learning", "hf_colearn", "teacher-bank"],
    }
    rows = dict(re.findall(r"^\| (.+) \| (.+) \|$", card.text, flags=re.MULTILINE))
    del rows["---"]
    assert rows == {
        "teacher": "google-bert/bert-large-uncased",
        "revision": "6da4b6a",
        "inputs": "class prompts; from someone/texts",
        "pooling": "cls",
        "dtype of the teacher": "float16",
        "scaling of the latents": "none",
        "rows": "4711",
        "distinct latents": "815",
        "dimensions": "1024",
        "fingerprint": "`c0ffee`",
        "licence": "mit",
    }
    assert 'TeacherBank.from_hub("someone/prompts")' in card.text
    unnamed = bank_card(description | {"teacher": "/home/me/bert", "revision": None}, **given).text
    assert "| teacher | bert |" in unnamed and "| revision | none: local weights |" in unnamed
    assert "4711 text inputs, whose origin is not recorded" in unnamed and "| licence | not recorded;" in unnamed


def test_metadata_are_yaml_of_plain_values(folder):
    header = a_card(folder, a_record(scores={"accuracy": np.float64(0.5)})).content.split("---\n")[1]
    assert yaml.safe_load(header)["model-index"][0]["results"][0]["metrics"][0]["value"] == 0.5
