"""Every head and objective beyond a vector that is matched, each on a tiny student of sixteen samples of which some have no
label and some no target. Also imported by child processes.
"""

import hf_colearn  # noqa: F401  (before transformers: the torchaudio guard)


# isort: split

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from torch.nn.utils.rnn import pad_sequence
from transformers import PrinterCallback

import tiny
import tiny_modalities
from hf_colearn import (
    CaptionGeneration,
    ClassConcepts,
    CoLearningForFeatureClassification,
    CoLearningForMaskedLM,
    CoLearningTrainer,
    Combined,
    ConstantAlpha,
    CrossModalMining,
    CyclicTranslation,
    DenseMatching,
    DistributionMatching,
    FeatureBackboneConfig,
    LatentImputation,
    LatentMatching,
    MaskedLatentPrediction,
    ModalityCentroids,
    MultimodalCollator,
    NextStepPrediction,
    Paired,
    SequenceBank,
    Teacher,
    TeacherBank,
    VokenClassification,
    with_sample_ids,
)
from hf_colearn.teachers.where_paired import WherePaired


SAMPLES, WIDTH, STEPS, CLASSES, LATENT, IDS = 16, 4, 3, 3, 4, 7
# In their order, and in micro-batches of one: sample 5 has neither label nor target, 4 to 7 (of the first step, the second of
# two processes) have no target, 12 to 15 (of the second step, the second process) no label.
UNLABELLED, UNPAIRED = (0, 5, 12, 13, 14, 15), (4, 5, 6, 7, 10)
LENGTHS = [1 + row % STEPS for row in range(SAMPLES)]
PLAIN = {"optim": "sgd", "learning_rate": 0.1, "max_grad_norm": 0.0, "max_steps": 2}


@dataclass(frozen=True)
class Case:
    """What a trainer is given, each made anew for every run; `data` is of (unlabelled, unpaired) rows."""

    model: Callable[..., Any]
    objective: Callable[[], Any]
    data: Callable[..., dict] = field(default=lambda unlabelled, unpaired: {"train_dataset": vectors(unlabelled)})
    teachers: Callable[[], dict] = dict  # banks by the teacher's name
    callbacks: Callable[[], list] = list
    heads: tuple[str, ...] = ()  # beginnings of the names of weights that the objective or the head alone trains
    draws: dict = field(default_factory=dict)  # keywords of a model that draws random numbers while it trains
    compares: bool = False  # whether its term compares the samples of a micro-batch, labelled and paired or not


# ---- data ----
def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def labels(unlabelled):
    return [-100 if row in unlabelled else row % CLASSES for row in range(SAMPLES)]


def vectors(unlabelled):
    columns = {"features": normal(SAMPLES, WIDTH), "labels": labels(unlabelled)}
    return with_sample_ids(Dataset.from_dict(columns)).with_format("torch")


def frames(unlabelled, unpaired):
    """Of one to three steps, padded."""
    mask = [[int(step < length) for step in range(STEPS)] for length in LENGTHS]
    columns = {"features": normal(SAMPLES, STEPS, WIDTH), "attention_mask": mask, "labels": labels(unlabelled)}
    return {"train_dataset": with_sample_ids(Dataset.from_dict(columns)).with_format("torch")}


def partial_frames(unlabelled, unpaired):
    """Those of an unpaired sample are all padding: there is nothing to hide or to predict."""
    lengths = [0 if row in unpaired else length for row, length in enumerate(LENGTHS)]
    mask = [[int(step < length) for step in range(STEPS)] for length in lengths]
    dataset = frames(unlabelled, unpaired)["train_dataset"].remove_columns("attention_mask")
    return {"train_dataset": dataset.add_column("attention_mask", mask)}


def texts(unlabelled, unpaired):
    """One to three tokens, of which every second one is to be predicted."""
    drawn = np.random.default_rng(0)
    ids = [drawn.integers(5, 20, size=length).tolist() for length in LENGTHS]
    asked = [
        [-100 if row in unlabelled or step % 2 else token for step, token in enumerate(tokens)]
        for row, tokens in enumerate(ids)
    ]
    columns = {"input_ids": ids, "attention_mask": [[1] * length for length in LENGTHS], "labels": asked}
    return {"train_dataset": with_sample_ids(Dataset.from_dict(columns)), "data_collator": padded}


def padded(features):
    """A batch as long as its longest text."""
    return {
        name: pad_sequence([torch.tensor(f[name]) for f in features], True, -100 if name == "labels" else 0)
        for name in features[0]
    }


def modalities(unlabelled, unpaired):
    """Two of them, of which an unpaired sample has one."""
    columns = tiny_modalities.data(SAMPLES).with_format(None)[:]
    for row in unpaired:
        columns[f"{tiny_modalities.NAMES[row % 2]}_features"][row] = None
    names = dict.fromkeys(tiny_modalities.NAMES)
    dataset = Dataset.from_dict({**columns, "labels": labels(unlabelled)})
    return {"train_dataset": dataset, "data_collator": MultimodalCollator(names)}


