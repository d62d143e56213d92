"""The command starts at once, `publish` and `card` do what is typed; `report` and `card --check` have tests of their own."""

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

import hf_colearn
import tiny
from hf_colearn.cli import main
from hub_double import HubDouble, hub_env


ROOT = Path(__file__).parents[1]
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
        command = [sys.executable, "-m", "hf_colearn", "publish", str(run), "--repo_id", "tester/digits", "--private"]
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


COMMANDS = [[sys.executable, "-m", "hf_colearn"], [str(Path(sys.executable).with_name("hf-colearn"))]]


@pytest.mark.parametrize("command", COMMANDS, ids=["module", "script"])
def test_help_answers_within_0_7_seconds_and_imports_no_torch(command):
    if not Path(command[0]).exists():
        pytest.skip("hf_colearn is not installed here")
    env = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONPROFILEIMPORTTIME": "1"}  # it prints every import
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([*command, "--help"], env=env, capture_output=True, text=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert "publish" in done.stdout and done.stdout.startswith("usage: hf-colearn ")
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "hf_colearn.cli" in imported and not imported & {"torch", "transformers", "numpy"}
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 0.7  # of a core, whatever else runs


@pytest.mark.parametrize(
    "arguments, own",
    [
        (["-m", "hf_colearn", "report"], True),
        (["-m", "hf_colearn.doctor"], True),
        (["/usr/bin/hf-colearn", "report"], True),
        (["-m", "hf_colearning"], False),
        (["train.py", "-m", "hf_colearn"], False),
        (["hf-colearn.py"], False),
        (["-c", "import hf_colearn"], False),
        ([], False),
    ],
)
def test_only_our_own_commands_put_off_what_import_hf_colearn_prepares(arguments, own, monkeypatch):
    monkeypatch.setattr(sys, "orig_argv", [sys.executable, *arguments])
    assert hf_colearn._is_own_command() is own


def test_a_broken_installation_leads_to_the_doctor(run, tmp_path):
    (tmp_path / "sitecustomize.py").write_text("import sys; sys.modules['torch'] = None")
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])}
    command = [*COMMANDS[0], "card", str(run / "student")]
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    told = done.stderr.splitlines()[-1]  # after what transformers says of a missing torch
    assert told.startswith("hf-colearn: hf_colearn cannot be loaded: ModuleNotFoundError: ")
    assert told.endswith("Run `python -m hf_colearn.doctor` to see what is wrong with the installation.")


def test_dir_shows_the_public_names_alone():
    assert dir(hf_colearn) == sorted(hf_colearn.__all__)


def test_options_of_a_recipe_are_for_a_card_alone(run, capsys):
    with pytest.raises(SystemExit) as end:
        main(["report", str(run), "--", "--data_dir", "x"])
    assert end.value.code == 2 and "'--data_dir x' after --" in capsys.readouterr().err


# ---- recipes ----
RECIPES = sorted(path.stem for path in (ROOT / "recipes").glob("*.py"))


def test_recipes_are_listed_with_a_line_each(capsys):
    assert main(["recipe"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == RECIPES
    assert "emoji_l2v              Few labels and many pairs: pictures of emoji learn from their names" in lines
    assert all(len(line.split(maxsplit=1)[1]) > 20 and len(line) < 128 for line in lines)


def test_a_recipe_is_printed_found_and_copied(tmp_path, capsys):
    script = ROOT / "recipes" / "imagenet_l2v.py"
    assert main(["recipe", "imagenet_l2v"]) == 0 and capsys.readouterr().out == script.read_text()
    assert main(["recipe", "imagenet_l2v", "--path"]) == 0 and capsys.readouterr().out == f"{script}\n"
    assert main(["recipe", "imagenet_l2v", "--copy", str(tmp_path / "mine")]) == 0
    copied = {path.name: path.read_text() for path in (tmp_path / "mine").iterdir()}
    names = ["imagenet_l2v.py", "imagenet_l2v.yaml", "imagenet_l2v_resnet50.yaml"]
    assert copied == {name: (script.parent / name).read_text() for name in names}
    capsys.readouterr()
    assert main(["recipe", "imagenet_l2v", "--copy", str(tmp_path / "mine")]) == 2
    told = f"hf-colearn: '{tmp_path}/mine/imagenet_l2v.py' exists: remove it, or copy into another folder.\n"
    assert capsys.readouterr().err == told


def test_the_yaml_of_another_recipe_is_not_copied_along(tmp_path, capsys):
    assert main(["recipe", "stamps", "--copy", str(tmp_path)]) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["stamps.py", "stamps.yaml"]  # none of stamps_pairs


@pytest.mark.parametrize(
    "name, meant",
    [
        ("imagenet", "did you mean 'imagenet_l2v'?"),
        ("digits-l2v.py", "did you mean 'digits_l2v'?"),
        ("../recipes/stamps", "choose among av_digits, "),
        ("zzz", "choose among av_digits, "),
    ],
)
@pytest.mark.parametrize("what", [[], ["--path"], ["--run"]], ids=["print", "path", "run"])
def test_a_mistyped_recipe_gets_a_suggestion(name, meant, what, capsys):
    assert main(["recipe", name, *what]) == 2
    out, err = capsys.readouterr()
    assert err.startswith(f"hf-colearn: there is no recipe '{name}': {meant}") and err.count("\n") == 1 and not out


@pytest.mark.parametrize(
    "command, usage",
    [
        (["recipe", "digits_l2v", "--run"], "usage: digits_l2v.py "),
        (["recipe", "digits_l2v", "--"], "usage: digits_l2v.py "),
        (["train"], "usage: hf-colearn train [options]"),
    ],
)
def test_what_follows_belongs_to_the_recipe(command, usage, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", sys.argv)
    with pytest.raises(SystemExit) as ended:
        main([*command, "--help"])
    assert ended.value.code == 0 and capsys.readouterr().out.startswith(usage)
    with pytest.raises(SystemExit) as ended:
        main([*command, "--seeds", "1", "--outputdir", "x"])
    assert (
        ended.value.code == 2 and "'--outputdir' is no option: did you mean --output_dir?" in capsys.readouterr().err
    )


@pytest.mark.parametrize(
    "command",
    [
        ["reprot"],
        ["report", "x", "--titel", "y"],
        ["publish", "x"],
        ["recipe", "--coppy"],
        ["recipe", "--run", "stamps"],
    ],
)
def test_a_mistyped_command_is_told_in_one_line(command, capsys):
    with pytest.raises(SystemExit) as ended:
        main(command)
    err = capsys.readouterr().err
    assert ended.value.code == 2 and err.startswith("hf-colearn") and err.count("\n") == 1
