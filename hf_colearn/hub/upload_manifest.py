"""What of a finished run is published: a complete model, adapter or report, and nothing that is unsafe to load."""

import json
import math
import mmap
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import safetensors  # as a module: `datasets` could not hash its class `safe_open`, which an editable package takes along
from huggingface_hub import ModelCard
from yaml import YAMLError

from hf_colearn.hub.card import model_card
from hf_colearn.hub.exported_files import training_heads_in, write_without_training_heads
from hf_colearn.hub.model_kind import ModelKind
from hf_colearn.hub.record import HUB_ID, RECORD, TrainingRecord
from hf_colearn.utils.hub_names import check_repo_id


Files = dict[str, Path | bytes]
"""By the path in the repository: the local file or, where it differs from that, the content."""

# Loading any of these may run code that it holds; `.distcp` and names with "optimizer" are a checkpoint's.
UNSAFE = (".bin", ".ckpt", ".distcp", ".joblib", ".npz", ".pickle", ".pkl", ".pt", ".pth", ".pyc", ".pyo")
REPORT = ("report.html", "report.md", "report.json", "figures")
# What Trainer and CoLearningTrainer write beside a model, and nobody needs who loads it.
_OF_TRAINING = re.compile(
    r"training_args\.bin|optimizer\.(pt|bin)|scheduler\.pt|scaler\.pt|rng_state(_\d+)?\.pth|trainer_state\.json|"
    r"callback_states\.pt|(training|averaged)_weights\.safetensors|events\.out\.tfevents\..*"
)
_CHECKPOINT = re.compile(r"checkpoint-\d+")
_PEFT_TEMPLATE = "# Model Card for Model ID\n"
_WEIGHTS = {"config.json": "model.safetensors", "adapter_config.json": "adapter_model.safetensors"}


@dataclass
class UploadManifest:
    """What a repository will hold, and what of the folder it will not.

    Args:
        files (`dict`): All but the card.
        card (`str`): The README.md.
        base (`str`, *optional*): The repository of an adapter's base model.
        left_out (`list[str]`): Files of the training that are not sent.
        notes (`list[str]`): What else differs from the folder.
        refused (`list[str]`): What must be mended first: nothing is sent while there is any.
    """

    files: Files
    card: str
    base: str | None = None
    left_out: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)


def upload_manifest(
    run: Path, repo_id: str, scratch: Path, adapter: bool = False, base: str | None = None
) -> UploadManifest:
    """What is published of a run, or of the folder of a model.

    In the card, quoted paths of the folder become `repo_id`; in `adapter/adapter_config.json` the base is where it then
    lies. A card that is missing is written from the record, and training heads are taken out, into the folder `scratch`.
    All that changes in what is sent, not on the disk.
    """
    folder = find_student(run)
    if adapter and not (folder / "adapter_config.json").is_file():
        folder = folder / "adapter"
        if not folder.is_dir():
            raise FileNotFoundError(f"'{folder}' is not there: only a run with LoRA has an adapter.")
    config = next((name for name in _WEIGHTS if (folder / name).is_file()), None)  # None of a plain module
    manifest = UploadManifest({}, "")
    files = _safe_files(folder, folder.rglob("*"), manifest)
    manifest.refused += _incomplete(folder, files, config)
    if folder != run and not adapter:
        pages = [path for name in REPORT for path in (run / name, *(run / name).rglob("*"))]
        files |= {f"report/{name}": path for name, path in _safe_files(run, pages, manifest).items()}
    manifest.files = files
    if not manifest.refused:
        _without_heads(folder, scratch, manifest)
        manifest.card = _card(folder, repo_id, base, manifest)
        if config == "adapter_config.json":
            _name_base(folder, repo_id, base, manifest)
        elif "adapter/adapter_config.json" in files:
            _adapter_beside(folder, repo_id, files)
        manifest.card = _with_hub_paths(manifest.card, folder.resolve().name, repo_id)
        manifest.refused += _wrong_metadata(manifest.card)
        if ModelCard(manifest.card).data.license is None:
            manifest.notes.append(
                "README.md names no licence: write `license: ...` into its metadata where you chose one"
            )
    return manifest


def _card(folder: Path, repo_id: str, base: str | None, manifest: UploadManifest) -> str:
    """The folder's card; where there is none, or PEFT's empty template, one of what its record says."""
    has_card = manifest.files.pop("README.md", None) is not None
    is_empty = has_card and _PEFT_TEMPLATE in _read_card(folder)
    if has_card and not is_empty:
        return _read_card(folder)
    record = TrainingRecord.load(folder) if RECORD in manifest.files else None
    known = f"{RECORD} knows" if record else f"its files tell, since there is no {RECORD}"
    instead = ", in place of PEFT's empty template" if is_empty else ""
    manifest.notes.append(f"README.md is written of what {known}{instead}")
    kind = ModelKind.of_folder(folder)
    kind = replace(kind, base=base or kind.base)
    return str(model_card(folder, kind, record, title=repo_id.split("/")[-1], repo_id=repo_id))


