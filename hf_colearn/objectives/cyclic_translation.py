"""A modality is translated into another one, and back. Shapes: B samples, T frames or tokens, D dimensions."""

from collections.abc import Mapping
from typing import Any

import torch

from hf_colearn.models.training_heads import model_reading
from hf_colearn.objectives.alignment import LENGTHS, SameLengths, aligned
from hf_colearn.objectives.dense_matching import dense_distance, dense_outputs
from hf_colearn.objectives.distances import latent_distance
from hf_colearn.objectives.objective import CoLearningBatch
from hf_colearn.teachers.sequence_bank import SequenceBank
from hf_colearn.utils.checks import check_choice


TRANSLATION, CYCLE = "translation", "cycle"  # the terms, and the training heads for them


class CyclicTranslation:
    r"""Translates the student's latent h into the other modality, and the translation back: the terms `translation`,
    \\(\|\hat b - b\|^2\\) with \\(\hat b = dec(h)\\), and `cycle`, \\(\|\hat a - a\|^2\\) with \\(\hat a = cyc(\hat b)\\).

    b are the target teacher's latents, or inputs of its modality as vectors; a those of a second teacher, whose
    bank holds the student's own inputs or features. Both are mean squared errors over dimensions (of sequences: and the
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
        lengths (`str`, *optional*, defaults to `"exact"`): Where the banks hold sequences and the heads read the dense latents,
            how their lengths come together: `"exact"`, `"interpolate"` or `"nearest"`, as of [`DenseMatching`].

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

    def __init__(self, target: str = "text", source: str | None = None, lengths: str = "exact"):
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
        check_choice("lengths", lengths, LENGTHS)
        self.target, self.source, self.lengths = target, source, lengths
        self._same_lengths = SameLengths()
        self.terms: tuple[str, ...] = (TRANSLATION,) if source is None else (TRANSLATION, CYCLE)

    @property
    def teachers(self) -> dict[str, str]:
        """The teacher of each term."""
        return dict(zip(self.terms, (self.target, self.source), strict=False))  # type: ignore[arg-type]

    def __call__(self, outputs: Mapping[str, Any], batch: CoLearningBatch) -> dict[str, torch.Tensor]:
        return {
            term: self._error(term, outputs, batch.targets[name]) * batch.weight(name)
            for term, name in self.teachers.items()
        }

    def _error(self, term: str, outputs: Mapping[str, Any], targets: torch.Tensor) -> torch.Tensor:
        if targets.ndim == 2:
            return latent_distance(outputs["training_outputs"][term], targets)
        found_BTD, mask_BT = dense_outputs(outputs, term)
        if self.lengths == "exact":
            self._same_lengths.check(targets, mask_BT)
        return dense_distance(found_BTD, aligned(targets, mask_BT, self.lengths))

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
            if teachers[name].dim is None:
                raise ValueError(
                    f"the bank of '{name}' holds ids, and CyclicTranslation compares vectors: use `CaptionGeneration`."
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
        read = model_reading(heads, TRANSLATION)
        for name in self.teachers.values():
            is_dense = isinstance(teachers[name].bank, SequenceBank)
            if is_dense != (read == "dense_latents"):
                held, way_out = ("sequences", "dense_latents") if is_dense else ("a vector a row", "latents")
                raise ValueError(
                    f"the bank of '{name}' holds {held}, and the training head '{TRANSLATION}' reads '{read}': let it read "
                    f"'{way_out}', or make a bank of the other kind."
                )

    def __repr__(self) -> str:
        lengths = "" if self.lengths == "exact" else f", lengths='{self.lengths}'"
        return f"CyclicTranslation({self.target!r}, {self.source!r}{lengths})"
