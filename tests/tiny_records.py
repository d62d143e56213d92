"""The record of a finished training, as cards are made of it."""

from hf_colearn.hub.record import TrainingRecord


def a_record(**changes):
    given = {
        "recipe": "stamps",
        "argv": ["--arms", "a|b", "my arm", "--seeds", "2"],
        "arm": "a|b",
        "objective": "LatentMatching(loss='mse', reduction='sum')",
        "alpha": "ConstantAlpha({'latent': 0.3})",
        "terms": ["latent"],
        "alpha_history": [{"epoch": 1.0, "alpha": 0.3}, {"epoch": 2.0, "alpha": 0.3}],
        "scores": {"accuracy": 0.875, "macro_f1": 0.8125},
        "dataset": {"name": "Stamps", "type": "someone/stamps", "split": "test", "samples": 40},
        "teacher": {"words": "MiniLM, frozen", "pooling": "mean", "revision": None},
        "pairing": "each image with its own sentence",
        "seconds": 12.34,
        "hardware": "A processor, 2 threads",
        "versions": {"torch": "2.13.0"},
        "arguments": {"alpha": 0.3},
    }
    return TrainingRecord(**{**given, **changes})
