"""A stranger's path: the package installed from its wheel, the lines of a published student's card, a prediction.

The wheel is built from a copy, installed into a folder of its own beside the libraries that are there already, and used
where the repository's tree is out of reach.
"""

import json
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import jinja2
import numpy as np
import pytest
import torch
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

import child_python
import families
import tiny
from hub_double import HubDouble, hub_env, run_child
from wheels import AWAY_FROM_THE_TREE, ROOT, build_wheel, install_wheel


LABELS = {0: "cat", 1: "dog", 2: "owl"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    return build_wheel(tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def site(wheel, tmp_path_factory):
    """Where the wheel is installed."""
    site = tmp_path_factory.mktemp("site")
    install_wheel(wheel, site)
    return site


def test_the_wheel_has_every_module_and_template(wheel):
    packed = set(zipfile.ZipFile(wheel).namelist())
    of_package = {path for path in (ROOT / "hf_colearn").rglob("*") if path.suffix != ".pyc" and path.is_file()}
    of_package = {path for path in of_package if path.name != "README.md"}  # for whoever reads the code
    recipes = {
        f"hf_colearn/recipes/{path.name}"
        for path in (ROOT / "recipes").iterdir()
        if path.suffix in (".csv", ".py", ".yaml")
    }
    assert recipes | {str(path.relative_to(ROOT)) for path in of_package} == {
        name for name in packed if name.startswith("hf_colearn/")
    }
    assert {
        "hf_colearn/hub/student_card.md",
        "hf_colearn/analysis/report/report.html",
        "hf_colearn/py.typed",
    } <= packed
    assert any(name.endswith("dist-info/licenses/LICENSE") for name in packed)
    assert not any(name.startswith(("tests", "recipes")) for name in packed)


def test_its_metadata_say_where_the_project_lives(wheel):
    archive = zipfile.ZipFile(wheel)
    (metadata,) = (archive.read(name).decode() for name in archive.namelist() if name.endswith("dist-info/METADATA"))
    urls = dict(re.findall(r"^Project-URL: (\w+), (https://.+)$", metadata, flags=re.MULTILINE))
    assert set(urls) == {"Homepage", "Documentation", "Repository", "Issues"}


PUBLISH = """
import json
from huggingface_hub import HfApi

HfApi().create_repo("tester/student")
HfApi().upload_folder(repo_id="tester/student", folder_path=FOLDER)
print(json.dumps(None))
"""

STRANGER = """
import json, sys

CARD

from importlib import metadata
import numpy as np
from PIL import Image
import hf_colearn.hub.card, hf_colearn.trainer, hf_colearn.analysis

(command,) = metadata.distribution("hf-colearn").entry_points
print(json.dumps({
    "found": classify(Image.fromarray(np.load(PICTURE))),
    "class": type(classify.model).__module__,
    "version": [metadata.version("hf-colearn"), hf_colearn.__version__],
    "command": [command.name, command.load().__module__],
    "files": [module.__file__ for module in list(sys.modules.values()) if getattr(module, "__file__", None)],
}))
"""


def lines_of_the_card():
    """The first Python snippet of the card's template, for a student with a processor."""
    template = (ROOT / "hf_colearn" / "hub" / "student_card.md").read_text()
    rendered = jinja2.Template(template, undefined=jinja2.ChainableUndefined).render(
        repo_id="tester/student", pipeline_tag="image-classification", has_processor=True, verdict="", results=[]
    )
    snippet = re.search(r"```python\n(.*?)```", rendered, flags=re.DOTALL)[1]
    return "\n".join(line for line in snippet.splitlines() if line.strip() and not line.startswith("classify("))


def test_a_stranger_installs_the_wheel_and_classifies_a_picture(site, tmp_path):
    student = families.stir(
        families.student("vit", tiny.vit(num_channels=3), num_labels=None, id2label=LABELS, latent_norm="none")
    )
    student.save_pretrained(tmp_path / "student")
    ViTImageProcessorPil(size={"height": 8, "width": 8}).save_pretrained(tmp_path / "student")
    picture = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    np.save(tmp_path / "picture.npy", picture)
    card = lines_of_the_card()
    assert card.splitlines()[0].startswith("import hf_colearn") and len(card.splitlines()) == 3
    names = f"FOLDER, PICTURE = {str(tmp_path / 'student')!r}, {str(tmp_path / 'picture.npy')!r}\n"
    with HubDouble() as hub:
        run_child(names + PUBLISH, hub, tmp_path / "publisher")
        home = tmp_path / "stranger"
        home.mkdir()
        env = hub_env(hub, home) | {"PYTHONPATH": str(site)}
        script = AWAY_FROM_THE_TREE + names + STRANGER.replace("CARD", card)
        done = subprocess.run([sys.executable, "-c", script], env=env, cwd=home, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert hub.unhandled == []
    told = json.loads(done.stdout.splitlines()[-1])

    with torch.no_grad():
        pixels = (torch.from_numpy(picture).permute(2, 0, 1)[None] / 255 - 0.5) / 0.5
        scores = student(pixels).logits[0].softmax(0).tolist()
    ranked = sorted(zip(LABELS.values(), scores, strict=True), key=lambda pair: -pair[1])
    assert [(entry["label"], pytest.approx(entry["score"], abs=1e-4)) for entry in told["found"]] == ranked
    assert told["version"][0] == told["version"][1]
    assert told["command"] == ["hf-colearn", "hf_colearn.cli"]
    assert told["class"] == "hf_colearn.models.student"
    ours = [file for file in told["files"] if "hf_colearn" in Path(file).parts]
    assert len(ours) > 20 and all(file.startswith(str(site)) for file in ours)
    for folder in ("hf_colearn", "tests", "recipes"):
        assert not [file for file in told["files"] if file.startswith(str(ROOT / folder) + os.sep)]


EVERY_RECIPE = """
import contextlib, io, json, sys
sys.meta_path[:] = [finder for finder in sys.meta_path if "__editable__" not in getattr(finder, "__module__", "")]
from hf_colearn.cli import main
from hf_colearn.utils.recipe_files import recipe_names

def told(*argv):
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        try:
            main(argv)
        except SystemExit as ended:
            assert ended.code == 0, (argv, ended.code)
    return out.getvalue()

print(json.dumps({
    "listed": [line.split()[0] for line in told("recipe").splitlines()],
    "path": told("recipe", "digits_l2v", "--path").strip(),
    "copied": told("recipe", "imagenet_l2v", "--copy", "mine"),
    "help": {name: told("recipe", name, "--run", "--help") for name in recipe_names()},
    "train": told("train", "--help"),
}))
"""


def test_without_a_clone_every_recipe_is_listed_copied_and_helps(site, tmp_path):
    env = {**os.environ, "PYTHONPATH": str(site), "HF_HUB_OFFLINE": "1"}
    done = child_python.run(EVERY_RECIPE, env=env, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    recipes = sorted(path.stem for path in (ROOT / "recipes").glob("*.py"))
    assert told["listed"] == recipes == sorted(told["help"])
    assert told["path"] == str(site / "hf_colearn" / "recipes" / "digits_l2v.py")
    assert sorted(path.name for path in (tmp_path / "mine").iterdir()) == [
        "imagenet_l2v.py",
        "imagenet_l2v.yaml",
        "imagenet_l2v_resnet50.yaml",
    ]
    for name, text in told["help"].items():
        assert text.startswith(f"usage: {name}.py ") and str(ROOT) not in text, name
        assert f"hf-colearn recipe {name} --run" in text or name == "pairs", name
        assert f"recipes/{name}.py" not in text, name  # which only a clone has
    assert told["train"].startswith("usage: hf-colearn train [options]")
