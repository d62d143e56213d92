"""The recipe of many tasks on two tables: its arms, the model that it keeps, and its choice of settings."""

import pytest
import yaml
from transformers import AutoModel

from hf_colearn.experiments.many_tasks import many_tasks_arms
from tiny_recipes import main_of


TABLES = ["--small", "--max_steps", "4", "--report", "false", "--tasks", "wine", "cancer"]


def test_two_tables_go_through_one_trunk(tmp_path, capsys):
    report = main_of("many_tasks", tmp_path, *TABLES)
    runs = {run["arm"]: run["metrics"] for run in report["runs"]}
    assert list(runs) == [arm.name for arm in many_tasks_arms()]
    assert all(set(metrics) >= {"accuracy", "accuracy_on_wine", "accuracy_on_cancer"} for metrics in runs.values())
    assert capsys.readouterr().out.rstrip().splitlines()[-len(runs) - 2].split()[-2:] == ["wine", "cancer"]
    model = AutoModel.from_pretrained(tmp_path / "runs/many_tasks/model")
    assert model.tasks == ("wine", "cancer") and model.student("wine").config.num_labels == 3

    settings = tmp_path / "settings.yaml"
    (elsewhere := tmp_path / "choice").mkdir()
    with pytest.raises(FileNotFoundError):  # choosing leaves no report
        main_of("many_tasks", elsewhere, *TABLES, "--choose", "true", "--settings", settings, "--arms", "one trunk")
    assert set(yaml.safe_load(settings.read_text())["wine, cancer"]["one trunk"]) == {"rate"}


def test_a_task_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(ValueError, match="there is no task 'music' in packages"):
        main_of("many_tasks", tmp_path, "--small", "--tasks", "music")
