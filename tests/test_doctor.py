"""The doctor, on installations that are broken in a known way. Nothing here touches the installed packages."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import child_python
import tiny
from broken_torchaudio import copy_torchaudio, needs_torchaudio
from hf_colearn import doctor
from hub_double import DROP, HubDouble, Response, fault_on


ROOT = Path(__file__).parents[1]


def python(*arguments: str, path: list[Path], **env: str) -> subprocess.CompletedProcess:
    """Runs Python in a fresh process in the first folder of `path`, with `path` in front of the installed packages."""
    env = {"PYTHONPATH": os.pathsep.join(map(str, path)), **env}
    return subprocess.run(
        [sys.executable, *arguments], env=os.environ | env, cwd=path[0], capture_output=True, text=True
    )


def only(findings: list[doctor.Finding], subject: str) -> doctor.Finding:
    (finding,) = [finding for finding in findings if finding.subject == subject]
    return finding


@needs_torchaudio
def test_fix_mends_torchaudio_for_scripts_that_never_import_hf_colearn(tmp_path):
    lib = copy_torchaudio(tmp_path) / "lib"
    done = python("-m", "hf_colearn.doctor", "--fix", path=[tmp_path, ROOT], HF_TOKEN="hf_do_not_show")

    names = ["_torchaudio.abi3.so.disabled", "libtorchaudio.abi3.so.disabled"]
    assert sorted(path.name for path in lib.glob("*.so*")) == names
    assert f"to undo: drop .disabled from the file names in {lib}" in done.stdout
    assert "ok   torchaudio: can be imported, its compiled part is set aside by --fix" in done.stdout
    assert "ok   token: found" in done.stdout
    assert "hf_do_not_show" not in done.stdout + done.stderr
    assert done.returncode == ("FAIL" in done.stdout)


def test_this_installation_is_healthy(capsys):
    assert doctor.main(["--quiet"]) == 0, capsys.readouterr().out
    assert not [line for line in capsys.readouterr().out.splitlines() if line.startswith("ok")]


def test_no_import_has_to_come_first(tmp_path):
    # Students' cards import hf_colearn first, and the tests of the Hub run their lines; this is the other order.
    tiny.student().save_pretrained(tmp_path)
    code = f"""
