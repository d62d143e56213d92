"""Language helps audio on IEMOCAP: a wav2vec2 that hears emotions learns with the latents of a frozen language teacher.

Published (Lee & Yoon, ICLR 2025): 59.46 -> 61.20 % accuracy, with "This is about Emotion {#}." of a *random* emotion.
Hyperparameters are in iemocap_l2a.yaml; each can be given on the command line, too.

    accelerate launch recipes/iemocap_l2a.py --small                                  # a smoke test, synthetic utterances
    accelerate launch recipes/iemocap_l2a.py --data_dir IEMOCAP_full_release --seeds 5
    accelerate launch recipes/iemocap_l2a.py --split random                           # as released; leaks speakers
"""

from dataclasses import dataclass, field

from transformers import AutoFeatureExtractor, DataCollatorWithPadding, Wav2Vec2FeatureExtractor

from hf_colearn import (
    CoLearningArguments,
    CoLearningForAudioClassification,
    CoLearningTrainer,
    Paired,
    RandomPrompt,
    TeacherBank,
    classification_metrics,
)
from hf_colearn.corpora.iemocap import is_iemocap
from hf_colearn.data.audio import WaveformNoise, with_input_values
from hf_colearn.experiments.arms import ArmPlan, chosen_arms, transfer_arms
from hf_colearn.experiments.iemocap import IemocapOptions
from hf_colearn.experiments.info import ExperimentInfo
from hf_colearn.experiments.options import parse_recipe
from hf_colearn.experiments.packaged_models import language_teacher
from hf_colearn.experiments.runner import quiet, run_recipe
from hf_colearn.experiments.tiny_models import wav2vec2_tiny
from hf_colearn.teachers.bank_card import without_folders
from hf_colearn.utils.command_line import run_script


PUBLISHED = "59.46 -> 61.20 % on a random split (Lee & Yoon, ICLR 2025)"


@dataclass
class Options(IemocapOptions):
    template: str = field(
        default="This is about Emotion {}.",
        metadata={"help": "The prompt of an emotion: {} is its number, {name} its name."},
    )
    pooling: str = field(default="mean", metadata={"help": "How the teacher's tokens become one latent."})
    classifier_dim: int = field(default=128, metadata={"help": "Width of the classifier's hidden layer."})
    mask_time_prob: float = field(default=0.3, metadata={"help": "Share of the student's frames that are masked."})
    student_noise: float = field(default=0.0, metadata={"help": "Noise on the student's audio; 1e-3 as released."})
    max_seconds: float | None = field(default=None, metadata={"help": "What is longer loses its end."})


def main() -> None:
    options, training = parse_recipe(Options, __file__)
    quiet()
    raw = options.load(training["output_dir"])
    emotions, labels = raw["train"].features["label"].names, raw["train"]["label"][:]

    tiny = options.student == "wav2vec2_tiny"
    processor = Wav2Vec2FeatureExtractor() if tiny else AutoFeatureExtractor.from_pretrained(options.student)
    data = {
        split: with_input_values(part.remove_columns("text"), processor, max_seconds=options.max_seconds)
        for split, part in raw.items()
    }

    prompt = RandomPrompt(options.template, names=emotions)
    pairings = {"random prompts": prompt, "paired prompts": Paired(labels)}
    plans = chosen_arms(options, transfer_arms(pairings, labels, len(emotions)))
    teacher = language_teacher(options.teacher, options.pooling)
    bank = TeacherBank.encode(teacher, prompt.prompts)

    def make_trainer(arm: ArmPlan, args: CoLearningArguments) -> CoLearningTrainer:
        masking = {"mask_time_prob": options.mask_time_prob}
        backbone, kwargs = (wav2vec2_tiny(**masking), {}) if tiny else (options.student, masking)
        student = CoLearningForAudioClassification.from_backbone(
            backbone,
            bank.dim,
            id2label=dict(enumerate(emotions)),
            latent_norm="none",
            pooling="mean",
            classifier_dim=options.classifier_dim,
            **kwargs,
        )
        if not tiny:
            student.freeze_feature_encoder()  # it is pretrained
        return CoLearningTrainer(
            options.adapted(student),
            args,
            data_collator=DataCollatorWithPadding(processor),
            train_dataset=data["train"],
            eval_dataset=data["validation"],
            bank=bank if arm.pairing else None,
            pairing=arm.pairing,
            augment=WaveformNoise(options.student_noise) if options.student_noise else None,
            optimizer_cls_and_kwargs=options.optimizer_for(args),
            compute_metrics=classification_metrics(("accuracy", "macro_f1")),
        )

    info = ExperimentInfo(
        recipe="iemocap_l2a",
        title="Emotions in speech, trained with a language teacher",
        pipeline_tag="audio-classification",
        **options.described(raw),
        teacher=f"{without_folders(str(options.teacher))}, pooling '{options.pooling}', frozen",
        pairing=f"a random emotion in '{options.template}', anew every epoch",
        published=PUBLISHED if is_iemocap(raw) else None,
        language="en",
    )
    run_recipe(options, training, info, plans, make_trainer, data, processor)


if __name__ == "__main__":
    run_script(main)
