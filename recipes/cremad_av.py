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
from hf_colearn.corpora.audio_visual import MODALITIES, ClipOptions, resnet18
from hf_colearn.corpora.cremad import load_cremad
from hf_colearn.experiments.multimodal import MultimodalOptions, multimodal_arms, run_multimodal_recipe
from hf_colearn.experiments.options import parse_recipe
from hf_colearn.experiments.recipe import ExperimentInfo, chosen_arms, quiet
from hf_colearn.experiments.tiny_models import resnet_tiny
from hf_colearn.utils.distributed import destroy_process_group


RESNETS = {"resnet18": resnet18, "resnet_tiny": resnet_tiny}


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

    def make_model() -> CoLearningForMultimodalClassification:
        return options.make_model(options.backbones(RESNETS), id2label=names)

    facts = ExperimentInfo(
        recipe="cremad_av",
        title="Emotions, seen and heard",
        pipeline_tag="video-classification",
        dataset_name=f"CREMA-D ({options.hub_id or f'split by {options.split}'})",
        dataset_type="crema-d",
        teacher="none",
        pairing="the two tracks of a clip",
        language="en",
    )
    run_multimodal_recipe(
        options, training, facts=facts, plans=plans, data=options.inputs(raw, processor), make_model=make_model,
        collators=dict.fromkeys(MODALITIES), processors={"video": processor}, metrics=("accuracy", "map"),
    )  # fmt: skip
    destroy_process_group()


if __name__ == "__main__":
    main()
