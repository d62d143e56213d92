"""Published cures for modality imbalance, one a file; what `CoLearningTrainer(balance=...)` takes."""

from hf_colearn.balance.ogm import OGM, OGMGE


__all__ = [
    "OGM",
    "OGMGE",
]