def _without_heads(folder: Path, scratch: Path, manifest: UploadManifest) -> None:
    heads = training_heads_in(folder)
    if not heads:
        return
    for name, path in write_without_training_heads(folder, scratch).items():
        del manifest.files[name]
        if path is not None:
            manifest.files[name] = path
    manifest.notes.append(f"the training heads {', '.join(map(repr, heads))} are left out: only training needs them")


def _adapter_beside(folder: Path, repo_id: str, files: Files) -> None:
    """The adapter in a student's folder: its base lies beside it."""
    config = _read_json(folder / "adapter" / "adapter_config.json")
    config["base_model_name_or_path"] = f"{repo_id}/base"
    files["adapter/adapter_config.json"] = json.dumps(config, indent=2).encode()
    if "adapter/README.md" in files:
        card = ModelCard(_with_hub_paths(_read_card(folder / "adapter"), folder.resolve().name, repo_id))
        card.data.base_model = repo_id
        files["adapter/README.md"] = str(card).encode()


def _name_base(folder: Path, repo_id: str, base: str | None, manifest: UploadManifest) -> None:
    """An adapter alone: its configuration and card name `base`, or the repository in its configuration."""
    source = manifest.files["adapter_config.json"]
    config = json.loads(source if isinstance(source, bytes) else source.read_text())
    named = config.get("base_model_name_or_path") or ""
    if not re.fullmatch(HUB_ID, base or named) or (base is None and Path(named).exists()):
        local = (
            f"'{base or named}' is no repository but a local base model" if base or named else "it names no base model"
        )
        manifest.refused.append(
            f"{local}, which others cannot load: publish the base model first, and name its repository (base='me/base', or "
            "--base me/base); or save adapter, base and merged student by hf_colearn.models.lora.save_student, and publish "
            "that folder"
        )
        return
    config["base_model_name_or_path"] = manifest.base = base or named
    manifest.files["adapter_config.json"] = json.dumps(config, indent=2).encode()
    card = ModelCard(manifest.card)
    card.data.base_model, card.data.base_model_relation = manifest.base, "adapter"
    if named:
        card.text = card.text.replace(f'"{named}"', f'"{manifest.base}"')
    manifest.card = str(card)


def find_student(run: Path) -> Path:
    """The folder of a run's model: the run itself, or `student` or `model` in it."""
    names = ("config.json", "adapter_config.json", "model.safetensors", "model.safetensors.index.json")
    for folder in (run, run / "student", run / "model"):
        if any((folder / name).is_file() for name in names):
            return folder
    checkpoints = sorted(path.name for path in run.glob("*") if _CHECKPOINT.fullmatch(path.name))
    found = f" There are checkpoints in it: {', '.join(checkpoints)}; give one of these." if checkpoints else ""
    raise FileNotFoundError(
        f"there is no student in '{run}': neither it nor its 'student' or 'model' holds a config.json, an "
        "adapter_config.json or a model.safetensors. Give the folder of a finished run, such as runs/digits_l2v, or of a "
        f"model that was saved.{found}"
    )


def holds_token(files: Files, token: str | None) -> str | None:
    """The file that holds the token in use, or any string of a Hub token's form."""
    form = rb"\bhf_[A-Za-z0-9]{34}\b"
    secret = re.compile(re.escape(token.encode()) + rb"|" + form if token else form)
    for path, source in files.items():
        if isinstance(source, bytes):
            found = secret.search(source) is not None
        elif source.stat().st_size == 0:  # cannot be mapped
            continue
        else:
            with source.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
                found = secret.search(content) is not None
        if found:
            return path
    return None


def _safe_files(folder: Path, paths: Iterable[Path], manifest: UploadManifest) -> Files:
    """The files among paths in a folder that may be published, by their names in it; the manifest has the others."""
    root = folder.resolve()
    files: Files = {}
    for path in sorted(paths):
        name = path.relative_to(folder).as_posix()
        is_file = path.is_file()
        if _CHECKPOINT.fullmatch(name.split("/")[0]):
            if "/" not in name:
                manifest.left_out.append(f"{name}/")
        elif is_file and _OF_TRAINING.fullmatch(path.name):
            manifest.left_out.append(name)
        elif path.is_symlink() and not (is_file and path.resolve().is_relative_to(root)):
            manifest.refused.append(f"'{name}' is a link out of the folder, to a folder or to nothing: remove it")
        elif name.startswith(".") or "/." in name:
            manifest.refused.append(f"'{name}' is hidden: remove it")
        elif is_file and (path.suffix.lower() in UNSAFE or _is_pickle(path)):
            manifest.refused.append(
                f"'{name}' may run code when it is loaded: remove it, only safetensors are published"
            )
        elif is_file and path.name.startswith("optimizer"):
            manifest.refused.append(f"'{name}' is the state of an optimizer: remove it")
        elif is_file:
            files[name] = path
    return files


