"""ImageNet from folders, Parquet files, the Hub and streams; its transforms from encoded image to `pixel_values`."""

import io
import pickle
import shutil
from collections import Counter

import datasets
import numpy as np
import pyarrow as pa
import pytest
import torch
from datasets import ClassLabel, Dataset, DatasetDict, DatasetInfo, Features, Value, load_from_disk
from datasets import Image as ImageFeature
from PIL import Image
from sklearn.datasets import load_sample_images
from torch.utils.data import DataLoader
from transformers import AutoImageProcessor
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

import tiny
from hf_colearn import CoLearningTrainer
from hf_colearn.corpora import imagenet
from hf_colearn.corpora.imagenet import is_imagenet_1k, load_imagenet, stream_id
from hf_colearn.corpora.imagenet_classes import imagenet_names, imagenet_wnids
from hf_colearn.data.augmentation import ImageAugmentation
from hf_colearn.data.images import ImageTransform, as_rgb, make_image_processor, with_image_transform
from hub_double import HubDouble, run_child


CLASSES = ["n01440764", "n01443537", "n01484850"]
PER_CLASS, TEST_PER_CLASS = 12, 2


@pytest.fixture(autouse=True)
def _no_nap(monkeypatch):
    """`datasets` sleeps 5 seconds at the end of a shuffled stream of Parquet files."""
    monkeypatch.setattr(datasets.config, "SLEEP_TIME_ON_THREADS_SHUTDOWN", 0)


def jpeg(image, **kwargs):
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=90, **kwargs)
    return buffer.getvalue()


def crops(count, size=(40, 30)):
    """Distinct crops of real photographs."""
    rng, photos = np.random.default_rng(0), [Image.fromarray(photo) for photo in load_sample_images().images]
    for _ in range(count):
        photo = photos[rng.integers(2)]
        left, top = rng.integers(photo.width - 200), rng.integers(photo.height - 150)
        yield photo.crop((left, top, left + 200, top + 150)).resize(size)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """An ImageNet of three classes, in the folders of ILSVRC2012."""
    root = tmp_path_factory.mktemp("imagenet")
    images = crops(3 * (PER_CLASS + TEST_PER_CLASS))
    for split, count in (("train", PER_CLASS), ("val", TEST_PER_CLASS)):
        for wnid in CLASSES:
            (root / split / wnid).mkdir(parents=True)
            for i in range(count):
                (root / split / wnid / f"{i}.JPEG").write_bytes(jpeg(next(images)))
    return root


@pytest.fixture(scope="module")
def parquet(folder, tmp_path_factory):
    """The same as Parquet files with the images inside, three files of `train`, as the Hub holds it."""
    root = tmp_path_factory.mktemp("parquet")
    features = Features({"image": ImageFeature(), "label": ClassLabel(names=["tench", "goldfish", "white shark"])})
    for split, name in (("train", "train"), ("val", "validation")):
        files = sorted((folder / split).rglob("*.JPEG"))
        cells = [{"path": f"{file.parent.name}_{file.name}", "bytes": file.read_bytes()} for file in files]
        labels = [CLASSES.index(file.parent.name) for file in files]
        dataset = Dataset.from_dict({"image": cells, "label": labels}, features=features)
        for i in range(3):
            dataset.shard(3, i).to_parquet(root / f"{name}-{i:05}-of-00003.parquet")
    return root


def names(dataset):
    """Of the files: class and number."""
    return ["/".join(cell["path"].split("/")[-2:]) for cell in dataset["image"][:]]


