"""Loading never unpickles: safetensors, Arrow and JSON only, `weights_only=True` where torch.load remains in transformers,
and code of a checkpoint runs only when asked for. The files here would leave a mark on the disk if they were unpickled.
"""

import ast
import io
import json
import os
import pickle
import re
import shutil
import struct
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from peft import AutoPeftModel, PeftModel
from safetensors import SafetensorError, safe_open
from transformers import AutoModel, AutoModelForImageClassification

import hf_colearn
import tiny
from hf_colearn import (
    CoLearningForImageClassification,
    CoLearningForMultimodalClassification,
    CoLearningTrainer,
    FeatureBackboneConfig,
    FrozenEncoder,
    HeuristicAlpha,
    TeacherBank,
)
from hf_colearn.models.lora import save_student as save_lora
from hf_colearn.models.lora import with_lora


class Harmful:
    """Makes a folder when it is unpickled."""

    def __init__(self, mark: Path):
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


def write_pickle(path, harmful):
    path.write_bytes(pickle.dumps(harmful, protocol=2))  # that of torch


def write_torch(path, harmful):
    torch.save({"weight": torch.zeros(2), "other": harmful}, path)


def write_numpy(path, harmful):
    with open(path, "wb") as file:
        np.save(file, np.array([harmful], dtype=object), allow_pickle=True)


@pytest.fixture
def mark(tmp_path):
    return tmp_path / "harm_was_done"


@pytest.mark.parametrize(
    ("write", "unpickle"),
    [
        (write_pickle, lambda path: pickle.loads(path.read_bytes())),
        (write_torch, lambda path: torch.load(path, weights_only=False)),
        (write_numpy, lambda path: np.load(path, allow_pickle=True)),
    ],
)
def test_the_files_of_these_tests_do_harm_where_they_are_unpickled(write, unpickle, tmp_path, mark):
    write(tmp_path / "file", Harmful(mark))
    unpickle(tmp_path / "file")
    assert mark.exists()


# ---- models ----


def save_teacher(folder) -> str:
    teacher = tiny.minilm()
    teacher.model.save_pretrained(folder)
    teacher.processor.save_pretrained(folder)
    return str(folder)


def save_student(folder) -> str:
    tiny.student().save_pretrained(folder)
    return str(folder)


def save_backbone(folder) -> str:
    tiny.student(head="auxiliary").to_transformers().save_pretrained(folder)
    return str(folder)


def as_backbone(head):
    def load(folder):
        return CoLearningForImageClassification.from_backbone(folder, latent_dim=24, head=head)

    return load


LOADERS = [
    pytest.param(save_teacher, FrozenEncoder.from_pretrained, id="teacher"),
    pytest.param(save_student, CoLearningForImageClassification.from_pretrained, id="student"),
    pytest.param(save_backbone, as_backbone("bottleneck"), id="backbone"),
    pytest.param(save_backbone, as_backbone("auxiliary"), id="backbone with a classifier"),
]


@pytest.mark.parametrize(("save", "load"), LOADERS)
@pytest.mark.parametrize("write", [write_pickle, write_torch])
def test_pickled_weights_are_refused(save, load, write, tmp_path, mark):
    folder = save(tmp_path / "model")
    os.remove(f"{folder}/model.safetensors")
    write(tmp_path / "model" / "pytorch_model.bin", Harmful(mark))
    with pytest.raises((OSError, pickle.UnpicklingError), match="model.safetensors|[Ww]eights.only"):
        load(folder)
    assert not mark.exists()


@pytest.mark.parametrize(("save", "load"), LOADERS)
def test_pickled_weights_beside_safe_ones_are_not_touched(save, load, tmp_path, mark):
    folder = save(tmp_path / "model")
    write_torch(tmp_path / "model" / "pytorch_model.bin", Harmful(mark))
    load(folder)
    assert not mark.exists()


# ---- weights that are none, or elsewhere ----


def save_multimodal(folder) -> str:
    backbones = {name: FeatureBackboneConfig(feature_dim=3) for name in ("text", "audio")}
    CoLearningForMultimodalClassification.from_backbones(backbones, latent_dim=2, num_labels=2).save_pretrained(folder)
    return str(folder)


MODELS = [
    pytest.param(save_student, AutoModelForImageClassification.from_pretrained, id="student"),
    pytest.param(save_multimodal, AutoModel.from_pretrained, id="multimodal"),
]


