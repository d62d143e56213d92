"""`hf-colearn publish` and `card` as typed; `report` has its tests beside the report, `card --check` beside the cards."""

import subprocess
import sys

import pytest

import tiny
from hf_colearn.cli import main
from hub_double import HubDouble, hub_env


CARD = "---\nlicense: apache-2.0\nlibrary_name: transformers\n---\n\n# Digits\n"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run's folder, as a recipe leaves it."""
    folder = tmp_path_factory.mktemp("runs") / "digits"
    tiny.student().save_pretrained(folder / "student")
    (folder / "student" / "README.md").write_text(CARD)
    (folder / "report.html").write_text("<p>report</p>")
    (folder / "figures").mkdir()
    for name in ("a", "b"):
        (folder / "figures" / f"{name}.svg").write_text("<svg/>")
    return folder


def test_a_run_is_published_by_one_command(run, tmp_path):
    (tmp_path / "home").mkdir()
    with HubDouble() as hub:
        command = [
            sys.executable,
            "-m",
            "hf_colearn.cli",
            "publish",
            str(run),
            "--repo_id",
            "tester/digits",
            "--private",
        ]
        done = subprocess.run(command, env=hub_env(hub, tmp_path / "home"), capture_output=True, text=True)
        assert hub.repos["model", "tester/digits"].private
        files = set(hub.files("tester/digits"))
    assert done.returncode == 0, done.stderr
    assert {"README.md", "config.json", "model.safetensors", "student.py", "report/report.html"} <= files
    first, *names, figures = done.stdout.splitlines()
    assert first.startswith("Published: ") and first.endswith("/tester/digits")
    assert {name.strip() for name in names} == {name for name in files if "figures" not in name}
    assert figures == "  report/figures/ (2 files)"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["publish", "nowhere", "--repo_id", "me/x"], "there is no student in 'nowhere'"),
        (["publish", "RUN", "--repo_id", "x"], "repo_id='x' is not of the form 'owner/name'"),
        (["publish", "RUN", "--repo_id", "me/x", "--base", "me/base"], "set adapter=True"),
        (["card", "nowhere"], "'nowhere' is neither a folder nor a student"),
        (["card", "RUN/student", "--check"], "colearning.json"),
    ],
)
def test_what_is_wrong_is_told_in_one_line(run, arguments, message, capsys):
    assert main([word.replace("RUN", str(run)) for word in arguments]) == 2
    out, err = capsys.readouterr()
    assert err.startswith("hf-colearn: ") and message in err and err.count("\n") == 1 and not out


def test_a_card_is_printed_as_it_is(run, capsys):
    assert main(["card", str(run / "student")]) == 0
    assert capsys.readouterr().out == CARD + "\n"


def test_options_of_a_recipe_are_for_a_card_alone(run, capsys):
    with pytest.raises(SystemExit) as end:
        main(["report", str(run), "--", "--data_dir", "x"])
    assert end.value.code == 2 and "'--data_dir x' after --" in capsys.readouterr().err