# ---- folders ----
def test_a_folder_gives_three_splits_that_share_nothing(folder):
    data = load_imagenet(folder, num_validation=6)

    assert {name: len(split) for name, split in data.items()} == {"train": 30, "validation": 6, "test": 6}
    assert data["train"].column_names == ["image", "label", "sample_id"]
    assert data["validation"].column_names == data["test"].column_names == ["image", "label"]
    assert all(split.features["label"].names == CLASSES for split in data.values())
    assert not data["train"].features["image"].decode
    assert set(names(data["train"])) | set(names(data["validation"])) == {
        f"{wnid}/{i}.JPEG" for wnid in CLASSES for i in range(PER_CLASS)
    }
    for split in data.values():
        assert [CLASSES[label] for label in split["label"]] == [name.split("/")[0] for name in names(split)]
    assert all("/val/" in cell["path"] for cell in data["test"]["image"][:])


def test_the_validation_split_is_stratified_and_follows_the_seed_alone(folder):
    first, again, other = (load_imagenet(folder, num_validation=6, seed=seed) for seed in (1, 1, 2))

    assert Counter(first["validation"]["label"]) == {0: 2, 1: 2, 2: 2}
    assert names(first["validation"]) == names(again["validation"]) != names(other["validation"])
    assert first["train"]["sample_id"] == again["train"]["sample_id"]


def test_ids_number_the_whole_training_set(folder):
    # Files are listed by class and name; "10.JPEG" comes before "2.JPEG".
    listed = [f"{wnid}/{i}.JPEG" for wnid in CLASSES for i in sorted(range(PER_CLASS), key=str)]
    train = load_imagenet(folder, num_validation=6)["train"]

    assert [listed[i] for i in train["sample_id"]] == names(train)


def test_the_test_folder_may_have_another_name(folder, tmp_path):
    (tmp_path / "train").symlink_to(folder / "train")
    (tmp_path / "validation").symlink_to(folder / "val")

    assert len(load_imagenet(tmp_path, num_validation=0.25)["test"]) == 6


def make_folders(root, train, val):
    for split, classes in (("train", train), ("val", val)):
        (root / split).mkdir()
        for name, count in classes.items():
            (root / split / name).mkdir()
            for i, image in enumerate(crops(count)):
                (root / split / name / f"{i}.jpg").write_bytes(jpeg(image))


@pytest.mark.parametrize(
    ("train", "val", "message"),
    [
        ({"cat": 2, "dog": 2}, {"cat": 1}, r"'.*train' has 1 class folders that '.*val' has not, such as \['dog'\]"),
        ({"cat": 2}, {"cat": 1, "eel": 1}, r"'.*val' has 1 class folders that '.*train' has not, such as \['eel'\]"),
        ({"cat": 2, "dog": 0}, {"cat": 1, "dog": 1}, "the class folder '.*train/dog' holds no image"),
        ({"cat": 2}, {}, "'.*val' has no class folders"),
    ],
)
def test_class_folders_that_do_not_match_are_named(tmp_path, train, val, message):
    make_folders(tmp_path, train, val)

    with pytest.raises(ValueError, match=message):
        load_imagenet(tmp_path, num_validation=1)


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="data_dir='nowhere' is no folder"):
        load_imagenet("nowhere")
    (tmp_path / "train").mkdir()
    with pytest.raises(FileNotFoundError, match=r"holds the folders \['train'\], where 'train' and 'val'"):
        load_imagenet(tmp_path)


def test_a_validation_split_that_cannot_be_cut_is_refused(folder):
    with pytest.raises(ValueError, match="num_validation=10000 cannot be cut"):
        load_imagenet(folder, num_validation=10_000)
    with pytest.raises(ValueError, match="num_validation=1.5 cannot be cut"):
        load_imagenet(folder, num_validation=1.5)


def test_by_default_a_tenth_of_a_small_set_validates_and_at_least_one_sample_a_class(folder):
    # A tenth of 36 samples is 3, as many as there are classes.
    assert Counter(load_imagenet(folder)["validation"]["label"]) == {0: 1, 1: 1, 2: 1}
    assert imagenet._number_of(None, 1_281_167, 1000) == 10_000 and imagenet._number_of(None, 2_000, 150) == 200
    assert len(load_imagenet(folder, num_validation=6.0)["validation"]) == 6  # as a command line gives it
    assert len(load_imagenet(folder, num_validation=0.25)["validation"]) == 9


