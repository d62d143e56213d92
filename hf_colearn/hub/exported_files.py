"""Saved weights without the heads that only training needs, file by file: no model is built, and no other file is touched."""

import json
import re
from collections.abc import Iterable
from pathlib import Path

import safetensors  # as a module: `datasets` could not hash its class `safe_open`, which an editable package takes along
from safetensors.torch import save_file


_HEAD = re.compile(r"(^|\.)training_heads\.(?P<name>[^.]+)")


def training_heads_in(folder: Path) -> list[str]:
    """The names of the training heads that a saved student, multimodal model or adapter of one has."""
    config = _config(folder)
    if "training_heads" in config and str(config.get("model_type")).startswith("colearning_"):
        return list(config["training_heads"])
    return [head["name"] for head in map(_HEAD.search, _saved_whole(config)) if head]


def write_without_training_heads(folder: Path, into: Path) -> dict[str, Path | None]:
    """Writes the files that change into another folder, or into the same one: by their names, None of one that is no more.

    These are the configuration, the files of weights that hold heads, and their index.
    """
    into.mkdir(parents=True, exist_ok=True)
    changed: dict[str, Path | None] = {}
    weights = [path for name in ("model", "adapter_model") for path in folder.glob(f"{name}*.safetensors")]
    for path in sorted(weights):  # and no other state of a checkpoint
        kept = _without_heads(path)
        if kept is not None:
            tensors, metadata = kept
            changed[path.name] = into / path.name if tensors else None
            if tensors:
                partial = into / f"{path.name}.part"
                save_file(tensors, partial, metadata=metadata)
                partial.replace(into / path.name)
            elif folder == into:
                path.unlink()
    for path in sorted(folder.glob("*.safetensors.index.json")):
        index = json.loads(path.read_text())
        index["weight_map"] = {name: file for name, file in index["weight_map"].items() if not _HEAD.search(name)}
        if "total_size" in index.get("metadata", {}):
            files = {changed.get(name) or folder / name for name in index["weight_map"].values()}
            index["metadata"]["total_size"] = sum(map(_num_bytes, files))
        changed[path.name] = _write_json(into / path.name, index)
    config = _config(folder)
    if "training_heads" in config:
        changed["config.json"] = _write_json(
            into / "config.json", {name: value for name, value in config.items() if name != "training_heads"}
        )
    elif _saved_whole(config):
        config["modules_to_save"] = [name for name in _saved_whole(config) if not _HEAD.search(name)]
        changed["adapter_config.json"] = _write_json(into / "adapter_config.json", config)
    return changed


def _config(folder: Path) -> dict:
    for name in ("config.json", "adapter_config.json"):
        if (folder / name).is_file():
            return json.loads((folder / name).read_text())
    return {}


def _saved_whole(config: dict) -> Iterable[str]:
    """Of an adapter: the names of the modules that it replaces."""
    names = config.get("modules_to_save")
    return names if isinstance(names, list) else []


def _without_heads(path: Path) -> tuple[dict, dict[str, str]] | None:
    """The tensors of a file but those of training heads, read when they are written; None where it has no heads."""
    with safetensors.safe_open(path, framework="pt") as file:
        names = list(file.keys())
        kept = [name for name in names if not _HEAD.search(name)]
        if len(kept) == len(names):
            return None
        return {name: file.get_tensor(name) for name in kept}, file.metadata() or {"format": "pt"}


def _num_bytes(path: Path) -> int:
    """Of a file's tensors: all that follows the header, whose length is in the first eight bytes."""
    with open(path, "rb") as file:
        return path.stat().st_size - 8 - int.from_bytes(file.read(8), "little")


def _write_json(path: Path, content: dict) -> Path:
    partial = path.with_suffix(".part")
    partial.write_text(json.dumps(content, indent=2) + "\n")
    return partial.replace(path)
