"""Saved students where hf_colearn is not installed (`trust_remote_code=True`), and where it is (its own code runs)."""

import os
import subprocess
import sys

import pytest
import torch

import families
from families import FAMILIES


STUDENTS = {"vit": "bottleneck", "bert": "auxiliary", "wav2vec2": "bottleneck"}

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

LOAD = """
for folder in sys.argv[1:]:
    auto, inputs = torch.load(f"{folder}/inputs.pt", weights_only=True)
    model = getattr(transformers, auto).from_pretrained(folder, trust_remote_code=True)
    assert type(model).__module__.startswith("transformers_modules."), type(model).__module__
    with torch.no_grad():
        output = model(**inputs)
    torch.save((output.logits, output.latents), f"{folder}/found.pt")
    model.save_pretrained(f"{folder}/again")
"""

TRY = """
for trust in (None, False):
    try:
        transformers.AutoModelForImageClassification.from_pretrained(sys.argv[1], trust_remote_code=trust)
    except ValueError as error:
        assert "trust_remote_code=True" in str(error), error
    else:
        raise SystemExit(f"loaded with trust_remote_code={trust}")
"""

TRUST = "transformers.AutoModelForImageClassification.from_pretrained(sys.argv[1], trust_remote_code=True)"


def run(code, cwd, *arguments):
    """Runs `code` in a fresh process far from the repository, with nobody to answer a prompt."""
    done = subprocess.run(
        [sys.executable, "-c", BLOCKED + code, *map(str, arguments)],
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": ""},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


def tamper(folder, marker):
    """Lets the checkpoint's code write `marker` when it runs."""
    code = folder / "student.py"
    code.write_text(f"open({str(marker)!r}, 'w').close()\n" + code.read_text())


def test_students_load_where_hf_colearn_cannot_be_imported(tmp_path):
    expected = {}
    for family, head in STUDENTS.items():
        student, inputs, folder = families.student(family, head=head), families.inputs(family), tmp_path / family
        families.stir(student).save_pretrained(folder)
        torch.save((type(student)._stock_class.__name__, inputs), folder / "inputs.pt")
        with torch.no_grad():
            expected[family] = student(**inputs)
    run(LOAD, tmp_path, *(tmp_path / family for family in STUDENTS))
    for family, output in expected.items():
        logits, latents = torch.load(tmp_path / family / "found.pt", weights_only=True)
        assert torch.equal(logits, output.logits)
        assert torch.equal(latents, output.latents)
        # What was saved there comes back here.
        student_class = FAMILIES[family][0]
        again = student_class._stock_class.from_pretrained(tmp_path / family / "again")
        assert type(again) is student_class
        with torch.no_grad():
            assert torch.equal(again(**families.inputs(family)).logits, output.logits)


def test_nothing_runs_without_trust_where_hf_colearn_is_missing(tmp_path):
    families.student("vit").save_pretrained(tmp_path / "student")
    marker = tmp_path / "code_ran"
    tamper(tmp_path / "student", marker)
    run(TRY, tmp_path, tmp_path / "student")
    assert not marker.exists()
    run(TRUST, tmp_path, tmp_path / "student")
    assert marker.exists()  # the marker does tell


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
    assert code == {"student.py", "configuration.py", "backbones.py", "folding.py", "heads.py", "pooling.py"}
    assert not any("import hf_colearn" in path.read_text() for path in tmp_path.glob("*.py"))
    assert not any("from hf_colearn" in path.read_text() for path in tmp_path.glob("*.py"))