from transformers import AutoModelForImageClassification, pipeline
import evaluate, peft, sys
print("hf_colearn" in sys.modules)
import hf_colearn
print(type(AutoModelForImageClassification.from_pretrained({str(tmp_path)!r})).__module__)
"""
    done = child_python.run(code, env=os.environ | {"PYTHONPATH": str(ROOT)}, cwd=tmp_path)
    assert done.stdout.split() == ["False", "hf_colearn.models.student"], done.stderr


def test_a_missing_torch_is_a_failure_with_the_command_that_mends_it(tmp_path):
    (tmp_path / "sitecustomize.py").write_text("import sys; sys.modules['torch'] = None")
    done = python("-m", "hf_colearn.doctor", "--fix", path=[tmp_path, ROOT])
    assert done.returncode == 1, done.stderr
    command = f"{sys.executable} -m pip install --force-reinstall torch"
    assert "FAIL torch build: cannot be imported: ModuleNotFoundError" in done.stdout
    assert "FAIL hf_colearn: " in done.stdout
    assert done.stdout.index("Left to do:") < done.stdout.rindex(f"  {command}\n")


@needs_torchaudio
@pytest.mark.parametrize(
    "source, message, mended_by",
    [
        ("raise OSError('libc10_cuda.so: cannot open shared object file')", "this torch is no CUDA build", "--fix"),
        ("raise RuntimeError('compiled with different CUDA versions')", "another CUDA version than torch", "--fix"),
        ("raise ValueError('a foreign error')", "cannot be imported: ValueError: a foreign error", "torchaudio"),
    ],
)
def test_torchaudio_says_which_situation_it_is_in(tmp_path, monkeypatch, source, message, mended_by):
    (copy_torchaudio(tmp_path) / "__init__.py").write_text(source)
    (tmp_path / "torch.py").touch()  # the real one takes seconds to import, and the error comes before it is used
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    finding = doctor.check_torchaudio()
    assert finding.level == "FAIL"
    assert message in finding.message
    assert finding.way_out.endswith(mended_by)


def test_versions_are_held_against_the_packages_own_requirements(tmp_path, monkeypatch):
    metadata = tmp_path / "hf_colearn-9.dist-info" / "METADATA"
    metadata.parent.mkdir()
    requirements = ["torch>=2", "numpy>=999", "no-such-package>=1", 'pytest>=999; extra == "test"']
    lines = ["Metadata-Version: 2.1", "Name: hf-colearn", "Version: 9", *(f"Requires-Dist: {r}" for r in requirements)]
    metadata.write_text("\n".join(lines) + "\n")
    monkeypatch.syspath_prepend(tmp_path)

    enough, too_old, missing = doctor.check_versions()

    assert (enough.level, enough.subject) == ("ok", "torch")
    assert (too_old.level, missing.level) == ("FAIL", "FAIL")
    assert too_old.message.endswith("is installed, >=999 is needed")
    assert too_old.way_out == f"{sys.executable} -m pip install 'numpy>=999'"
    command = f"{sys.executable} -m pip install 'no-such-package>=1'"
    assert str(missing) == f"FAIL no-such-package: not installed -> {command}"


def test_python_versions_that_are_not_tested_are_named(monkeypatch):
    assert doctor.check_python().level == "ok"
    monkeypatch.setattr(doctor, "NEWEST_PYTHON", (3, 9))
    assert doctor.check_python().level == "warn"
    monkeypatch.setattr(doctor, "OLDEST_PYTHON", (3, 99))
    assert doctor.check_python().level == "FAIL"


def test_the_build_of_torch_and_its_accelerators_are_named():
    build, *accelerators = doctor.check_torch()
    assert torch.__version__ in build.message
    if torch.cuda.is_available():
        assert f"{torch.cuda.device_count()} device(s)" in only(accelerators, "cuda").message
    assert all(finding.level != "FAIL" for finding in accelerators)
    assert accelerators


def test_a_torchvision_that_cannot_be_imported_is_to_be_uninstalled(tmp_path, monkeypatch):
    (tmp_path / "torchvision.py").write_text("raise RuntimeError('operator torchvision::nms does not exist')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    finding = only(doctor.check_unwanted(), "torchvision")
    assert finding.level == "FAIL"
    assert "RuntimeError: operator torchvision::nms does not exist" in finding.message
    assert "does not need it" in finding.message
    assert finding.way_out == f"{sys.executable} -m pip uninstall -y torchvision"


def test_optional_tools_are_never_a_failure(monkeypatch):
    monkeypatch.setattr(doctor, "OPTIONAL_TOOLS", {"pytest": "tests", "no-such-package": "nothing"})
    present, absent = doctor.check_optional_tools()
    assert (present.level, present.message) == ("ok", pytest.__version__)
    assert (absent.level, absent.way_out) == ("ok", f"{sys.executable} -m pip install no-such-package")


def test_the_cache_is_looked_at_and_the_token_is_never_shown(tmp_path, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HOME", str(tmp_path / "not" / "there" / "yet"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(doctor, "LOW_ON_DISK", 0)
    monkeypatch.delenv("HF_TOKEN", raising=False)
    findings = doctor.check_hub()
    assert only(findings, "cache").level == "ok"
    assert "only what is in the cache is used" in only(findings, "hub").message
    assert only(findings, "token").message.startswith("none ")

    monkeypatch.setenv("HF_TOKEN", "hf_do_not_show")
    monkeypatch.setattr(doctor, "LOW_ON_DISK", 2**70)
    findings = doctor.check_hub()
    assert only(findings, "cache").level == "warn"
    assert "GiB of free disk space" in only(findings, "cache").message
    assert only(findings, "token").message == "found"
    assert "hf_do_not_show" not in "".join(map(str, findings))

    (tmp_path / "file").touch()
    monkeypatch.setattr(constants, "HF_HOME", str(tmp_path / "file" / "home"))
    assert "is not writable" in only(doctor.check_hub(), "cache").message


def test_the_hub_is_asked_only_on_request(monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    with HubDouble() as hub:
        hub.fault = fault_on("HEAD /$", Response(200))
        monkeypatch.setattr(constants, "ENDPOINT", hub.url)
        assert only(doctor.check_hub(), "hub").message == f"{hub.url}, not asked whether it answers (--online asks)"
        assert hub.requests == []
        assert str(only(doctor.check_hub(online=True), "hub")) == f"ok   hub: {hub.url} answers with HTTP status 200"
        assert hub.requests == [("HEAD", "/")]
        hub.fault = fault_on("HEAD /$", DROP)
        gone = only(doctor.check_hub(online=True), "hub")
    assert gone.level == "warn" and f"{hub.url} does not answer: RemoteProtocolError" in gone.message
