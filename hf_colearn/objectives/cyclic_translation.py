"""A modality is translated into another one, and back. Shapes: B samples, T frames or tokens, D dimensions."""

from collections.abc import Mapping
from typing import Any

import torch

from hf_colearn.objectives.objective import CoLearningBatch


TRANSLATION, CYCLE = "translation", "cycle"  # the terms, and the training heads for them


class CyclicTranslation:
    r"""Translates the student's latent h into the other modality, and the translation back: the terms `translation`,
    \\(\|\hat b - b\|^2\\) with \\(\hat b = dec(h)\\), and `cycle`, \\(\|\hat a - a\|^2\\) with \\(\hat a = cyc(\hat b)\\).

    b are the target teacher's latents, or inputs of its modality as a bank of flat vectors; a those of a second teacher, whose
    bank holds the student's own inputs or features, flat. Both are mean squared errors over dimensions (of sequences: and the
    positions that have a target), and means over the samples of the optimizer step that have the target; with standardised
    banks, the trainer's default, a head that predicts the mean has 1. Decoder and cycle are training heads, which no export
    has, so that the student reads a alone.

    Source: "Found in Translation: Learning Robust Joint Representations by Cyclic Translations between Modalities" (MCTN,
    Pham et al., AAAI 2019), there between sequences. Its loss, task + 0.1 translation + 0.1 cycle, is
    `alpha=ConstantAlpha.from_weights({"translation": 0.1, "cycle": 0.1})`: 1/12 each, and 10/12 of the task.

    Args:
        target (`str`, *optional*, defaults to `"text"`): The teacher of b; the head `translation` is as wide.
        source (`str`, *optional*): The teacher of a; the head `cycle` is as wide, and reads the head `translation`. Without one
            there is the translation alone.

    Example:

    ```python
    >>> import torch
    >>> from hf_colearn import CyclicTranslation
    >>> from hf_colearn.objectives.objective import CoLearningBatch

    >>> heads = {"translation": 2, "cycle": {"out_features": 3, "reads": "translation"}}  # `training_heads` of the student
    >>> found = {"translation": torch.tensor([[1.0, 2.0]]), "cycle": torch.zeros(1, 3)}  # what they give
    >>> batch = CoLearningBatch(targets={"text": torch.zeros(1, 2), "speech": torch.tensor([[3.0, 0.0, 0.0]])})
    >>> CyclicTranslation("text", "speech")({"training_outputs": found}, batch)  # (1 + 4) / 2 and 9 / 3
    {'translation': tensor(2.5000), 'cycle': tensor(3.)}

    ```
    """

    def __init__(self, target: str = "text", source: str | None = None):
        for of, name in (("target", target), ("source", source)):
            if (of, name) != ("source", None) and (not isinstance(name, str) or not name):
                raise TypeError(
                    f"{of}={name!r} is no name of a teacher: pass the one that `teachers=` has, as 'text'."
                )
        if target == source:
            raise ValueError(
                f"target='{target}' and source='{source}' are one teacher: the cycle leads back to the student's own modality, "
                "so pass a second teacher, whose bank holds the student's inputs."
            )
        self.target, self.source = target, source
        self.terms: tuple[str, ...] = (TRANSLATION,) if source is None else (TRANSLATION, CYCLE)

    @property
    def teachers(self) -> dict[str, str]:
        """The teacher of each term."""
        return dict(zip(self.terms, (self.target, self.source), strict=False))  # type: ignore[arg-type]

    def __call__(self, outputs: Mapping[str, Any], batch: CoLearningBatch) -> dict[str, torch.Tensor]:
        heads = outputs["training_outputs"]
        return {
            term: mean_squared_error(heads[term], batch.targets[name]) * batch.weight(name)
            for term, name in self.teachers.items()
        }

    def check(self, model: Any, teachers: Mapping[str, Any]) -> None:
        """Refuses a student without the heads, heads of other widths, and a cycle that reads anything but the translation.

        Raises:
            ValueError: With the value and the way out.
        """
        heads = getattr(getattr(model, "config", None), "training_heads", None) or {}
        for term, name in self.teachers.items():
            if name not in teachers:
                raise ValueError(
                    f"the term '{term}' needs the teacher '{name}', and there is {list(teachers) or 'none'}: pass "
                    f"`teachers={{'{name}': Teacher(bank), ...}}`, or name another one in CyclicTranslation."
                )
            reads = f", 'reads': '{TRANSLATION}'" if term == CYCLE else ""
            wanted = f"`training_heads={{'{term}': {{'out_features': {teachers[name].dim}{reads}}}}}`"
            head = heads.get(term, {})
            if "out_features" not in head:
                found = f"'{term}' is a decoder of captions" if head else f"the student has {list(heads) or 'none'}"
                raise ValueError(
                    f"the term '{term}' needs a training head of its name, and {found}: build it with {wanted}."
                )
            if head["out_features"] != teachers[name].dim:
                raise ValueError(
                    f"the training head '{term}' is {head['out_features']} wide, and the latents of '{name}' "
                    f"{teachers[name].dim}: build the student with {wanted}."
                )
            if term == CYCLE and head["reads"] != TRANSLATION:
                raise ValueError(
                    f"the training head '{CYCLE}' reads '{head['reads']}', so it would not lead back from the translation: "
                    f"build the student with {wanted}."
                )

    def __repr__(self) -> str:
        return f"CyclicTranslation({self.target!r}, {self.source!r})"


def mean_squared_error(found: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Over the dimensions and, of sequences, the positions that have a target; then the mean over the samples that have one.

    Args:
        found, target (`torch.Tensor` of shape `(B, D)` or `(B, T, D)`): No gradient flows into the target. A vector of NaN is
            no target; where no sample has one, the error is 0 without a slope. Computed in float32.
    """
    if found.shape != target.shape:
        raise ValueError(
            f"what was translated has shape {tuple(found.shape)}, and the target {tuple(target.shape)}: a flat target needs a "
            "head that reads `latents`, and one of sequences a head that reads `dense_latents` of a dense student."
        )
    shape = len(found), -1, found.shape[-1]
    found_BTD, target_BTD = found.float().reshape(shape), target.detach().float().reshape(shape)
    has_BT = ~target_BTD.isnan().all(dim=-1)  # a vector with some NaN is a broken one, and shows
    errors_BT = torch.where(has_BT[..., None], found_BTD - target_BTD, 0).square().mean(dim=-1)
    errors_B = errors_BT.sum(dim=1) / has_BT.sum(dim=1).clamp(min=1)
    return errors_B.sum() / has_BT.any(dim=1).sum().clamp(min=1)