def write_index(folder, shard) -> None:
    """Lets an index name `shard` for all weights, whose own file is moved to `elsewhere.safetensors` above the folder."""
    folder = Path(folder)
    with safe_open(folder / "model.safetensors", "pt") as weights:
        names = dict.fromkeys(weights.keys(), shard)
    (folder / "model.safetensors").rename(folder.parent / "elsewhere.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": names}))


@pytest.mark.parametrize(("save", "load"), MODELS)
@pytest.mark.parametrize(
    "shard", ["../elsewhere.safetensors", "a/../../elsewhere.safetensors", "{above}/elsewhere.safetensors"]
)
def test_weights_outside_of_a_checkpoint_are_not_read(save, load, shard, tmp_path):
    shard = shard.format(above=tmp_path)
    folder = save(tmp_path / "model")
    (tmp_path / "model" / "a").mkdir()
    write_index(folder, shard)
    with pytest.raises(
        ValueError, match=f"index.json' names '{re.escape(shard)}' as a file of weights.*nothing is loaded"
    ):
        load(folder)


@pytest.mark.parametrize(("save", "load"), MODELS)
def test_weights_in_shards_are_read(save, load, tmp_path):
    folder = Path(save(tmp_path / "model"))
    whole = load(folder)
    whole.save_pretrained(tmp_path / "model", max_shard_size=100)
    (folder / "model.safetensors").unlink()
    assert len(list(folder.glob("model-*.safetensors"))) > 1
    assert all(torch.equal(weight, whole.state_dict()[name]) for name, weight in load(folder).state_dict().items())


@pytest.mark.parametrize(("save", "load"), MODELS)
def test_a_shard_that_is_missing_is_named(save, load, tmp_path):
    write_index(save(tmp_path / "model"), "absent.safetensors")
    with pytest.raises(FileNotFoundError, match="absent.safetensors"):
        load(tmp_path / "model")


def save_adapter(folder) -> str:
    save_lora(with_lora(tiny.student(), rank=2), None, folder)
    return str(folder / "adapter")


def load_adapter(folder):
    return PeftModel.from_pretrained(tiny.student(), folder)


SAFETENSORS = [
    *(pytest.param(*model.values, "model.safetensors", id=model.id) for model in MODELS),
    pytest.param(save_adapter, load_adapter, "adapter_model.safetensors", id="adapter"),
]


@pytest.mark.parametrize(("save", "load", "name"), SAFETENSORS)
@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda data: struct.pack("<Q", 10 * 2**30) + data[8:], "header too large"),  # 10 GB
        (lambda data: struct.pack("<Q", 2**64 - 1) + data[8:], "header too large"),
        (lambda data: struct.pack("<Q", 90 * 2**20) + data[8:], "invalid header length"),  # longer than the file
        (lambda data: data[: len(data) // 2], "file not fully covered|invalid header length"),
        (lambda data: b"", "header too small"),
    ],
)
def test_a_file_whose_header_lies_is_refused_without_reading_on(save, load, name, damage, message, tmp_path):
    path = Path(save(tmp_path / "model")) / name
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(SafetensorError, match=message):
        load(str(path.parent))


@pytest.mark.parametrize("latent_dim", [25, 10**12])  # of the weights it is 24
def test_a_configuration_of_another_size_is_refused_before_anything_of_that_size_is_made(latent_dim, tmp_path):
    folder = Path(save_student(tmp_path / "model"))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "latent_dim": latent_dim}))
    with pytest.raises(RuntimeError, match="ignore_mismatched_sizes"):
        AutoModelForImageClassification.from_pretrained(folder)


# ---- adapters ----


@pytest.mark.parametrize("write", [write_pickle, write_torch])
def test_a_pickled_adapter_is_refused(write, tmp_path, mark):
    folder = Path(save_adapter(tmp_path))
    (folder / "adapter_model.safetensors").unlink()
    write(folder / "adapter_model.bin", Harmful(mark))
    with pytest.raises(pickle.UnpicklingError, match="[Ww]eights.only"):
        load_adapter(str(folder))
    assert not mark.exists()


