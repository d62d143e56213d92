"""Masked language modelling of captions: the student's vocabulary, and how a run is scored, by masked tokens and by categories.

Shapes: N captions, T tokens, H width of the student's encoder.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from datasets import Dataset
from transformers import BertTokenizer, DataCollatorForTokenClassification

from hf_colearn.analysis.run import Run, Samples
from hf_colearn.data.sample_ids import NO_LABEL
from hf_colearn.data.token_masking import TokenMasking
from hf_colearn.experiments.cost import Cost
from hf_colearn.experiments.scoring import own_run
from hf_colearn.models.lora import base_model
from hf_colearn.trainer import CoLearningTrainer
from hf_colearn.utils.extras import extra


CATEGORY = "category"  # the column of what captions are of, which no student reads


def reduced_tokenizer(tokenizer: Any, texts: Sequence[str], max_length: int = 128) -> BertTokenizer:
    """A WordPiece tokenizer that splits these texts as another one does, with the pieces that they need alone.

    Both take the longest piece that they know, so they split alike where the smaller one has all pieces that the larger one
    takes. A word of other texts that has no such pieces is unknown.

    Args:
        tokenizer: BERT's or MiniLM's, without upper case.
        texts (`Sequence[str]`): The training captions.
        max_length (`int`, *optional*, defaults to 128): Tokens after which a text ends.
    """
    known = tokenizer.get_vocab()
    taken = {int(token) for tokens in tokenizer(list(texts))["input_ids"] for token in tokens}
    special = [
        tokenizer.pad_token,
        tokenizer.unk_token,
        tokenizer.cls_token,
        tokenizer.sep_token,
        tokenizer.mask_token,
    ]
    kept = [piece for piece, i in known.items() if i in taken]
    pieces = dict.fromkeys([*special, *sorted(kept, key=known.__getitem__)])
    return BertTokenizer(vocab={piece: i for i, piece in enumerate(pieces)}, model_max_length=max_length)


def caption_dataset(tokenizer: Any, captions: Dataset) -> Dataset:
    """`input_ids` and `attention_mask` of the captions `text`, their `category`, and where they have it `sample_id`."""
    tokens = tokenizer(list(captions["text"]), truncation=True)
    columns = {name: tokens[name] for name in ("input_ids", "attention_mask")} | {CATEGORY: captions["label"][:]}
    if "sample_id" in captions.column_names:
        columns["sample_id"] = captions["sample_id"][:]
    return Dataset.from_dict(columns).cast_column(CATEGORY, captions.features["label"])


class CaptionScore:
    """Scores a student by what its encoder knows of captions' categories, and by masked tokens; `run_recipe(score=...)`.

    `accuracy`, the main metric, is that of a linear probe on the encoder's mean over tokens: a logistic regression, fitted to a
    few labelled captions of training, of whole captions, without a mask. `accuracy_all_labels` is that of one fitted to all.
    `masked_accuracy` and `masked_loss` are of the tokens that are masked, the same in all runs.

    Args:
        train ([`datasets.Dataset`]): The training captions, [`caption_dataset`].
        tokenizer: The student's.
        labels_per_class (`int`): How many captions of every category the probe knows, drawn by the run's seed.
        masking ([`TokenMasking`]): That of training.
    """

    def __init__(self, train: Dataset, tokenizer: Any, labels_per_class: int, masking: TokenMasking):
        self.train, self.collate = train, DataCollatorForTokenClassification(tokenizer)
        self.labels_per_class, self.masking = labels_per_class, masking
        self.categories_N = np.asarray(train[CATEGORY])

    def __call__(
        self,
        trainer: CoLearningTrainer,
        test_dataset: Dataset,
        arm: str,
        kind: Any,
        *,
        cost: Cost | None = None,
        sweep: tuple[str, float] | None = None,
        **_: Any,
    ) -> Run:
        """The run of a trained student; its predictions are the probe's."""
        metrics, probabilities_NC, features_NH = self.measured(trainer, test_dataset)
        labels_N = np.asarray(test_dataset[CATEGORY])
        return own_run(
            trainer,
            arm,
            kind,
            cost,
            labels_N,
            test_dataset.features[CATEGORY].names,
            metrics=metrics,
            predictions=probabilities_NC.argmax(axis=1),
            confidences=probabilities_NC.max(axis=1),
            test=Samples(labels_N, features_NH),
        )

    def measured(self, trainer: Any, dataset: Dataset) -> tuple[dict[str, float], np.ndarray, np.ndarray]:
        """The metrics, the probe's probabilities `(N, C)`, and the encoder's features `(N, H)`."""
        known_NH, features_NH = self.features(trainer, self.train), self.features(trainer, dataset)
        labels_N = np.asarray(dataset[CATEGORY])
        rows = self.labelled(trainer.args.seed)
        num_classes = dataset.features[CATEGORY].num_classes
        few_NC = probed(known_NH, rows, self.categories_N, features_NH, num_classes)
        all_NC = probed(known_NH, np.arange(len(known_NH)), self.categories_N, features_NH, num_classes)
        metrics = {
            "accuracy": float((few_NC.argmax(axis=1) == labels_N).mean()),
            "accuracy_all_labels": float((all_NC.argmax(axis=1) == labels_N).mean()),
            **self.masked(trainer, dataset),
        }
        return metrics, few_NC, features_NH

    def references(self, dataset: Dataset, texts: Mapping[str, Any], seeds: Sequence[int]) -> dict[str, float]:
        """The probe's accuracy on what no student has learned, mean over the seeds: on `bag of words`, which tokens a caption
        has, and on other latents by name.

        Args:
            dataset ([`datasets.Dataset`]): The test captions.
            texts (`dict`): By name the latents of training and test captions, `((N, D), (M, D))`.
            seeds (`Sequence[int]`): Of the runs, which draw the labels.
        """
        width = 1 + max(max(ids) for part in (self.train, dataset) for ids in part["input_ids"])
        bags = tuple(
            np.stack([np.bincount(ids, minlength=width) > 0 for ids in part["input_ids"]])
            for part in (self.train, dataset)
        )
        labels_N, found = np.asarray(dataset[CATEGORY]), {}
        for name, (known_NH, features_MH) in {"bag of words": bags, **texts}.items():
            told = [
                probed(
                    known_NH.astype(np.float32),
                    self.labelled(seed),
                    self.categories_N,
                    features_MH,
                    dataset.features[CATEGORY].num_classes,
                )
                for seed in seeds
            ]
            found[name] = float(np.mean([told_MC.argmax(axis=1) == labels_N for told_MC in told]))
        return found

    def labelled(self, seed: int) -> np.ndarray:
        """The training captions that the probe of a run knows, the same in all arms of a seed."""
        rng, rows = np.random.default_rng(seed), []
        for label in np.unique(self.categories_N):
            of_class = np.flatnonzero(self.categories_N == label)
            rows.append(rng.permutation(of_class)[: self.labels_per_class])
        return np.concatenate(rows)

    @torch.no_grad()
    def features(self, trainer: Any, dataset: Dataset) -> np.ndarray:
        """The encoder's mean over the tokens of every caption, `(N, H)`."""
        pooled = [base_model(trainer.model).encode(**batch).pooled_BH for batch in self._batches(trainer, dataset)]
        return torch.cat(pooled).float().cpu().numpy()

    @torch.no_grad()
    def masked(self, trainer: Any, dataset: Dataset) -> dict[str, float]:
        """`masked_accuracy` and `masked_loss` of the tokens that masks hide, of all captions together."""
        logits, tokens = [], []
        for batch in self._batches(trainer, self.masking.fixed(dataset, seed=0)):
            labels_BT = batch.pop("labels")
            is_asked_BT = labels_BT != NO_LABEL
            tokens.append(labels_BT[is_asked_BT])
            logits.append(trainer.model(**batch).logits[is_asked_BT].float())
        logits_MV, tokens_M = torch.cat(logits), torch.cat(tokens)
        accuracy = (logits_MV.argmax(dim=1) == tokens_M).float().mean()
        return {"masked_accuracy": float(accuracy), "masked_loss": float(F.cross_entropy(logits_MV, tokens_M))}

    def _batches(self, trainer: Any, dataset: Dataset) -> Iterator[dict[str, torch.Tensor]]:
        trainer.model.eval()
        names = [name for name in ("input_ids", "attention_mask", "labels") if name in dataset.column_names]
        for rows in dataset.select_columns(names).iter(batch_size=256):
            batch = self.collate([dict(zip(rows, values, strict=True)) for values in zip(*rows.values(), strict=True)])
            yield {name: x.to(trainer.model.device) for name, x in batch.items()}


