"""Pretraining by masked latents, then few labels: small transformers of spoken digits, or of emoji.

In the first half of its updates the student hides a part of its input, all samples without their labels, and predicts there
what an average of itself makes of the whole (data2vec, Baevski et al., ICML 2022); in the second half it learns the few labels
that there are, or these and the latents of a teacher. Beside it stand the labels alone, the teacher alone, the hidden inputs
themselves as targets, and null controls: latents of other samples, and of random weights. All make as many updates. Settings
are chosen on a validation part.

    python recipes/masked_latents.py --data_dir FSDD --speech_model openai/whisper-tiny.en --seeds 5
    python recipes/masked_latents.py --data_dir FSDD --seed 0 --seeds 2 --choose true     # into masked_latents_settings.yaml
    python recipes/masked_latents.py --modality image --seed 100 --seeds 10               # emoji, whose names MiniLM reads
    python recipes/masked_latents.py --small                                              # a smoke test: DTMF tones for speech
"""

from dataclasses import dataclass, field

from hf_colearn import TeacherBank, classification_metrics
from hf_colearn.experiments.arms import check_comparable
from hf_colearn.experiments.frozen_features import encoder_in_words, speech_encoder
from hf_colearn.experiments.info import ExperimentInfo, named_data
from hf_colearn.experiments.masked_latents import MaskedPretraining, masked_latents_arms, pictures, spoken_digits
from hf_colearn.experiments.options import parse_recipe
from hf_colearn.experiments.packaged_models import PACKAGED_LANGUAGE, language_teacher
from hf_colearn.experiments.runner import quiet, run_recipe
from hf_colearn.experiments.settings import SettingsOptions, choose_settings, with_chosen
from hf_colearn.utils.checks import check_choice
from hf_colearn.utils.command_line import run_script


@dataclass
class Options(SettingsOptions):
    modality: str = field(default="speech", metadata={"help": "speech (spoken digits) or image (emoji)."})
    labels_per_class: int = field(default=3, metadata={"help": "Samples of every class that have a label."})
    speech_model: str = field(
        default="openai/whisper-tiny.en", metadata={"help": "The teacher of speech; tiny: random weights."}
    )
    text_model: str = field(default=PACKAGED_LANGUAGE, metadata={"help": "The teacher of emoji, which reads names."})
    decay: float = field(default=0.99, metadata={"help": "Of the student's average."})
    max_samples: int | None = field(default=None, metadata={"help": "Of every part; all by default."})

    def __post_init__(self):
        super().__post_init__()
        check_choice("modality", self.modality, ("speech", "image"))


def main() -> None:
    options, training = parse_recipe(Options, __file__)
    quiet()
    options.check_settings_file(__file__)
    seed, is_speech = training.get("seed") or 0, options.modality == "speech"
    plans = masked_latents_arms(options.labels_per_class, options.arms)
    if not options.choose:
        check_comparable(plans, options.seeds)
    if is_speech:
        data = spoken_digits(options.data_dir, options.skip_bad_samples, options.max_samples)
        teacher = speech_encoder(options.speech_model, seconds=1)
    else:
        data = pictures(options.data_dir, seed, options.max_samples)
        teacher = language_teacher(options.text_model, pooling="mean")

    pretraining = MaskedPretraining(
        data,
        TeacherBank.encode(teacher, data.teacher_inputs),
        options.adapted,
        options.decay,
        optimizer=options.optimizer_for,
        compute_metrics=classification_metrics(("accuracy", "macro_f1")),
    )
    file = options.settings_file(__file__)
    if options.choose:
        seeds, validation = range(seed, seed + options.seeds), data.splits["validation"]
        choose_settings(plans, seeds, training, pretraining.make_trainer, validation, file, options.modality)
        return
    source = ("FSDD" if options.data_dir else "DTMF") if is_speech else "emoji"
    named = {split: part.rename_column("labels", "label") for split, part in data.splits.items()}
    info = ExperimentInfo(
        recipe="masked_latents",
        title=f"{'Spoken digits' if is_speech else 'Emoji'}: masked latents of all samples, then few labels",
        pipeline_tag="audio-classification" if is_speech else "image-classification",
        **named_data(source, named, "clips" if is_speech else "pictures"),
        teacher=f"{encoder_in_words(options.speech_model if is_speech else options.text_model)}, mean pooling, frozen",
        pairing="the same clip" if is_speech else "every emoji with its name",
        language="en" if options.data_dir and is_speech else None,
    )
    plans = with_chosen(plans, file, options.modality)
    splits = {"train": named["train"], "test": data.splits["test"]}
    run_recipe(options, training, info, plans, pretraining.make_trainer, splits, data.processor)


if __name__ == "__main__":
    run_script(main)
