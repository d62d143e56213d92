"""Diagnoses the installation and says what to do: `python -m hf_colearn.doctor [--fix] [--online] [--quiet]`.

One line a finding, `ok`, `warn` or `FAIL`; the exit status is 1 when anything failed. `--fix` mends torchaudio in place
(reversibly) and lists the commands for the rest, `--online` asks the Hub whether it answers, `--quiet` prints what is
not ok. At import time only the standard library is needed, so that a broken installation can still be diagnosed.
"""

import argparse
import importlib.metadata
import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path


OLDEST_PYTHON, NEWEST_PYTHON = (3, 10), (3, 13)  # what is tested
OPTIONAL_TOOLS = {  # distribution: what it is good for
    "soundfile": "reading and writing audio files",
    "torchcodec": "decoding audio and video columns of datasets",
    "matplotlib": "figures",
    "scikit-learn": "the digits demo and reports",
}
LOW_ON_DISK = 2 * 2**30  # bytes
SET_ASIDE = ".disabled"  # what `--fix` appends to the names of torchaudio's libraries


def _pip(*arguments: str) -> str:
    return shlex.join([sys.executable, "-m", "pip", *arguments])


FIX = shlex.join([sys.executable, "-m", "hf_colearn.doctor", "--fix"])


@dataclass
class Finding:
    """What one check found."""

    level: str  # "ok", "warn" (works, with a limit that should be known) or "FAIL"
    subject: str  # what was looked at
    message: str
    way_out: str = ""  # what to do about it, a command where there is one

    def __str__(self) -> str:
        way_out = f" -> {self.way_out}" if self.way_out else ""
        return " ".join(f"{self.level:5}{self.subject}: {self.message}{way_out}".split("\n"))


def check_python() -> Finding:
    """The Python version against those that are tested."""
    version = sys.version_info[:2]
    message = f"{sys.version.split()[0]} at {sys.executable}"
    if version < OLDEST_PYTHON:
        return Finding("FAIL", "python", message, "make a virtual environment with Python 3.10 to 3.13")
    if version > NEWEST_PYTHON:
        return Finding("warn", "python", f"{message}, not tested", "if anything fails, use Python 3.10 to 3.13")
    return Finding("ok", "python", message)


def check_versions() -> list[Finding]:
    """The installed packages against the requirements that hf-colearn itself declares."""
    try:
        from packaging.requirements import Requirement
    except ModuleNotFoundError:
        return [Finding("FAIL", "packaging", "not installed", _pip("install", "packaging"))]
    try:
        requirements = [Requirement(line) for line in importlib.metadata.requires("hf-colearn") or []]
    except importlib.metadata.PackageNotFoundError:
        message = "not installed, only its source is found, so the versions it needs are unknown"
        return [Finding("warn", "hf-colearn", message, _pip("install", "-e", "."))]
    findings = []
    for requirement in requirements:
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        version = _version(requirement.name)
        if version is None:
            finding = Finding("FAIL", requirement.name, "not installed", _pip("install", str(requirement)))
        elif not requirement.specifier.contains(version, prereleases=True):
            message = f"{version} is installed, {requirement.specifier} is needed"
            finding = Finding("FAIL", requirement.name, message, _pip("install", str(requirement)))
        else:
            finding = Finding("ok", requirement.name, version)
        findings.append(finding)
    return findings


def check_torch() -> list[Finding]:
    """The build of torch and the accelerators that it sees."""
    try:
        import torch
    except Exception as error:
        message = f"cannot be imported: {type(error).__name__}: {error}"
        return [Finding("FAIL", "torch build", message, _pip("install", "--force-reinstall", "torch"))]

    build = "CPU build" if torch.version.cuda is None else f"CUDA {torch.version.cuda} build"
    if torch.version.hip is not None:
        build = f"ROCm {torch.version.hip} build"
    findings = [Finding("ok", "torch build", f"{torch.__version__}, {build}")]
    if torch.cuda.is_available():
        names = ", ".join(torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count()))
        findings.append(_accelerator("cuda", torch.cuda.device_count(), torch.cuda.is_bf16_supported(), names))
    if torch.xpu.is_available():
        findings.append(_accelerator("xpu", torch.xpu.device_count(), torch.xpu.is_bf16_supported()))
    if torch.backends.mps.is_available():
        findings.append(_accelerator("mps", 1, torch.backends.mps.is_macos_or_newer(14, 0)))
    if len(findings) == 1:
        if shutil.which("nvidia-smi"):
            message = f"nvidia-smi is here, but this torch ({build}) sees no GPU"
            findings.append(Finding("warn", "accelerators", message, "install a torch build that fits the driver"))
        else:
            message = "torch sees none (CUDA, ROCm, XPU, MPS), training runs on the CPU"
            findings.append(Finding("ok", "accelerators", message))
    return findings


