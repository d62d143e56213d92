"""VGGSound, 309 classes whose source is seen and heard: two ResNet-18 with the label loss and a contrastive loss, mixed by a
constant, heuristic, fitted or learned alpha (Yang et al., NeurIPS 2024).

Published: the spectrogram, in the released code of OGM-GE (Peng et al., CVPR 2022): five seconds at 16 kHz, from a random
start in training (there in testing, too; here the first five). The networks and the optimizer are those of CREMA-D
(cremad_av.py). Ours: three frames, batches of 64, 60 epochs with a step after 40, and a twentieth of the training clips
that chooses the checkpoint. Hyperparameters are in vggsound_av.yaml; each can be given on the command line, too.

    accelerate launch recipes/vggsound_av.py --data_dir VGGSOUND --small     # a first try: tiny ResNets, one epoch
    accelerate launch recipes/vggsound_av.py --data_dir VGGSOUND --skip_bad_samples
    accelerate launch recipes/vggsound_av.py --hub_id USER/VGGSOUND          # a mirror: columns video, audio, label
"""

from dataclasses import dataclass

import hf_colearn  # noqa: F401  (before transformers: the torchaudio guard)


# isort: split

from hf_colearn import CoLearningForMultimodalClassification
from hf_colearn.corpora.audio_visual import MODALITIES, ClipOptions, resnet18
from hf_colearn.corpora.vggsound import load_vggsound
from hf_colearn.experiments.multimodal import MultimodalOptions, multimodal_arms, run_multimodal_recipe
from hf_colearn.experiments.options import parse_recipe
from hf_colearn.experiments.recipe import ExperimentInfo, chosen_arms, quiet
from hf_colearn.experiments.tiny_models import resnet_tiny
from hf_colearn.utils.distributed import destroy_process_group


RESNETS = {"resnet18": resnet18, "resnet_tiny": resnet_tiny}


@dataclass
class Options(ClipOptions, MultimodalOptions):
    pass


def main() -> None:
    options, training = parse_recipe(Options, __file__)
    quiet()
    plans = chosen_arms(options, multimodal_arms(options, training, MODALITIES))
    options.needs_data(options.data_dir, "VGGSound's folder, with vggsound.csv and the videos")
    processor = options.processor(RESNETS)
    raw = load_vggsound(
        options.data_dir,
        options.hub_id,
        skip_bad_samples=options.skip_bad_samples,
        min_frames=options.frames,
    )
    names = dict(enumerate(raw["train"].features["label"].names))

    def make_model() -> CoLearningForMultimodalClassification:
        return options.make_model(options.backbones(RESNETS), id2label=names)

    facts = ExperimentInfo(
        recipe="vggsound_av",
        title="Sounds and their sources",
        pipeline_tag="video-classification",
        dataset_name=f"VGGSound ({options.hub_id or f'{len(names)} classes'})",
        dataset_type="vggsound",
        teacher="none",
        pairing="the two tracks of a clip",
    )
    run_multimodal_recipe(
        options, training, facts=facts, plans=plans, data=options.inputs(raw, processor), make_model=make_model,
        collators=dict.fromkeys(MODALITIES), processors={"video": processor}, metrics=("accuracy", "map"),
    )  # fmt: skip
    destroy_process_group()


if __name__ == "__main__":
    main()
