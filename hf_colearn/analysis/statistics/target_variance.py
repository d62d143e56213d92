"""How low can the latent loss get? Targets that change from epoch to epoch cannot all be met.

Shape legend: E epochs, n samples, D dimensions of a latent.
"""

import numpy as np

from hf_colearn.teachers.bank import TeacherBank
from hf_colearn.teachers.pairing import Pairing


def target_variance(
    pairing: Pairing, bank: TeacherBank, sample_ids: np.ndarray, seed: int, reduction: str = "mean", epochs: int = 8
) -> float:
    r"""The least mean squared latent loss of any student: the variance of a sample's targets over the epochs.

    A student gives a sample one latent, and its best is the mean of the targets that the sample sees. What is left is
    \\(\mathbb{E}_i \operatorname{Var}_t \hat z_{i,t}\\) in squared latent units, estimated without bias from `epochs` epochs of
    some training samples; for random prompts it is the variance of the prompts' latents, for true pairs 0. The `reduction`
    over the dimensions is the loss's, `"mean"` or `"sum"`. A `ValueError` says that no sample has a target.
    """
    t_EnD = np.stack([pairing.targets(bank, sample_ids, epoch, seed).numpy() for epoch in range(epochs)])
    of_sample = np.isfinite(t_EnD).all(axis=(0, 2))  # samples without a target take no part in the loss
    if not of_sample.any():
        raise ValueError(f"none of the {len(sample_ids)} samples has a target, so their targets have no variance")
    variance_nD = t_EnD[:, of_sample].var(axis=0, ddof=1, dtype=np.float64)
    return float(variance_nD.mean() if reduction == "mean" else variance_nD.sum(axis=1).mean())
