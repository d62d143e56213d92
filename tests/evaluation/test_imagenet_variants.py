"""Scores on ImageNet's variants: counted once, masked, normalised, and honest about what is missing."""

import io
import json
import os
import re
import runpy
import sys
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from datasets import ClassLabel, Dataset, Features, Image, Value, load_dataset
from PIL import Image as Pillow
from transformers import AutoModelForImageClassification, BitImageProcessorPil, ResNetForImageClassification
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

import processes
import tiny
from hf_colearn.corpora.imagenet_classes import imagenet_wnids
from hf_colearn.evaluation.corruptions import all_conditions, centre_crop, corrupt_image, find_archive
from hf_colearn.evaluation.image_scoring import ScoringSamples, open_dataset
from hf_colearn.evaluation.imagenet_results import (
    ALEXNET_ERRORS,
    CorruptionResult,
    RobustnessResult,
    corruption_errors,
    mean_corruption_error,
    table,
)
from hf_colearn.evaluation.imagenet_variants import (
    VARIANTS,
    EvaluationOptions,
    evaluate_archive,
    evaluate_classifier,
    evaluate_corruptions,
)


RECIPE = Path(__file__).parents[2] / "recipes" / "evaluate_robustness.py"
PROCESSOR = ViTImageProcessorPil(size={"height": 8, "width": 8})
WNIDS = imagenet_wnids()


def picture(seed, size=32):
    return Pillow.fromarray(np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8))


def class_folders(folder, counts, size=32):
    """Images of noise in folders by WordNet id; `counts` gives how many of which class."""
    for index, count in counts.items():
        (folder / WNIDS[index]).mkdir(parents=True)
        for number in range(count):
            picture(1000 * index + number, size).save(folder / WNIDS[index] / f"{number}.png")
    return folder


def classifier(classes, **scores):
    """A stock ResNet over ImageNet classes; `scores` (as `c7=2.0`) are its logits whatever the image."""
    torch.manual_seed(0)
    config = tiny.resnet(num_channels=3, id2label={i: WNIDS[index] for i, index in enumerate(classes)})
    model = ResNetForImageClassification(config).eval()
    if scores:
        layer = model.classifier[-1]
        torch.nn.init.zeros_(layer.weight), torch.nn.init.zeros_(layer.bias)
        for name, score in scores.items():
            layer.bias.data[list(classes).index(int(name[1:]))] = score
    return model


def counts(result):
    return result.correct, result.samples


def spoil(file):
    file.write_bytes(file.read_bytes()[:60])
    return file


# ---- masks ----
def test_the_mask_leaves_only_the_sets_own_classes(tmp_path):
    # Class 7 always has the highest logit, and is not in the set; class 3 comes second. Masked, every image is called
    # 3, which 2 of the 5 are; with all classes competing, none is right.
    folder = class_folders(tmp_path / "r", {2: 3, 3: 2})
    model = classifier(range(1000), c7=5.0, c3=1.0)
    masked = evaluate_classifier(model, PROCESSOR, open_dataset(folder), variant=VARIANTS["r"])
    assert (counts(masked), masked.classes) == ((2, 5), 2)
    assert masked.notes == ("masked to the 2 classes that are there, where the set has 200",)
    competing = evaluate_classifier(model, PROCESSOR, open_dataset(folder), variant=VARIANTS["val"])
    assert (counts(competing), competing.classes) == ((0, 5), 1000)


def test_two_hundred_class_folders_are_the_subset(tmp_path):
    # Every fifth class is there, once; class 1 would win everywhere, class 500 among them. One image in 200 is a 500.
    folder = class_folders(tmp_path / "a", dict.fromkeys(range(0, 1000, 5), 1), size=8)
    model = classifier(range(1000), c1=5.0, c500=1.0)
    result = evaluate_classifier(model, PROCESSOR, open_dataset(folder), variant=VARIANTS["a"])
    assert (counts(result), result.classes, result.notes) == ((1, 200), 200, ())


def test_outputs_without_an_imagenet_class_never_win():
    # A background in front, as MobileNet has it, with the highest logit.
    model = classifier([0, 1, 2], c0=9.0, c2=1.0)
    model.config.id2label = {0: "background", 1: "goldfish", 2: "great white shark"}
    features = Features({"image": Image(), "wnid": Value("string")})
    data = Dataset.from_dict({"image": [picture(0), picture(1)], "wnid": [WNIDS[2], WNIDS[1]]}, features=features)
    result = evaluate_classifier(model, PROCESSOR, data)
    assert (counts(result), result.classes) == ((1, 2), 2)


