"""Machinery of data, a modality a file: inputs, augmentation, splits, sample ids. It imports nothing of teachers."""
