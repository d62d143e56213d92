"""RandAugment of a batch of images in memory, on any device, every image with operations of its own.

Shapes: B images, N of them that got the same operation, 3 channels, H x W pixels; values in [0, 1].
"""

import torch
import torch.nn.functional as F

from hf_colearn.utils.extras import extra


with extra("vision", "augmentation needs kornia"):
    from kornia import enhance


def rand_augment(
    x_B3HW: torch.Tensor,
    magnitude: float = 9.0,
    magnitude_std: float = 0.5,
    num_ops: int = 2,
    fill: torch.Tensor | float = 0.5,
) -> torch.Tensor:
    """RandAugment (Cubuk et al., 2020) as timm's `rand-m9-mstd0.5-inc1`, which the published ViTs were trained with.

    `num_ops` times, every image draws one of 15 operations (a second time maybe the same), is left alone with
    probability 0.5, and else gets it with a magnitude, 0 to 10, from a normal distribution; "inc" says that all
    operations grow stronger with it. What differs from timm: images go through as floats and are not rounded to 8 bits in
    between, and the geometric operations interpolate bilinearly, always; they bring `fill` in from outside. All draws are
    made on the CPU by torch's global generator, so that the device is never waited for; the images of a batch that drew
    the same operation get it in one call.
    """
    x_B3HW, size = x_B3HW.clone(), len(x_B3HW)
    for _ in range(num_ops):
        operation_B = torch.randint(len(OPERATIONS), (size,))
        level_B = (magnitude + magnitude_std * torch.randn(size)).clamp(0, 10) / 10
        sign_B = torch.where(torch.rand(size) < 0.5, 1.0, -1.0)
        operation_B[torch.rand(size) < 0.5] = len(OPERATIONS)  # left alone
        order_B = operation_B.argsort(stable=True)
        counts = operation_B.bincount(minlength=len(OPERATIONS) + 1).tolist()
        drawn_2B = to_device(torch.stack([level_B, sign_B]), x_B3HW.device)
        groups = zip(to_device(order_B, x_B3HW.device).split(counts), drawn_2B.split(counts, dim=1), strict=True)
        for name, (rows_N, drawn_2N) in zip(OPERATIONS, groups, strict=False):  # without those left alone
            if len(rows_N):
                x_B3HW.index_copy_(0, rows_N, operate(name, x_B3HW[rows_N], drawn_2N[0], drawn_2N[1], fill))
    return x_B3HW


def to_device(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Moves what was drawn on the CPU, without waiting for the device."""
    return (tensor.pin_memory() if device.type == "cuda" else tensor).to(device, non_blocking=True)


def operate(
    name: str, x_N3HW: torch.Tensor, level_N: torch.Tensor, sign_N: torch.Tensor, fill: torch.Tensor | float = 0.5
) -> torch.Tensor:
    """The operation of this name, at timm's magnitudes over 10 (0 to 1) and signs of 1 or -1 `(N,)`."""
    if name in PHOTOMETRIC:
        return PHOTOMETRIC[name](x_N3HW, level_N, sign_N)
    # Output to input, in the coordinates of `affine_grid`: -1 to 1 from edge to edge, so that sides do not count.
    (height, width), signed_N = x_N3HW.shape[-2:], level_N * sign_N
    one_N, zero_N = torch.ones_like(level_N), torch.zeros_like(level_N)
    theta_N23 = torch.stack(GEOMETRIC[name](signed_N, one_N, zero_N, height / width), dim=1).unflatten(1, (2, 3))
    grid = F.affine_grid(theta_N23, list(x_N3HW.shape), align_corners=False)
    return (F.grid_sample(x_N3HW - fill, grid, align_corners=False) + fill).clamp(0, 1)


def _rotate(signed, one, zero, aspect):  # 30 degrees at most, counterclockwise where positive
    angle = torch.deg2rad(30 * signed)
    return angle.cos(), -angle.sin() * aspect, zero, angle.sin() / aspect, angle.cos(), zero


def _levels(x):
    """8-bit levels: kornia cuts the fraction off."""
    return (255 * x).round() / 255


def _auto_contrast(x, level, sign):
    low, high = x.amin((-2, -1), keepdim=True), x.amax((-2, -1), keepdim=True)
    return torch.where(high > low, (x - low) / (high - low).clamp(min=1 / 255), x)


def _solarize(x, level, sign):
    threshold = (256 - (256 * level).floor() - 0.5) / 255
    return torch.where(x < threshold[:, None, None, None], x, 1 - x)


def _solarize_add(x, level, sign):
    addition = (110 * level).floor() / 255
    return torch.where(x < 0.5, x + addition[:, None, None, None], x).clamp(max=1)


def _factor(level, sign):  # 1 changes nothing, 0.1 and 1.9 are the extremes
    return (1 + 0.9 * level * sign).clamp(min=0.1)


# By name, the 6 values of an affine map; sides are sheared by 0.3 of their length at most, about the upper left corner as
# PIL does, and moved by 45 %.
GEOMETRIC = {
    "rotate": _rotate,
    "shear_x": lambda v, one, zero, aspect: (one, 0.3 * v * aspect, 0.3 * v * aspect, zero, one, zero),
    "shear_y": lambda v, one, zero, aspect: (one, zero, zero, 0.3 * v / aspect, one, 0.3 * v / aspect),
    "translate_x": lambda v, one, zero, aspect: (one, zero, 0.9 * v, zero, one, zero),
    "translate_y": lambda v, one, zero, aspect: (one, zero, zero, zero, one, 0.9 * v),
}
PHOTOMETRIC = {
    "auto_contrast": _auto_contrast,
    "equalize": lambda x, level, sign: enhance.equalize(_levels(x)),
    "invert": lambda x, level, sign: 1 - x,
    "posterize": lambda x, level, sign: enhance.posterize(_levels(x), 4 - (4 * level).floor().long()),  # 4 bits to 0
    "solarize": _solarize,
    "solarize_add": _solarize_add,
    "color": lambda x, level, sign: enhance.adjust_saturation_with_gray_subtraction(x, _factor(level, sign)),
    "contrast": lambda x, level, sign: enhance.adjust_contrast_with_mean_subtraction(x, _factor(level, sign)),
    "brightness": lambda x, level, sign: enhance.adjust_brightness_accumulative(x, _factor(level, sign)),
    "sharpness": lambda x, level, sign: enhance.sharpness(x, _factor(level, sign)),
}
OPERATIONS = (*GEOMETRIC, *PHOTOMETRIC)