def test_a_class_that_the_model_lacks_is_named(tmp_path):
    data = open_dataset(class_folders(tmp_path / "val", {0: 1, 207: 1}))
    with pytest.raises(
        ValueError, match=r"no output for 1 of the dataset's 2 classes.*n02099601 \(golden retriever\)"
    ):
        evaluate_classifier(classifier([0, 1]), PROCESSOR, data)


def test_integer_labels_are_said_to_be_taken_as_they_are_and_never_for_a_subset():
    features = Features({"image": Image(), "cls": Value("int64")})
    data = Dataset.from_dict({"image": [picture(0), picture(1)], "cls": [0, 1]}, features=features)
    model = classifier(range(1000), c1=1.0)
    result = evaluate_classifier(model, PROCESSOR, data.to_iterable_dataset())
    assert (counts(result), "integers of column 'cls'" in result.notes[0]) == ((1, 2), True)
    for dataset in (data, data.to_iterable_dataset()):
        with pytest.raises(ValueError, match="may be the dataset's own numbering"):
            evaluate_classifier(model, PROCESSOR, dataset, variant=VARIANTS["r"])


# ---- counting ----
def by_hand(model, dataset):
    """One image at a time, without any of our code: how many are right."""
    right = 0
    for row in dataset:
        pixels = PROCESSOR(images=row["image"].convert("RGB"), return_tensors="pt")["pixel_values"]
        with torch.no_grad():
            right += model(pixels).logits.argmax().item() == row["label"]
    return right


@pytest.mark.parametrize(("batch_size", "num_workers"), [(1, 0), (4, 2), (64, 0)])
def test_every_image_counts_once_however_it_is_batched_or_streamed(tmp_path, batch_size, num_workers):
    folder, options = class_folders(tmp_path / "val", {0: 5, 1: 4, 2: 4}), EvaluationOptions(batch_size, num_workers)
    model = classifier([0, 1, 2])
    expected = by_hand(model, open_dataset(folder))
    for streaming in (False, True):
        result = evaluate_classifier(model, PROCESSOR, open_dataset(folder, streaming=streaming), options)
        assert counts(result) == (expected, 13), f"{streaming=}"


def test_a_stock_vit_and_a_model_in_training_mode_are_scored_and_left_as_they_were(tmp_path):
    config = tiny.vit(num_channels=3, id2label={0: "tench", 1: "goldfish"})
    model = AutoModelForImageClassification.from_config(config).train()
    data = open_dataset(class_folders(tmp_path / "val", {0: 2, 1: 3}))
    assert counts(evaluate_classifier(model, PROCESSOR, data)) == (by_hand(model.eval(), data), 5)
    evaluate_classifier(model.train(), PROCESSOR, data)
    assert model.training