def test_an_adapter_that_names_a_module_to_import_is_refused(tmp_path, mark, monkeypatch):
    folder = Path(save_adapter(tmp_path))
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "planted.py").write_text(f"import os; os.mkdir({str(mark)!r})")
    config = json.loads((folder / "adapter_config.json").read_text())
    config["auto_mapping"] = {"base_model_class": "Model", "parent_library": "planted"}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="'planted' which is not in the import allowlist"):
        AutoPeftModel.from_pretrained(folder)
    assert not mark.exists()


# ---- banks ----


@pytest.fixture
def bank_folder(tmp_path):
    """A bank with repeated inputs, so that there is an index."""
    folder = tmp_path / "bank"
    bank = TeacherBank.from_latents(np.eye(2, 3, dtype=np.float32), inputs=["one", "two"])
    bank._index = np.array([0, 1, 1])
    bank.save(folder)
    return folder


def adopt(folder, name):
    """Notes the size that a file has now, so that it passes for the one that was written."""
    description = json.loads((folder / "bank.json").read_text())
    description["files"][name] = (folder / name).stat().st_size
    (folder / "bank.json").write_text(json.dumps(description))


def test_pickles_and_code_in_a_banks_folder_are_not_touched(bank_folder, mark):
    for name in ("bank.pkl", "state.pickle", "dataset_info.pkl"):
        write_pickle(bank_folder / name, Harmful(mark))
    for name in ("latents.npy", "index.npy"):
        write_numpy(bank_folder / name, Harmful(mark))
    write_torch(bank_folder / "latents.pt", Harmful(mark))
    for name in ("__init__.py", "bank.py"):
        (bank_folder / name).write_text(f"import os; os.mkdir({str(mark)!r})")
    bank = TeacherBank.load(bank_folder)
    assert bank.lookup([0, 1, 2]).tolist() == [[1, 0, 0], [0, 1, 0], [0, 1, 0]]
    assert bank.inputs == ["one", "two", "two"]
    assert not mark.exists()


@pytest.mark.parametrize("elsewhere", ["../other/latents.arrow", "{above}/other/latents.arrow"])
def test_a_bank_reads_its_own_files_whatever_its_description_names(elsewhere, bank_folder, tmp_path):
    other = TeacherBank.from_latents(np.ones((2, 3), dtype=np.float32))
    other.save(tmp_path / "other")
    description = json.loads((bank_folder / "bank.json").read_text())
    size = (tmp_path / "other" / "latents.arrow").stat().st_size
    more = {**description["files"], elsewhere.format(above=tmp_path): size}
    (bank_folder / "bank.json").write_text(json.dumps({**description, "files": more}))
    assert TeacherBank.load(bank_folder).lookup([0, 1]).tolist() == [[1, 0, 0], [0, 1, 0]]
    more.pop("latents.arrow")
    (bank_folder / "bank.json").write_text(json.dumps({**description, "files": more}))
    with pytest.raises(ValueError, match="it lists no latents.arrow"):
        TeacherBank.load(bank_folder)


@pytest.mark.parametrize("write", [write_pickle, write_torch, write_numpy])
@pytest.mark.parametrize("name", ["latents.arrow", "index.arrow", "bank.json"])
def test_a_pickle_in_the_place_of_a_banks_file_is_refused(name, write, bank_folder, mark):
    write(bank_folder / name, Harmful(mark))
    if name != "bank.json":
        adopt(bank_folder, name)
    with pytest.raises(ValueError):
        TeacherBank.load(bank_folder)
    assert not mark.exists()


def test_a_pickle_in_the_type_of_an_arrow_column_is_not_touched(bank_folder, mark):
    # Until pyarrow 14 a column of this extension type was unpickled on reading (CVE-2023-47248).
    table = pa.ipc.open_stream((bank_folder / "latents.arrow").read_bytes()).read_all()
    harm = pickle.dumps(Harmful(mark))
    harmful = {"ARROW:extension:name": b"arrow.py_extension_type", "ARROW:extension:metadata": harm}
    fields = [field.with_metadata(harmful) for field in table.schema]
    schema = pa.schema(fields, metadata=table.schema.metadata)
    with pa.ipc.new_stream(str(bank_folder / "latents.arrow"), schema) as stream:
        stream.write_table(table.cast(schema))
    assert harm in (bank_folder / "latents.arrow").read_bytes()
    adopt(bank_folder, "latents.arrow")
    assert TeacherBank.load(bank_folder).lookup([1]).tolist() == [[0, 1, 0]]
    assert not mark.exists()


# ---- checkpoints ----


