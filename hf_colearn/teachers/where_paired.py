"""Samples without a partner among others that have one. Shapes: B sample ids of a batch, N samples."""

import numpy as np

from hf_colearn.teachers.pairing import Pairing, PairingWrapper, per_sample, without_target


class WherePaired(PairingWrapper):
    """Another pairing, with no target (NaN) for the samples that have no partner.

    Args:
        pairing (`Pairing`): Whose row of an unpaired sample is any that the bank has.
        is_paired (`np.ndarray` of shape `(N,)`): Booleans by sample id.

    Example:

    ```python
    >>> import numpy as np
    >>> from hf_colearn import Paired, Teacher, TeacherBank
    >>> from hf_colearn.teachers.where_paired import WherePaired

    >>> bank = TeacherBank.from_latents(np.array([[5.0], [7.0]]))  # of samples 0 and 2; sample 1 has no partner
    >>> pairing = WherePaired(Paired([0, 0, 1]), np.array([True, False, True]))
    >>> Teacher(bank, pairing).targets(np.array([0, 1, 2]), epoch=0, seed=0).flatten().tolist()
    [5.0, nan, 7.0]
    ```
    """

    def __init__(self, pairing: Pairing, is_paired: np.ndarray):
        super().__init__(pairing)
        self.is_paired = np.asarray(is_paired, dtype=bool)

    def have_partner(self, sample_ids: np.ndarray) -> np.ndarray:
        """Which samples have a partner, `(B,)` booleans."""
        return per_sample(self.is_paired, sample_ids, "`is_paired`")

    def targets(self, bank, sample_ids, epoch, seed):
        targets = self.pairing.targets(bank, sample_ids, epoch, seed)
        return without_target(targets, self.have_partner(sample_ids))
