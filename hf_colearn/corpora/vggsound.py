"""VGGSound (Chen et al., ICASSP 2020): ten seconds of video whose sound has its source in sight, 309 classes."""

from collections.abc import Iterator
from pathlib import Path

from datasets import DatasetDict

from hf_colearn.corpora.base import finish, source_of, table_rows
from hf_colearn.corpora.video_clips import clip_readers, clips_of_hub, clips_with_files


LIST = "vggsound.csv"


def load_vggsound(
    data_dir: str | Path | None = None,
    repo: str | None = None,
    validation_share: float = 0.05,
    seed: int = 0,
    skip_bad_samples: bool = False,
    min_frames: int = 1,
) -> DatasetDict:
    """VGGSound's clips, about 200,000 where all are there; many left the web, so every copy has its own.

    Args:
        data_dir (`str` or `Path`, *optional*): With `vggsound.csv` as it is released (lines such as
            `---g-f_I2yQ,1,people marching,train`) and, anywhere below, `<id>_000001.mp4`.
        repo (`str`, *optional*): A mirror on the Hub instead, see [`~hf_colearn.corpora.video_clips.clips_of_hub`].
        validation_share (`float`, *optional*, defaults to 0.05): Of the training clips by class, as the release has no
            validation split; 0 for none.
        seed (`int`, *optional*, defaults to 0): Draws the validation split.
        skip_bad_samples, min_frames: As [`~hf_colearn.corpora.kinetics_sounds.load_kinetics_sounds`] takes them.

    Returns:
        [`datasets.DatasetDict`]: The columns of that one, with the classes of the list in alphabetical order as `label`
        (also where no clip of one is there).

    Raises:
        FileNotFoundError, ValueError: If the list is missing or not VGGSound's, or a split has no clip.
    """
    source = source_of(data_dir, repo)
    if isinstance(source, str):
        splits = clips_of_hub(source, None)
    else:
        entries = list(_entries(source / LIST))
        class_names = sorted({label for _, label, _ in entries})
        splits = clips_with_files("VGGSound", entries, source, class_names, needed=("train", "test"))
    return finish(splits, clip_readers(skip_bad_samples, min_frames), validation_share, seed)


def _entries(file: Path) -> Iterator[tuple[str, str, str]]:
    """Clip, class and split of every line."""
    for where, cells in table_rows(file, "put VGGSound's list, as it is released, into data_dir"):
        if len(cells) != 4 or not cells[1].strip().isdigit() or cells[3].strip() not in ("train", "test"):
            raise ValueError(
                f"{where} is '{','.join(cells)[:80]}', not an id, a start in seconds, a class and 'train' or 'test'."
            )
        yield f"{cells[0].strip()}_{int(cells[1]):06d}", cells[2].strip(), cells[3].strip()
