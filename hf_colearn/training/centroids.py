"""The centroids of a multimodal model's imputation, by k-means of the complete training samples.

Shapes: N complete samples, M modalities, K centroids, D latent width.
"""

import warnings
import weakref
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from torch.utils.data import DataLoader, Subset

from hf_colearn.data.multimodal import complete_rows
from hf_colearn.data.sample_ids import LABELS
from hf_colearn.models.lora import base_model, trained_layer
from hf_colearn.models.multimodal import CoLearningForMultimodalClassification
from hf_colearn.utils import distributed
from hf_colearn.utils.callback import CoLearningCallback
from hf_colearn.utils.checks import check_integer
from hf_colearn.utils.rng import preserve_rng_state


class ModalityCentroids(CoLearningCallback):
    """Computes the centroids by which a model imputes absent modalities, at the start of every epoch.

    They are the k-means centroids (scikit-learn's) of every modality's latents, of the training samples that have all
    modalities, as the model gives them in evaluation mode. The first run of k-means begins with k-means++ of the run's
    seed, the others with the centroids of before, so that a centroid keeps its place. The processes share the samples'
    encoding, one clusters, and all get its centroids. They are a buffer of the model: a resumed run goes on with those of
    the checkpoint until the next epoch begins.

    Args:
        every (`int`, *optional*, defaults to 1): Epochs between two computations.
        max_samples (`int`, *optional*, defaults to 10,000): The most complete samples that are encoded, drawn at random by
            the run's seed.
        permuted (`bool`, *optional*, defaults to `False`): A null control: after every computation, and after the last
            step, the centroids of a modality change places, so that the weights are learned for wrong ones. None keeps
            its place.

    Raises:
        ValueError: Before training, if the model has no imputation, the training set is a stream or has fewer complete samples
            than there are centroids, or DeepSpeed holds the weights.

    Example:

    ```python
    model = CoLearningForMultimodalClassification.from_backbones(
        backbones, latent_dim=64, num_labels=10, imputation="centroids", imputation_options={"num_centroids": 10}
    )
    trainer = CoLearningTrainer(
        model, args, train_dataset=train, objective=LatentImputation(), alpha=ConstantAlpha(0.5, "imputation"),
        callbacks=[ModalityCentroids()],
    )
    ```
    """

    def __init__(self, every: int = 1, max_samples: int = 10_000, permuted: bool = False):
        check_integer("every", every, 1)
        check_integer("max_samples", max_samples, 1)
        self.every, self.max_samples, self.permuted = every, max_samples, permuted
        self._trainer: Any = lambda: None  # a weak reference
        self._number, self._computed = -1, -1  # the current epoch, and that of the last centroids

    # ---- what it works with ----
    def setup(self, trainer: Any) -> None:
        self._trainer = weakref.ref(trainer)
        model = base_model(trainer.model)
        if model is None:
            return  # before `model_init`
        if not isinstance(model, CoLearningForMultimodalClassification) or model.config.imputation != "centroids":
            raise ValueError(
                f"ModalityCentroids computes the centroids of an imputation, and {type(model).__name__} has none: build it "
                "with `CoLearningForMultimodalClassification.from_backbones(..., imputation='centroids')`, or leave the "
                "callback out."
            )
        if trainer.sharded_by == "DeepSpeed":
            raise ValueError(
                "ModalityCentroids encodes with the model within DeepSpeed's, which may be in parts: shard by FSDP "
                "(`fsdp=True`), or train without an imputation."
            )
        num_centroids = model.config.imputation_options["num_centroids"]
        if self.permuted and num_centroids == 1:
            raise ValueError(
                "permuted=True with num_centroids=1: a single centroid has no other place. Pass 2 or more."
            )
        if trainer.train_dataset is not None:
            self._check_samples(self._candidates(trainer), num_centroids)

    def _candidates(self, trainer: Any) -> np.ndarray:
        """The rows that are complete as far as the stored columns tell, at most `max_samples`, in their order."""
        dataset = trainer.train_dataset
        if not hasattr(dataset, "__len__"):
            raise ValueError(
                f"the training set is a stream ({type(dataset).__name__}), of which ModalityCentroids cannot encode the "
                "complete samples beside training: pass a `datasets.Dataset`, or leave the imputation out."
            )
        names = base_model(trainer.model).modalities
        rows = complete_rows(dataset, names) if isinstance(dataset, Dataset) else np.arange(len(dataset))
        drawn = np.random.default_rng(trainer.args.seed).permutation(len(rows))[: self.max_samples]
        return rows[np.sort(drawn)]

    @staticmethod
    def _check_samples(samples: Any, num_centroids: int) -> None:
        if len(samples) < num_centroids:
            raise ValueError(
                f"{len(samples)} training samples have all modalities, and num_centroids={num_centroids}: pass at least as "
                "many complete samples, or imputation_options={'num_centroids': ...} of fewer (1 imputes their mean)."
            )

    # ---- when ----
    def on_train_begin(self, args, state, control, **kwargs):
        self._number = int(state.epoch or 0) - 1  # epochs already whole; `on_epoch_begin` counts this one

    def on_epoch_begin(self, args, state, control, **kwargs):
        self._number += 1
        if self._number % self.every == 0 and self._number != self._computed:  # or a checkpoint has them
            self._compute(self._trainer())
            self._computed = self._number

    def on_train_end(self, args, state, control, **kwargs):
        if self.permuted:
            self._permute(centroids_of(self._trainer().model), args.seed)

    def state_dict(self):
        return {"computed": self._computed}

    def load_state_dict(self, state):
        self._computed = state["computed"]

    # ---- how ----
    def _compute(self, trainer: Any) -> None:
        centroids_MKD = centroids_of(trainer.model)
        latents_MND = self._latents(trainer)
        with distributed.raise_on_all_ranks():
            self._check_samples(latents_MND[0], centroids_MKD.shape[1])
            if distributed.rank() == 0:
                pairs = zip(latents_MND, centroids_MKD, strict=True)
                found = [k_means(latents_ND, before_KD, trainer.args.seed) for latents_ND, before_KD in pairs]
                centroids_MKD.copy_(torch.stack(found))
        distributed.overwrite_from_main_process([centroids_MKD])
        if self.permuted:
            self._permute(centroids_MKD, trainer.args.seed)

    def _permute(self, centroids_MKD: torch.Tensor, seed: int) -> None:
        for modality, centroids_KD in enumerate(centroids_MKD):
            order_K = np.random.default_rng((seed, self._number + 1, modality)).permutation(len(centroids_KD))
            moved_KD = centroids_KD.clone()
            centroids_KD[order_K] = moved_KD[np.roll(order_K, 1)]  # in one circle, so none stays

    def _latents(self, trainer: Any) -> list[np.ndarray]:
        """Of every modality those of the complete samples, `(N, D)`, in the same order however many processes there are.

        All processes encode equally many samples, of which the shorter shares repeat some: a forward may be a collective.
        """
        model, args, dataset = trainer.model, trainer.args, trainer.train_dataset
        shares = np.array_split(self._candidates(trainer), distributed.world_size())
        share = shares[distributed.rank()]
        rows = np.resize(share if len(share) else shares[0], len(shares[0]))
        collate = trainer.batches.collator(False, dataset)
        if isinstance(dataset, Dataset):
            dataset = trainer._remove_unused_columns(dataset)
        was_training, found = model.training, []
        model.eval()
        with preserve_rng_state(args.device), torch.no_grad(), trainer.accelerator.autocast():
            for batch in DataLoader(Subset(dataset, rows.tolist()), args.eval_batch_size, collate_fn=collate):
                outputs = model(**{k: v for k, v in trainer._prepare_input(batch).items() if k not in LABELS})
                latents_BMD = torch.stack([*outputs["modality_latents"].values()], dim=1)
                found.append((latents_BMD.float().cpu(), outputs["modality_mask"].all(1).cpu()))
        model.train(was_training)
        config = base_model(model).config
        latents_NMD = torch.empty(0, len(base_model(model).modalities), config.latent_dim)
        if found:
            encoded_NMD, is_complete_N = (torch.cat(parts)[: len(share)] for parts in zip(*found, strict=True))
            latents_NMD = encoded_NMD[is_complete_N]
        latents_NMD = torch.cat(distributed.from_all_processes(latents_NMD))
        return [latents_ND.numpy() for latents_ND in latents_NMD.unbind(1)]


def centroids_of(model: Any) -> torch.Tensor:
    """The buffer `(M, K, D)` that a model imputes by, within adapters the copy that they train."""
    imputation: Any = trained_layer(base_model(model).imputation)
    return imputation.centroids


def k_means(latents_ND: np.ndarray, before_KD: torch.Tensor, seed: int) -> torch.Tensor:
    """The centroids of latents, `(K, D)`: from those of before on, or from k-means++ where these are all 0."""
    begin: Any = before_KD.float().cpu().numpy() if before_KD.any() else "k-means++"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # fewer distinct latents than centroids: some are the same
        found = KMeans(len(before_KD), init=begin, n_init=1, random_state=seed).fit(latents_ND)
    return torch.from_numpy(found.cluster_centers_).to(before_KD)
