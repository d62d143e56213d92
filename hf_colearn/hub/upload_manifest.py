"""What of a finished run is published: a complete student, adapter or report, and nothing that is unsafe to load."""

import json
import mmap
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import safetensors  # as a module: `datasets` could not hash its class `safe_open`, which an editable package takes along
from huggingface_hub import ModelCard
from yaml import YAMLError

from hf_colearn.hub.record import HUB_ID


Files = dict[str, Path | bytes]
"""By the path in the repository: the local file or, where it differs from that, the content."""

# Loading any of these may run code that it holds; `.distcp` and names with "optimizer" are a checkpoint's.
UNSAFE = (".bin", ".ckpt", ".distcp", ".joblib", ".npz", ".pickle", ".pkl", ".pt", ".pth", ".pyc", ".pyo")
REPORT = ("report.html", "report.md", "report.json", "figures")


@dataclass
class UploadManifest:
    """What a repository will hold: its files without the card, the card, and the repository of an adapter's base model."""

    files: Files
    card: str
    base: str | None = None


def student_manifest(run: Path, repo_id: str) -> UploadManifest:
    """A run's student and, below `report/`, its report.

    In the card, quoted paths of the folder become `repo_id`; in `adapter/adapter_config.json` the base is where it then
    lies. Both change in what is sent, not on the disk. Errors name every file that is missing or must not be published.
    """
    folder = find_student(run)
    files = _safe_files(folder, folder.rglob("*"))
    _check_complete(folder, files, "config.json", "model.safetensors")
    if folder != run:
        pages = [path for name in REPORT for path in (run / name, *(run / name).rglob("*"))]
        files |= {f"report/{name}": path for name, path in _safe_files(run, pages).items()}
    if "adapter/adapter_config.json" in files:
        config = _read_json(folder / "adapter" / "adapter_config.json")
        config["base_model_name_or_path"] = f"{repo_id}/base"
        files["adapter/adapter_config.json"] = json.dumps(config, indent=2).encode()
    if "adapter/README.md" in files:
        adapters = ModelCard(_with_hub_paths(_read_card(folder / "adapter"), folder.resolve().name, repo_id))
        adapters.data.base_model = repo_id
        files["adapter/README.md"] = str(adapters).encode()
    del files["README.md"]
    return UploadManifest(files, _with_hub_paths(_read_card(folder), folder.resolve().name, repo_id))


def adapter_manifest(run: Path, repo_id: str, base: str | None) -> UploadManifest:
    """A run's PEFT adapter; its configuration and card name `base`, or the repository in its configuration."""
    folder = run if (run / "adapter_config.json").is_file() else find_student(run) / "adapter"
    if not folder.is_dir():
        raise FileNotFoundError(f"'{folder}' is not there: only a run with LoRA has an adapter.")
    files = _safe_files(folder, folder.rglob("*"))
    _check_complete(folder, files, "adapter_config.json", "adapter_model.safetensors")
    config = _read_json(folder / "adapter_config.json")
    named = config.get("base_model_name_or_path") or ""
    if not re.fullmatch(HUB_ID, base or named) or (base is None and Path(named).exists()):
        raise ValueError(
            f"'{base or named}' is no repository but a local base model, which others cannot load: publish the base model "
            "first, and name its repository (base='me/base', or --base me/base)."
        )
    config["base_model_name_or_path"] = base = base or named
    files["adapter_config.json"] = json.dumps(config, indent=2).encode()
    card = ModelCard(_read_card(folder))
    card.data.base_model, card.data.base_model_relation = base, "adapter"
    card.text = card.text.replace(f'"{named}"', f'"{base}"')
    del files["README.md"]
    return UploadManifest(files, _with_hub_paths(str(card), "adapter", repo_id), base)


def find_student(run: Path) -> Path:
    """The folder of a run's student: the run itself, or `student` or `model` in it."""
    for folder in (run, run / "student", run / "model"):
        if (folder / "config.json").is_file():
            return folder
    raise FileNotFoundError(
        f"there is no student in '{run}': neither it nor its 'student' or 'model' holds a config.json. Give the folder of "
        "a finished run, such as runs/digits_l2v."
    )


