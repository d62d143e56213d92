"""CREMA-D, emotions seen and heard: two ResNet-18 with the label loss and a contrastive loss, mixed by a constant, heuristic,
fitted or learned alpha (Yang et al., NeurIPS 2024).

Published: both ResNets from scratch, SGD, one frame, a log-magnitude spectrogram, on the two lists of OGM-GE (Peng et al.,
CVPR 2022), in which every test actor is a training actor, too. Ours: a tenth of the training list chooses the checkpoint
(there is no published validation split), and the learned alpha takes another tenth. Hyperparameters are in cremad_av.yaml;
each can be given on the command line, too.

    accelerate launch recipes/cremad_av.py --data_dir CREMA-D --small            # a first try: tiny ResNets, few epochs
    accelerate launch recipes/cremad_av.py --data_dir CREMA-D --seeds 5          # as published
    accelerate launch recipes/cremad_av.py --data_dir CREMA-D --split actor --fusion film --arms ce learned
    accelerate launch recipes/cremad_av.py --hub_id USER/CREMA-D                 # a mirror: columns video, audio, label
"""

from dataclasses import dataclass, field

import hf_colearn  # noqa: F401  (before transformers: the torchaudio guard)


# isort: split

from hf_colearn import CoLearningForMultimodalClassification
from hf_colearn.data.av_clips import MODALITIES, ClipOptions, resnet18
from hf_colearn.data.cremad import load_cremad
from hf_colearn.distributed import leave
from hf_colearn.gap_recipe import GapOptions, gap_arms, run_gap_recipe
from hf_colearn.options import parse_recipe
from hf_colearn.recipe import Facts, chosen_arms, quiet
from hf_colearn.small import resnet_tiny


RESNETS = {"resnet18": resnet18, "resnet_tiny": resnet_tiny}


@dataclass
class Options(ClipOptions, GapOptions):
    split: str = field(default="lists", metadata={"help": "lists (train.csv, test.csv), actor (unseen ones) or auto."})


def main() -> None:
    options, training = parse_recipe(Options, __file__)
    quiet()
    plans = chosen_arms(options, gap_arms(options, training, MODALITIES))
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

    def make_model() -> CoLearningForMultimodalClassification:
        return options.make_model(options.backbones(RESNETS), id2label=names)

    facts = Facts(
        recipe="cremad_av",
        title="Emotions, seen and heard",
        pipeline_tag="video-classification",
        dataset_name=f"CREMA-D ({options.hub_id or f'split by {options.split}'})",
        dataset_type="crema-d",
        teacher="none",
        pairing="the two tracks of a clip",
        language="en",
    )
    run_gap_recipe(
        options, training, facts=facts, plans=plans, data=options.inputs(raw, processor), make_model=make_model,
        collators=dict.fromkeys(MODALITIES), processors={"video": processor}, metrics=("accuracy", "map"),
    )  # fmt: skip
    leave()


if __name__ == "__main__":
    main()
