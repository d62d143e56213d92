"""A sample of the bank without pairs, and a cloud of the same moments without content.

Shapes: B sample ids, N rows of the bank, D dimensions.
"""

import numpy as np

from hf_colearn.teachers.bank import TeacherBank
from hf_colearn.teachers.pairing import Pairing
from hf_colearn.utils.draws import draw_bits


class Drawn(Pairing):
    """Every sample sees a row of the bank that is drawn at random in every epoch, whatever the sample is.

    The targets of a batch are then a sample of the bank, with replacement, for objectives that compare distributions and no
    pairs, such as [`DistributionMatching`]. The bank may have any number of rows. Two banks that are as long show the
    same rows.

    Example:

    ```python
    >>> import numpy as np
    >>> from hf_colearn import Drawn, Teacher, TeacherBank

    >>> teacher = Teacher(TeacherBank.from_latents(np.array([[5.0], [7.0]])), Drawn())
    >>> teacher.targets(np.arange(6), epoch=0, seed=0).flatten().tolist()
    [7.0, 7.0, 7.0, 5.0, 5.0, 7.0]

    ```
    """

    def rows(self, bank, sample_ids, epoch, seed):
        return (draw_bits(sample_ids, epoch, seed) % np.uint64(len(bank))).astype(np.int64)


def gaussian_cloud(bank: TeacherBank, seed: int = 0) -> TeacherBank:
    """The null control of a cloud: as many Gaussian vectors, with the mean and the covariances of a bank's latents.

    Args:
        bank ([`TeacherBank`]): With N rows.
        seed (`int`, *optional*, defaults to 0): Of the draws.

    Example:

    ```python
    >>> import numpy as np
    >>> from hf_colearn import TeacherBank
    >>> from hf_colearn.teachers.drawn import gaussian_cloud

    >>> gaussian_cloud(TeacherBank.from_latents(np.full((3, 2), 5.0))).lookup([0]).tolist()  # no variance: the mean alone
    [[5.0, 5.0]]

    ```
    """
    latents_ND = bank.lookup(np.arange(len(bank))).numpy().astype(np.float64)
    mean_D, covariance_DD = latents_ND.mean(axis=0), np.atleast_2d(np.cov(latents_ND.T, bias=True))
    rng = np.random.default_rng(seed)
    cloud_ND = rng.multivariate_normal(mean_D, covariance_DD, size=len(bank), method="eigh")
    return TeacherBank.from_latents(cloud_ND, teacher="Gaussian vectors", moments_of=bank.fingerprint)
