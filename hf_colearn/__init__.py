"""Co-learning for `transformers`: train a student of one modality with help from another, deploy the student alone."""

import contextlib
import importlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any


__version__ = "0.1.0"

# Where each public name lives. Loaded on first use (PEP 562): most programs need few of them.
_LIVES_IN = {
    "CoLearningArguments": "arguments",
    "CoLearningTrainer": "trainer",
    "LatentMatching": "objectives.latent_matching",
    "ContrastiveAlignment": "objectives.contrastive_alignment",
    "DistributionAlignment": "objectives.distribution_alignment",
    "DistributionMatching": "objectives.distribution_matching",
    "MaskedLatentPrediction": "objectives.masked_latents",
    "MisalignedPairs": "objectives.misaligned_pairs",
    "Consistency": "objectives.consistency",
    "SoftLabels": "objectives.soft_labels",
    "VokenClassification": "objectives.voken_classification",
    "ClassConcepts": "objectives.class_concepts",
    "LatentImputation": "objectives.latent_imputation",
    "DenseMatching": "objectives.dense_matching",
    "CyclicTranslation": "objectives.cyclic_translation",
    "CrossModalMining": "objectives.cross_modal_mining",
    "CaptionGeneration": "objectives.caption_generation",
    "NextStepPrediction": "objectives.next_step_prediction",
    "Combined": "objectives.combined",
    "Objective": "objectives.objective",
    "CoLearningBatch": "objectives.objective",
    "CoLearningCallback": "utils.callback",
    "BalanceMethod": "balance.method",
    "Alpha": "alpha.alpha",
    "ConstantAlpha": "alpha.schedules",
    "HeuristicAlpha": "alpha.schedules",
    "FittedAlpha": "alpha.schedules",
    "LearnedAlpha": "alpha.learned",
    "AlternatingAdaptation": "balance.mla",
    "DynamicFusion": "balance.dynamic",
    "EvidentialFusion": "balance.evidential",
    "MMPareto": "balance.mm_pareto",
    "OGM": "balance.ogm",
    "GreedyCuration": "balance.greedy",
    "GradientBlending": "balance.gradient_blending",
    "EarlyStopPerModality": "balance.early_stop",
    "LearningRatePerModality": "balance.learning_rate",
    "PMR": "balance.pmr",
    "ReconBoost": "balance.recon_boost",
    "AGM": "balance.agm",
    "ARL": "balance.arl",
    "DisentangledGradients": "balance.dgl",
    "InfoReg": "balance.info_reg",
    "ModalityGap": "evaluation.modality_metrics",
    "ModalityAccuracy": "evaluation.modality_metrics",
    "ModalityF1": "evaluation.modality_metrics",
    "ModalityError": "evaluation.modality_metrics",
    "LabelAlignment": "evaluation.modality_metrics",
    "ImputationError": "evaluation.imputation_error",
    "ModalityRetrieval": "evaluation.modality_retrieval",
    "Retrieval": "evaluation.retrieval",
    "retrieval_metrics": "evaluation.retrieval",
    "GeneralisedZeroShot": "evaluation.zero_shot",
    "generalised_zero_shot": "evaluation.zero_shot",
    "novelty": "evaluation.zero_shot",
    "zero_shot": "evaluation.zero_shot",
    "ModalityCentroids": "training.centroids",
    "FrozenEncoder": "teachers.encoder",
    "encode_dataset": "teachers.encoded.job",
    "TeacherBank": "teachers.bank",
    "SequenceBank": "teachers.sequence_bank",
    "LatentColumn": "teachers.latent_column",
    "Teacher": "teachers.teacher",
    "Pairing": "teachers.pairing",
    "Paired": "teachers.pairing",
    "Shuffled": "teachers.pairing",
    "RandomPrompt": "teachers.pairing",
    "Noisy": "teachers.pairing",
    "Mismatched": "teachers.pairing",
    "PairedFraction": "teachers.pairing",
    "Drawn": "teachers.drawn",
    "ConstantTarget": "teachers.null_controls",
    "RandomPrototypes": "teachers.null_controls",
    "Permuted": "teachers.null_controls",
    "class_vectors": "teachers.class_vectors",
    "class_means": "teachers.class_vectors",
    "graph_vectors": "teachers.graph_vectors",
    "wordnet_vectors": "teachers.graph_vectors",
    "permuted_classes": "teachers.graph_vectors",
    "few_shot_prototypes": "teachers.few_shot_prototypes",
    "CoLearningStudentConfig": "models.configuration",
    "CoLearningForImageClassification": "models.student",
    "CoLearningForAudioClassification": "models.student",
    "CoLearningForSequenceClassification": "models.student",
    "CoLearningForMaskedLM": "models.masked_lm",
    "FeatureBackboneConfig": "models.configuration",
    "CoLearningForFeatureClassification": "models.features",
    "CoLearningForManyTasks": "models.many_tasks",
    "CoLearningManyTasksConfig": "models.many_tasks_configuration",
    "TrunkBackboneConfig": "models.trunk_configuration",
    "CoLearningMultimodalConfig": "models.multimodal_configuration",
    "CoLearningForMultimodalClassification": "models.multimodal",
    "MultimodalCollator": "data.multimodal",
    "UnpairedBatches": "data.unpaired",
    "UnpairedCollator": "data.unpaired",
    "with_sample_ids": "data.sample_ids",
    "classification_metrics": "evaluation.metrics",
    "multi_label_metrics": "evaluation.multi_label",
    "regression_metrics": "evaluation.regression",
    "co_train": "co_training.co_train",
    "CoTrainingResult": "co_training.result",
    "FrozenView": "co_training.frozen",
    "PromptedTexts": "co_training.frozen",
    "PipelineTexts": "co_training.frozen",
    "save_run": "experiments.scoring",
    "teacher_check": "analysis.teacher_check",
}

