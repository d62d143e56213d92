"""NVGesture, 25 gestures in colour, flow and depth: three video networks with the label loss and a contrastive loss over the
three pairs, mixed by a constant, heuristic, fitted or learned alpha (Yang et al., NeurIPS 2024).

Published: I3D (Carreira & Zisserman, CVPR 2017) on 64 frames of each, SGD, batches of 6. transformers has no I3D, so each
modality gets a VideoMAE of 22 M weights instead (Tong et al., NeurIPS 2022): by default from scratch, with 3, 2 and 1 input
channels, which I3D's convolutions suit better than a transformer; expect numbers below the published ones. With
`--video_backbone ID` colour and depth (its gray three times) start from a pretrained checkpoint, and flow, which has two
channels, from random weights of the same architecture. Ours, too: the crops, and a tenth of the training clips that chooses
the checkpoint. Hyperparameters are in nvgesture.yaml; each can be given on the command line, too.

Write the flow once before, or it is computed at every reading: see `write_flow` in hf_colearn.data.flow.

    accelerate launch recipes/nvgesture.py --data_dir nvGesture_v1 --small       # a smoke test: tiny networks, eight frames
    accelerate launch recipes/nvgesture.py --data_dir nvGesture_v1 --seeds 5
    accelerate launch recipes/nvgesture.py --data_dir nvGesture_v1 --video_backbone MCG-NJU/videomae-base-finetuned-kinetics
"""

from dataclasses import dataclass, field

from datasets import Dataset
from transformers import AutoConfig, VideoMAEConfig
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

from hf_colearn import CoLearningArguments, CoLearningForMultimodalClassification, CoLearningTrainer
from hf_colearn.corpora.audio_visual import frame_processor
from hf_colearn.corpora.nvgesture import load_nvgesture
from hf_colearn.data.flow import with_flow
from hf_colearn.data.video import with_frames
from hf_colearn.experiments.arms import ArmPlan, chosen_arms
from hf_colearn.experiments.info import ExperimentInfo, named_data
from hf_colearn.experiments.multimodal import MultimodalOptions, multimodal_arms, multimodal_trainer
from hf_colearn.experiments.options import parse_recipe
from hf_colearn.experiments.runner import quiet, run_recipe
from hf_colearn.utils.command_line import run_script


CHANNELS = {"rgb": 3, "flow": 2, "depth": 1}
VIDEOMAES = {
    "videomae_small": {"hidden_size": 384, "num_attention_heads": 6, "intermediate_size": 1536},
    "videomae_tiny": {
        "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64, "patch_size": 8
    },
}  # fmt: skip


@dataclass
class Options(MultimodalOptions):
    video_backbone: str = field(
        default="videomae_small", metadata={"help": "videomae_small, videomae_tiny, or an id."}
    )
    frames: int = field(default=64, metadata={"help": "Frames, and flow fields, of a clip, evenly spread over it."})
    image_size: int = field(default=224, metadata={"help": "Pixels of a frame's side."})
    min_crop: float = field(default=0.5, metadata={"help": "Least share of a frame's area in a training crop."})


def main() -> None:
    options, training = parse_recipe(Options, __file__)
    quiet()
    plans = chosen_arms(options, multimodal_arms(options, training, list(CHANNELS)))
    if options.data_dir is None:
        raise ValueError("no data: pass --data_dir (the unpacked nvGesture_v1, with its lists and Video_data).")
    checkpoint = None if options.video_backbone in VIDEOMAES else options.video_backbone
    processors = {"rgb": frame_processor(options.image_size, checkpoint)}
    size = processors["rgb"].size
    grayscale = ViTImageProcessorPil(size=size, image_mean=[0.5], image_std=[0.5])
    processors["depth"] = grayscale if checkpoint is None else processors["rgb"]
    raw = load_nvgesture(
        options.data_dir,
        skip_bad_samples=options.skip_bad_samples,
        min_frames=options.frames,
    )

    def prepare(part: Dataset, train: bool) -> Dataset:
        crop = {"train": train, "scale": (options.min_crop, 1.0), "hflip": False}  # a mirror makes another gesture
        for name, processor in processors.items():
            part = with_frames(part, processor, options.frames, name, f"{name}_pixel_values", **crop)
        return with_flow(part, options.image_size, options.frames, train=train)

    data = {split: prepare(part, split == "train") for split, part in raw.items()}

    def make_model() -> CoLearningForMultimodalClassification:
        names = dict(enumerate(raw["train"].features["label"].names))
        shape = {"num_frames": options.frames, "image_size": options.image_size}
        if checkpoint is None:
            made = VIDEOMAES[options.video_backbone]
            backbones = {name: VideoMAEConfig(**made, **shape, num_channels=c) for name, c in CHANNELS.items()}
            return options.make_model(backbones, id2label=names)
        flow = AutoConfig.from_pretrained(checkpoint, **shape, num_channels=CHANNELS["flow"])
        backbones = {"rgb": checkpoint, "flow": flow, "depth": checkpoint}
        return options.make_model(backbones, id2label=names, backbone_kwargs={"rgb": shape, "depth": shape})

    def make_trainer(arm: ArmPlan, args: CoLearningArguments) -> CoLearningTrainer:
        collators = dict.fromkeys(CHANNELS)
        return multimodal_trainer(options, arm, args, make_model(), data, collators, ("accuracy", "macro_f1"))

    info = ExperimentInfo(
        recipe="nvgesture",
        title="Gestures in colour, flow and depth",
        pipeline_tag="video-classification",
        **named_data("NVGesture", raw, "recordings"),
        pairing="three recordings of a gesture",
    )
    run_recipe(options, training, info, plans, make_trainer, data, processors)


if __name__ == "__main__":
    run_script(main)