def probed(
    known_NH: np.ndarray, rows: np.ndarray, labels_N: np.ndarray, features_MH: np.ndarray, num_classes: int
) -> np.ndarray:
    """The probabilities `(M, C)` of a logistic regression on standardised features that knows the labels of some rows."""
    with extra("report", "a probe needs scikit-learn"):
        from sklearn.linear_model import LogisticRegression
    mean_H, std_H = known_NH.mean(axis=0), known_NH.std(axis=0) + 1e-6
    probe = LogisticRegression(max_iter=1000).fit((known_NH[rows] - mean_H) / std_H, labels_N[rows])
    probabilities = np.zeros((len(features_MH), num_classes))
    probabilities[:, probe.classes_] = probe.predict_proba((features_MH - mean_H) / std_H)
    return probabilities


class ProbedTrainer(CoLearningTrainer):
    """A trainer that evaluates a student by a [`CaptionScore`], so that settings are chosen by it.

    Args:
        score ([`CaptionScore`]): What measures it.
        trainer_kwargs: As in [`CoLearningTrainer`].
    """

    def __init__(self, *args: Any, score: CaptionScore, **trainer_kwargs: Any):
        super().__init__(*args, **trainer_kwargs)
        self.score = score

    def evaluate(self, eval_dataset=None, ignore_keys=None, metric_key_prefix="eval"):
        # A probe and fixed masks take the place of a loss whose masks are drawn anew.
        metrics, *_ = self.score.measured(self, self.eval_dataset if eval_dataset is None else eval_dataset)
        return {f"{metric_key_prefix}_{name}": value for name, value in metrics.items()}