def check_torchaudio() -> Finding:
    """Whether a plain script can import torchaudio, as peft, evaluate and `transformers.pipeline` do."""
    if importlib.util.find_spec("torchaudio") is None:
        return Finding("FAIL", "torchaudio", "not installed", _pip("install", "torchaudio"))

    # A fresh process, because in this one the guard may have imported torchaudio without its compiled part.
    flag = "torchaudio._extension._IS_TORCHAUDIO_EXT_AVAILABLE"
    done = _python(f"import torch; print('torch'); import torchaudio; print({flag})")
    if "torch" not in done.stdout:
        return Finding("FAIL", "torchaudio", "needs a torch that can be imported", "mend torch first")
    if done.returncode == 0 and "True" in done.stdout:
        return Finding("ok", "torchaudio", "can be imported, with its compiled part")
    if done.returncode == 0:
        set_aside = _libraries(SET_ASIDE)
        origin = f"set aside by --fix ({_how_to_undo()})" if set_aside else "not installed"
        return Finding("ok", "torchaudio", f"can be imported, its compiled part is {origin}")

    if "different CUDA versions" in done.stderr:
        reason = "its compiled part was built for another CUDA version than torch"
    elif "libc10_cuda" in done.stderr or "libtorch_cuda" in done.stderr:
        reason = "its compiled part was built for CUDA, and this torch is no CUDA build"
    elif "Could not load this library" in done.stderr:
        reason = f"its compiled part does not fit this torch ({_error_in(done.stderr)})"
    else:
        way_out = _pip("install", "--force-reinstall", "--no-deps", "torchaudio")
        return Finding("FAIL", "torchaudio", f"cannot be imported: {_error_in(done.stderr)}", way_out)
    effect = "so `import peft` and `from transformers import pipeline` fail (after `import hf_colearn` they work)"
    return Finding("FAIL", "torchaudio", f"{reason}, {effect}", FIX)


def check_unwanted() -> list[Finding]:
    """Packages that hf_colearn does not need, and that break transformers where they cannot be imported."""
    findings = []
    for name, level in {"torchvision": "FAIL", "timm": "warn"}.items():
        if importlib.util.find_spec(name) is None:
            continue
        done = _python(f"import {name}")
        if done.returncode == 0:
            findings.append(Finding("ok", name, "importable (hf_colearn does not need it)"))
        else:
            effect = "breaks transformers' image processors and peft" if level == "FAIL" else "is unusable"
            message = f"cannot be imported ({_error_in(done.stderr)}) and {effect}; hf_colearn does not need it"
            findings.append(Finding(level, name, message, _pip("uninstall", "-y", name)))
    return findings


def check_optional_tools() -> list[Finding]:
    """Which tools that only some uses need are installed, and whether torchcodec finds FFmpeg's libraries."""
    findings = []
    for name, purpose in OPTIONAL_TOOLS.items():
        version = _version(name)
        if version is None:
            findings.append(Finding("ok", name, f"not installed, optional, for {purpose}", _pip("install", name)))
        elif name == "torchcodec" and (done := _python("import torchcodec")).returncode != 0:
            message = f"{version} is installed, but cannot be imported: {_error_in(done.stderr)}"
            way_out = "install FFmpeg's libraries with the system's package manager, such as: apt-get install ffmpeg"
            findings.append(Finding("warn", name, message, way_out))
        else:
            findings.append(Finding("ok", name, version))
    return findings


def check_hub(online: bool = False) -> list[Finding]:
    """The cache of models and datasets, offline mode, and whether there is a token (never the token itself)."""
    try:
        from huggingface_hub import constants, get_token
    except Exception as error:
        message = f"cannot be imported: {type(error).__name__}: {error}"
        return [Finding("FAIL", "huggingface_hub", message, _pip("install", "--force-reinstall", "huggingface-hub"))]

    home = Path(constants.HF_HOME)
    existing = home
    while not os.path.exists(existing):
        existing = existing.parent
    free = shutil.disk_usage(existing).free
    if not (existing.is_dir() and os.access(existing, os.W_OK)):
        cache = Finding("warn", "cache", f"{home} is not writable", "export HF_HOME=<a folder that is>")
    elif free < LOW_ON_DISK:
        message = f"{home} has only {free / 2**30:.1f} GiB of free disk space"
        cache = Finding("warn", "cache", message, "export HF_HOME=<a folder with more space>, or run `hf cache prune`")
    else:
        cache = Finding("ok", "cache", f"{home}, writable, {free / 2**30:.0f} GiB free")
    if constants.HF_HUB_OFFLINE:
        hub = Finding("ok", "hub", "HF_HUB_OFFLINE is set: only what is in the cache is used")
    elif online:
        hub = _ask_hub(constants.ENDPOINT)
    else:
        hub = Finding("ok", "hub", f"{constants.ENDPOINT}, not asked whether it answers (--online asks)")
    token = "found" if get_token() else "none (needed to publish and to read private repositories: `hf auth login`)"
    return [cache, hub, Finding("ok", "token", token)]


