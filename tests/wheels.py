"""The wheel as a stranger gets it: built from a copy of the source tree, installed without its dependencies."""

import shutil
import subprocess
import sys
from pathlib import Path


ROOT = Path(__file__).parents[1]


def pip(*arguments, cwd):
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", *map(str, arguments)]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def build_wheel(source, out):
    """Builds it without isolation and without the network, from a copy in the folder `source`."""
    for folder in ("hf_colearn", "recipes"):
        shutil.copytree(ROOT / folder, source / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    pip("wheel", "--no-index", "--no-deps", "--no-build-isolation", "--wheel-dir", out, source, cwd=source)
    (wheel,) = out.glob("hf_colearn-*.whl")
    return wheel


def install_wheel(wheel, site):
    """Installs it into the folder `site`, beside nothing."""
    pip("install", "--no-index", "--no-deps", "--no-compile", "--target", site, wheel, cwd=site)


# The editable installation of the working tree answers imports by a finder of its own: it is taken out of reach first.
AWAY_FROM_THE_TREE = """
import sys
sys.meta_path[:] = [finder for finder in sys.meta_path if "__editable__" not in getattr(finder, "__module__", "")]
"""
