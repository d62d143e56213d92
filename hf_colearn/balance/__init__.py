"""Published cures for modality imbalance, one a file; what `CoLearningTrainer(balance=...)` takes.

.. include:: README.md
"""

from hf_colearn.balance.agm import AGM
from hf_colearn.balance.arl import ARL
from hf_colearn.balance.dgl import DGL, DisentangledGradients
from hf_colearn.balance.dynamic import DOMFN, DynamicFusion
from hf_colearn.balance.early_stop import MSES, EarlyStopPerModality
from hf_colearn.balance.evidential import ETMC, EvidentialFusion
from hf_colearn.balance.gradient_blending import GBlend, GradientBlending
from hf_colearn.balance.greedy import Greedy, GreedyCuration
from hf_colearn.balance.info_reg import InfoReg
from hf_colearn.balance.learning_rate import MSLR, LearningRatePerModality
from hf_colearn.balance.mla import MLA, AlternatingAdaptation
from hf_colearn.balance.mm_pareto import MMPareto
from hf_colearn.balance.ogm import OGM, OGMGE
from hf_colearn.balance.pmr import PMR
from hf_colearn.balance.recon_boost import ReconBoost


__all__ = [
    "AGM",
    "ARL",
    "AlternatingAdaptation",
    "DGL",
    "DOMFN",
    "DisentangledGradients",
    "DynamicFusion",
    "ETMC",
    "EarlyStopPerModality",
    "EvidentialFusion",
    "InfoReg",
    "LearningRatePerModality",
    "MLA",
    "MMPareto",
    "MSES",
    "MSLR",
    "OGM",
    "OGMGE",
    "PMR",
    "ReconBoost",
    "GBlend",
    "GradientBlending",
    "Greedy",
    "GreedyCuration",
]