def _is_pickle(path: Path) -> bool:
    """Whether a file of another name is a pickle of protocol 2 or newer, or a zip, which `torch.save` writes."""
    with path.open("rb") as file:
        start = file.read(4)
    is_pickle = len(start) > 1 and start[0] == 0x80 and 2 <= start[1] <= 5
    return path.suffix != ".safetensors" and (is_pickle or start == b"PK\x03\x04")


def _incomplete(folder: Path, files: Files, config: str | None) -> Iterator[str]:
    """What is missing or damaged: configuration, weights, code, record, and the card where there is one."""
    weights = _WEIGHTS[config or "config.json"]
    if weights not in files and f"{weights}.index.json" not in files:
        yield f"'{folder}' has no {weights}: save the model again"
    for name in files:
        path = folder / name
        if name.endswith(".json"):
            try:
                _read_json(path)
            except ValueError as error:
                yield str(error)
                continue
        if name.endswith(".safetensors.index.json"):
            for shard in sorted(set(_read_json(path).get("weight_map", {}).values())):
                if str(Path(name).parent / shard) not in files:
                    yield f"'{path}' names '{shard}', which is missing: save the model again"
        elif name.endswith(".safetensors"):
            try:
                with safetensors.safe_open(path, framework="np"):
                    pass
            except safetensors.SafetensorError as error:
                yield f"'{path}' is damaged ({error}): save the model again"
        elif name == RECORD and "README.md" not in files:
            try:
                TrainingRecord.load(folder)
            except ValueError as error:
                yield str(error)
        elif name == "README.md":
            yield from _unreadable_card(folder)
    if config is not None and config in files:
        yield from _missing_code(folder, files, config)


def _missing_code(folder: Path, files: Files, config: str) -> Iterator[str]:
    try:
        named_code = _read_json(folder / config).get("auto_map", {}).values()
    except ValueError:  # told already
        return
    for named in named_code:
        code = f"{named.split('.')[0]}.py"
        if "--" not in named and code not in files:  # with it, the code is another repository's
            yield (
                f"'{folder / config}' names '{code}' as the model's code, which is missing: save the model again, by "
                "`model.save_pretrained`, so that it loads without hf_colearn, too"
            )


def _unreadable_card(folder: Path) -> Iterator[str]:
    try:
        data = ModelCard(_read_card(folder)).data.to_dict()
    except (ValueError, TypeError, YAMLError) as error:
        yield f"the metadata of '{folder / 'README.md'}' cannot be read: {error}"
        return
    if not data:
        yield f"'{folder / 'README.md'}' has no metadata: start it with YAML between two lines of '---'"


def _wrong_metadata(card: str) -> Iterator[str]:
    """What the Hub would not take of a card's metadata, or take for something else."""
    data = ModelCard(card).data
    for result in data.eval_results or []:
        value = result.metric_value
        if isinstance(value, float) and not math.isfinite(value):
            yield f"the metric '{result.metric_name or result.metric_type}' of README.md is {value}: remove it, or measure it"
    for dataset in [data.datasets] if isinstance(data.datasets, str) else data.datasets or []:
        try:
            check_repo_id(dataset, "the data set of README.md", with_owner=False)
        except ValueError as error:
            yield str(error)


def _read_card(folder: Path) -> str:
    return (folder / "README.md").read_text(encoding="utf-8")


def _read_json(path: Path) -> dict:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"'{path}' is no JSON ({error}): save the model again") from error
    return content if isinstance(content, dict) else {}


def _with_hub_paths(card: str, name: str, repo_id: str) -> str:
    """The card, in whose text quoted paths of the folder `name`, or of one in it, are the repository's."""

    def at_the_hub(path: re.Match) -> str:
        return f'"{repo_id}"' + (f', subfolder="{path[1]}"' if path[1] else "")

    text = ModelCard(card).text
    header = card.removesuffix(text)
    return header + re.sub(rf'"[^"\n]*/{re.escape(name)}(?:/([\w/-]+))?"', at_the_hub, text)