def numbered_modalities(unlabelled, unpaired):
    """The same with sample ids."""
    data = modalities(unlabelled, unpaired)
    return {**data, "train_dataset": with_sample_ids(data["train_dataset"])}


# ---- banks ----
@cache
def bank(width=LATENT, seed=1):
    return TeacherBank.from_latents(normal(SAMPLES, width, seed=seed))


@cache
def class_bank():
    """Probabilities of the rows' classes, as they are."""
    probabilities = torch.from_numpy(normal(SAMPLES, CLASSES, seed=3)).softmax(dim=1)
    return TeacherBank.from_latents(probabilities).scaled("none")


@cache
def sequences():
    """As many frames as the samples have steps."""
    return SequenceBank.from_sequences([normal(length, LATENT, seed=row) for row, length in enumerate(LENGTHS)])


@cache
def longer_sequences():
    return SequenceBank.from_sequences([normal(length + 2, LATENT, seed=row) for row, length in enumerate(LENGTHS)])


@cache
def vokens():
    ids = [[-100 if step == 1 else (row + step) % IDS for step in range(length)] for row, length in enumerate(LENGTHS)]
    return SequenceBank.from_ids(ids, num_ids=IDS)


@cache
def captions():
    return SequenceBank.from_ids([[0, *range(1, 2 + length)] for length in LENGTHS], num_ids=IDS)


# ---- students ----
def student(**kwargs):
    """The same weights in every call."""
    torch.manual_seed(0)
    known = {"latent_dim": LATENT, "num_labels": CLASSES, **kwargs}
    return CoLearningForFeatureClassification.from_backbone(FeatureBackboneConfig(WIDTH, [5]), **known)


def of_class_vectors(**kwargs):
    return student(head="prototypes", class_vectors=torch.from_numpy(normal(CLASSES, LATENT, seed=2)), **kwargs)


def of_texts(**kwargs):
    torch.manual_seed(0)
    dropout = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    heads = {"vokens": {"out_features": IDS, "reads": "dense_latents"}}
    known = {"latent_dim": LATENT, "dense": True, "training_heads": heads, **kwargs}
    return CoLearningForMaskedLM.from_backbone(tiny.bert(**dropout), **known).train()


def imputing(modulation=False):
    options = {"num_centroids": 2, "modulation": modulation}
    return tiny_modalities.model(imputation="centroids", imputation_options=options)


def autoencoding(mask_probability=0.0):
    options = {"hidden_dim": 6, "mask_probability": mask_probability}
    return tiny_modalities.model(imputation="autoencoder", imputation_options=options)


def with_heads(**heads):
    return lambda: student(training_heads=heads)


def dense(**heads):
    return lambda: student(dense=True, training_heads=heads or None)


def of_all():
    """A dense student of class vectors with a head for each of three objectives."""
    heads = {"captions": {"vocab_size": IDS, "hidden_size": 6}, "concepts": 3}
    return of_class_vectors(dense=True, training_heads=heads)