def blank(names, count):
    """Samples of these classes, without pictures."""
    features = Features({"label": ClassLabel(names=list(names))})
    labels = pa.repeat(pa.scalar(0, pa.int64()), count)
    return Dataset(pa.table({"label": labels}, schema=features.arrow_schema), info=DatasetInfo(features=features))


HUB_NAMES = [*imagenet_names()[:517], "crane2", *imagenet_names()[518:]]  # a ClassLabel allows no two equal ones


@pytest.mark.parametrize(
    "names, sizes, expected",
    [
        (imagenet_wnids(), (1_271_167, 10_000, 50_000), True),
        (HUB_NAMES, (1_281_000, 167, 50_000), True),
        (imagenet_wnids(), (1_271_166, 10_000, 50_000), False),  # a sample is missing
        (imagenet_wnids(), (1_271_167, 10_000, 10_000), False),
        (imagenet_wnids()[::-1], (1_271_167, 10_000, 50_000), False),  # another order of the classes
        (imagenet_wnids()[:100], (126_000, 1_000, 5_000), False),
        (["food", "animals"], (1_271_167, 10_000, 50_000), False),
    ],
)
def test_imagenet_1k_is_known_by_its_classes_and_counts(names, sizes, expected):
    splits = dict(zip(("train", "validation", "test"), (blank(names, size) for size in sizes), strict=True))
    assert is_imagenet_1k(splits) is expected


def test_a_stream_of_the_hub_is_known_by_the_name_of_its_repository():
    streams = {split: blank(HUB_NAMES, 2).to_iterable_dataset() for split in ("train", "validation", "test")}
    assert is_imagenet_1k(streams, "ILSVRC/imagenet-1k") and not is_imagenet_1k(streams, "me/imagenet-1k")


# ---- the Hub ----
def test_parquet_files_give_the_same_splits(parquet):
    data = load_imagenet(repo=str(parquet), num_validation=6)

    assert {name: len(split) for name, split in data.items()} == {"train": 30, "validation": 6, "test": 6}
    assert data["train"].features["label"].names == ["tench", "goldfish", "white shark"]
    assert data["train"].column_names == ["image", "label", "sample_id"]
    assert data["train"][0]["image"]["bytes"][:2] == b"\xff\xd8"  # still a JPEG


def test_other_columns_are_refused(tmp_path):
    other = Dataset.from_dict({"pixels": [[0.0]], "label": [0]})
    for name in ("train", "validation"):
        other.to_parquet(tmp_path / f"{name}-00000-of-00001.parquet")

    with pytest.raises(ValueError, match="'pixels'.*where 'image'"):
        load_imagenet(repo=str(tmp_path))


FROM_HUB = """
import json
import hf_colearn
from huggingface_hub import HfApi
from hf_colearn.corpora.imagenet import load_imagenet

api = HfApi()
api.create_repo("tester/imagenet", repo_type="dataset", private=True)
api.upload_folder(folder_path={folder!r}, repo_id="tester/imagenet", repo_type="dataset")
stream = load_imagenet(repo="tester/imagenet", streaming=True, num_validation=0.2)
whole = load_imagenet(repo="tester/imagenet", num_validation=6)
try:
    load_imagenet(repo="tester/closed")
except PermissionError as error:
    message = str(error)
print(json.dumps([len(whole["train"]), sum(1 for _ in stream["test"]), stream["train"].n_shards, message]))
"""


def test_the_hub_is_read_whole_or_as_a_stream(parquet, tmp_path):
    with HubDouble() as hub:
        kept, streamed, shards, message = run_child(FROM_HUB.format(folder=str(parquet)), hub, tmp_path / "home")

    assert (kept, streamed, shards) == (30, 6, 3)
    assert "'tester/closed' cannot be read" in message and "hf auth login" in message and "accept its terms" in message


