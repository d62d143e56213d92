"""CREMA-D, emotions seen and heard: two ResNet-18 with the label loss and a contrastive loss, mixed by a constant, heuristic,
fitted or learned alpha (Yang et al., NeurIPS 2024).

Published: both ResNets from scratch, SGD, one frame, a log-magnitude spectrogram, on the two lists of OGM-GE (Peng et al.,
CVPR 2022), in which every test actor is a training actor, too. Ours: a tenth of the training list chooses the checkpoint
(there is no published validation split), and the learned alpha takes another tenth. Hyperparameters are in cremad_av.yaml;
each can be given on the command line, too.

    accelerate launch recipes/cremad_av.py --data_dir CREMA-D --small            # a smoke test: tiny ResNets, few epochs
    accelerate launch recipes/cremad_av.py --data_dir CREMA-D --seeds 5          # as published
    accelerate launch recipes/cremad_av.py --data_dir CREMA-D --split actor --fusion film --arms ce learned
    accelerate launch recipes/cremad_av.py --hub_id USER/CREMA-D                 # a mirror: columns video, audio, label
"""

from dataclasses import dataclass, field

from hf_colearn import CoLearningArguments, CoLearningTrainer
from hf_colearn.corpora.audio_visual import MODALITIES, ClipOptions
from hf_colearn.corpora.cremad import load_cremad
from hf_colearn.experiments.arms import ArmPlan, chosen_arms
from hf_colearn.experiments.info import ExperimentInfo, named_data
from hf_colearn.experiments.multimodal import MultimodalOptions, multimodal_arms, multimodal_trainer
from hf_colearn.experiments.options import parse_recipe
from hf_colearn.experiments.runner import quiet, run_recipe
from hf_colearn.experiments.tiny_models import RESNETS
from hf_colearn.utils.command_line import run_script


@dataclass
class Options(ClipOptions, MultimodalOptions):
    split: str = field(default="lists", metadata={"help": "lists (train.csv, test.csv), actor (unseen ones) or auto."})


def main() -> None:
    options, training = parse_recipe(Options, __file__)
    quiet()
    plans = chosen_arms(options, multimodal_arms(options, training, MODALITIES))
    options.needs_data(options.data_dir, "CREMA-D's folder, with AudioWAV and VideoFlash")
    processor = options.processor(RESNETS)
    raw = load_cremad(
        options.data_dir,
        options.hub_id,
        options.split,
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
        recipe="cremad_av",
        title="Emotions, seen and heard",
        pipeline_tag="video-classification",
        **named_data(
            "CREMA-D", raw, "clips", *([] if options.hub_id else [f"split by {options.split}"]), hub_id=options.hub_id
        ),
        pairing="the two tracks of a clip",
        language="en",
    )
    run_recipe(options, training, info, plans, make_trainer, data, {"video": processor})


if __name__ == "__main__":
    run_script(main)