def trainer(output_dir, **fields):
    return CoLearningTrainer(
        tiny.student(),
        tiny.arguments(output_dir, **fields),
        train_dataset=tiny.digits(32),
        bank=tiny.bank(),
        pairing=tiny.random_prompt(),
        alpha=HeuristicAlpha(),
    )


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    trainer(folder, max_steps=2, save_strategy="steps", save_steps=2).train()
    return folder / "checkpoint-2"


@pytest.fixture
def copied(checkpoint, tmp_path):
    return Path(shutil.copytree(checkpoint, tmp_path / "checkpoint-2"))


def test_a_run_resumes_from_the_checkpoint_of_these_tests(copied, tmp_path):
    run = trainer(tmp_path / "out", max_steps=3)
    run.train(resume_from_checkpoint=str(copied))
    assert run.state.global_step == 3


@pytest.mark.parametrize("write", [write_pickle, write_torch])
@pytest.mark.parametrize("name", ["optimizer.pt", "scheduler.pt", "rng_state.pth"])
def test_pickled_states_are_refused_on_resume(name, write, copied, tmp_path, mark):
    assert (copied / name).is_file()
    write(copied / name, Harmful(mark))
    with pytest.raises(pickle.UnpicklingError, match="[Ww]eights.only"):
        trainer(tmp_path / "out", max_steps=3).train(resume_from_checkpoint=str(copied))
    assert not mark.exists()


@pytest.mark.parametrize("name", ["model.safetensors", "callback_states.pt", "trainer_state.json"])
def test_a_pickle_in_the_place_of_a_checked_file_does_no_harm_on_resume(name, copied, tmp_path, mark):
    assert (copied / name).is_file()
    write_pickle(copied / name, Harmful(mark))
    run = trainer(tmp_path / "out", max_steps=3)
    with pytest.raises(Exception):  # noqa: B017  (of safetensors, json and transformers, as they like)
        run.train(resume_from_checkpoint=str(copied))
    assert not mark.exists()


@pytest.mark.parametrize("name", ["training_args.bin", "pytorch_model.bin", "config.json"])
def test_pickles_that_a_resumed_run_does_not_need_are_not_touched(name, copied, tmp_path, mark):
    write_torch(copied / name, Harmful(mark))
    run = trainer(tmp_path / "out", max_steps=3)
    run.train(resume_from_checkpoint=str(copied))
    assert run.state.global_step == 3
    assert not mark.exists()


def test_a_checkpoint_of_pickled_weights_is_refused_on_resume(copied, tmp_path, mark):
    (copied / "model.safetensors").unlink()
    write_torch(copied / "pytorch_model.bin", Harmful(mark))
    with pytest.raises(pickle.UnpicklingError, match="[Ww]eights.only"):
        trainer(tmp_path / "out", max_steps=3).train(resume_from_checkpoint=str(copied))
    assert not mark.exists()


# ---- code of a checkpoint ----


@pytest.fixture
def with_code(tmp_path, mark):
    """A checkpoint of an architecture of its own, whose code leaves the mark."""
    folder = tmp_path / "with_code"
    folder.mkdir()
    (folder / "code.py").write_text(
        f"import os\nos.makedirs({str(mark)!r}, exist_ok=True)\n"
        "from transformers import ViTConfig, ViTForImageClassification, ViTModel\n"
        "class Config(ViTConfig):\n    model_type = 'of_its_own'\n"
        "class Model(ViTModel):\n    config_class = Config\n"
        "class Classifier(ViTForImageClassification):\n    config_class = Config\n"
    )
    classes = {"AutoConfig": "Config", "AutoModel": "Model", "AutoModelForImageClassification": "Classifier"}
    auto_map = {auto: f"code.{name}" for auto, name in classes.items()}
    (folder / "config.json").write_text(json.dumps({"model_type": "of_its_own", "auto_map": auto_map}))
    return str(folder)


def load_teacher(folder, **trust):
    return FrozenEncoder.from_pretrained(folder, **trust)


def load_backbone(folder, **trust):
    return CoLearningForImageClassification.from_backbone(folder, latent_dim=24, **trust)


