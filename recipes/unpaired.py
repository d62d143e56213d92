"""Unpaired data of another modality: do few labelled pictures gain from sounds or sentences that belong to none of them?

A task has few labels a class. In every step a batch of another modality with the same classes, all of it labelled and never
paired, goes through the same transformer trunk and the same head: L = CE(own) + a CE(other) (the supervised learner of "Better
Together: Leveraging Unpaired Multimodal Data for Stronger Unimodal Models", ICLR 2026; with sequences its next-step form, too).
Digits: handwritten ones of scikit-learn as patches and spoken ones as spectrograms. Stamps: what frozen networks see in
pictures and read in sentences. Beside it stand the task alone (a = 0, as many updates), the other modality with permuted
labels, Gaussian inputs of its moments, its classes exchanged and, where there are some, true pairs. What is tested is the
student of the one modality. Settings are chosen on a validation part.

    python recipes/unpaired.py --audio_dir FSDD --seeds 5
    python recipes/unpaired.py --audio_dir FSDD --student speech --teacher image --seeds 5
    python recipes/unpaired.py --data stamps --data_dir STAMPS --student image --teacher text --seeds 5
    python recipes/unpaired.py --audio_dir FSDD --seed 0 --seeds 2 --choose true    # into unpaired_settings.yaml
    python recipes/unpaired.py --small                                              # a smoke test: DTMF tones for speech
"""

from dataclasses import dataclass, field

from hf_colearn import classification_metrics
from hf_colearn.corpora.stamps import load_stamps, needs_stamps
from hf_colearn.experiments.arms import check_comparable, pick
from hf_colearn.experiments.dense_signal import RATE, load_clips
from hf_colearn.experiments.info import ExperimentInfo
from hf_colearn.experiments.options import parse_recipe
from hf_colearn.experiments.runner import quiet, run_recipe
from hf_colearn.experiments.settings import choose_settings, with_chosen
from hf_colearn.experiments.stamps import SCALES, StampOptions, encoded_stamps
from hf_colearn.experiments.tiny_models import trunk_tiny
from hf_colearn.experiments.unpaired import (
    Modality,
    Unpaired,
    of_features,
    spoken_digits,
    unpaired_arms,
    written_digits,
)
from hf_colearn.utils.command_line import run_script


@dataclass
class Options(StampOptions):
    data: str = field(default="digits", metadata={"help": "digits (packaged), or stamps of --data_dir."})
    student: str = field(default="image", metadata={"help": "What has few labels: image, speech or, of stamps, text."})
    teacher: str = field(default="speech", metadata={"help": "What is unpaired and labelled: another of them."})
    audio_dir: str | None = field(default=None, metadata={"help": "Spoken digits (FSDD); DTMF tones by default."})
    labels_per_class: int = field(default=3, metadata={"help": "Samples of every class that have a label."})
    hidden_dim: int = field(default=64, metadata={"help": "Width of the trunk."})
    num_layers: int = field(default=2, metadata={"help": "Layers of the trunk."})
    latent_dim: int = field(default=32, metadata={"help": "Width of the latent."})
    max_clips: int | None = field(default=None, metadata={"help": "Of spoken digits, of every part; all by default."})


def digits(options: Options) -> tuple[dict[str, Modality], list[str]]:
    """Written and spoken digits, and the names of the classes."""
    clips = load_clips(options.audio_dir, options.skip_bad_samples)
    clips = {split: part[:: max(1, len(part) // (options.max_clips or len(part)))] for split, part in clips.items()}
    return {"image": written_digits(), "speech": spoken_digits(clips, RATE)}, [str(digit) for digit in range(10)]


def stamps(options: Options, seed: int) -> tuple[dict[str, Modality], list[str]]:
    """Two modalities of the stamps as frozen networks read them, and the categories."""
    needs_stamps(options.data_dir)
    splits = load_stamps(options.data_dir, seed=seed, test_share=0.25, min_per_class=options.min_per_class)
    labels = {split: part["label"][:] for split, part in splits.items()}
    both = (options.student, options.teacher)
    scales = SCALES if options.feature_scale is None else dict.fromkeys(SCALES, options.feature_scale)
    found = {
        name: of_features(encoded_stamps(splits, options.encoder(name), name), labels, scale=scales[name])
        for name in both
    }
    return found, splits["train"].features["label"].names


def main() -> None:
    options, training = parse_recipe(Options, __file__)
    quiet()
    options.check_settings_file(__file__)
    if options.data not in ("digits", "stamps") or (
        options.data == "digits" and "text" in (options.student, options.teacher)
    ):
        raise ValueError(
            f"data='{options.data}' has no {options.student} and {options.teacher}: of digits image and speech."
        )
    seed, is_digits = training.get("seed") or 0, options.data == "digits"
    plans = pick(unpaired_arms(has_pairs=not is_digits, is_sequence=is_digits), options.arms)
    data, names = digits(options) if is_digits else stamps(options, seed)
    trunk = trunk_tiny(options.hidden_dim, options.num_layers)
    unpaired = Unpaired(
        (options.student, data[options.student]),
        (options.teacher, data[options.teacher]),
        options.labels_per_class,
        dict(enumerate(names)),
        trunk,
        options.latent_dim,
        optimizer=options.optimizer_for,
        compute_metrics=classification_metrics(("accuracy", "macro_f1")),
    )
    comparison, file = f"{options.data}: {options.student} with {options.teacher}", options.settings_file(__file__)
    if options.choose:
        seeds, held_out = range(seed, seed + options.seeds), unpaired.evaluation("validation")
        choose_settings(plans, seeds, training, unpaired.make_trainer, held_out, file, comparison)
        return
    check_comparable(plans, options.seeds)
    info = ExperimentInfo(
        recipe="unpaired",
        title=f"Few labelled samples of {options.student}, and unpaired {options.teacher}",
        pipeline_tag="feature-classification",
        dataset_name=f"{options.data}, {options.labels_per_class} labels a class",
        dataset_type=options.data,
        pairing="none: both have the same classes",
        language="en",
    )
    parts = {split: unpaired.own_part(split) for split in ("train", "validation", "test")}
    plans = with_chosen(plans, file, comparison)
    run_recipe(
        options, training, info, plans, unpaired.make_trainer, parts, keeps_student=False, score=unpaired.scored
    )


if __name__ == "__main__":
    run_script(main)
