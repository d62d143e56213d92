"""Two views of every training sample, weakly and strongly augmented, for objectives that compare them.

Shapes: B rows of a batch, V stored views of each of N samples, F features, C channels, H x W pixels.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from hf_colearn.data.sample_ids import LABELS, NO_LABEL, SAMPLE_IDS, is_target


Augmentation = Callable[[dict[str, Any]], dict[str, Any]]


class TwoViews(nn.Module):
    """Doubles a batch: the weak views of its B rows, then the strong views of the same, as the trainer's `augment`.

    Labels and targets stay with the weak views; a strong view has none (-100 in classes, NaN in numbers and targets). The
    entry `views` `(2B,)` says which is which, 0 weak and 1 strong; objectives read it as `batch.views`.

    Args:
        weak, strong (`Callable`, *optional*): What makes each view of the batch, such as [`FlipAndShift`],
            [`~hf_colearn.data.augmentation.ImageAugmentation`] without mixing and smoothing, or [`StoredViews`]; None leaves
            it as it is. Neither may change the number of rows or their order.

    Example:

    ```python
    >>> import torch
    >>> from hf_colearn.data.views import TwoViews

    >>> twice = TwoViews(strong=lambda batch: {**batch, "features": -batch["features"]})
    >>> batch = twice({"features": torch.ones(1, 2), "labels": torch.tensor([3])})
    >>> batch["features"].tolist(), batch["labels"].tolist(), batch["views"].tolist()
    ([[1.0, 1.0], [-1.0, -1.0]], [3, -100], [0, 1])
    ```
    """

    def __init__(self, weak: Augmentation | None = None, strong: Augmentation | None = None):
        super().__init__()
        self.weak, self.strong = weak, strong

    @property
    def needs_sample_ids(self) -> bool:
        """Whether a view is made by sample ids, so that the trainer has to pass them."""
        return any(getattr(view, "needs_sample_ids", False) for view in (self.weak, self.strong))

    @torch.no_grad()
    def forward(self, batch: dict[str, Any]) -> dict[str, Any]:
        """The batch of 2B rows; what is no tensor with a row each is passed on."""
        weak, strong = (dict(batch) if view is None else view(dict(batch)) for view in (self.weak, self.strong))
        for name in strong:
            if name in LABELS or is_target(name):
                strong[name] = without(strong[name])
        rows = {name for name, value in weak.items() if isinstance(value, torch.Tensor) and value.ndim}
        for name in sorted(rows):
            if name not in strong or strong[name].shape != weak[name].shape:
                found = f"of shape {tuple(strong[name].shape)}" if name in strong else "missing"
                raise ValueError(
                    f"'{name}' of the strong views is {found}, where the weak views' is {tuple(weak[name].shape)}: let "
                    "both keep rows and widths, as ImageAugmentation does with mixup=0, cutmix=0 and label_smoothing=0."
                )
        count = len(weak[min(rows)])
        joined = {name: torch.cat([weak[name], strong[name]]) if name in rows else weak[name] for name in weak}
        return joined | {"views": torch.arange(2, device=weak[min(rows)].device).repeat_interleave(count)}


def without(values: torch.Tensor) -> torch.Tensor:
    """Labels or targets of the same shape that say that there are none."""
    return torch.full_like(values, torch.nan if values.is_floating_point() else NO_LABEL)


class StoredViews(nn.Module):
    """Replaces a batch's features by one of the views that were computed beforehand, drawn at random for every row.

    With it a student of frozen features has augmented *inputs*: pictures, sounds and texts are augmented a few times, and
    each copy is encoded once ([`~hf_colearn.data.augmented_inputs`] makes the copies). Draws from torch's generators.

    Args:
        views_NVF (`torch.Tensor` of shape `(N, V, F)`): V views of the sample with id 0, 1, ... N - 1.
        entry (`str`, *optional*, defaults to `"features"`): The entry of the batch that they replace, `(B, F)`.

    Example:

    ```python
    >>> import torch
    >>> from hf_colearn.data.views import StoredViews

    >>> views = StoredViews(torch.tensor([[[0.0]], [[5.0]]]))  # one view of each of two samples
    >>> views({"features": torch.zeros(1, 1), "sample_ids": torch.tensor([1])})["features"]
    tensor([[5.]])
    ```
    """

    needs_sample_ids = True
    views_NVF: torch.Tensor

    def __init__(self, views_NVF: torch.Tensor, entry: str = "features"):
        super().__init__()
        if views_NVF.ndim != 3 or 0 in views_NVF.shape:
            raise ValueError(f"views of shape {tuple(views_NVF.shape)} are none: pass [samples, views, features].")
        self.entry = entry
        self.register_buffer("views_NVF", views_NVF, persistent=False)

    @torch.no_grad()
    def forward(self, batch: dict[str, Any]) -> dict[str, Any]:
        """The batch with other features; its `sample_ids` `(B,)` are those of the training set."""
        ids_B = batch[SAMPLE_IDS]
        drawn_B = torch.randint(self.views_NVF.shape[1], ids_B.shape, device=ids_B.device)
        return {**batch, self.entry: self.views_NVF[ids_B, drawn_B].to(batch[self.entry].dtype)}


class FlipAndShift(nn.Module):
    """The weak augmentation of FixMatch (NeurIPS 2020): images are mirrored with probability .5 and shifted by up to 1/8.

    Draws from torch's generators, on the images' device.

    Args:
        flip (`bool`, *optional*, defaults to `True`): Leave it out where left and right mean something, as in digits.
        shift (`float`, *optional*, defaults to 0.125): Largest shift in either direction, a share of the side below 1; what
            enters the picture is mirrored.
        entry (`str`, *optional*, defaults to `"pixel_values"`): The entry of the batch, `(B, C, H, W)`.
    """

    def __init__(self, flip: bool = True, shift: float = 0.125, entry: str = "pixel_values"):
        super().__init__()
        if not 0 <= shift < 1:
            raise ValueError(f"shift={shift} is no share of an image's side: pass one from 0 to below 1.")
        self.flip, self.shift, self.entry = flip, shift, entry

    @torch.no_grad()
    def forward(self, batch: dict[str, Any]) -> dict[str, Any]:
        x_BCHW = batch[self.entry]
        count, _, height, width = x_BCHW.shape
        if self.flip:
            is_flipped_B = torch.rand(count, device=x_BCHW.device) < 0.5
            x_BCHW = torch.where(is_flipped_B[:, None, None, None], x_BCHW.flip(-1), x_BCHW)
        down, right = int(height * self.shift), int(width * self.shift)
        padded = F.pad(x_BCHW, (right, right, down, down), mode="reflect")
        rows_BH = _from_a_random_start(count, height, down, x_BCHW.device)
        columns_BW = _from_a_random_start(count, width, right, x_BCHW.device)
        own_B = torch.arange(count, device=x_BCHW.device)[:, None, None]
        shifted_BHWC = padded[own_B, :, rows_BH[:, :, None], columns_BW[:, None, :]]
        return {**batch, self.entry: shifted_BHWC.permute(0, 3, 1, 2).contiguous()}


def _from_a_random_start(count: int, length: int, most: int, device: torch.device) -> torch.Tensor:
    """`length` consecutive places from a start between 0 and twice `most`, `(count, length)` int64."""
    starts_B = torch.randint(2 * most + 1, (count, 1), device=device)
    return starts_B + torch.arange(length, device=device)
