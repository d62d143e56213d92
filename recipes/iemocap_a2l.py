"""Audio helps language on IEMOCAP: a BERT that reads emotions learns with the latents of a frozen speech teacher.

Published (Lee & Yoon, ICLR 2025): 55.81 -> 56.49 % accuracy, the teacher hearing a *random other* utterance plus noise.
Hyperparameters are in iemocap_a2l.yaml; each can be given on the command line, too.

    accelerate launch recipes/iemocap_a2l.py --small                                  # a smoke test, synthetic utterances
    accelerate launch recipes/iemocap_a2l.py --data_dir IEMOCAP_full_release --seeds 5
    accelerate launch recipes/iemocap_a2l.py --split random                           # as released; leaks speakers
"""

from dataclasses import dataclass, field

from transformers import AutoTokenizer, DataCollatorWithPadding

from hf_colearn import (
    CoLearningArguments,
    CoLearningForSequenceClassification,
    CoLearningTrainer,
    Paired,
    Shuffled,
    TeacherBank,
    classification_metrics,
)
from hf_colearn.corpora.iemocap import is_iemocap
from hf_colearn.data.audio import NoisyWaveforms
from hf_colearn.data.text import with_input_ids
from hf_colearn.experiments.arms import ArmPlan, chosen_arms, transfer_arms
from hf_colearn.experiments.iemocap import IemocapOptions
from hf_colearn.experiments.info import ExperimentInfo
from hf_colearn.experiments.options import parse_recipe
from hf_colearn.experiments.packaged_models import packaged_model
from hf_colearn.experiments.runner import quiet, run_recipe
from hf_colearn.experiments.tiny_models import bert_tiny, speech_teacher
from hf_colearn.teachers.bank_card import without_folders
from hf_colearn.utils.command_line import run_script


PUBLISHED = "55.81 -> 56.49 % on a random split (Lee & Yoon, ICLR 2025)"
TRAINED = "a tiny wav2vec2 trained on these utterances' emotions"  # with `--teacher train`


@dataclass
class Options(IemocapOptions):
    pooling: str = field(default="mean", metadata={"help": "How the teacher's frames become one latent."})
    noise_std: float = field(default=1e-3, metadata={"help": "Of the noise on the teacher's waveforms."})
    max_length: int = field(default=128, metadata={"help": "Tokens of a transcript; what is longer loses its end."})


def main() -> None:
    options, training = parse_recipe(Options, __file__)
    quiet()
    raw = options.load(training["output_dir"])
    emotions, labels = raw["train"].features["label"].names, raw["train"]["label"][:]

    pairings = {"random other": Shuffled(), "true pairing": Paired()}
    plans = chosen_arms(options, transfer_arms(pairings, labels, len(emotions)))

    folder = f"{training['output_dir']}/teacher"
    teacher = speech_teacher(
        options.teacher, options.pooling, folder, raw["train"], num_labels=len(emotions), max_steps=100
    )
    heard = NoisyWaveforms(raw["train"]["audio"], options.noise_std, teacher.processor.sampling_rate)
    bank = TeacherBank.encode(teacher, heard)  # row i: what the teacher hears of utterance i

    tiny = options.student == "bert_tiny"
    tokenizer = AutoTokenizer.from_pretrained(packaged_model() if tiny else options.student)
    data = {
        split: with_input_ids(part.remove_columns("audio"), tokenizer, max_length=options.max_length)
        for split, part in raw.items()
    }

    def make_trainer(arm: ArmPlan, args: CoLearningArguments) -> CoLearningTrainer:
        student = CoLearningForSequenceClassification.from_backbone(
            bert_tiny(vocab_size=len(tokenizer)) if tiny else options.student,
            bank.dim,
            id2label=dict(enumerate(emotions)),
            latent_norm="layernorm",
            pooling="cls",
        )
        return CoLearningTrainer(
            options.adapted(student),
            args,
            data_collator=DataCollatorWithPadding(tokenizer),
            train_dataset=data["train"],
            eval_dataset=data["validation"],
            bank=bank if arm.pairing else None,
            pairing=arm.pairing,
            optimizer_cls_and_kwargs=options.optimizer_for(args),
            compute_metrics=classification_metrics(("accuracy", "macro_f1")),
        )

    heard_by = TRAINED if options.teacher == "train" else without_folders(str(options.teacher))
    info = ExperimentInfo(
        recipe="iemocap_a2l",
        title="Emotions in transcripts, trained with a speech teacher",
        pipeline_tag="text-classification",
        **options.described(raw),
        teacher=f"{heard_by}, pooling '{teacher.pooling}', frozen, hearing waveforms",
        pairing=f"a random other utterance plus noise of {options.noise_std:g}, by a new permutation every epoch",
        published=PUBLISHED if is_iemocap(raw) else None,
        language="en",
    )
    run_recipe(options, training, info, plans, make_trainer, data, tokenizer)


if __name__ == "__main__":
    run_script(main)
