"""Augmentation: every operation against PIL's, mixing of images, labels and targets, and where its draws come from."""

import math

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance, ImageOps

from hf_colearn.data import rand_augment as operations
from hf_colearn.data.augmentation import ImageAugmentation, erase
from hf_colearn.data.rand_augment import OPERATIONS, operate, rand_augment
from hf_colearn.data.sample_ids import TARGETS
from hf_colearn.objectives.distances import latent_distance


OFF = {"magnitude": 0, "erasing": 0, "mixup": 0, "cutmix": 0, "label_smoothing": 0}
MIXING = {**OFF, "mixup": 0.8, "cutmix": 1.0}


def batch(size=6, channels=3, side=16, classes=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return {
        "pixel_values": torch.randn(size, channels, side, side, generator=generator),
        "labels": torch.randint(classes, (size,), generator=generator),
        TARGETS: torch.randn(size, 5, generator=generator),
    }


def picture(height=24, width=40):
    """A smooth random image with its full range of colours, 8-bit."""
    coarse = np.random.default_rng(0).integers(0, 256, (6, 10, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


def tensor(image):
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].float() / 255


# What timm does with an image at magnitude m (of 10) and a sign, through PIL.
def _enhanced(kind):
    return lambda image, m, sign: kind(image).enhance(max(0.1, 1 + sign * 0.9 * m / 10))


def _affine(coefficients):
    def transform(image, m, sign):
        values = coefficients(sign * m / 10, *image.size)
        return image.transform(image.size, Image.Transform.AFFINE, values, Image.Resampling.BILINEAR, fillcolor=GREY)

    return transform


def _solarize_add(image, m, sign):
    return image.point([min(255, i + int(m / 10 * 110)) if i < 128 else i for i in range(256)] * 3)


GREY = (102, 102, 102)
PIL_OPERATIONS = {
    "rotate": lambda image, m, sign: image.rotate(3 * m * sign, Image.Resampling.BILINEAR, fillcolor=GREY),
    "shear_x": _affine(lambda v, w, h: (1, 0.3 * v, 0, 0, 1, 0)),
    "shear_y": _affine(lambda v, w, h: (1, 0, 0, 0.3 * v, 1, 0)),
    "translate_x": _affine(lambda v, w, h: (1, 0, 0.45 * v * w, 0, 1, 0)),
    "translate_y": _affine(lambda v, w, h: (1, 0, 0, 0, 1, 0.45 * v * h)),
    "auto_contrast": lambda image, m, sign: ImageOps.autocontrast(image),
    "equalize": lambda image, m, sign: ImageOps.equalize(image),
    "invert": lambda image, m, sign: ImageOps.invert(image),
    "posterize": lambda image, m, sign: ImageOps.posterize(image, 4 - int(m / 10 * 4)),
    "solarize": lambda image, m, sign: ImageOps.solarize(image, 256 - int(m / 10 * 256)),
    "solarize_add": _solarize_add,
    "color": _enhanced(ImageEnhance.Color),
    "contrast": _enhanced(ImageEnhance.Contrast),
    "brightness": _enhanced(ImageEnhance.Brightness),
    "sharpness": _enhanced(ImageEnhance.Sharpness),
}


def test_the_operations_are_the_15_of_timm():
    assert sorted(OPERATIONS) == sorted(PIL_OPERATIONS) and len(OPERATIONS) == 15


@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize("magnitude", [3.1, 8.8])
@pytest.mark.parametrize("name", OPERATIONS)
def test_an_operation_does_what_pil_does(name, magnitude, sign):
    image = picture()
    expected = np.array(PIL_OPERATIONS[name](image, magnitude, sign), dtype=float)

    result = operate(name, tensor(image), torch.tensor([magnitude / 10]), torch.tensor([sign]), fill=102 / 255)

    result = 255 * result[0].permute(1, 2, 0).double().numpy()
    difference = np.abs(result - expected)
    if name in operations.GEOMETRIC:  # PIL fills every pixel whose centre is outside, we blend with the fill colour
        assert np.median(difference) <= 1 and np.mean(difference > 2) < 0.1
        assert np.abs(expected - np.array(image, dtype=float)).mean() > 3 * difference.mean()
    else:
        assert difference.max() <= 2  # PIL rounds in between
    assert result.min() >= 0 and result.max() <= 255.0001


def test_a_flat_channel_keeps_its_value_under_auto_contrast():
    flat = torch.full((1, 3, 4, 4), 0.3)

    assert torch.equal(operate("auto_contrast", flat, torch.ones(1), torch.ones(1)), flat)


def test_every_image_draws_its_own_operations():
    torch.manual_seed(0)
    image = tensor(picture())
    copies = rand_augment(image.expand(300, -1, -1, -1), num_ops=1)

    untouched = (copies == image).flatten(1).all(dim=1).sum().item()
    distinct = len(torch.unique(copies.flatten(1), dim=0))
    # Half are left alone: 150, and three standard deviations of it are 26.
    assert 124 <= untouched <= 176
    # The others: 11 operations with a magnitude of their own each, 3 without one (auto contrast, equalize, invert).
    assert distinct > 0.5 * (300 - untouched)


def test_the_magnitude_is_drawn_around_its_mean(monkeypatch):
    seen = []
    monkeypatch.setitem(operations.PHOTOMETRIC, "brightness", lambda x, level, sign: (seen.append(level), x)[1])
    torch.manual_seed(0)
    rand_augment(torch.rand(3000, 3, 4, 4), magnitude=5, magnitude_std=0.5, num_ops=1, fill=0.5)

    levels = torch.cat(seen)
    assert len(levels) > 50
    assert levels.mean() == pytest.approx(0.5, abs=0.02) and levels.std() == pytest.approx(0.05, rel=0.3)


def test_off_the_batch_comes_back_bit_for_bit():
    given = batch()
    state = torch.get_rng_state()

    result = ImageAugmentation(**OFF)(given)

    assert result.keys() == given.keys()
    assert all(torch.equal(result[name], given[name]) for name in given)
    assert torch.equal(torch.get_rng_state(), state)


def test_a_batch_is_not_changed_in_place():
    given = batch()
    copies = {name: value.clone() for name, value in given.items()}
    for seed in range(10):
        torch.manual_seed(seed)
        ImageAugmentation(4)(given)

    assert all(torch.equal(given[name], copies[name]) for name in given)


def test_smoothing_alone_spreads_its_share_over_all_classes():
    labels = ImageAugmentation(4, **{**OFF, "label_smoothing": 0.2})(batch())["labels"]

    # 0.2 / 4 everywhere, and 0.8 more at the class.
    expected = torch.full((6, 4), 0.05)
    expected[torch.arange(6), batch()["labels"]] = 0.85
    torch.testing.assert_close(labels, expected)


@pytest.mark.parametrize("options", [{}, {"magnitude": 0, "erasing": 0, "label_smoothing": 0}])
def test_soft_labels_sum_to_one(options):
    for seed in range(20):
        torch.manual_seed(seed)
        labels = ImageAugmentation(4, **options)(batch())["labels"]
        torch.testing.assert_close(labels.sum(dim=1), torch.ones(6))
        assert labels.min() >= 0


def test_mixup_mixes_image_label_and_target_with_one_weight_and_one_partner():
    given = batch()
    torch.manual_seed(3)
    mixed = ImageAugmentation(4, **{**OFF, "mixup": 0.8})(given)

    # The weight, from one pixel of sample 1 and its partner, sample 4; everything else must follow from it.
    own, other = given["pixel_values"][1, 0, 0, 0], given["pixel_values"][4, 0, 0, 0]
    weight = (mixed["pixel_values"][1, 0, 0, 0] - other) / (own - other)
    assert 0 < weight < 1
    one_hot = torch.eye(4)[given["labels"]]
    for name, values in (("pixel_values", given["pixel_values"]), ("labels", one_hot), (TARGETS, given[TARGETS])):
        expected = torch.stack([weight * values[i] + (1 - weight) * values[5 - i] for i in range(6)])
        torch.testing.assert_close(mixed[name], expected)


def test_cutmix_weighs_by_the_area_that_is_left():
    given, seen = batch(side=20), set()
    for seed in range(30):
        torch.manual_seed(seed)
        mixed = ImageAugmentation(4, **{**OFF, "cutmix": 1.0})(given)
        from_partner = mixed["pixel_values"] != given["pixel_values"]
        assert torch.equal(mixed["pixel_values"][from_partner], given["pixel_values"].flip(0)[from_partner])
        rows, columns = from_partner[0, 0].any(dim=1).sum(), from_partner[0, 0].any(dim=0).sum()
        assert torch.equal(from_partner.sum(dim=(1, 2, 3)), (3 * rows * columns).expand(6))  # one full box, the same
        weight = 1 - (rows * columns) / 400
        seen.add(float(weight))
        expected = weight * given[TARGETS] + (1 - weight) * given[TARGETS].flip(0)
        torch.testing.assert_close(mixed[TARGETS], expected)
        one_hot = torch.eye(4)[given["labels"]]
        torch.testing.assert_close(mixed["labels"], weight * one_hot + (1 - weight) * one_hot.flip(0))
    assert len(seen) > 20 and min(seen) < 0.4 and max(seen) > 0.9


@pytest.mark.parametrize("mix", ["mixup", "cutmix"])
def test_a_mixture_with_an_unlabelled_or_unpaired_sample_is_none_itself(mix):
    given = batch()
    given["labels"][1] = -100  # its partner is sample 4
    given[TARGETS][0] = torch.nan  # sample 5
    torch.manual_seed(0)
    mixed = ImageAugmentation(4, **{**OFF, mix: 1.0, "label_smoothing": 0.2})(given)

    assert mixed["labels"].isnan().all(dim=1).tolist() == [False, True, False, False, True, False]
    assert mixed[TARGETS].isnan().all(dim=1).tolist() == [True, False, False, False, False, True]
    labelled = mixed["labels"][[0, 2, 3, 5]]
    torch.testing.assert_close(labelled.sum(dim=1), torch.ones(4))
    assert mixed["pixel_values"].isfinite().all()


def test_the_two_mixes_take_turns_at_random():
    given, cut = batch(), 0
    for seed in range(200):
        torch.manual_seed(seed)
        mixed = ImageAugmentation(4, **MIXING, switch_prob=0.3)(given)["pixel_values"]
        copied = (mixed == given["pixel_values"]) | (mixed == given["pixel_values"].flip(0))
        cut += bool(copied.all())
    assert 40 <= cut <= 80  # 60, and three standard deviations are 19


def test_the_weight_follows_the_beta_distribution():
    augment = ImageAugmentation(4, **{**OFF, "mixup": 0.8})
    torch.manual_seed(0)
    weights = torch.tensor([augment._draw_mix(8, 8)[0] for _ in range(2000)])

    # Beta(a, a) has mean 1/2 and variance 1 / (4 (2 a + 1)) = 0.0962 for a = 0.8.
    assert weights.mean() == pytest.approx(0.5, abs=0.021)
    assert weights.var() == pytest.approx(1 / (4 * 2.6), rel=0.1)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_aiming_at_the_mixed_target_has_the_gradient_of_aiming_at_both(reduction):
    given = batch()
    torch.manual_seed(1)
    augment = ImageAugmentation(4, **{**OFF, "mixup": 0.8})
    mixed = augment(given)
    torch.manual_seed(1)
    torch.rand(())  # whatever else is drawn, the weight follows from the targets
    t_BD, u_BD = given[TARGETS], given[TARGETS].flip(0)
    weight = ((mixed[TARGETS] - u_BD)[0, 0] / (t_BD - u_BD)[0, 0]).item()
    z_BD = torch.randn(6, 5, requires_grad=True)

    (of_mixed,) = torch.autograd.grad(latent_distance(z_BD, mixed[TARGETS], reduction=reduction), z_BD)
    both = weight * latent_distance(z_BD, t_BD, reduction=reduction)
    both = both + (1 - weight) * latent_distance(z_BD, u_BD, reduction=reduction)
    (of_both,) = torch.autograd.grad(both, z_BD)

    assert 0.05 < weight < 0.95
    torch.testing.assert_close(of_mixed, of_both)


def test_the_same_seed_gives_the_same_batch_and_another_another():
    results = []
    for seed in (5, 5, 6):
        torch.manual_seed(seed)
        np.random.seed(len(results))  # of no consequence
        results.append(ImageAugmentation(4)(batch()))

    assert all(torch.equal(results[0][name], results[1][name]) for name in results[0])
    assert not torch.equal(results[0]["pixel_values"], results[2]["pixel_values"])


def test_no_value_of_the_device_is_read():
    # A tensor on the meta device has no values: whatever asks for one raises.
    given = {name: value.to("meta") for name, value in batch().items()}
    augment = ImageAugmentation(4).to("meta")
    for seed in range(20):
        torch.manual_seed(seed)
        mixed = augment._changed(given)  # `forward`, without autocast, which this device lacks
        assert mixed["pixel_values"].is_meta and mixed["labels"].shape == (6, 4)


def test_erasing_puts_noise_into_a_rectangle_of_some_images():
    torch.manual_seed(0)
    images = torch.full((400, 2, 30, 20), 7.0)

    changed = (erase(images, 0.25) != 7).all(dim=1)

    is_erased = changed.flatten(1).any(dim=1)
    assert 74 <= is_erased.sum() <= 126  # 100, and three standard deviations are 26
    for mask in changed[is_erased]:
        assert mask.sum() == mask.any(dim=0).sum() * mask.any(dim=1).sum()  # one full rectangle
    shares = changed[is_erased].float().mean(dim=(1, 2))
    assert shares.min() > 0.01 and shares.max() < 0.36
    assert shares.mean() == pytest.approx((0.02 + 1 / 3) / 2, abs=0.03)
    noise = erase(images, 1.0)
    noise = noise[noise != 7]
    assert noise.mean() == pytest.approx(0, abs=0.02) and noise.std() == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("size", [1, 2, 7])
def test_any_batch_size_and_precision_goes(size, dtype):
    given = batch(size)
    given["pixel_values"] = given["pixel_values"].to(dtype)
    for seed in range(5):
        torch.manual_seed(seed)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            mixed = ImageAugmentation(4)(given)
        assert mixed["pixel_values"].dtype == dtype and mixed["pixel_values"].isfinite().all()
        assert mixed["labels"].dtype == mixed[TARGETS].dtype == torch.float32
        assert len(mixed["labels"]) == size


def test_autocast_does_not_blur_the_coordinates():
    results = []
    for enabled in (False, True):
        torch.manual_seed(0)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            results.append(ImageAugmentation(4)(batch(32))["pixel_values"])

    assert torch.equal(*results)


def test_a_batch_of_one_is_mixed_with_itself():
    given = batch(1)
    torch.manual_seed(0)
    mixed = ImageAugmentation(4, **MIXING)(given)

    torch.testing.assert_close(mixed["pixel_values"], given["pixel_values"])
    torch.testing.assert_close(mixed[TARGETS], given[TARGETS])


def test_grey_images_are_augmented_without_rand_augment():
    mixed = ImageAugmentation(4, [0.5], [0.5], magnitude=0)(batch(channels=1))

    assert mixed["pixel_values"].shape == (6, 1, 16, 16)
    with pytest.raises(ValueError, match="3 channels.*these have 1.*magnitude=0"):
        ImageAugmentation(4, [0.5], [0.5])(batch(channels=1))


def test_a_batch_without_targets_stays_without():
    given = batch()
    del given[TARGETS]
    given["extra"] = "kept"

    mixed = ImageAugmentation(4)(given)

    assert mixed.keys() == given.keys() and mixed["extra"] == "kept"


def test_rand_augment_keeps_the_range_of_the_images():
    mean, std = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)
    images = (torch.rand(64, 3, 16, 16) - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
    torch.manual_seed(0)

    result = ImageAugmentation(mean=mean, std=std, **{**OFF, "magnitude": 9})({"pixel_values": images})["pixel_values"]

    original = result * torch.tensor(std).view(3, 1, 1) + torch.tensor(mean).view(3, 1, 1)
    assert original.min() >= -1e-5 and original.max() <= 1 + 1e-5
    assert not torch.equal(result, images)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_classes": None}, "make soft labels.*num_classes"),
        ({"magnitude": 11}, "magnitude=11"),
        ({"erasing": -0.1}, "erasing=-0.1"),
        ({"mixup": math.nan}, "mixup=nan"),
        ({"label_smoothing": 1.0}, "label_smoothing=1.0"),
        ({"switch_prob": 2}, "switch_prob=2"),
    ],
)
def test_a_value_out_of_range_is_named(options, message):
    with pytest.raises(ValueError, match=message):
        ImageAugmentation(**{"num_classes": 4, **options})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": None}, "`labels` are missing"),
        ({"labels": torch.rand(6, 4)}, r"`labels` are torch.float32 of shape \(6, 4\)"),
        ({"pixel_values": torch.rand(3, 8, 8)}, r"of shape \(3, 8, 8\)"),
        ({"pixel_values": None}, "missing among"),
    ],
)
def test_a_batch_of_another_form_is_refused(change, message):
    given = {name: value for name, value in {**batch(), **change}.items() if value is not None}
    with pytest.raises(ValueError, match=message):
        ImageAugmentation(4)(given)