# ---- streams ----
def test_a_stream_of_a_folder_has_the_ids_and_splits_of_the_whole(folder):
    whole = load_imagenet(folder, num_validation=6)
    stream = load_imagenet(folder, streaming=True, num_validation=6)
    train = list(stream["train"])

    assert sorted(row["sample_id"] for row in train) == whole["train"]["sample_id"][:]
    assert all(row["class_id"] == row["label"] for row in train)
    labels = dict(zip(whole["train"]["sample_id"], whole["train"]["label"], strict=True))
    assert all(labels[row["sample_id"]] == row["label"] for row in train)
    assert {row["image"]["path"] for row in stream["validation"]} == {c["path"] for c in whole["validation"]["image"]}
    assert stream["train"].n_shards == 30  # one sample each here, 1024 at most
    assert list(stream["test"].features) == list(stream["validation"].features) == ["image", "label"]


def test_a_stream_of_a_folder_is_not_ordered_by_class(folder, monkeypatch):
    # In one shard and without a buffer, only the files' order as they are listed is left.
    monkeypatch.setattr(imagenet, "SHARDS", 1)
    train = load_imagenet(folder, streaming=True, num_validation=6, shuffle_buffer=1)["train"]

    assert train.n_shards == 1
    assert len({row["label"] for row in train.take(8)}) > 1


def test_a_stream_from_files_is_cut_by_a_hash_of_each_image(parquet):
    streams = [load_imagenet(repo=str(parquet), streaming=True, num_validation=0.3, seed=s) for s in (0, 0, 1)]
    parts = [{name: list(stream[name]) for name in ("train", "validation")} for stream in streams]

    def kept(part, name):
        return {row["image"]["path"] for row in part[name]}

    for part in parts:
        ids = [row["sample_id"] for row in part["train"]]
        assert len(set(ids)) == len(ids) and min(ids) >= 0 and max(ids) < 2**63
        assert not kept(part, "train") & kept(part, "validation")
        assert len(part["train"]) + len(part["validation"]) == 36
        assert 3 <= len(part["validation"]) <= 19  # 10.8, and three standard deviations are 8.2
        assert set(part["validation"][0]) == {"image", "label"}
    assert kept(parts[0], "validation") == kept(parts[1], "validation") != kept(parts[2], "validation")
    assert {row["image"]["path"]: row["sample_id"] for row in parts[0]["train"]} == {
        row["image"]["path"]: row["sample_id"] for row in parts[1]["train"]
    }


def test_a_stream_is_shuffled_anew_every_epoch(parquet):
    train = load_imagenet(repo=str(parquet), streaming=True, num_validation=0.2)["train"]
    orders = []
    for epoch in (0, 0, 1):
        train.set_epoch(epoch)
        orders.append([row["sample_id"] for row in train])

    assert orders[0] == orders[1] != orders[2]
    assert sorted(orders[0]) == sorted(orders[2]) != orders[0]


def test_an_id_follows_the_files_name_and_bytes():
    cell = {"path": "/data/train/n01/7.JPEG", "bytes": b"abc"}

    assert stream_id(cell) == stream_id({"path": "/elsewhere/n01/7.JPEG", "bytes": b"abc"})
    others = [{**cell, "path": "/data/train/n02/7.JPEG"}, {**cell, "bytes": b"abd"}, {**cell, "path": None}]
    assert len({stream_id(other) for other in [cell, *others]}) == 4


