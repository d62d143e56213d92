"""A data set encoded by the processes of a torchrun: `encode_two.py FOLDER`."""

import hf_colearn  # noqa: F401  (before transformers: the torchaudio guard)


# isort: split

from datasets import Dataset, Features, Image, IterableDataset, Value

import processes
import tiny_teachers
from hf_colearn.teachers.encoded.job import encode_dataset
from hf_colearn.utils.distributed import rank


TEXTS = [f"{word} {i % 4}" for i, word in enumerate(["a dog", "a cat", "a small boat"] * 5)]


def samples(shards):
    for shard in shards:
        yield from ({"image": image} for image in shard)


def equal(folder):
    """Fifteen texts in five shards."""
    encoder = tiny_teachers.bert()
    forwards = []
    encoder.dim  # noqa: B018  (one forward pass, once)
    encoder.model.register_forward_pre_hook(lambda *_: forwards.append(1))
    manifest = encode(Dataset.from_dict({"text": TEXTS}), encoder, folder / "texts", num_shards=5)
    return {"rows": manifest.rows, "forwards": len(forwards)}


def failing(folder):
    """Four images in shards, of which the second cannot be read; the second process meets it."""
    rows = [[{"bytes": bytes(3), "path": None}] if shard == 1 else [None] for shard in range(4)]
    features = Features({"image": Image(decode=False)})
    stream = IterableDataset.from_generator(samples, gen_kwargs={"shards": rows}, features=features)
    encode(stream, tiny_teachers.vit(), folder / "images", column="image")


def other(folder):
    """Each process has a source of its own."""
    source = Dataset.from_dict({"text": [f"{rank()}"]}, features=Features({"text": Value("string")}))
    encode(source, tiny_teachers.bert(), folder / "other")


def encode(source, encoder, folder, column="text", **options):
    return encode_dataset(source, encoder, column, folder, show_progress=False, **options)


CASES = {"equal": equal, "failing": failing, "other": other}


def train(name, folder, processes):
    return CASES[name](folder)


if __name__ == "__main__":
    from accelerate import PartialState

    PartialState(cpu=True)
    processes.write_cases(CASES, train)
