"""Kinetics-Sounds, 31 actions seen and heard: two ResNet-18 with the label loss and a contrastive loss, mixed by a constant,
heuristic, fitted or learned alpha (Yang et al., NeurIPS 2024).

Published: as for CREMA-D (cremad_av.py), with three frames and batches of 12. Ours: Kinetics' own validation split chooses
the checkpoint, its test split is the test; a spectrogram spans five of the ten seconds, from a random start in training, and
the first five in testing. Hyperparameters are in kinetics_sounds_av.yaml; each can be given on the command line, too.

    accelerate launch recipes/kinetics_sounds_av.py --data_dir KINETICS --small       # a smoke test: tiny ResNets, few epochs
    accelerate launch recipes/kinetics_sounds_av.py --data_dir KINETICS --seeds 5     # as published
    accelerate launch recipes/kinetics_sounds_av.py --data_dir KINETICS --test_split validation --skip_bad_samples
    accelerate launch recipes/kinetics_sounds_av.py --hub_id USER/KINETICS-SOUNDS     # a mirror: columns video, audio, label
"""

from dataclasses import dataclass, field

from hf_colearn import CoLearningArguments, CoLearningTrainer
from hf_colearn.corpora.audio_visual import MODALITIES, ClipOptions
from hf_colearn.corpora.kinetics_sounds import load_kinetics_sounds
from hf_colearn.experiments.arms import ArmPlan, chosen_arms
from hf_colearn.experiments.info import ExperimentInfo, named_data
from hf_colearn.experiments.multimodal import MultimodalOptions, multimodal_arms, multimodal_trainer
from hf_colearn.experiments.options import parse_recipe
from hf_colearn.experiments.runner import quiet, run_recipe
from hf_colearn.experiments.tiny_models import RESNETS
from hf_colearn.utils.command_line import run_script


@dataclass
class Options(ClipOptions, MultimodalOptions):
    test_split: str = field(
        default="test", metadata={"help": "Kinetics' split to test on: test, or validation where test has no labels."}
    )


def main() -> None:
    options, training = parse_recipe(Options, __file__)
    quiet()
    plans = chosen_arms(options, multimodal_arms(options, training, MODALITIES))
    options.needs_data(options.data_dir, "Kinetics-400's folder, with its annotations and videos")
    processor = options.processor(RESNETS)
    raw = load_kinetics_sounds(
        options.data_dir,
        options.hub_id,
        options.test_split,
        validation_share=0.1,  # where no validation split is left
        skip_bad_samples=options.skip_bad_samples,
        min_frames=options.frames,
    )
    names = dict(enumerate(raw["train"].features["label"].names))
    data = options.inputs(raw, processor)

    def make_trainer(arm: ArmPlan, args: CoLearningArguments) -> CoLearningTrainer:
        model = options.make_model(options.backbones(RESNETS), id2label=names)
        collators = dict.fromkeys(MODALITIES)
        return multimodal_trainer(options, arm, args, model, data, collators, ("accuracy", "map"))

    info = ExperimentInfo(
        recipe="kinetics_sounds_av",
        title="Actions, seen and heard",
        pipeline_tag="video-classification",
        **named_data("Kinetics-Sounds", raw, "clips", f"tested on {options.test_split}", hub_id=options.hub_id),
        pairing="the two tracks of a clip",
    )
    run_recipe(options, training, info, plans, make_trainer, data, {"video": processor})


if __name__ == "__main__":
    run_script(main)