@pytest.mark.parametrize("load", [load_teacher, load_backbone])
def test_code_of_a_checkpoint_does_not_run_unless_asked_for(load, with_code, mark, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n" * 9))  # whatever lies in the standard input is no consent
    with pytest.raises(ValueError, match="trust_remote_code=True"):
        load(with_code)
    assert not mark.exists()


def test_code_of_a_teachers_checkpoint_runs_when_asked_for(with_code, mark):
    with pytest.raises(OSError, match="model.safetensors"):  # the checkpoint holds code, and no weights
        load_teacher(with_code, trust_remote_code=True)
    assert mark.exists()


def test_a_backbone_with_code_of_its_own_is_refused_even_when_asked_for(with_code, mark):
    with pytest.raises(ValueError, match="trust_remote_code=True.*one that transformers knows"):
        load_backbone(with_code, trust_remote_code=True)
    assert not mark.exists()


# ---- our own source ----


PICKLERS = {"pickle", "_pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}


def dangers(source: str) -> list[str]:
    """What in a Python source unpickles or runs what it has read."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names if alias.name.split(".")[0] in PICKLERS]
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in PICKLERS:
            found.append(node.module)
        elif (
            isinstance(node, ast.ImportFrom) and node.module == "torch"
        ):  # called by its own name it could not be told
            found += ["from torch import load" for alias in node.names if alias.name == "load"]
        elif isinstance(node, ast.Call):
            found += _in_call(ast.unparse(node.func), {keyword.arg: keyword.value for keyword in node.keywords})
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            arguments = node.args.posonlyargs + node.args.args
            defaults = dict(
                zip([argument.arg for argument in arguments][::-1], node.args.defaults[::-1], strict=False)
            )
            defaults |= {
                argument.arg: value
                for argument, value in zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True)
            }
            if not _is(defaults.get("trust_remote_code"), None, False):
                found.append("trust_remote_code by default")
    return found


def _in_call(name: str, keywords: dict) -> list[str]:
    found = []
    if name in ("eval", "exec", "compile", "__import__") or name.endswith((".read_pickle", "hub.load")):
        found.append(name)
    if name == "torch.load" and not _is(keywords.get("weights_only"), True):
        found.append("torch.load without weights_only=True")
    if name == "yaml.load" or name.endswith("unsafe_load"):
        found.append(name)
    if not _is(keywords.get("allow_pickle"), None, False):
        found.append("allow_pickle")
    if isinstance(keywords.get("trust_remote_code"), ast.Constant) and keywords["trust_remote_code"].value:
        found.append("trust_remote_code=True")
    return found


def _is(node: ast.expr | None, *values) -> bool:
    """Whether a value is absent (`None` among the values) or one of these constants."""
    return (node is None and None in values) or (isinstance(node, ast.Constant) and node.value in values)


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "def f():\n    from joblib import load",
        "import os, dill as d",
        "import torch\ntorch.load(path)",
        "from torch import load, nn\nload(path, weights_only=True)",
        "torch.load(path, map_location='cpu', weights_only=False)",
        "torch.load(path, weights_only=flag)",
        "np.load(path, allow_pickle=True)",
        "np.load(path, allow_pickle=flag)",
        "pd.read_pickle(path)",
        "torch.hub.load('repository', 'model')",
        "eval(text)",
        "exec(text)",
        "yaml.load(text)",
        "AutoModel.from_pretrained(name, trust_remote_code=True)",
        "def f(name, trust_remote_code=True): ...",
        "def f(name, *, trust_remote_code=True): ...",
        "def f(name, trust_remote_code='yes', revision=None): ...",
    ],
)
def test_dangerous_source_is_seen(source):
    assert len(dangers(source)) == 1


def test_safe_source_is_not_suspected():
    assert not dangers(
        "import json, picklescan\n"
        "model.eval()\n"
        "re.compile(pattern)\n"
        "torch.load(path, weights_only=True)\n"
        "np.load(path)\n"
        "TeacherBank.load(folder)\n"
        "data = load(options)\n"
        "def f(name, trust_remote_code=False):\n"
        "    return AutoModel.from_pretrained(name, trust_remote_code=trust_remote_code)\n"
        "def g(name, *, trust_remote_code=None): ...\n"
    )


def test_nothing_in_the_package_unpickles_or_runs_what_it_reads():
    package = Path(hf_colearn.__file__).parent
    sources = [*package.rglob("*.py"), *(package.parent / "recipes").rglob("*.py")]
    assert len(sources) > 20
    assert {str(path): found for path in sources if (found := dangers(path.read_text()))} == {}
