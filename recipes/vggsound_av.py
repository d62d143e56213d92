"""VGGSound, 309 classes whose source is seen and heard: two ResNet-18 with the label loss and a contrastive loss, mixed by a
constant, heuristic, fitted or learned alpha (Yang et al., NeurIPS 2024).

Published: the spectrogram, in the released code of OGM-GE (Peng et al., CVPR 2022): five seconds at 16 kHz, from a random
start in training (there in testing, too; here the first five). The networks and the optimizer are those of CREMA-D
(cremad_av.py). Ours: three frames, batches of 64, 60 epochs with a step after 40, and a twentieth of the training clips
that chooses the checkpoint. Hyperparameters are in vggsound_av.yaml; each can be given on the command line, too.

    accelerate launch recipes/vggsound_av.py --data_dir VGGSOUND --small     # a smoke test: tiny ResNets, one epoch
    accelerate launch recipes/vggsound_av.py --data_dir VGGSOUND --skip_bad_samples
    accelerate launch recipes/vggsound_av.py --hub_id USER/VGGSOUND          # a mirror: columns video, audio, label
"""

from dataclasses import dataclass

from hf_colearn import CoLearningArguments, CoLearningTrainer
from hf_colearn.corpora.audio_visual import MODALITIES, ClipOptions
from hf_colearn.corpora.vggsound import load_vggsound
from hf_colearn.experiments.arms import ArmPlan, chosen_arms
from hf_colearn.experiments.info import ExperimentInfo, named_data
from hf_colearn.experiments.multimodal import MultimodalOptions, multimodal_arms, multimodal_trainer
from hf_colearn.experiments.options import parse_recipe
from hf_colearn.experiments.runner import quiet, run_recipe
from hf_colearn.experiments.tiny_models import RESNETS
from hf_colearn.utils.command_line import run_script


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
    data = options.inputs(raw, processor)

    def make_trainer(arm: ArmPlan, args: CoLearningArguments) -> CoLearningTrainer:
        model = options.make_model(options.backbones(RESNETS), id2label=names)
        collators = dict.fromkeys(MODALITIES)
        return multimodal_trainer(options, arm, args, model, data, collators, ("accuracy", "map"))

    info = ExperimentInfo(
        recipe="vggsound_av",
        title="Sounds and their sources",
        pipeline_tag="video-classification",
        **named_data("VGGSound", raw, "clips", hub_id=options.hub_id),
        pairing="the two tracks of a clip",
    )
    run_recipe(options, training, info, plans, make_trainer, data, {"video": processor})


if __name__ == "__main__":
    run_script(main)
