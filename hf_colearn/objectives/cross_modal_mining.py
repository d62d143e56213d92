"""Positives that are mined in another modality's space.

Shapes: B samples of a batch, N of all processes, M keys (N and the queue's), D dimensions of a key, E of the other modality's.
"""

from collections.abc import Mapping
from dataclasses import replace
from itertools import permutations
from typing import Any

import torch

from hf_colearn.data.sample_ids import SAMPLE_IDS
from hf_colearn.models.lora import base_model
from hf_colearn.models.training_heads import model_reading
from hf_colearn.objectives.mined_positives import NONE, mined_info_nce, nearest_neighbours
from hf_colearn.objectives.momentum import MomentumEncoder
from hf_colearn.objectives.objective import CoLearningBatch, have_target, target_key
from hf_colearn.teachers.sequence_bank import SequenceBank
from hf_colearn.utils.checks import check_integer, check_positive
from hf_colearn.utils.distributed import check_equal_rows, gather, rank


HEAD = "mining"  # the term, and the training head that it reads where the student has one
_LATENTS = "latents"


class CrossModalMining(MomentumEncoder):
    r"""Contrastive learning whose positives are the nearest samples in *another modality's* space: the term `mining`.

    \\(L_i = -\log \frac{\sum_{p \in P_i} e^{s_{ip}}}{\sum_j e^{s_{ij}}}\\) with \\(s_{ij} = \cos(z_i, k_j) / \tau\\). The keys
    k are a momentum encoder's latents ([`MomentumEncoder`]): those of the batch, over all processes, and those of earlier
    batches, which wait in a queue. The positives \\(P_i\\) are the sample's own key and the keys of the `neighbours` samples
    that are nearest to it in the other modality, by cosine. A key of the sample itself from an earlier epoch is neither mined
    nor a negative. The other modality is one of two:

    - *A teacher's*: its bank gives the vector of every sample, and the student's latents are the queries, or its training
      head `mining` (a projector as MoCo's), where it has one. A sample without a target has its own key as its only positive.
    - *A modality of a multimodal model*: every modality's latents are queries, mined among the momentum encoder's latents of
      every other one, or of `mine_by` alone (CoCLR's alternation, one modality at a time), and the losses are summed. A
      sample counts where it has the modality; without the other one it has its own key alone.

    With two views of every sample ([`TwoViews`]) the strong one is the query and the weak one the key, as in MoCo.

    The loss is a mean over the samples of a micro-batch of all processes, which is what they are compared with: gradient
    accumulation adds no keys, the queue does. The queue takes in the keys of a micro-batch once its loss is known, and only in
    training: batches that are drawn beside it, as a learned alpha's, are compared with the queue and leave it as it is. No
    gradient flows into keys, so to a hypergradient they are constants. The queue is the same on all processes, is saved and
    resumes bit for bit; it begins empty in every run.

    Source: CoCLR (Han et al., NeurIPS 2020); `neighbours=0` is MoCo (He et al., CVPR 2020).

    Args:
        mine_by (`str`, *optional*): The teacher, or the modality, in whose space neighbours are looked for; by default the
            only teacher, and without one every modality.
        neighbours (`int`, *optional*, defaults to 5): How many are mined; 0 for none.
        queue_size (`int`, *optional*, defaults to 1024): Keys that wait; 0 for those of the batch alone. With a queue the
            training set needs sample ids ([`with_sample_ids`]). It should hold fewer keys than the training set has samples.
        temperature (`float`, *optional*, defaults to 0.07): \\(\tau\\), above 0.
        decay (`float`, *optional*, defaults to 0.999): Of the momentum encoder, from 0 up to but not 1.
        chunk (`int`, *optional*, defaults to 256): Rows of logits made at a time; for memory and speed only.

    Raises:
        ValueError: If a number is out of range; when the trainer is built, if there is no such teacher or modality, its bank
            holds sequences, or the head `mining` is none of vectors; before training, if there are no sample ids.

    Example:

    ```python
    >>> import torch
    >>> from hf_colearn import CrossModalMining
    >>> from hf_colearn.objectives.objective import CoLearningBatch

    >>> z = torch.eye(3)
    >>> text = torch.tensor([[1.0, 0.0], [1.0, 0.1], [torch.nan, torch.nan]])  # the first two mine each other
    >>> batch = CoLearningBatch(targets={"text": text}, momentum={"latents": z})
    >>> mining = CrossModalMining(neighbours=1, queue_size=0, temperature=1.0)
    >>> mining({"latents": z}, batch)  # (.2382 + .2382 + .5514) / 3
    {'mining': tensor(0.3426)}
    ```
    """

    terms: tuple[str, ...] = (HEAD,)

    def __init__(
        self,
        mine_by: str | None = None,
        neighbours: int = 5,
        queue_size: int = 1024,
        temperature: float = 0.07,
        decay: float = 0.999,
        chunk: int = 256,
    ):
        super().__init__(decay)
        if mine_by is not None and (not isinstance(mine_by, str) or not mine_by):
            raise TypeError(f"mine_by={mine_by!r} names no teacher and no modality: pass a name, such as 'text'.")
        check_integer("neighbours", neighbours)
        check_integer("queue_size", queue_size)
        check_positive("temperature", temperature)
        check_integer("chunk", chunk, least=1)
        self.mine_by, self.neighbours, self.queue_size = mine_by, neighbours, queue_size
        self.temperature, self.chunk = temperature, chunk
        self._queue: dict[
            str, torch.Tensor
        ] = {}  # of every space `(Q, D)`, NaN where there is none, and the ids `(Q,)`

    def setup(self, trainer: Any) -> None:
        super().setup(trainer)
        self._queue, self._device = {}, trainer.args.device

    def on_inputs(
        self, inputs: dict[str, Any], batch: CoLearningBatch, model: torch.nn.Module
    ) -> tuple[dict[str, Any], CoLearningBatch]:
        inputs, batch = super().on_inputs(inputs, batch, model)
        return inputs, replace(batch, from_inputs={**batch.from_inputs, HEAD: self._new_keys(batch)})

    def __call__(self, outputs: Mapping[str, Any], batch: CoLearningBatch) -> dict[str, torch.Tensor]:
        new = batch.from_inputs.get(HEAD) or self._new_keys(batch)
        keys = {name: torch.cat([new[name], self._queue[name]]) if self._queue else new[name] for name in new}
        queries = self._latents(outputs, batch, of_view=1)
        if (teacher := self._teacher(batch.targets)) is not None:
            spaces = [(_LATENTS, target_key(teacher))]
        else:
            spaces = [pair for pair in permutations(queries, 2) if self.mine_by in (None, pair[1])]
        losses = [self._loss(*queries[name], keys, name, by, batch) for name, by in spaces]
        return {HEAD: torch.stack(losses).sum()}

    def _loss(
        self,
        q_BD: torch.Tensor,
        counts_B: torch.Tensor,
        keys: Mapping[str, torch.Tensor],
        name: str,
        by: str,
        batch: CoLearningBatch,
    ) -> torch.Tensor:
        """The mean over the samples whose latents of one space are there, with neighbours of another space."""
        own_B = rank() * len(q_BD) + torch.arange(len(q_BD), device=q_BD.device)
        ids_M, is_key_M, has_other_M = keys[SAMPLE_IDS], have_target(keys[name]), have_target(keys[by])
        k_MD, y_ME = (torch.where(has_M[:, None], keys[of], 0) for of, has_M in ((name, is_key_M), (by, has_other_M)))
        ids = ids_M[own_B], ids_M
        mined_BK = nearest_neighbours(y_ME[own_B], y_ME, *ids, is_key_M & has_other_M, self.neighbours, self.chunk)
        mined_BK = mined_BK.masked_fill(~has_other_M[own_B, None], NONE)
        losses_B = mined_info_nce(q_BD, k_MD, own_B, mined_BK, *ids, is_key_M, self.temperature, self.chunk)
        counts_B = counts_B & is_key_M[own_B]
        return torch.where(counts_B, losses_B, 0).sum() / counts_B.sum().clamp(min=1) * batch.weight(counts_B)

    # ---- keys ----
    def on_outputs(
        self, outputs: Mapping[str, Any], batch: CoLearningBatch, model: torch.nn.Module, training: bool
    ) -> None:
        if training and self.queue_size:
            new = batch.from_inputs.get(HEAD) or self._new_keys(batch)
            joined = {name: torch.cat([self._queue[name], new[name]]) if self._queue else new[name] for name in new}
            self._queue = {name: rows[-self.queue_size :] for name, rows in joined.items()}

    @torch.no_grad()
    def _new_keys(self, batch: CoLearningBatch) -> dict[str, torch.Tensor]:
        """What the batches of all processes add: the keys and the other modality's vectors by their space, `(N, D)`, with NaN
        where there is none, and their sample ids `(N,)`."""
        assert batch.momentum is not None
        latents = self._latents(batch.momentum, batch, of_view=0)
        own = {name: torch.where(has_B[:, None], z_BD.float(), torch.nan) for name, (z_BD, has_B) in latents.items()}
        if (teacher := self._teacher(batch.targets)) is not None:
            own[target_key(teacher)] = _of_view(batch.targets[teacher].float(), batch, 0)
        ids_B = batch.sample_ids
        if ids_B is None and self.queue_size:
            raise ValueError(
                "CrossModalMining has to know the keys of a sample in its queue, and the batch has no sample ids: number the "
                "training set, `with_sample_ids(train)`, or pass `queue_size=0`."
            )
        check_equal_rows(len(next(iter(own.values()))))
        keys = {name: gather(rows) for name, rows in own.items()}
        first = next(iter(keys.values()))
        if ids_B is None:
            return keys | {SAMPLE_IDS: torch.arange(len(first), device=first.device)}
        return keys | {SAMPLE_IDS: gather(_of_view(ids_B.to(first.device), batch, 0))}

    def _latents(
        self, outputs: Mapping[str, Any], batch: CoLearningBatch, of_view: int
    ) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
        """The latents `(B, D)` of every space that is compared, and where they are there, `(B,)`."""
        if self._teacher(batch.targets) is not None:
            z_BD = (outputs.get("training_outputs") or {}).get(HEAD, outputs[_LATENTS])
            found = {_LATENTS: (z_BD, torch.ones(len(z_BD), dtype=torch.bool, device=z_BD.device))}
        else:
            modalities, mask_BM = outputs["modality_latents"], outputs.get("modality_mask")
            found = {
                name: (z_BD, torch.ones_like(z_BD[:, 0], dtype=torch.bool) if mask_BM is None else mask_BM[:, index])
                for index, (name, z_BD) in enumerate(modalities.items())
            }
        return {
            name: (_of_view(z_BD, batch, of_view), _of_view(has_B, batch, of_view))
            for name, (z_BD, has_B) in found.items()
        }

    def _teacher(self, targets: Mapping[str, Any]) -> str | None:
        """The teacher in whose space neighbours are looked for; None where it is a modality's."""
        if self.mine_by is None:
            return next(iter(targets)) if len(targets) == 1 else None
        return self.mine_by if self.mine_by in targets else None

    # ---- its state ----
    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | ({"queue": self._queue} if self._queue else {})

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self._queue = {name: rows.to(self._device) for name, rows in state.get("queue", {}).items()}

    # ---- what fits ----
    def check(self, model: Any, teachers: Mapping[str, Any]) -> None:
        """Refuses where there is no such teacher or modality, a bank of sequences, and a head `mining` of no vectors."""
        modalities = tuple(getattr(base_model(model), "modalities", ()))
        if self.mine_by in modalities and self.mine_by not in teachers:
            return
        teacher = self._teacher(teachers)
        if teacher is None and (self.mine_by is not None or teachers or len(modalities) < 2):
            known = ", ".join(map(repr, (*teachers, *modalities))) or "none"
            raise ValueError(
                f"CrossModalMining(mine_by={self.mine_by!r}) finds no other modality (teachers and modalities: {known}): pass "
                "`bank=`, or `teachers=` and the name of one of them, or a model of two modalities."
            )
        if teacher is None:
            return
        if isinstance(teachers[teacher].bank, SequenceBank):
            raise ValueError(
                f"the bank of '{teacher}' holds sequences, and neighbours are looked for among vectors: pass a `TeacherBank`, "
                "of their means for instance."
            )
        heads = getattr(getattr(model, "config", None), "training_heads", None) or {}
        if HEAD in heads and ("out_features" not in heads[HEAD] or model_reading(heads, HEAD) == "dense_latents"):
            raise ValueError(
                f"the training head '{HEAD}' is {heads[HEAD]}, and a key is one vector a sample: build the student with "
                f"`training_heads={{'{HEAD}': 128}}`, or without it."
            )

    def __repr__(self) -> str:
        options = f"mine_by={self.mine_by!r}, neighbours={self.neighbours}, queue_size={self.queue_size}"
        return f"CrossModalMining({options}, temperature={self.temperature}, decay={self.decay})"


def _of_view(rows: torch.Tensor, batch: CoLearningBatch, view: int) -> torch.Tensor:
    """The rows of one of two views, the weak ones first; all where there are no views."""
    return rows if batch.views is None else rows.chunk(2)[view]
