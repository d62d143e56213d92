"""A paired signal, frame by frame: spoken digits predict the latents of Whisper's frames of the same clip.

The student hears log-mel frames with their neighbours, a few clips of every digit have a label, and all have a pair: the
latents that a frozen speech model gives of the same clip, one every 20 ms, brought to the student's frames. Beside them stand
the mean of these latents as one target a clip, the labels alone, and null controls: frames of wrong clips, random ones of the
same moments, and the principal components of what the student hears itself. Test are FSDD's takes 0 to 4; settings are chosen
on takes 5 to 9.

    python recipes/dense_signal.py --data_dir FSDD --speech_model openai/whisper-tiny.en --seeds 5
    python recipes/dense_signal.py --data_dir FSDD --seed 0 --seeds 2 --choose true     # into dense_signal_settings.yaml
    python recipes/dense_signal.py --data_dir FSDD --seed 100 --seeds 10
    python recipes/dense_signal.py --small                                              # a smoke test: DTMF tones for speech
"""

from dataclasses import dataclass, field
from typing import Any

import torch

from hf_colearn import CoLearningForFeatureClassification, FeatureBackboneConfig, classification_metrics
from hf_colearn.experiments.arms import check_comparable
from hf_colearn.experiments.dense_signal import (
    SECONDS,
    DenseSignal,
    StackedFrames,
    dense_signal_arms,
    drawn,
    encoded_frames,
    frame_dataset,
    heard,
    load_clips,
    principal_frames,
)
from hf_colearn.experiments.frozen_features import encoder_in_words, speech_encoder
from hf_colearn.experiments.info import ExperimentInfo, named_data
from hf_colearn.experiments.options import parse_recipe
from hf_colearn.experiments.runner import quiet, run_recipe
from hf_colearn.experiments.settings import SettingsOptions, choose_settings, with_chosen
from hf_colearn.utils.command_line import run_script


@dataclass
class Options(SettingsOptions):
    labels_per_class: int = field(default=3, metadata={"help": "Clips of every digit that have a label."})
    speech_model: str = field(
        default="openai/whisper-tiny.en", metadata={"help": "Encoder of speech; tiny: random weights."}
    )
    signal_dim: int = field(default=32, metadata={"help": "Principal components of the teacher's frames."})
    context: int = field(
        default=4, metadata={"help": "Frames before and after a frame that the student hears with it."}
    )
    hidden_dim: int = field(default=128, metadata={"help": "Width of the student's hidden layer."})
    max_clips: int | None = field(default=None, metadata={"help": "Of every part; all by default."})


def main() -> None:
    options, training = parse_recipe(Options, __file__)
    quiet()
    options.check_settings_file(__file__)
    plans = dense_signal_arms(options.labels_per_class, options.arms)
    if not options.choose:
        check_comparable(plans, options.seeds)
    clips = load_clips(options.data_dir, options.skip_bad_samples)
    clips = {split: drawn(of_split, options.max_clips) for split, of_split in clips.items()}
    frames = {split: heard(of_split) for split, of_split in clips.items()}
    data = {split: frame_dataset(frames[split], clips[split]) for split in clips}

    # What the student learns from: the teacher's frames, and the same of its own.
    stack = StackedFrames(options.context)
    stacked = [stack.stacked(torch.from_numpy(each)) for each in frames["train"]]
    teacher = speech_encoder(options.speech_model, SECONDS)
    signal = principal_frames(
        encoded_frames(teacher, clips["train"]), options.signal_dim, "principal components of frames"
    )
    own = principal_frames(
        [each.numpy() for each in stacked], options.signal_dim, "principal components of what is heard"
    )

    def make_student() -> Any:
        features_MF = torch.cat(stacked)
        config = FeatureBackboneConfig(
            feature_dim=features_MF.shape[1], hidden_dims=[options.hidden_dim], standardized=True
        )
        student = CoLearningForFeatureClassification.from_backbone(
            config, signal.dim, id2label={digit: str(digit) for digit in range(10)}, latent_norm="none", dense=True
        )
        student.backbone.set_statistics(features_MF)
        return options.adapted(student)

    signals = DenseSignal(
        data["train"],
        signal,
        own,
        make_student,
        optimizer=options.optimizer_for,
        data_collator=stack,
        compute_metrics=classification_metrics(("accuracy", "macro_f1")),
    )
    file, first = options.settings_file(__file__), training.get("seed") or 0
    if options.choose:
        seeds = range(first, first + options.seeds)
        choose_settings(plans, seeds, training, signals.make_trainer, data["validation"], file, "frames")
        return
    plans = with_chosen(plans, file, "frames")
    sound = "synthetic DTMF tones" if options.data_dir is None else "spoken digits"
    named = {split: part.rename_column("labels", "label") for split, part in data.items()}
    info = ExperimentInfo(
        recipe="dense_signal",
        title="Spoken digits: a paired signal, frame by frame",
        pipeline_tag="feature-classification",
        **named_data("FSDD" if options.data_dir else "DTMF", named, "clips", sound),
        teacher=f"{encoder_in_words(options.speech_model)}, frozen: {options.signal_dim} principal components of its frames",
        pairing="frames of the same clip, interpolated to the student's",
        language="en" if options.data_dir else None,
    )
    run_recipe(options, training, info, plans, signals.make_trainer, {"train": named["train"], "test": data["test"]})


if __name__ == "__main__":
    run_script(main)
