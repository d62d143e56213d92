"""Language-shaped learning with few labels: the arms, their trainers, and what the decoder says of held-out captions.

Shapes: N training samples, M test samples, T tokens of a caption, D width of the latent.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from datasets import Dataset

from hf_colearn.alpha.schedules import ConstantAlpha
from hf_colearn.analysis.run import Run
from hf_colearn.arguments import CoLearningArguments
from hf_colearn.data.sample_ids import NO_LABEL
from hf_colearn.data.views import TwoViews
from hf_colearn.experiments.captions import caption_bank, with_shuffled_words
from hf_colearn.experiments.scoring import scored_run
from hf_colearn.experiments.semi_supervised import (
    SemiSupervised,
    SemiSupervisedArm,
    ShuffledOnce,
    semi_supervised_arms,
)
from hf_colearn.models.lora import base_model
from hf_colearn.objectives.caption_generation import CaptionGeneration, caption_loss
from hf_colearn.teachers.pairing import Paired
from hf_colearn.teachers.sequence_bank import SequenceBank
from hf_colearn.teachers.teacher import Teacher
from hf_colearn.trainer import CoLearningTrainer
from hf_colearn.utils.tables import text_table


SHAPED, CAPTIONS, WORDS = "language-shaped", "shuffled captions", "shuffled words"


def caption_arms() -> list[SemiSupervisedArm]:
    """What a recipe of captions trains, each at its usual setting.

    | arm | kind | what it is trained on |
    |---|---|---|
    | labels alone, self-training | baseline, null | as of [`~hf_colearn.experiments.semi_supervised.semi_supervised_arms`] |
    | shuffled captions | null | labels, and the caption of a fixed wrong partner |
    | language-shaped | co-learned | labels, and the captions |
    | shuffled words | reference | labels, and the captions with their words in another order |
    """
    weights = ({"weight": 0.1, "rate": 1.0}, {"weight": 0.5, "rate": 1.0}, {"weight": 2.0, "rate": 1.0})
    captions: dict[str, Any] = {"grid": weights, "two_streams": True}
    return [
        *semi_supervised_arms()[:2],  # labels alone, and self-training
        SemiSupervisedArm(CAPTIONS, "null", ShuffledOnce(), **captions),
        SemiSupervisedArm(SHAPED, "colearned", Paired(), **captions),
        SemiSupervisedArm(WORDS, "reference", Paired(), **captions),
    ]


class Captioned(SemiSupervised):
    """Builds the trainers of [`caption_arms`] for one student and one training set, and scores their decoders.

    Args:
        train ([`datasets.Dataset`]): As of [`~hf_colearn.experiments.semi_supervised.SemiSupervised`].
        tokenizer ([`~transformers.PreTrainedTokenizerFast`]): Of the captions, see
            [`~hf_colearn.experiments.captions.word_tokenizer`].
        captions, test_captions (`Sequence[str]`): Of the N training and the M test samples.
        make_student (`Callable`): A new student; with `True` one with the decoder `captions`.
        max_length (`int`, *optional*): Of a caption's ids; longer ones lose their end.
        options: As of [`~hf_colearn.experiments.semi_supervised.SemiSupervised`].
    """

    def __init__(
        self,
        train: Dataset,
        tokenizer: Any,
        captions: Sequence[str],
        test_captions: Sequence[str],
        make_student: Callable[[bool], Any],
        max_length: int | None = None,
        **options: Any,
    ):
        bank: Any = caption_bank(tokenizer, captions, max_length)
        unread_N0 = np.empty((len(captions), 0))  # inputs, which no arm here reads
        super().__init__(train, bank, lambda: make_student(False), unread_N0, TwoViews(), **options)
        self.captions: SequenceBank = bank
        tested = caption_bank(tokenizer, test_captions, max_length)
        self.test_ids_MT = tested.lookup(np.arange(len(test_captions)))
        self.make_speaker, self.tokenizer, self.test_captions = make_student, tokenizer, test_captions
        self.examples: list[list[str]] = []

    def make_trainer(self, arm: Any, args: CoLearningArguments) -> CoLearningTrainer:
        """The trainer of an arm, as `run_recipe` asks for it."""
        if arm.pairing is None:
            return super().make_trainer(arm, args)
        bank = with_shuffled_words(self.captions, args.seed) if arm.method == WORDS else self.captions
        return self._trainer(
            args,
            self.few_labels(arm, args.seed),
            self.make_speaker(True),
            teachers={"captions": Teacher(bank, arm.pairing)},
            objective=CaptionGeneration("captions"),
            alpha=ConstantAlpha.from_weights({"captions": arm.setting["weight"]}),
        )

    def score(self, trainer: CoLearningTrainer, test_dataset: Any, arm: str, kind: Any, **options: Any) -> Run:
        """Scores a run as usual, and its decoder by `caption_nats`, the mean of -log p of the test captions, words that no
        training caption has as `[UNK]`; what the first co-learned student writes is kept."""
        run = scored_run(trainer, test_dataset, arm, kind, **options)
        model: Any = base_model(trainer.model)
        if "captions" not in model.training_heads:
            return run
        decoder, ids_MT = model.training_heads["captions"], self.test_ids_MT.to(model.device)
        with torch.no_grad():
            inputs = torch.stack(list(test_dataset[model.main_input_name][:]))
            latents_MD = model.eval()(**{model.main_input_name: inputs.to(model.device)}).latents
            run.metrics["caption_nats"] = caption_loss(decoder(latents_MD, ids_MT), ids_MT).item()
        if kind == "colearned" and not self.examples:
            ends = self.tokenizer.cls_token_id, self.tokenizer.sep_token_id
            shown = np.linspace(0, len(latents_MD) - 1, num=min(8, len(latents_MD)), dtype=int)
            written_MT = decoder.generate(latents_MD[shown], *ends, ids_MT.shape[1])
            written_MT = written_MT.masked_fill(written_MT == NO_LABEL, self.tokenizer.pad_token_id)
            written = self.tokenizer.batch_decode(written_MT, skip_special_tokens=True)
            self.examples = [[self.test_captions[row], text] for row, text in zip(shown, written, strict=True)]
        return run

    def table(self, runs: Sequence[Run]) -> str:
        """The means of `caption_nats` over the seeds by arm, and test captions beside what was written of their pictures."""
        rows = [["held out", "nats a caption"]]
        for arm in dict.fromkeys(run.arm for run in runs if "caption_nats" in run.metrics):
            rows.append([arm, f"{np.mean([run.metrics['caption_nats'] for run in runs if run.arm == arm]):.2f}"])
        return "\n\n".join(text_table(table) for table in (rows, [["caption", "written"], *self.examples]))
