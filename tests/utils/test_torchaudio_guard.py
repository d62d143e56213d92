"""The guard in processes of their own, against copies of the installed torchaudio that are broken in a known way."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

import child_python
from broken_torchaudio import copy_torchaudio, needs_torchaudio


ROOT = Path(__file__).parents[2]

# Loads the guard by its path: `import hf_colearn` would call it before the test does, and import transformers as well.
GUARD = f"""
import runpy
import_torchaudio = runpy.run_path({str(ROOT / "hf_colearn" / "utils" / "torchaudio_guard.py")!r})["import_torchaudio"]
"""

# The operators that torchaudio's compiled part registers and its Python part reads while it is imported.
OPERATORS = """
import torch
libraries = [torch.library.Library("_torchaudio", "DEF"), torch.library.Library("torchaudio", "DEF")]
for name, answer in {"cuda_version() -> int": CUDA_VERSION, "is_align_available() -> bool": False}.items():
    libraries[0].define(name)
    libraries[0].impl(name.split("(")[0], lambda answer=answer: answer, "CompositeExplicitAutograd")
for name in ("_lfilter_core_loop", "_overdrive_core_loop"):
    libraries[1].define(name + "() -> int")
torch.version.cuda = "13.0"
"""


def run(code: str, path: Path, fresh: bool = False) -> str:
    """Runs `code` with `path` in front of the installed packages; in a fresh process torch is not imported yet."""
    env = os.environ | {"PYTHONPATH": str(path)}
    if fresh:
        done = subprocess.run([sys.executable, "-c", code], env=env, cwd=path, capture_output=True, text=True)
    else:
        done = child_python.run(code, env=env, cwd=path)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@needs_torchaudio
def test_importing_the_package_makes_torchaudio_peft_and_evaluate_importable():
    code = """
import hf_colearn, torch, torchaudio
print(torchaudio.functional.resample(torch.zeros(1, 16000), 16000, 8000).shape)
import peft, evaluate
"""
    assert run(code, ROOT) == "torch.Size([1, 8000])"  # one second at 8 kHz


@needs_torchaudio
def test_a_library_that_does_not_load_leaves_torchaudio_in_pure_pytorch(tmp_path):
    copy_torchaudio(tmp_path)
    code = """
print(import_torchaudio(), import_torchaudio())
import torch, torchaudio
print(torchaudio.functional.lfilter(torch.ones(1, 3), torch.tensor([1.0, -0.5]), torch.tensor([0.5, 0.0])).tolist())
print(torchaudio.transforms.MelSpectrogram(n_mels=40)(torch.zeros(1, 1600)).shape)
try:
    torchaudio.functional.forced_align(torch.zeros(1, 5, 3), torch.ones(1, 2, dtype=torch.int32))
except RuntimeError as error:
    print(error)
"""
    statuses, filtered, mels, error = run(GUARD + code, tmp_path).splitlines()
    assert statuses == "pure-python pure-python"
    assert filtered == "[[0.5, 0.75, 0.875]]"  # y[n] = x[n] / 2 + y[n - 1] / 2
    assert mels == "torch.Size([1, 40, 9])"  # hops of 200 samples, centred: 1600 / 200 + 1 frames
    assert "not compiled with it" in error


@needs_torchaudio
@pytest.mark.parametrize("cuda_version, status", [(13000, "compiled"), (12060, "pure-python")])
def test_another_cuda_version_than_torchs_goes_without_the_compiled_part(tmp_path, cuda_version, status):
    (any_library,) = Path(importlib.util.find_spec("torch").origin).parent.glob("_C.*.so")
    copy_torchaudio(tmp_path, any_library.read_bytes())
    code = """
print(import_torchaudio())
import sys, torchaudio
print(sys.modules["torchaudio._extension.utils"]._load_lib.__module__)
"""
    operators = OPERATORS.replace("CUDA_VERSION", str(cuda_version))
    found, loader = run(operators + GUARD + code, tmp_path).splitlines()
    assert found == status
    if status == "compiled":
        assert loader == "torchaudio._extension.utils"  # torchaudio is as it was written


@pytest.mark.parametrize("name", ["torch", "torchaudio"])
def test_a_missing_package_raises_nothing(tmp_path, name):
    code = f"import sys; sys.modules[{name!r}] = None  # makes `import {name}` a ModuleNotFoundError\n"
    assert run(code + GUARD + "print(import_torchaudio())", tmp_path, fresh=True) == "missing"


def test_a_torch_that_cannot_be_imported_raises_nothing(tmp_path):
    (tmp_path / "torch.py").write_text("raise OSError('libcudart.so.13: cannot open shared object file')")
    assert run(GUARD + "print(import_torchaudio())", tmp_path, fresh=True) == "missing"


@needs_torchaudio
def test_an_error_elsewhere_in_torchaudio_is_not_swallowed(tmp_path):
    init = copy_torchaudio(tmp_path) / "__init__.py"
    (tmp_path / "torch.py").touch()  # the real one takes seconds to import, and the error comes before it is used
    code = f"""
for error in (ValueError, OSError):
    open({str(init)!r}, "w").write(f"raise {{error.__name__}}('not the compiled part')")
    try:
        import_torchaudio()
    except error as raised:
        print(raised)
"""
    assert run(GUARD + code, tmp_path, fresh=True).splitlines() == ["not the compiled part"] * 2
