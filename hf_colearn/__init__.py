"""Co-learning for `transformers`: train a student of one modality with help from another, deploy the student alone."""

import importlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any


__version__ = "0.1.0"

# Where each public name lives. Loaded on first use (PEP 562): most programs need few of them.
_LIVES_IN = {
    "CoLearningArguments": "arguments",
    "CoLearningTrainer": "trainer",
    "LatentMatching": "objectives.objectives",
    "ContrastiveAlignment": "objectives.objectives",
    "DistributionAlignment": "objectives.objectives",
    "MisalignedPairs": "objectives.objectives",
    "Combined": "objectives.objectives",
    "ConstantAlpha": "alpha.schedules",
    "HeuristicAlpha": "alpha.schedules",
    "FittedAlpha": "alpha.schedules",
    "LearnedAlpha": "alpha.learned",
    "ModalityGap": "evaluation.modality_metrics",
    "ModalityAccuracy": "evaluation.modality_metrics",
    "LabelAlignment": "evaluation.modality_metrics",
    "FrozenEncoder": "teachers.encoder",
    "TeacherBank": "teachers.bank",
    "Teacher": "teachers.teacher",
    "Pairing": "teachers.pairing",
    "Paired": "teachers.pairing",
    "Shuffled": "teachers.pairing",
    "RandomPrompt": "teachers.pairing",
    "Noisy": "teachers.pairing",
    "Mismatched": "teachers.pairing",
    "PairedFraction": "teachers.pairing",
    "ConstantTarget": "teachers.null_controls",
    "RandomPrototypes": "teachers.null_controls",
    "Permuted": "teachers.null_controls",
    "CoLearningStudentConfig": "models.configuration",
    "CoLearningForImageClassification": "models.student",
    "CoLearningForAudioClassification": "models.student",
    "CoLearningForSequenceClassification": "models.student",
    "FeatureBackboneConfig": "models.configuration",
    "CoLearningForFeatureClassification": "models.features",
    "CoLearningMultimodalConfig": "models.multimodal_configuration",
    "CoLearningForMultimodalClassification": "models.multimodal",
    "MultimodalCollator": "data.multimodal",
    "with_sample_ids": "data.sample_ids",
    "classification_metrics": "evaluation.metrics",
    "save_run": "experiments.experiment",
}

if TYPE_CHECKING:
    from hf_colearn.alpha.learned import LearnedAlpha
    from hf_colearn.alpha.schedules import ConstantAlpha, FittedAlpha, HeuristicAlpha
    from hf_colearn.arguments import CoLearningArguments
    from hf_colearn.data.multimodal import MultimodalCollator
    from hf_colearn.data.sample_ids import with_sample_ids
    from hf_colearn.evaluation.metrics import classification_metrics
    from hf_colearn.evaluation.modality_metrics import LabelAlignment, ModalityAccuracy, ModalityGap
    from hf_colearn.experiments.experiment import save_run
    from hf_colearn.models.configuration import CoLearningStudentConfig, FeatureBackboneConfig
    from hf_colearn.models.features import CoLearningForFeatureClassification
    from hf_colearn.models.multimodal import CoLearningForMultimodalClassification
    from hf_colearn.models.multimodal_configuration import CoLearningMultimodalConfig
    from hf_colearn.models.student import (
        CoLearningForAudioClassification,
        CoLearningForImageClassification,
        CoLearningForSequenceClassification,
    )
    from hf_colearn.objectives.objectives import (
        Combined,
        ContrastiveAlignment,
        DistributionAlignment,
        LatentMatching,
        MisalignedPairs,
    )
    from hf_colearn.teachers.bank import TeacherBank
    from hf_colearn.teachers.encoder import FrozenEncoder
    from hf_colearn.teachers.null_controls import ConstantTarget, Permuted, RandomPrototypes
    from hf_colearn.teachers.pairing import Mismatched, Noisy, Paired, PairedFraction, Pairing, RandomPrompt, Shuffled
    from hf_colearn.teachers.teacher import Teacher
    from hf_colearn.trainer import CoLearningTrainer

__all__ = [*_LIVES_IN]

_broken: Exception | None = None


def _prepare() -> None:
    """Makes torchaudio importable and registers the students with transformers' Auto classes; repeats are free."""
    global _broken
    try:
        # First of all: a torchaudio whose compiled part does not load breaks every import of transformers and peft.
        from hf_colearn.utils.torchaudio_guard import import_torchaudio

        import_torchaudio()
        import hf_colearn.models.multimodal  # noqa: F401  (registers every student)
    except Exception as error:  # a broken installation must not keep `python -m hf_colearn.doctor` from diagnosing it
        _broken = error


def __getattr__(name: str) -> Any:
    if name not in _LIVES_IN:
        raise AttributeError(f"module 'hf_colearn' has no attribute '{name}'")
    _prepare()
    if _broken is not None:
        raise ImportError(
            f"hf_colearn.{name} cannot be loaded: {type(_broken).__name__}: {_broken}. "
            "Run `python -m hf_colearn.doctor` to see what is wrong with the installation."
        ) from _broken
    return getattr(importlib.import_module(f"hf_colearn.{_LIVES_IN[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)


def _is_own_command() -> bool:
    """Whether this process is `hf-colearn ...` or `python -m hf_colearn...`, from what the interpreter was given."""
    started = [*sys.orig_argv[1:3], "", ""]
    return Path(started[0]).stem == "hf-colearn" or started[0] == "-m" and started[1].split(".")[0] == "hf_colearn"


# After `import hf_colearn` any later import of transformers works and knows the students, so torch and transformers are
# loaded here, which takes seconds. Our own commands import nothing of the user's and prepare once they know that they
# need it, so that `hf-colearn --help` and a mistyped option answer at once.
if not _is_own_command():
    _prepare()