def _ask_hub(endpoint: str) -> Finding:
    from huggingface_hub.utils import get_session

    try:
        status = get_session().head(endpoint, timeout=10).status_code
    except Exception as error:  # of whichever HTTP library huggingface_hub uses
        reason = f"does not answer: {type(error).__name__}: {error}"
        return Finding("warn", "hub", f"{endpoint} {reason}", "export HF_HUB_OFFLINE=1 to use the cache alone")
    return Finding("ok" if status < 400 else "warn", "hub", f"{endpoint} answers with HTTP status {status}")


def check_package() -> Finding:
    """Whether hf_colearn itself can be imported, whatever the checks before this one found."""
    try:
        from hf_colearn import CoLearningTrainer  # noqa: F401
    except Exception as error:
        return Finding("FAIL", "hf_colearn", f"{type(error).__name__}: {error}", "mend the failures above first")
    return Finding("ok", "hf_colearn", "can be imported")


def diagnose(online: bool = False) -> list[Finding]:
    """Runs every check.

    Args:
        online (`bool`, *optional*, defaults to `False`): Ask the Hub whether it answers.

    Returns:
        `list[Finding]`: In the order in which they are printed.
    """
    return [
        check_python(),
        *check_versions(),
        *check_torch(),
        check_torchaudio(),
        *check_unwanted(),
        *check_optional_tools(),
        *check_hub(online),
        check_package(),
    ]


def fix_torchaudio() -> list[str]:
    """Sets torchaudio's compiled libraries aside, so that it imports everywhere; returns what was done, as lines."""
    lines: list[str] = []
    for path in _libraries(".so") + _libraries(".pyd"):
        try:
            renamed = path.replace(path.with_name(path.name + SET_ASIDE))
        except OSError as error:
            return [*lines, f"cannot rename {path} ({error}); run --fix as a user who may write there"]
        lines.append(f"renamed {path} to {renamed.name}")
    return [*lines, f"to undo: {_how_to_undo()}"]


def _libraries(suffix: str) -> list[Path]:
    """The files of torchaudio's library folder that end in `suffix`."""
    return sorted(_library_folder().glob(f"*{suffix}"))


def _library_folder() -> Path:
    spec = importlib.util.find_spec("torchaudio")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError("torchaudio is not installed, so there is nothing to mend: pip install torchaudio")
    return Path(spec.origin).parent / "lib"


def _how_to_undo() -> str:
    return f"drop {SET_ASIDE} from the file names in {_library_folder()}"


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def _accelerator(kind: str, count: int, bf16: bool, names: str = "") -> Finding:
    return Finding("ok", kind, f"{count} device(s){': ' + names if names else ''}, bf16 {'yes' if bf16 else 'no'}")


def _python(code: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


def _error_in(stderr: str) -> str:
    """The line of a traceback that names its first, and so its original, error."""
    errors = re.findall(r"^[\w.]*(?:Error|Exception)\b.*", stderr, flags=re.MULTILINE)
    return errors[0] if errors else "without a Python error"


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m hf_colearn.doctor", description=__doc__.splitlines()[0])
    parser.add_argument("--fix", action="store_true", help="mend torchaudio in place, list the commands for the rest")
    parser.add_argument("--online", action="store_true", help="ask the Hub whether it answers")
    parser.add_argument("--quiet", action="store_true", help="print what is not ok, and nothing else")
    args = parser.parse_args(argv)

    if args.fix and check_torchaudio().way_out == FIX:
        fixed = fix_torchaudio()
        if not args.quiet:
            print(*fixed, sep="\n")
    findings = diagnose(args.online)
    for finding in findings:
        if finding.level != "ok" or not args.quiet:
            print(finding)
    failed = [finding for finding in findings if finding.level == "FAIL"]
    if failed or not args.quiet:
        print(f"{len(findings)} checks, {len(failed)} failed")
    if args.fix and failed:
        print("Left to do:", *(f"  {finding.way_out}" for finding in failed), sep="\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