if TYPE_CHECKING:
    from hf_colearn.alpha.alpha import Alpha
    from hf_colearn.alpha.learned import LearnedAlpha
    from hf_colearn.alpha.schedules import ConstantAlpha, FittedAlpha, HeuristicAlpha
    from hf_colearn.analysis.teacher_check import teacher_check
    from hf_colearn.arguments import CoLearningArguments
    from hf_colearn.balance.agm import AGM
    from hf_colearn.balance.arl import ARL
    from hf_colearn.balance.dgl import DisentangledGradients
    from hf_colearn.balance.dynamic import DynamicFusion
    from hf_colearn.balance.early_stop import EarlyStopPerModality
    from hf_colearn.balance.evidential import EvidentialFusion
    from hf_colearn.balance.gradient_blending import GradientBlending
    from hf_colearn.balance.greedy import GreedyCuration
    from hf_colearn.balance.info_reg import InfoReg
    from hf_colearn.balance.learning_rate import LearningRatePerModality
    from hf_colearn.balance.method import BalanceMethod
    from hf_colearn.balance.mla import AlternatingAdaptation
    from hf_colearn.balance.mm_pareto import MMPareto
    from hf_colearn.balance.ogm import OGM
    from hf_colearn.balance.pmr import PMR
    from hf_colearn.balance.recon_boost import ReconBoost
    from hf_colearn.co_training.co_train import co_train
    from hf_colearn.co_training.frozen import FrozenView, PipelineTexts, PromptedTexts
    from hf_colearn.co_training.result import CoTrainingResult
    from hf_colearn.data.multimodal import MultimodalCollator
    from hf_colearn.data.sample_ids import with_sample_ids
    from hf_colearn.data.unpaired import UnpairedBatches, UnpairedCollator
    from hf_colearn.evaluation.imputation_error import ImputationError
    from hf_colearn.evaluation.metrics import classification_metrics
    from hf_colearn.evaluation.modality_metrics import (
        LabelAlignment,
        ModalityAccuracy,
        ModalityError,
        ModalityF1,
        ModalityGap,
    )
    from hf_colearn.evaluation.modality_retrieval import ModalityRetrieval
    from hf_colearn.evaluation.multi_label import multi_label_metrics
    from hf_colearn.evaluation.regression import regression_metrics
    from hf_colearn.evaluation.retrieval import Retrieval, retrieval_metrics
    from hf_colearn.evaluation.zero_shot import GeneralisedZeroShot, generalised_zero_shot, novelty, zero_shot
    from hf_colearn.experiments.scoring import save_run
    from hf_colearn.models.configuration import CoLearningStudentConfig, FeatureBackboneConfig
    from hf_colearn.models.features import CoLearningForFeatureClassification
    from hf_colearn.models.many_tasks import CoLearningForManyTasks
    from hf_colearn.models.many_tasks_configuration import CoLearningManyTasksConfig
    from hf_colearn.models.masked_lm import CoLearningForMaskedLM
    from hf_colearn.models.multimodal import CoLearningForMultimodalClassification
    from hf_colearn.models.multimodal_configuration import CoLearningMultimodalConfig
    from hf_colearn.models.student import (
        CoLearningForAudioClassification,
        CoLearningForImageClassification,
        CoLearningForSequenceClassification,
    )
    from hf_colearn.models.trunk_configuration import TrunkBackboneConfig
    from hf_colearn.objectives.caption_generation import CaptionGeneration
    from hf_colearn.objectives.class_concepts import ClassConcepts
    from hf_colearn.objectives.combined import Combined
    from hf_colearn.objectives.consistency import Consistency
    from hf_colearn.objectives.contrastive_alignment import ContrastiveAlignment
    from hf_colearn.objectives.cross_modal_mining import CrossModalMining
    from hf_colearn.objectives.cyclic_translation import CyclicTranslation
    from hf_colearn.objectives.dense_matching import DenseMatching
    from hf_colearn.objectives.distribution_alignment import DistributionAlignment
    from hf_colearn.objectives.distribution_matching import DistributionMatching
    from hf_colearn.objectives.latent_imputation import LatentImputation
    from hf_colearn.objectives.latent_matching import LatentMatching
    from hf_colearn.objectives.masked_latents import MaskedLatentPrediction
    from hf_colearn.objectives.misaligned_pairs import MisalignedPairs
    from hf_colearn.objectives.next_step_prediction import NextStepPrediction
    from hf_colearn.objectives.objective import CoLearningBatch, Objective
    from hf_colearn.objectives.soft_labels import SoftLabels
    from hf_colearn.objectives.voken_classification import VokenClassification
    from hf_colearn.teachers.bank import TeacherBank
    from hf_colearn.teachers.class_vectors import class_means, class_vectors
    from hf_colearn.teachers.drawn import Drawn
    from hf_colearn.teachers.encoded.job import encode_dataset
    from hf_colearn.teachers.encoder import FrozenEncoder
    from hf_colearn.teachers.few_shot_prototypes import few_shot_prototypes
    from hf_colearn.teachers.graph_vectors import graph_vectors, permuted_classes, wordnet_vectors
    from hf_colearn.teachers.latent_column import LatentColumn
    from hf_colearn.teachers.null_controls import ConstantTarget, Permuted, RandomPrototypes
    from hf_colearn.teachers.pairing import Mismatched, Noisy, Paired, PairedFraction, Pairing, RandomPrompt, Shuffled
    from hf_colearn.teachers.sequence_bank import SequenceBank
    from hf_colearn.teachers.teacher import Teacher
    from hf_colearn.trainer import CoLearningTrainer
    from hf_colearn.training.centroids import ModalityCentroids
    from hf_colearn.utils.callback import CoLearningCallback