def check_no_token(files: Files, token: str) -> None:
    """Refuses files that hold the token in use, or any string of a Hub token's form."""
    secret = re.compile(re.escape(token.encode()) + rb"|\bhf_[A-Za-z0-9]{34}\b")
    for path, source in files.items():
        if isinstance(source, bytes):
            found = secret.search(source) is not None
        elif source.stat().st_size == 0:  # cannot be mapped
            continue
        else:
            with source.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
                found = secret.search(content) is not None
        if found:
            raise ValueError(f"'{path}' holds an access token: remove it, and revoke it if others can read the file.")


def _safe_files(folder: Path, paths: Iterable[Path]) -> Files:
    """The files among paths in a folder, by their names in it, or an error that names those that must not be published."""
    root, refused = folder.resolve(), []
    files: Files = {}
    for path in sorted(paths):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink() and not (path.is_file() and path.resolve().is_relative_to(root)):
            refused.append(f"'{name}' is a link out of the folder, to a folder or to nothing")
        elif name.startswith(".") or "/." in name:
            refused.append(f"'{name}' is hidden")
        elif path.is_file() and (path.suffix.lower() in UNSAFE or _is_pickle(path)):
            refused.append(f"'{name}' may run code when it is loaded: only safetensors are published")
        elif path.is_file() and path.name.startswith("optimizer"):
            refused.append(f"'{name}' is the state of an optimizer")
        elif path.is_file():
            files[name] = path
    if refused:
        raise ValueError(f"'{folder}' is not published as it is: {'; '.join(refused)}. Remove these and repeat.")
    return files


def _is_pickle(path: Path) -> bool:
    """Whether a file of another name is a pickle of protocol 2 or newer, or a zip, which `torch.save` writes."""
    with path.open("rb") as file:
        start = file.read(4)
    is_pickle = len(start) > 1 and start[0] == 0x80 and 2 <= start[1] <= 5
    return path.suffix != ".safetensors" and (is_pickle or start == b"PK\x03\x04")


def _check_complete(folder: Path, files: Files, config: str, weights: str) -> None:
    """That configuration, card and all weights are there and can be read."""
    index = f"{weights}.index.json"
    for name in ("README.md", config, weights if index not in files else index):
        if name not in files:
            raise FileNotFoundError(f"'{folder}' has no {name}: save the model again, with its card, and repeat.")
    for name in files:
        if name.endswith(".json"):
            _read_json(folder / name)
        if name.endswith(".safetensors.index.json"):
            for shard in sorted(set(_read_json(folder / name).get("weight_map", {}).values())):
                if str(Path(name).parent / shard) not in files:
                    raise FileNotFoundError(f"'{folder / name}' names '{shard}', which is missing: save it again.")
        elif name.endswith(".safetensors"):
            try:
                with safetensors.safe_open(folder / name, framework="np"):
                    pass
            except safetensors.SafetensorError as error:
                raise ValueError(f"'{folder / name}' is damaged ({error}): save the model again.") from error
    for named in _read_json(folder / config).get("auto_map", {}).values():
        code = f"{named.split('.')[0]}.py"
        if "--" not in named and code not in files:  # with it, the code is another repository's
            raise FileNotFoundError(
                f"'{folder / config}' names '{code}' as the model's code, which is missing: save the model again, by "
                "`model.save_pretrained`, so that it loads without hf_colearn, too."
            )
    try:
        data = ModelCard(_read_card(folder)).data.to_dict()
    except (ValueError, TypeError, YAMLError) as error:
        raise ValueError(f"the metadata of '{folder / 'README.md'}' cannot be read: {error}") from error
    if not data:
        raise ValueError(f"'{folder / 'README.md'}' has no metadata: start it with YAML between two lines of '---'.")


def _read_card(folder: Path) -> str:
    return (folder / "README.md").read_text(encoding="utf-8")


def _read_json(path: Path) -> dict:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"'{path}' is no JSON ({error}): save the model again.") from error
    return content if isinstance(content, dict) else {}


def _with_hub_paths(card: str, name: str, repo_id: str) -> str:
    """The card, in whose text quoted paths of the folder `name`, or of one in it, are the repository's."""

    def at_the_hub(path: re.Match) -> str:
        return f'"{repo_id}"' + (f', subfolder="{path[1]}"' if path[1] else "")

    text = ModelCard(card).text
    header = card.removesuffix(text)
    return header + re.sub(rf'"[^"\n]*/{re.escape(name)}(?:/([\w/-]+))?"', at_the_hub, text)
