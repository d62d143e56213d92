"""Augmentation of the student's images, a batch at a time and on its device: RandAugment, erasing, mixup, cutmix.

Shapes: B images of a batch, C channels, H x W pixels, K classes, D dimensions of a latent.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from transformers.image_utils import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD

from hf_colearn.data.rand_augment import rand_augment, to_device
from hf_colearn.data.sample_ids import is_target
from hf_colearn.data.soft_labels import smoothed


# What the options may be; all of them from 0.
_HIGHEST: dict[str, float] = {
    "magnitude": 10, "magnitude_std": 10, "num_ops": 15, "erasing": 1, "mixup": 100, "cutmix": 100, "switch_prob": 1,
    "label_smoothing": 0.99,
}  # fmt: skip


class ImageAugmentation(nn.Module):
    r"""Augments a training batch: RandAugment, random erasing, then mixup or cutmix, and label smoothing.

    The order and the arithmetic are timm's, which DeiT and its successors were trained with; the default values are those
    that Lee & Yoon (ICLR 2025) trained ViTs on ImageNet with. Zero switches an option off; with all of them off the batch
    comes back bit for bit. Only the student's input is augmented, never the teacher's, so a bank stays exact.

    **The latent target of a mixed sample** is the same convex combination as its image and its label,
    \\(\lambda t_i + (1 - \lambda) t_j\\), with the weight that is left after clipping cutmix's box. For a squared
    distance that is an identity: \\(\|z - \lambda t_i - (1 - \lambda) t_j\|^2\\) differs from
    \\(\lambda \|z - t_i\|^2 + (1 - \lambda) \|z - t_j\|^2\\) by a term without z, so that the gradient is that of aiming
    at both targets, each with its share. (For `latent_loss="cosine"` and `"smooth_l1"` it is a choice.)

    **Without a label** (-100) or a target (a row of NaN) a sample's images are augmented and mixed all the same; a sample
    that is mixed with one of these has no label, or no target, either. The two masks are apart: a mixture of a labelled
    pair with an unlabelled pair keeps its mixed target. Where few samples are labelled, mixing leaves few labels: switch it
    off, or mix labelled samples alone.

    All draws come from torch's global generators, so a resumed run goes on as if it had not stopped; each process draws
    for its own images, by the same seed. Values of the device are never read. The partner of sample i is sample
    B - 1 - i, and a batch has one \\(\lambda\\), both as in timm.

    Args:
        num_classes (`int`, *optional*): K; needed for mixing and smoothing, which make the labels soft.
        mean, std (`Sequence[float]`, *optional*, defaults to ImageNet's): The image processor's.
        magnitude (`float`, *optional*, defaults to 9.0): RandAugment's, 0 to 10; needs 3 channels.
        magnitude_std (`float`, *optional*, defaults to 0.5): Its standard deviation.
        num_ops (`int`, *optional*, defaults to 2): RandAugment's operations an image.
        erasing (`float`, *optional*, defaults to 0.25): Probability that a rectangle of an image, 2 % to a third of it,
            is replaced by Gaussian noise, a value a pixel (Zhong et al., 2020; timm's mode "pixel").
        mixup (`float`, *optional*, defaults to 0.8): Both parameters of \\(\lambda\\)'s beta distribution (Zhang et al.,
            2018).
        cutmix (`float`, *optional*, defaults to 1.0): The same for cutmix (Yun et al., 2019).
        switch_prob (`float`, *optional*, defaults to 0.5): Probability of cutmix instead of mixup, where both are on.
        label_smoothing (`float`, *optional*, defaults to 0.1): Share of a label that is spread over all K classes.

    Raises:
        ValueError: If a value is out of its range, or if `num_classes` is needed and missing.

    Example:

    ```python
    >>> import torch
    >>> from hf_colearn.data.augmentation import ImageAugmentation

    >>> augment = ImageAugmentation(num_classes=10)
    >>> batch = augment({"pixel_values": torch.randn(4, 3, 32, 32), "labels": torch.tensor([3, 1, 4, 1])})
    >>> batch["labels"].shape
    torch.Size([4, 10])
    ```
    """

    mean_C11: torch.Tensor
    std_C11: torch.Tensor

    def __init__(
        self,
        num_classes: int | None = None,
        mean: Sequence[float] = IMAGENET_DEFAULT_MEAN,
        std: Sequence[float] = IMAGENET_DEFAULT_STD,
        *,
        magnitude: float = 9.0,
        magnitude_std: float = 0.5,
        num_ops: int = 2,
        erasing: float = 0.25,
        mixup: float = 0.8,
        cutmix: float = 1.0,
        switch_prob: float = 0.5,
        label_smoothing: float = 0.1,
    ):
        super().__init__()
        self.magnitude, self.magnitude_std, self.num_ops = magnitude, magnitude_std, num_ops
        self.erasing, self.mixup, self.cutmix, self.switch_prob = erasing, mixup, cutmix, switch_prob
        self.num_classes, self.label_smoothing = num_classes, label_smoothing
        for name, highest in _HIGHEST.items():
            if not 0 <= (value := getattr(self, name)) <= highest:
                raise ValueError(f"{name}={value} is out of range: pass a number from 0 (off) to {highest}.")
        if num_classes is None and (mixup or cutmix or label_smoothing):
            raise ValueError(
                f"mixup={mixup}, cutmix={cutmix} and label_smoothing={label_smoothing} make soft labels, one value a "
                "class: pass `num_classes=`, or set all three to 0."
            )
        for name, values in (("mean_C11", mean), ("std_C11", std)):
            self.register_buffer(name, torch.tensor(values).view(-1, 1, 1), persistent=False)

    @torch.no_grad()
    def forward(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Augments `pixel_values` `(B, C, H, W)`, integer `labels` `(B,)`, and maybe the teacher's targets `(B, D)`, or
        `(B, T, D)` of sequences, where a frame that is mixed with padding is padding. Ids are not mixed, but refused.

        The new batch has labels `(B, K)` float32 where mixing or smoothing is on; other entries are passed on.
        """
        images = batch.get("pixel_values")
        if images is None or images.ndim != 4:
            found = f"of shape {tuple(images.shape)}" if images is not None else f"missing among {sorted(batch)}"
            raise ValueError(f"`pixel_values` [B, C, H, W] are {found}: ImageAugmentation is for batches of images.")
        with torch.autocast(images.device.type, enabled=False):  # bfloat16 is too coarse for coordinates
            return self._changed(batch)

    def _changed(self, batch: dict[str, Any]) -> dict[str, Any]:
        images = batch["pixel_values"]
        batch = {**batch, "pixel_values": self._augment(images)}
        if self.mixup or self.cutmix or self.label_smoothing:
            batch["labels"] = self._soft_labels(batch.get("labels"))
        if self.mixup or self.cutmix:
            _mix(batch, *self._draw_mix(*images.shape[-2:]))
        return batch

    def _augment(self, images: torch.Tensor) -> torch.Tensor:
        x_BCHW = images
        if self.magnitude and self.num_ops:
            if x_BCHW.shape[1] != 3:
                raise ValueError(
                    f"RandAugment needs images of 3 channels for its operations on colours, and these have "
                    f"{x_BCHW.shape[1]}: pass `magnitude=0` to leave it out."
                )
            x_BCHW = (x_BCHW.float() * self.std_C11 + self.mean_C11).clamp(0, 1)
            x_BCHW = rand_augment(x_BCHW, self.magnitude, self.magnitude_std, self.num_ops, self.mean_C11)
            x_BCHW = (x_BCHW - self.mean_C11) / self.std_C11
        if self.erasing:
            x_BCHW = erase(x_BCHW, self.erasing)
        return x_BCHW.to(images.dtype)

    def _soft_labels(self, labels_B: torch.Tensor | None) -> torch.Tensor:
        if labels_B is None or labels_B.ndim != 1 or labels_B.is_floating_point():
            found = "missing" if labels_B is None else f"{labels_B.dtype} of shape {tuple(labels_B.shape)}"
            raise ValueError(f"`labels` are {found}: mixing and smoothing need class indices of shape [B].")
        assert self.num_classes is not None  # seen to when built
        return smoothed(labels_B, self.num_classes, self.label_smoothing)

    def _draw_mix(self, height: int, width: int) -> tuple[float, tuple[slice, slice] | None]:
        """The own image's weight, and cutmix's box or, for mixup, none."""
        use_cutmix = self.cutmix > 0 and (not self.mixup or bool(torch.rand(()) < self.switch_prob))
        concentration = torch.tensor(float(self.cutmix if use_cutmix else self.mixup))
        weight = float(torch.distributions.Beta(concentration, concentration).sample())
        if not use_cutmix:
            return weight, None
        side = (1 - weight) ** 0.5
        rows, columns = _interval(height, side), _interval(width, side)
        area = (rows.stop - rows.start) * (columns.stop - columns.start)
        return 1 - area / (height * width), (rows, columns)


def _interval(length: int, share: float) -> slice:
    """About `share` of a side around a random centre, clipped to the image."""
    half, centre = int(length * share) // 2, int(torch.randint(length, ()))
    return slice(max(centre - half, 0), min(centre + half, length))


def _mix(batch: dict[str, Any], weight: float, box: tuple[slice, slice] | None) -> None:
    """Mixes images, labels and targets with the batch in reverse order, all with the same weight."""
    images = batch["pixel_values"]
    if box is None:
        batch["pixel_values"] = _blend(images, weight)
    else:
        batch["pixel_values"] = images.clone()
        batch["pixel_values"][..., box[0], box[1]] = images.flip(0)[..., box[0], box[1]]
    for name in batch:
        if is_target(name) and not batch[name].is_floating_point():
            raise ValueError(
                f"mixup and cutmix mix targets, and '{name}' holds ids, which have no mixture: pass `mixup=0, cutmix=0`."
            )
        if name == "labels" or is_target(name):
            batch[name] = _blend(batch[name], weight)


def _blend(tensor: torch.Tensor, weight: float) -> torch.Tensor:
    return weight * tensor + (1 - weight) * tensor.flip(0)


def erase(x_BCHW: torch.Tensor, probability: float) -> torch.Tensor:
    """Replaces a rectangle by Gaussian noise in each of the normalised images `(B, C, H, W)` with a probability."""
    from kornia.augmentation import RandomErasing  # slow to import

    rows_N = (torch.rand(len(x_BCHW)) < probability).nonzero()[:, 0]
    if not len(rows_N):
        return x_BCHW
    rows_N = to_device(rows_N, x_BCHW.device)
    chosen_NCHW = x_BCHW[rows_N]
    whole_N1HW = torch.ones_like(chosen_NCHW[:, :1])
    kept_N1HW = RandomErasing(scale=(0.02, 1 / 3), ratio=(0.3, 1 / 0.3), p=1.0)(whole_N1HW)
    erased_NCHW = torch.where(kept_N1HW > 0, chosen_NCHW, torch.randn_like(chosen_NCHW))
    return x_BCHW.index_copy(0, rows_N, erased_NCHW)