__all__ = [*_LIVES_IN]


def _prepare() -> None:
    """Makes torchaudio importable and registers the students with transformers' Auto classes; a repeat does nothing."""
    try:
        # First of all: a torchaudio whose compiled part does not load breaks later imports of transformers and peft.
        from hf_colearn.utils.torchaudio_guard import import_torchaudio

        import_torchaudio()
        import hf_colearn.models.masked_lm
        import hf_colearn.models.multimodal  # these two register every student
    except Exception as error:
        raise ImportError(
            f"hf_colearn cannot be loaded: {type(error).__name__}: {error}. "
            "Run `python -m hf_colearn.doctor` to see what is wrong with the installation."
        ) from error


def __getattr__(name: str) -> Any:
    if name not in _LIVES_IN:
        raise AttributeError(f"module 'hf_colearn' has no attribute '{name}'")
    _prepare()
    return getattr(importlib.import_module(f"hf_colearn.{_LIVES_IN[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)


def _is_own_command() -> bool:
    """Whether the interpreter was started as `hf-colearn ...` or `python -m hf_colearn...`."""
    first, second, *_ = [*sys.orig_argv[1:3], "", ""]
    by_module = first == "-m" and second.split(".")[0] == "hf_colearn"
    return by_module or Path(first).name in ("hf-colearn", "hf-colearn.exe")


# After `import hf_colearn`, later imports of transformers work and know the students, in any order: torch and
# transformers are imported here, which takes seconds. Our own commands run no code that relies on it. They prepare once
# their arguments are read, so that `--help` and mistyped options answer at once.
if not _is_own_command():
    with contextlib.suppress(ImportError):  # raised again by the first public name, so that the doctor can still run
        _prepare()