def test_a_count_needs_a_stream_that_tells_its_length(parquet, tmp_path):
    shutil.copytree(parquet, tmp_path / "new")  # the length of what was once read whole is in the cache
    with pytest.raises(ValueError, match="num_validation=10 of a stream that does not tell its length.*share"):
        load_imagenet(repo=str(tmp_path / "new"), streaming=True, num_validation=10)
    load_imagenet(repo=str(tmp_path / "new"), num_validation=6)
    assert 3 <= sum(1 for _ in load_imagenet(repo=str(tmp_path / "new"), streaming=True, num_validation=10)["validation"]) <= 18  # fmt: skip  # noqa: E501
    with pytest.raises(ValueError, match="num_validation=36 is 1 of the stream"):
        load_imagenet(repo=str(tmp_path / "new"), streaming=True, num_validation=36)


# ---- transforms ----
def cells(*images, **kwargs):
    return {"image": list(images), "label": list(range(len(images))), **kwargs}


def photo(**kwargs):
    return Image.fromarray(load_sample_images().images[0])  # 640 x 427


def test_the_evaluation_is_what_the_processor_does(tmp_path):
    processor = make_image_processor(64, crop_pct=0.875)
    processor.save_pretrained(tmp_path)
    published = AutoImageProcessor.from_pretrained(tmp_path, backend="pil")
    batch = cells({"bytes": jpeg(photo()), "path": None}, sample_id=[7])

    result = ImageTransform(processor, train=False)(batch)

    expected = published(images=[Image.open(io.BytesIO(jpeg(photo())))], return_tensors="pt")["pixel_values"]
    assert torch.equal(result["pixel_values"], expected)
    assert result["pixel_values"].dtype == torch.float32 and result["labels"] == [0] and result["sample_id"] == [7]
    # By hand: 427 to floor(64 / 0.875) = 73 pixels, 640 to 640 * 73 / 427 = 109; then the centre.
    small = Image.open(io.BytesIO(jpeg(photo()))).resize((109, 73), Image.Resampling.BICUBIC).crop((22, 4, 86, 68))
    by_hand = (np.asarray(small) / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    np.testing.assert_allclose(result["pixel_values"][0].permute(1, 2, 0), by_hand, atol=1e-5)


def test_a_crop_of_everything_is_the_resized_image():
    processor = make_image_processor(64, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4))
    square = photo().crop((0, 0, 427, 427))
    transform = ImageTransform(processor, train=True, scale=(1.0, 1.0), ratio=(1.0, 1.0), hflip=False)

    result = transform(cells(square))["pixel_values"][0].permute(1, 2, 0)

    by_hand = np.asarray(square.resize((64, 64), Image.Resampling.BICUBIC)) / 255
    np.testing.assert_allclose(result, (by_hand - [0.5, 0.4, 0.3]) / [0.2, 0.3, 0.4], atol=1e-5)


def test_half_of_the_images_are_flipped():
    ramp = Image.fromarray(np.tile(np.arange(0, 240, 10, dtype=np.uint8), (24, 1)))
    torch.manual_seed(0)
    views = ImageTransform(make_image_processor(8), train=True)(cells(*[ramp] * 200))["pixel_values"]

    flipped = (views[:, 0, :, 0] > views[:, 0, :, -1]).all(dim=1).sum().item()
    assert 79 <= flipped <= 121  # 100, and three standard deviations are 21
    views = ImageTransform(make_image_processor(8), train=True, hflip=False)(cells(*[ramp] * 20))["pixel_values"]
    assert (views[:, 0, :, 0] < views[:, 0, :, -1]).all()


def test_the_crops_have_the_areas_and_ratios_asked_for():
    transform = ImageTransform(make_image_processor(8), train=True, scale=(0.2, 0.6))
    torch.manual_seed(0)
    boxes = np.array([transform._draw_box(500, 400) for _ in range(500)])
    width, height = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]

    assert (boxes >= 0).all() and (boxes[:, 2] <= 500).all() and (boxes[:, 3] <= 400).all()
    areas, ratios = width * height / 200_000, width / height
    assert 0.195 < areas.min() < 0.25 and 0.5 < areas.max() < 0.605
    assert 0.745 < ratios.min() < 0.8 and 1.25 < ratios.max() < 1.34
    assert abs(np.log(ratios).mean()) < 0.03
    # An image too long for any such crop gives its centre: 30 high, 30 * 4 / 3 = 40 wide.
    assert ImageTransform(make_image_processor(8), train=True, scale=(1, 1))._draw_box(400, 30) == (180, 0, 220, 30)


