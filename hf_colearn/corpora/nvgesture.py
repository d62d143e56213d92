"""NVGesture (Molchanov et al., CVPR 2016): 25 hand gestures of 20 subjects in a car, as colour, depth and optical flow.

The folder is the one that NVIDIA distributes, nvGesture_v1, with 1,050 training and 482 test clips.
"""

from pathlib import Path
from typing import Any

from datasets import ClassLabel, DatasetDict, Value

from hf_colearn.corpora.base import Sample, complete_splits, finish
from hf_colearn.data.flow import read_flow
from hf_colearn.data.video import frame_files, read_frames


NUM_CLASSES = 25
_SENSORS = {"rgb": ("color", "sk_color"), "depth": ("depth", "sk_depth")}  # in a list, and the file
_CLIP = {"path": Value("string"), "start": Value("int64"), "end": Value("int64")}
_FEATURES = {
    **dict.fromkeys(("rgb", "depth", "flow"), _CLIP),
    "label": ClassLabel(names=[str(number) for number in range(1, NUM_CLASSES + 1)]),
    **dict.fromkeys(("subject", "clip"), Value("string")),
}


def load_nvgesture(
    data_dir: str | Path,
    validation_share: float = 0.1,
    seed: int = 0,
    skip_bad_samples: bool = False,
    min_frames: int = 1,
) -> DatasetDict:
    """The gestures as clips of three modalities, each cut to the frames that its list labels (80, mostly).

    For `with_frames(..., count=64)` on `rgb` and `depth` and `with_flow(..., count=64)` on `flow`; a mirror makes another
    gesture of some, so `hflip=False`. Depth is the grayscale video of the release, 8 bits.

    Args:
        data_dir (`str` or `Path`): With `nvgesture_train_correct_cvpr2016_v2.lst` and the same for `test` (or another
            `nvgesture_train*.lst`, if it is the only one), and `Video_data/class_01/subject13_r0/` and so on, each with
            `sk_color.avi` and `sk_depth.avi` or folders `sk_color` and `sk_depth` of *all* their frames. A folder
            `sk_flow` ([`~hf_colearn.data.flow.write_flow`]) is taken for `flow`; without one, flow is computed of the
            colour frames at every reading, up to a second a clip.
        validation_share (`float`, *optional*, defaults to 0.1): Of the training clips, stratified by class; 0 for none.
        seed (`int`, *optional*, defaults to 0): Draws the validation split.
        skip_bad_samples (`bool`, *optional*, defaults to `False`): Leaves out and counts clips without a video and, after
            reading each, those that cannot be decoded or are shorter than their list or `min_frames` says.
        min_frames (`int`, *optional*, defaults to 1): What training takes of a clip.

    Returns:
        [`datasets.DatasetDict`]: `train`, `validation` (if any) and `test` with `rgb`, `depth` and `flow`, each a clip
        (`path`, `start`, `end`, in frames from 0, the end excluded), `label` (25 classes, `"1"` to `"25"`), `subject`,
        `clip` and, in `train`, `sample_id`.

    Raises:
        FileNotFoundError, ValueError: If a list or videos are missing, or a line of a list is not NVGesture's.
    """
    folder = Path(data_dir)
    samples = {split: _samples(_list_of(folder, split), folder) for split in ("train", "test")}
    splits = complete_splits("NVGesture", "clip", "its videos", samples, _FEATURES, skip_bad_samples)
    readers = {
        "rgb": lambda cell, row: read_frames(cell, min_frames, row),
        "depth": lambda cell, row: read_frames(cell, min_frames, row),
        "flow": lambda cell, row: read_flow(cell, min_frames, row),
    }
    return finish(splits, readers if skip_bad_samples else None, validation_share, seed)


def _list_of(folder: Path, split: str) -> Path:
    found = sorted(folder.glob(f"nvgesture_{split}*.lst"))
    preferred = folder / f"nvgesture_{split}_correct_cvpr2016_v2.lst"
    if preferred in found:
        return preferred
    if len(found) == 1:
        return found[0]
    raise FileNotFoundError(
        f"'{folder}' has no '{preferred.name}' and {len(found)} other nvgesture_{split}*.lst: pass the unpacked nvGesture_v1."
    )


def _samples(file: Path, folder: Path) -> list[Sample]:
    lines = enumerate(file.read_text(encoding="utf-8").splitlines(), start=1)
    samples = [_sample(line, f"line {number} of '{file}'", folder) for number, line in lines if line.strip()]
    if all(isinstance(sample, str) for sample in samples):
        raise FileNotFoundError(f"no clip of '{file}' has its videos{'; ' + str(samples[0]) if samples else ''}.")
    return samples


def _sample(line: str, where: str, folder: Path) -> Sample:
    """A sample and what it lacks, of a line such as

    `path:./Video_data/class_01/subject13_r0 depth:sk_depth:138:218 color:sk_color:138:218 duo_left:duo_left:161:254 label:1`
    """
    fields = {field.split(":")[0]: field.split(":")[1:] for field in line.split()}
    try:
        clip, label = fields["path"][0].removeprefix("./").rstrip("/"), int(fields["label"][0])
        spans = {name: (int(fields[key][1]), int(fields[key][2])) for name, (key, _) in _SENSORS.items()}
    except (KeyError, IndexError, ValueError) as error:
        raise ValueError(
            f"{where} is '{line[:80]}', where 'path:... depth:sk_depth:START:END color:sk_color:START:END label:NUMBER' was "
            "expected."
        ) from error
    if not 1 <= label <= NUM_CLASSES:
        raise ValueError(f"{where} has label {label}: gestures run from 1 to {NUM_CLASSES}.")
    row: dict[str, Any] = {"label": str(label), "clip": clip, "subject": Path(clip).name.rsplit("_r", 1)[0]}
    for name, (_, stem) in _SENSORS.items():
        video = folder / clip / f"{stem}.avi"
        path = video if video.is_file() else video.with_suffix("")
        if not path.exists():
            return f"'{clip}' has no '{video}'"
        row[name] = {"path": str(path), "start": spans[name][0], "end": spans[name][1]}
    flow = folder / clip / "sk_flow"
    has_flow = flow.is_dir() and frame_files(flow, "flow_x_")
    return {**row, "flow": {**row["rgb"], "path": str(flow)} if has_flow else row["rgb"]}