def test_parquet_shards_and_webdatasets_stream(tmp_path):
    folder = class_folders(tmp_path / "val", {0: 3, 1: 4})
    data, model = open_dataset(folder), classifier([0, 1])
    expected = by_hand(model, data), 7
    (tmp_path / "hub" / "data").mkdir(parents=True)
    for shard in range(3):
        data.shard(3, shard).to_parquet(tmp_path / "hub" / "data" / f"test-0000{shard}-of-00003.parquet")
    stream = open_dataset(tmp_path / "hub", streaming=True)
    assert counts(evaluate_classifier(model, PROCESSOR, stream, EvaluationOptions(2, num_workers=2))) == expected
    with tarfile.open(tmp_path / "0.tar", "w") as tar:
        for number, row in enumerate(data):
            encoded = io.BytesIO()
            row["image"].save(encoded, "PNG")
            for ending, content in (("png", encoded.getvalue()), ("cls", str(row["label"]).encode())):
                member = tarfile.TarInfo(f"s{number:04}.{ending}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    stream = load_dataset("webdataset", data_files=str(tmp_path / "0.tar"), split="train", streaming=True)
    assert counts(evaluate_classifier(model, PROCESSOR, stream)) == expected


def test_a_first_look_is_spread_over_the_set_and_marked(tmp_path):
    # 12 images in 3 classes of 4; 3 samples are rows 0, 4 and 8, one a class, so a constant answer is right once.
    folder = class_folders(tmp_path / "val", {0: 4, 1: 4, 2: 4})
    options = EvaluationOptions(max_samples=3)
    model = classifier([0, 1, 2], c1=1.0)
    result = evaluate_classifier(model, PROCESSOR, open_dataset(folder), options, VARIANTS["val"])
    assert counts(result) == (1, 3)
    assert "3 of 50,000 images, a first look (max_samples); not a benchmark number" in result.caveat
    assert "ImageNet val *" in table({"val": result})
    stream = open_dataset(folder, streaming=True)  # the first three, all of class 0
    assert counts(evaluate_classifier(model, PROCESSOR, stream, options)) == (0, 3)


def test_the_whole_set_has_no_caveat():
    assert RobustnessResult("ImageNet-A", 7500, 100, 200, whole=7500).caveat is None
    assert "7,499 of 7,500" in RobustnessResult("ImageNet-A", 7499, 100, 200, whole=7500).caveat


def test_the_interval_is_wilsons():
    # (p + z^2/2n -+ z sqrt(p (1-p) / n + z^2 / 4n^2)) / (1 + z^2/n) with p = .8, n = 50, z = 1.959964
    assert RobustnessResult("x", 50, 40, 10).interval == pytest.approx((0.669629, 0.887569), abs=1e-5)


# ---- what cannot be read ----
@pytest.mark.parametrize("streaming", [False, True])
def test_an_image_that_cannot_be_read_is_named_or_counted(tmp_path, streaming):
    folder = class_folders(tmp_path / "val", {0: 3, 1: 2})
    spoil(folder / WNIDS[1] / "0.png")
    data, model = open_dataset(folder, streaming=streaming), classifier([0, 1], c0=1.0)
    with pytest.raises(ValueError, match=rf"{WNIDS[1]}/0.png' cannot be read \(.*--skip_bad_samples"):
        evaluate_classifier(model, PROCESSOR, data)
    result = evaluate_classifier(model, PROCESSOR, data, EvaluationOptions(skip_bad_samples=True))
    assert (counts(result), result.skipped) == ((3, 4), 1)
    assert f"{WNIDS[1]}/0.png" in result.bad_samples[0] and "1 could not be read" in result.caveat


def test_images_are_scored_as_they_are():
    # A fifth (51 / 255) of red on white is (255, 204, 204), on black (51, 0, 0); 16 bits are divided by 257.
    deep = Pillow.fromarray(np.full((8, 8), 25700, np.uint16))
    features = Features({"image": Image(), "wnid": Value("string")})
    images = [Pillow.new("RGBA", (8, 8), (255, 0, 0, 51)), deep, deep.convert("F"), None]
    data = Dataset.from_dict({"image": images, "wnid": [WNIDS[0]] * 4}, features=features)
    plain = ViTImageProcessorPil(do_resize=False, do_normalize=False, do_rescale=False)
    for background, seen in (("white", [255, 204, 204]), ("black", [51, 0, 0])):
        samples = ScoringSamples(data, "image", "wnid", {WNIDS[0]: 0}, plain, background=background)
        (batch,) = samples.loader(4, num_workers=0)
        assert batch.pixel_values[..., 0, 0].tolist() == [seen, [100, 100, 100]]
        assert [image.name for image in batch.bad] == ["row 2", "row 3"]
        assert "the image has values from 25700 to 25700 in mode 'F'" in batch.bad[0].reason
        assert batch.bad[1].reason == "there is no image"
    with pytest.raises(ValueError, match="background='none' is no colour"):
        EvaluationOptions(background="none")


def test_nothing_readable_and_no_numbers_are_errors(tmp_path):
    folder = class_folders(tmp_path / "val", {0: 1})
    model = classifier([0], c0=float("nan"))
    with pytest.raises(ValueError, match="NaN or infinite logits"):
        evaluate_classifier(model, PROCESSOR, open_dataset(folder))
    spoil(folder / WNIDS[0] / "0.png")
    with pytest.raises(ValueError, match="no image that can be read"):
        evaluate_classifier(classifier([0]), PROCESSOR, open_dataset(folder), EvaluationOptions(skip_bad_samples=True))


def test_datasets_that_do_not_fit_are_refused():
    model = classifier([0])
    features = Features({"image": Image(), "label": ClassLabel(names=["tench"])})
    data = Dataset.from_dict({"image": [picture(0)], "label": [0]}, features=features)
    with pytest.raises(ValueError, match=r"no column 'wnid' or .* among \['image', 'kind'\]"):
        evaluate_classifier(model, PROCESSOR, data.rename_column("label", "kind"))
    with pytest.raises(ValueError, match="0 Image columns"):
        evaluate_classifier(model, PROCESSOR, data.remove_columns("image"))
    with pytest.raises(ValueError, match="batch_size=0"):
        EvaluationOptions(batch_size=0)


def test_a_folder_of_several_splits_asks_for_one(tmp_path):
    for split in ("train", "test"):
        class_folders(tmp_path / split, {0: 1, 1: 1})
    with pytest.raises(ValueError, match=r"has the splits \['train', 'test'\]"):
        open_dataset(tmp_path)
    assert len(open_dataset(tmp_path, "test")) == 2


# ---- ImageNet-C ----
def test_alexnets_own_errors_are_an_mce_of_one_hundred():
    errors = {(name, severity): ALEXNET_ERRORS[name] for name, severity in all_conditions()}
    assert mean_corruption_error(errors) == pytest.approx(100, abs=1e-9)


def test_the_mce_normalises_each_corruption_before_it_averages():
    # Fog: errors .1 to .5 add up to 1.5, AlexNet's to 5 * .819324 = 4.09662, so CE = 36.6156 %. All others are as
    # AlexNet: (14 * 100 + 36.6156) / 15 = 95.77437 %.
    errors = {(name, severity): ALEXNET_ERRORS[name] for name, severity in all_conditions()}
    errors |= {("fog", severity): severity / 10 for severity in range(1, 6)}
    assert corruption_errors(errors)["fog"] == pytest.approx(36.6156, abs=1e-4)
    assert mean_corruption_error(errors) == pytest.approx(95.77437, abs=1e-5)


def test_an_mce_of_a_part_is_refused():
    errors = {(name, severity): 0.5 for name, severity in all_conditions() if (name, severity) != ("snow", 3)}
    with pytest.raises(ValueError, match="1 are missing: snow 3"):
        mean_corruption_error(errors)
    assert "snow" not in corruption_errors(errors) and len(corruption_errors(errors)) == 14


def test_corruptions_are_the_same_on_every_call_and_leave_the_random_state_alone():
    image, other = picture(0, 224), picture(1, 224)
    np.random.seed(3)
    expected = np.random.get_state()[1].copy()
    for name, severity in all_conditions()[2::5]:
        first, second = (np.asarray(corrupt_image(image, name, severity)) for _ in range(2))
        assert first.shape == (224, 224, 3) and np.array_equal(first, second), name
        assert not np.array_equal(first, np.asarray(image)), name
    assert np.array_equal(np.random.get_state()[1], expected)
    noise = [np.asarray(corrupt_image(x, "gaussian_noise", 1), int) - np.asarray(x, int) for x in (image, other)]
    assert not np.array_equal(*noise)  # each image has noise of its own


@pytest.mark.parametrize("name", ["gaussian_noise", "impulse_noise", "contrast", "pixelate"])
def test_severity_five_changes_more_than_one(name):
    smooth = Pillow.fromarray(np.uint8(np.indices((224, 224)).sum(0)[..., None] // 2 * np.ones(3)))
    change = [
        np.abs(np.asarray(corrupt_image(smooth, name, severity), float) - np.asarray(smooth)).mean()
        for severity in (1, 5)
    ]
    assert change[1] > 1.5 * change[0]


def test_an_unknown_corruption_is_refused():
    with pytest.raises(ValueError, match="'speckle_noise' at severity 1 is not in ImageNet-C"):
        corrupt_image(picture(0, 224), "speckle_noise", 1)


@pytest.mark.parametrize("size", [(500, 375), (300, 900), (224, 224), (31, 40)])
def test_the_crop_is_the_centre_of_the_image_at_256(size):
    image = Pillow.new("RGB", size)
    image.putpixel((size[0] // 2, size[1] // 2), (255, 255, 255))
    pixels = np.asarray(centre_crop(image)).sum(-1)
    assert pixels.shape == (224, 224)
    brightest = np.argwhere(pixels == pixels.max()).mean(0)
    assert abs(brightest - 112).max() < 256 / min(size) + 1


def test_corrupted_on_the_fly_equals_the_same_corruptions_from_files(tmp_path):
    conditions = [("gaussian_noise", 5), ("fog", 1), ("impulse_noise", 3)]
    data = open_dataset(class_folders(tmp_path / "val", {0: 3, 1: 2}, size=300))
    for group, (name, severity) in zip(("noise", "", "noise"), conditions, strict=True):
        for number, row in enumerate(data):
            folder = tmp_path / "c" / group / name / str(severity) / WNIDS[row["label"]]
            folder.mkdir(parents=True, exist_ok=True)
            corrupt_image(centre_crop(row["image"]), name, severity).save(folder / f"{number}.png")
    (tmp_path / "c" / "extra" / "speckle_noise" / "1").mkdir(parents=True)
    found = find_archive(tmp_path / "c")
    assert sorted(found) == sorted(conditions)
    model, options = classifier([0, 1]), EvaluationOptions(batch_size=4)
    files = evaluate_archive(model, PROCESSOR, {key: open_dataset(found[key]) for key in found}, options)
    made = evaluate_corruptions(model, PROCESSOR, data, options, conditions)
    assert {key: counts(files.conditions[key]) for key in conditions} == {
        key: counts(made.conditions[key]) for key in conditions
    }
    assert made.mce is None and "3 of 75 conditions" in made.caveat
    assert made.mean_error == pytest.approx(1 - sum(r.correct for r in made.conditions.values()) / 15)


def test_an_archive_without_its_folders_and_images_of_another_size_are_refused(tmp_path):
    with pytest.raises(ValueError, match="holds none of ImageNet-C's folders"):
        find_archive(tmp_path)
    data = open_dataset(class_folders(tmp_path / "fog" / "1", {0: 1}, size=64))
    with pytest.raises(ValueError, match="0.png' cannot be read .64 x 64 pixels; ImageNet-C has 224 x 224"):
        evaluate_archive(classifier([0]), PROCESSOR, {("fog", 1): data})


def test_a_crop_goes_into_a_model_of_224_pixels_as_it_is(tmp_path):
    # A processor that cuts 224 out of 256 would magnify the crop and lose its border, which is white here.
    crop = Pillow.new("RGB", (224, 224), (255, 255, 255))
    crop.paste(Pillow.new("RGB", (200, 200)), (12, 12))
    (tmp_path / WNIDS[0]).mkdir()
    crop.save(tmp_path / WNIDS[0] / "0.png")
    processor = BitImageProcessorPil(size={"shortest_edge": 256}, image_mean=[0, 0, 0], image_std=[1, 1, 1])
    seen = []
    model = classifier([0])
    model.register_forward_pre_hook(lambda _, args, kwargs: seen.append(kwargs["pixel_values"]), with_kwargs=True)
    evaluate_classifier(model, processor, open_dataset(tmp_path), is_cropped=True)
    evaluate_classifier(model, processor, open_dataset(tmp_path))
    expected = np.asarray(crop).transpose(2, 0, 1)[None] / 255
    assert np.allclose(seen[0].numpy(), expected, atol=1e-6)
    assert seen[1].shape == seen[0].shape and not np.allclose(seen[1].numpy(), expected, atol=0.1)


# ---- the table and the recipe ----
def test_the_table_says_what_was_measured_and_what_is_missing():
    whole = RobustnessResult("ImageNet val", 50000, 38065, 1000, whole=50000)
    part = RobustnessResult("ImageNet-R", 100, 40, 200, 1, ("x.jpg: broken",), 30000)
    corrupted = {
        (name, severity): RobustnessResult("ImageNet-C", 50000, 25000, 1000, whole=50000)
        for name, severity in all_conditions()
    }
    text = table({"val": whole, "r": part, "c": CorruptionResult(corrupted, "the archive's files")})
    assert re.search(r"ImageNet val +50,000 +1000 +76\.13 +\[75\.75, 76\.50\]\n", text)
    assert re.search(r"ImageNet-R \* +100 +200 +40\.00 +\[30\.94, 49\.80\]\n", text)
    # Half of all images wrong: CE of fog is 50 / .819324 = 61.0 %.
    assert re.search(r"fog +50\.0 +50\.0 +50\.0 +50\.0 +50\.0 +50\.0 +61\.0\n", text)
    assert "ImageNet-C (the archive's files, 50,000 images a condition): mCE 64.67 %, mean error 50.00 %" in text
    assert "* ImageNet-R: 100 of 30,000 images, 1 could not be read, such as x.jpg: broken; not a benchmark" in text


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """A CoLearning student with its processor, and class folders with an odd number of images, one of them broken."""
    folder = tmp_path_factory.mktemp("published")
    student = tiny.student(tiny.resnet(num_channels=3), id2label={i: WNIDS[i] for i in range(3)}, num_labels=None)
    student.save_pretrained(folder / "student")
    PROCESSOR.save_pretrained(folder / "student")
    class_folders(folder / "r", {0: 5, 1: 3, 2: 4})
    spoil(folder / "r" / WNIDS[1] / "1.png")
    class_folders(folder / "val", {0: 2, 1: 1})
    return folder


def recipe_options(published, *more):
    data = [f"r={published / 'r'}", f"val={published / 'val'}"]
    return ["--model", str(published / "student"), "--data", *data, "--skip_bad_samples", "--batch_size", "2", *more]


def report(folder):
    return json.loads((folder / "runs/evaluate_robustness/report.json").read_text())


@pytest.fixture(scope="module")
def on_one_process(published, tmp_path_factory):
    folder = tmp_path_factory.mktemp("one")
    options = recipe_options(published, "--datasets", "val", "r", "c", "--num_workers", "0")
    argv, here = sys.argv, os.getcwd()
    sys.argv = [str(RECIPE), *options]
    os.chdir(folder)
    try:
        runpy.run_path(str(RECIPE), run_name="__main__")
    finally:
        sys.argv = argv
        os.chdir(here)
    return report(folder)


def test_the_recipe_scores_a_co_learning_student(on_one_process):
    assert on_one_process["processes"] == 1
    r, c = on_one_process["results"]["r"], on_one_process["results"]["c"]
    assert (r["samples"], r["skipped"], r["classes"]) == (11, 1, 3)
    assert on_one_process["results"]["val"]["samples"] == 3
    assert len(c["corruptions"]) == 15 and c["mce"] > 0 and "3 of 50,000" in c["caveat"]
    fog = c["corruptions"]["fog"]
    error = np.mean([1 - fog["severities"][str(severity)]["accuracy"] for severity in range(1, 6)])
    assert fog["corruption_error"] == pytest.approx(100 * error / 0.819324)


def test_the_recipe_on_two_processes_counts_what_one_counts(published, on_one_process, tmp_path):
    options = recipe_options(published, "--datasets", "val", "r", "c", "--num_workers", "0")
    processes.forked(RECIPE, *options, folder=tmp_path, processes=2)
    two = report(tmp_path)
    assert two["processes"] == 2
    assert two["results"] == on_one_process["results"]


def score_on_one_of_two(rank, folder):
    """A process of its own: results on streams of one and of four shards, and what a broken image makes of it."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    model, skip = classifier([0, 1, 2]), EvaluationOptions(batch_size=2, skip_bad_samples=True)
    images = open_dataset(folder / "r")
    streams = {
        "rows": images,
        "one shard": images.to_iterable_dataset(),
        "four shards": images.to_iterable_dataset(num_shards=4),
    }
    seen = {}
    for name, stream in streams.items():
        for workers in (0, 2):
            result = evaluate_classifier(model, PROCESSOR, stream, replace(skip, num_workers=workers))
            seen[f"{name}, {workers} workers"] = [*counts(result), result.skipped]
        look = replace(skip, max_samples=5, num_workers=2)
        seen[f"{name}, a first look"] = [*counts(evaluate_classifier(model, PROCESSOR, stream, look))]
        try:
            evaluate_classifier(model, PROCESSOR, stream)
        except (ValueError, RuntimeError) as error:
            seen[f"{name}, broken"] = f"{type(error).__name__}: {error}"
    (folder / f"{rank}.json").write_text(json.dumps({"processes": dist.get_world_size(), "seen": seen}))
    dist.destroy_process_group()


def test_streams_are_shared_by_two_processes_without_loss(tmp_path):
    folder = class_folders(tmp_path / "r", {0: 5, 1: 3, 2: 4})
    spoil(folder / WNIDS[2] / "3.png")
    one = evaluate_classifier(
        classifier([0, 1, 2]), PROCESSOR, open_dataset(folder), EvaluationOptions(skip_bad_samples=True)
    )
    assert (one.samples, one.skipped) == (11, 1)
    processes = [mp.get_context("fork").Process(target=score_on_one_of_two, args=(rank, tmp_path)) for rank in (0, 1)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1))
    assert first["processes"] == second["processes"] == 2
    for name, result in first["seen"].items():
        if name.endswith("broken"):
            # One process has the broken image and names it; the other says which process failed.
            said = sorted([result, second["seen"][name]])
            assert said[0].startswith("OtherProcessFailed: process ") and said[1].startswith("ValueError: "), name
            assert all(f"{WNIDS[2]}/3.png' cannot be read" in text for text in said), name
        elif name.endswith("workers"):
            assert result == second["seen"][name] == [one.correct, 11, 1], name
        else:
            assert result == second["seen"][name] and result[1] == 5, name
