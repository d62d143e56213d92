"""The students, the bank and the trainers that are compared, and how their steps are timed.

Shapes: B samples of a batch, D dimensions of a latent.
"""

import tempfile
from time import perf_counter

import numpy as np
import torch
from torch.utils.data import Dataset
from transformers import PreTrainedConfig, PrinterCallback, ResNetConfig, Trainer, TrainerCallback, ViTConfig

from hf_colearn import (
    CoLearningArguments,
    CoLearningForImageClassification,
    CoLearningTrainer,
    RandomPrompt,
    TeacherBank,
)


CLASSES, IMAGES = 1000, 1_281_167  # ImageNet's
PROMPTS = RandomPrompt("This is about class {}.", CLASSES)
LATENT_DIM = 1024  # BERT-large's
WARMUP = 2  # steps of a turn that are not timed


def vit_small() -> ViTConfig:
    """ViT-S/16 at 224 pixels."""
    return ViTConfig(hidden_size=384, num_hidden_layers=12, num_attention_heads=6, intermediate_size=1536)


def vit_tiny() -> ViTConfig:
    """For `--quick`."""
    size = {"image_size": 32, "patch_size": 8}
    return ViTConfig(hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64, **size)


def resnet50() -> ResNetConfig:
    """ResNet-50 is what the configuration's defaults describe."""
    return ResNetConfig()


def make_student(backbone: PreTrainedConfig, latent_dim: int, batch_size: int, device: str = "cpu"):
    """A student of always the same weights, that sees always the same images: they lie on its device already.

    So no time goes into reading images, and what co-learning adds weighs as much as it ever can.
    """
    torch.manual_seed(0)
    norm = "none" if isinstance(backbone, ResNetConfig) else "layernorm"  # the heads as published
    student = CoLearningForImageClassification.from_backbone(
        backbone, latent_dim=latent_dim, num_labels=CLASSES, latent_norm=norm
    )
    side = getattr(backbone, "image_size", 224)
    images = torch.randn(batch_size, 3, side, side, device=device)

    def give_images(module, args, kwargs):
        return args, {**kwargs, "pixel_values": images[: len(kwargs["labels"])]}

    student.register_forward_pre_hook(give_images, with_kwargs=True)
    return student


class Samples(Dataset):
    """As many as ImageNet has: a label and an id each."""

    def __len__(self):
        return IMAGES

    def __getitem__(self, index):
        return {"labels": index % CLASSES, "sample_id": index}


def make_bank(latent_dim: int = LATENT_DIM) -> TeacherBank:
    """Random latents of the prompts; what they hold does not change the time."""
    latents_ND = np.random.default_rng(0).normal(size=(CLASSES, latent_dim)).astype(np.float32)
    return TeacherBank.from_latents(latents_ND, inputs=PROMPTS.prompts)


def make_arguments(batch_size: int, timed_steps: int, **kwargs) -> CoLearningArguments:
    """The same for both trainers; on the CPU, without workers, unless `kwargs` say otherwise."""
    defaults = {
        "output_dir": tempfile.gettempdir(),  # nothing is saved
        "per_device_train_batch_size": batch_size,
        "max_steps": WARMUP + timed_steps,
        "learning_rate": 1e-4,
        "lr_scheduler_type": "constant",
        "logging_steps": 2,
        "save_strategy": "no",
        "disable_tqdm": True,
        "use_cpu": True,
    }
    return CoLearningArguments(**{**defaults, **kwargs})


def plain_trainer(student, args: CoLearningArguments) -> Trainer:
    """transformers' own."""
    return Trainer(model=student, args=args, train_dataset=Samples())


def colearning_trainer(student, args: CoLearningArguments, bank: TeacherBank, pairing=PROMPTS) -> CoLearningTrainer:
    """Ours."""
    return CoLearningTrainer(model=student, args=args, train_dataset=Samples(), bank=bank, pairing=pairing)


class Turn(TrainerCallback):
    """A few steps of a trainer's own `train()` at a time.

    A step is everything from one optimizer step to the next: the next batch with its targets, forward and backward pass,
    clipping, the optimizer, the callbacks and, every second step, the log. What `train()` does before its first steps
    is not timed. All turns run in one thread: two identical trainers in threads of their own differed by up to 8 %, by
    the memory arenas that the threads were given.

    Args:
        trainer ([`Trainer`]): With `max_steps` of its arguments as the steps of a turn, `WARMUP` included.
    """

    def __init__(self, trainer: Trainer):
        self.trainer = trainer
        self._ends: list[float] = []
        trainer.remove_callback(PrinterCallback)
        trainer.add_callback(self)

    def on_step_end(self, args, state, control, **kwargs):
        if args.device.type == "cuda" and state.global_step in (WARMUP, args.max_steps):
            torch.cuda.synchronize()  # the timed steps begin and end with the GPU, and wait for it as training does
        self._ends.append(perf_counter())

    def __call__(self) -> float:
        """Trains for one turn; the mean seconds of a step."""
        self._ends.clear()
        self.trainer.train()
        return (self._ends[-1] - self._ends[WARMUP - 1]) / (len(self._ends) - WARMUP)