ANSWERS = torch.tensor([[1.0, 0.0, 0.5], [0.0, 1.0, torch.nan], [0.2, 0.8, 1.0]])
CYCLE = {"translation": 6, "cycle": {"out_features": WIDTH, "reads": "translation"}}
OF_FRAMES = {
    "translation": {"out_features": LATENT, "reads": "dense_latents"},
    "cycle": {"out_features": WIDTH, "reads": "translation"},
}
CASES = {
    "class vectors": Case(
        of_class_vectors, LatentMatching, teachers=lambda: {"teacher": bank()}, heads=("latent_head",)
    ),
    "learned class vectors": Case(
        lambda: of_class_vectors(learned_class_vectors=True, learned_logit_scale=True),
        LatentMatching,
        teachers=lambda: {"teacher": bank()},
        heads=("classifier.class_vectors", "classifier.log_scale"),
    ),
    "class concepts": Case(with_heads(concepts=3), lambda: ClassConcepts(ANSWERS), heads=("training_heads.concepts",)),
    "cyclic translation": Case(
        with_heads(**CYCLE),
        lambda: CyclicTranslation("text", "own"),
        teachers=lambda: {"text": bank(6), "own": bank(WIDTH, 0)},
        heads=("training_heads.translation", "training_heads.cycle"),
    ),
    "cyclic translation of sequences": Case(
        dense(**OF_FRAMES),
        lambda: CyclicTranslation("signal", "own", lengths="nearest"),
        data=frames,
        teachers=lambda: {"signal": longer_sequences(), "own": sequences()},
        heads=("training_heads.translation", "training_heads.cycle"),
    ),
    "mining by a bank": Case(
        with_heads(mining=3),
        lambda: CrossModalMining(neighbours=2, queue_size=10, decay=0.9),
        teachers=lambda: {"teacher": bank(6)},
        heads=("training_heads.mining",),
        compares=True,
    ),
    "mining by each other": Case(
        tiny_modalities.model,
        lambda: CrossModalMining(neighbours=2, queue_size=10, decay=0.9),
        data=numbered_modalities,
        compares=True,
    ),
    "caption generation": Case(
        with_heads(captions={"vocab_size": IDS, "hidden_size": 6}),
        CaptionGeneration,
        teachers=lambda: {"captions": captions()},
        heads=("training_heads.captions",),
    ),
    "dense matching": Case(
        dense(), DenseMatching, data=frames, teachers=lambda: {"teacher": sequences()}, heads=("latent_head",)
    ),
    "dense matching of longer sequences": Case(
        dense(dense_signal={"out_features": LATENT, "reads": "dense_latents"}),
        lambda: DenseMatching("signal", loss="cosine", lengths="interpolate"),
        data=frames,
        teachers=lambda: {"signal": longer_sequences()},
        heads=("training_heads.dense_signal",),
    ),
    "vokens": Case(
        of_texts,
        VokenClassification,
        data=texts,
        teachers=lambda: {"vokens": vokens()},
        heads=("training_heads.vokens", "latent_head"),
    ),
    "captions, concepts and dense matching": Case(
        of_all,
        lambda: Combined(CaptionGeneration(), ClassConcepts(ANSWERS), DenseMatching("signal")),
        data=frames,
        teachers=lambda: {"captions": captions(), "signal": sequences()},
        heads=("training_heads.captions", "training_heads.concepts", "latent_head"),
    ),
    "masked latents": Case(
        dense(masked_latents={"out_features": LATENT, "reads": "dense_latents"}),
        lambda: MaskedLatentPrediction(decay=0.5),
        data=partial_frames,
        heads=("training_heads.masked_latents", "latent_head"),
    ),
    "next step": Case(
        dense(next_step={"out_features": WIDTH, "reads": "dense_latents"}),
        NextStepPrediction,
        data=partial_frames,
        heads=("training_heads.next_step", "latent_head"),
    ),
    "distribution matching": Case(
        with_heads(distribution_matching=6),
        DistributionMatching,
        teachers=lambda: {"teacher": bank(6), "classes": class_bank()},
        heads=("training_heads.distribution_matching",),
        compares=True,
    ),
    "distribution matching by class": Case(
        student,
        lambda: DistributionMatching("sinkhorn", per_class=True),
        teachers=lambda: {"teacher": bank(), "classes": class_bank()},
        heads=("latent_head",),
        compares=True,
    ),
    "imputation": Case(
        imputing,
        LatentImputation,
        data=modalities,
        callbacks=lambda: [ModalityCentroids()],
        heads=("imputation.weights",),
        draws={"modulation": True},
    ),
    "imputation by an autoencoder": Case(
        autoencoding,
        LatentImputation,
        data=modalities,
        heads=("imputation.mask_vectors", "imputation.encoder", "imputation.decoders"),
        draws={"mask_probability": 0.5},
    ),
}


# ---- runs ----
class Fit:
    """A tiny training of a case: two steps of SGD on eight of the samples each, in their order, without clipping.

    `model` is a student in place of the case's, `fields` are training arguments or what else the trainer takes.
    """

    def __init__(self, case, folder, *, model=None, unlabelled=UNLABELLED, unpaired=UNPAIRED, alpha=None, **fields):
        model, objective = case.model() if model is None else model, case.objective()
        self.before = copied(model)
        where = WherePaired(Paired(), ~np.isin(np.arange(SAMPLES), unpaired))
        teachers = {name: Teacher(its_bank, where) for name, its_bank in case.teachers().items()}
        share = 0.4 / len(objective.terms)
        self.trainer = CoLearningTrainer(
            model,
            tiny.arguments(folder, **{**PLAIN, "train_sampling_strategy": "sequential", **fields}),
            teachers=teachers or None,
            objective=objective,
            alpha=ConstantAlpha(dict.fromkeys(objective.terms, share)) if alpha is None else alpha,
            callbacks=case.callbacks(),
            **case.data(unlabelled, unpaired),
        )
        self.trainer.remove_callback(PrinterCallback)

    def train(self, resume=None):
        self.trainer.train(resume_from_checkpoint=resume)
        self.weights = copied(self.trainer.model)
        self.logs = [entry for entry in self.trainer.state.log_history if "loss" in entry]
        return self

    @property
    def losses(self):
        """What was logged of the terms in every step."""
        return [{name: value for name, value in entry.items() if name.startswith("loss")} for entry in self.logs]


def copied(model):
    return {name: weight.detach().clone() for name, weight in model.state_dict().items()}


def difference(one, other):
    assert one.keys() == other.keys()
    return max(float((one[name].double() - other[name].double()).abs().max()) for name in one)


def assert_two_are_one(results, name, alone):
    """What each of two processes found in a case is what one with twice the batch did: weights and losses."""
    first, second = (result[name] for result in results)
    assert "error" not in first and "error" not in second, f"{first.get('error')}\n{second.get('error')}"
    alone = alone()
    assert difference(first["weights"], alone["weights"]) < 1e-6
    assert difference(first["weights"], second["weights"]) == 0
    for step, (two, one) in enumerate(zip(first["losses"], alone["losses"], strict=True)):
        assert two == pytest.approx(one, rel=1e-5, abs=1e-6), f"step {step + 1}"
