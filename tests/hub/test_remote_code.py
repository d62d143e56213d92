"""Whose code runs: a checkpoint's where hf_colearn is not installed and trust was given, hf_colearn's own where it is.

What the students then compute, and their pipelines, is in `test_pipelines.py`.
"""

import json
import os
import re

import pytest
import torch

import child_python
import families


BLOCKED = """
import sys
for name in ("hf_colearn", "torchaudio"):  # to import them fails, and to look for them finds nothing
    sys.modules[name] = None
import torch, transformers
try:
    import hf_colearn.models.student
except ModuleNotFoundError:
    pass
else:
    raise SystemExit("hf_colearn can be imported")
"""

TRY = """
import os

auto, (marker, honest, *folders) = transformers.AutoModelForImageClassification, sys.argv[1:]
for folder in (honest, *folders):
    for trust in (None, False):
        try:
            auto.from_pretrained(folder, trust_remote_code=trust)
        except ValueError as error:
            assert "trust_remote_code=True" in str(error), error
        else:
            raise SystemExit(f"loaded {folder} with trust_remote_code={trust}")
assert not os.path.exists(marker)
student = auto.from_pretrained(honest, trust_remote_code=True)
assert list(student.training_heads) == ["projector"]
assert os.path.exists(marker)  # the marker does tell
"""


def run(code, cwd, *arguments):
    """Runs `code` in a fresh process far from the repository, with nobody to answer a prompt."""
    done = child_python.run(BLOCKED + code, *map(str, arguments), env=os.environ | {"PYTHONPATH": ""}, cwd=cwd)
    assert done.returncode == 0, done.stderr


def tamper(folder, marker):
    """Lets the checkpoint's code write `marker` when it runs."""
    code = folder / "student.py"
    code.write_text(f"open({str(marker)!r}, 'w').close()\n" + code.read_text())


def test_nothing_runs_without_trust_where_hf_colearn_is_missing(tmp_path):
    marker, folders = tmp_path / "code_ran", [tmp_path / "inside", tmp_path / "above", tmp_path / "of_another"]
    for folder, module in zip(folders, ("student", "../../student", "../inside--student"), strict=True):
        families.student("vit", training_heads={"projector": 4}).save_pretrained(folder)
        tamper(folder, marker)
        config = json.loads((folder / "config.json").read_text())
        auto_map = {auto: name.replace("student.", f"{module}.") for auto, name in config["auto_map"].items()}
        config["auto_map"] = auto_map if module == "student" else auto_map | {"AutoConfig": f"{module}.Config"}
        (folder / "config.json").write_text(json.dumps(config))
    run(TRY, tmp_path / "above", marker, *folders)


@pytest.mark.parametrize("trust_remote_code", [None, False, True])
def test_where_hf_colearn_is_installed_its_own_class_is_used_and_no_remote_code_runs(trust_remote_code, tmp_path):
    student = families.stir(families.student("vit"))
    student.save_pretrained(tmp_path / "student")
    marker = tmp_path / "code_ran"
    tamper(tmp_path / "student", marker)
    inputs = families.inputs("vit")
    for loader in (type(student), type(student)._stock_class):
        loaded = loader.from_pretrained(tmp_path / "student", trust_remote_code=trust_remote_code)
        assert type(loaded) is type(student)
        with torch.no_grad():
            assert torch.equal(loaded(**inputs).logits, student(**inputs).logits)
    assert not marker.exists()


def test_a_checkpoint_carries_the_code_that_it_needs_and_none_of_the_trainer(tmp_path):
    families.student("vit").save_pretrained(tmp_path)
    code = {path.name for path in tmp_path.glob("*.py")}
    assert code == {
        *(
            "student.py",
            "student_base.py",
            "outputs.py",
            "configuration.py",
            "checkpoint.py",
            "dense.py",
            "prototypes.py",
        ),
        "caption_decoder.py",
        *("standardization.py", "stems.py", "trunk.py", "trunk_configuration.py"),
        *("backbones.py", "folding.py", "heads.py", "loading.py", "pooling.py", "short_clips.py", "training_heads.py"),
    }
    imports = re.compile(r"^\s*(import|from) hf_colearn", re.MULTILINE)  # and no example of a docstring
    assert not any(imports.search(path.read_text()) for path in tmp_path.glob("*.py"))