def test_a_large_jpeg_is_decoded_at_a_fraction_of_its_size(monkeypatch):
    decoded = []
    resize = Image.Image.resize
    monkeypatch.setattr(Image.Image, "resize", lambda self, *args, **kwargs: (decoded.append(self.size), resize(self, *args, **kwargs))[1])  # fmt: skip  # noqa: E501
    transform = ImageTransform(make_image_processor(50), train=True, scale=(1, 1), ratio=(1, 1), hflip=False)
    square = photo().crop((0, 0, 400, 400))

    small = transform(cells({"bytes": jpeg(square), "path": None}))["pixel_values"]
    whole = transform(cells(square))["pixel_values"]

    assert decoded == [(50, 50), (400, 400)]  # an eighth suffices
    assert (small - whole).abs().mean() < 0.1  # of values whose standard deviation is about 1


def forms():
    image = photo().resize((60, 40))
    exif = Image.Exif()
    exif[274] = 6  # rotated by 90 degrees
    transparent = image.convert("RGBA")
    transparent.putalpha(100)
    png = io.BytesIO()
    image.quantize(16).save(png, "PNG")
    return {
        "grey": jpeg(image.convert("L")),
        "cmyk": jpeg(image.convert("CMYK")),
        "palette": png.getvalue(),
        "exif": jpeg(image, exif=exif),
        "transparent": transparent,
        "one pixel": image.resize((1, 1)),
    }


@pytest.mark.parametrize("form", ["grey", "cmyk", "palette", "exif", "transparent", "one pixel"])
def test_images_of_all_forms_become_three_channels(form):
    cell = forms()[form]
    cell = {"bytes": cell, "path": None} if isinstance(cell, bytes) else cell
    processor = make_image_processor(20)
    everything = {"scale": (1, 1), "ratio": (0.01, 100), "hflip": False}

    evaluated = ImageTransform(processor, train=False)(cells(cell))["pixel_values"]
    for _ in range(3):
        trained = ImageTransform(processor, train=True)(cells(cell))["pixel_values"]
        assert trained.shape == evaluated.shape == (1, 3, 20, 20) and trained.isfinite().all()
    # The whole image, training and evaluation: the mean colour tells a channel or a sign mistaken.
    whole = ViTImageProcessorPil(size={"height": 20, "width": 20}, resample=3)
    seen = ImageTransform(whole, train=False)(cells(cell))["pixel_values"].mean(dim=(2, 3))
    image = as_rgb(cell, 0)
    ratio = image.width / image.height
    given = ImageTransform(whole, train=True, **{**everything, "ratio": (ratio, ratio)})(cells(cell))["pixel_values"]
    torch.testing.assert_close(given.mean(dim=(2, 3)), seen, atol=0.05, rtol=0)


def test_an_image_that_was_rotated_is_shown_upright():
    halves = Image.new("L", (60, 40), 0)
    halves.paste(255, (0, 0, 60, 20))  # white above
    exif = Image.Exif()
    exif[274] = 3  # upside down: shown, white is below
    cell = {"bytes": jpeg(halves, exif=exif), "path": None}

    view = ImageTransform(make_image_processor(16), train=True, scale=(1, 1))(cells(cell))["pixel_values"][0, 0]

    assert view[0].max() < 0 < view[-1].min()


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"no image", "row 5 .'a/b.jpg'. cannot be decoded"),
        (b"", "row 5 .'a/b.jpg'. cannot be decoded"),
        ("truncated", "row 5 .'a/b.jpg'. cannot be decoded.*truncated"),
    ],
)
def test_a_corrupt_image_is_named(train, content, message):
    content = jpeg(photo())[:5000] if content == "truncated" else content
    transform = ImageTransform(make_image_processor(16), train=train)

    with pytest.raises(ValueError, match=message):
        transform(cells({"bytes": content, "path": "a/b.jpg"}, sample_id=[5]))


