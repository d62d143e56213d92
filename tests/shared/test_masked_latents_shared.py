"""Real spoken digits in patches, and what the pretraining hides of them."""

from pathlib import Path

import pytest
import torch

from hf_colearn import CoLearningArguments, CoLearningTrainer
from hf_colearn.experiments.masked_latents import HIDDEN, LAYERS, spoken_digits
from hf_colearn.objectives.masked_latents import MaskedLatentPrediction


SHARED = Path(__file__).resolve().parents[2].parent / "shared"
if not SHARED.is_dir():
    pytest.skip("needs the developers' ../shared", allow_module_level=True)

RECORDINGS = SHARED / "data" / "fsdd" / "recordings"


def test_real_clips_are_learned_from_without_a_label_and_keep_their_spread(tmp_path):
    for digit in range(10):
        for take in (0, 5, 12, 13):
            name = f"{digit}_george_{take}.wav"
            (tmp_path / name).symlink_to(RECORDINGS / name)
    data = spoken_digits(str(tmp_path))
    assert {split: len(part) for split, part in data.splits.items()} == {"train": 20, "validation": 10, "test": 10}
    assert data.shape == (1, 40, 48) and len(data.teacher_inputs) == 20

    torch.manual_seed(0)
    fields = {
        "max_steps": 20,
        "per_device_train_batch_size": 10,
        "learning_rate": 1e-3,
        "logging_steps": 5,
        "alpha": 1.0,
    }
    trainer = CoLearningTrainer(
        data.make_student(16, HIDDEN),
        CoLearningArguments(str(tmp_path / "out"), report_to="none", save_strategy="no", use_cpu=True, **fields),
        train_dataset=data.splits["train"].remove_columns("labels"),
        objective=MaskedLatentPrediction(layers=LAYERS, normalization=data.normalization, on_collapse="stop"),
    )
    trainer.train()
    logs = [entry for entry in trainer.state.log_history if "masked_latents_std" in entry]
    assert logs[-1]["loss_masked_latents"] < 0.8 * logs[0]["loss_masked_latents"]
    assert len(logs) == 4 and logs[-1]["masked_latents_std"] > 0.5 * logs[0]["masked_latents_std"]
