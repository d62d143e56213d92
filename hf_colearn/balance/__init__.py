"""Published cures for modality imbalance, one a file; what `CoLearningTrainer(balance=...)` takes."""