@pytest.mark.parametrize("train", [True, False])
def test_a_cell_that_is_no_image_is_named(train):
    with pytest.raises(ValueError, match="row 0 holds 'x.jpg' where an image should be"):
        ImageTransform(make_image_processor(16), train=train)(cells("x.jpg"))


def test_what_does_not_fit_is_refused():
    processor = make_image_processor(16)
    with pytest.raises(ValueError, match="remove_unused_columns=False"):
        ImageTransform(processor, train=True)({"label": [0]})
    with pytest.raises(ValueError, match=r"scale=\(0, 1\)"):
        ImageTransform(processor, train=True, scale=(0, 1))
    with pytest.raises(ValueError, match="crop_pct=2"):
        make_image_processor(16, crop_pct=2)
    with pytest.raises(ValueError, match="no fixed size"):
        ImageTransform(ViTImageProcessorPil(size={"max_height": 8, "max_width": 8}), train=True)


def test_the_same_seed_gives_the_same_views():
    transform = ImageTransform(make_image_processor(16), train=True)
    views = []
    for seed in (3, 3, 4):
        torch.manual_seed(seed)
        views.append(transform(cells(photo(), photo()))["pixel_values"])

    assert torch.equal(views[0], views[1]) and not torch.equal(views[0], views[2])
    assert not torch.equal(views[0][0], views[0][1])


def test_a_transform_survives_pickling_and_works_in_workers(folder):
    transform = pickle.loads(pickle.dumps(ImageTransform(make_image_processor(16), train=True)))
    train = with_image_transform(load_imagenet(folder, num_validation=6)["train"], transform)
    torch.manual_seed(0)

    batches = list(DataLoader(train, batch_size=15, num_workers=2))

    assert [batch["pixel_values"].shape for batch in batches] == [(15, 3, 16, 16)] * 2
    assert torch.cat([batch["sample_id"] for batch in batches]).tolist() == train["sample_id"][:]


@pytest.mark.parametrize("streaming", [False, True])
def test_a_student_trains_on_augmented_images_with_targets_by_class(folder, tmp_path, streaming):
    data = load_imagenet(folder, streaming=streaming, num_validation=6)
    transform = ImageTransform(make_image_processor(16), train=True, id_columns=["class_id" if streaming else "sample_id"])  # fmt: skip  # noqa: E501
    seen = []
    augment = ImageAugmentation(3)
    student = tiny.student(tiny.vit(image_size=16, num_channels=3), num_labels=3)
    student.register_forward_pre_hook(lambda module, args, kwargs: seen.append(kwargs), with_kwargs=True)
    args = tiny.arguments(
        tmp_path,
        remove_unused_columns=False,
        max_steps=2,
        id_column="class_id" if streaming else "sample_id",
    )
    trainer = CoLearningTrainer(
        student,
        args,
        train_dataset=with_image_transform(data["train"], transform),
        bank=tiny.bank(3),
        pairing=tiny.random_prompt(3),
        augment=augment,
    )

    trainer.train()

    assert seen[-1]["labels"].shape == (8, 3) and seen[-1]["pixel_values"].shape == (8, 3, 16, 16)
    assert np.isfinite(trainer.state.log_history[-1]["train_loss"])


def test_encoded_images_survive_saving(folder, tmp_path):
    data = load_imagenet(folder, num_validation=6)
    data.save_to_disk(tmp_path / "saved")
    loaded = load_from_disk(tmp_path / "saved")

    assert isinstance(loaded, DatasetDict) and loaded["train"].features["sample_id"] == Value("int64")
    assert loaded["train"].features["label"].names == CLASSES
