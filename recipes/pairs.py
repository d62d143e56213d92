"""Your own pairs: a student of one modality learns from another one, from any folder, table or dataset of the Hub.

The data have an input (pictures, sounds, texts, features), its partner of another modality, and labels or not; which column is
which is found out, and said. What is trained depends on the labels. Where all samples have one: a baseline, the pairs, and null
controls. Where few have one, or shall have (`--labels_per_class`): the student with the labels alone, FixMatch, wrong pairs,
and the ways to use the pairs of samples without a label. Where none has one: a student of the pairs alone, tested by retrieval.
By default the student is a small network from scratch, which trains in a minute on a laptop.

    hf-colearn train pictures/                              # metadata.csv: file_name, text and, if known, label
    hf-colearn train clips/ --labels_per_class 5            # metadata.csv: file_name, transcript, label
    hf-colearn train table.parquet --input features --other text --label target
    hf-colearn train owner/dataset --student google/vit-base-patch16-224 --seeds 3 --push_to_hub --hub_model_id me/student
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field

from transformers import PreTrainedModel

from hf_colearn import CoLearningArguments, CoLearningTrainer
from hf_colearn.corpora.pairs import load_pairs
from hf_colearn.experiments.arms import ArmPlan
from hf_colearn.experiments.info import ExperimentInfo
from hf_colearn.experiments.options import RecipeOptions, parse_recipe
from hf_colearn.experiments.pairs_arms import checked, metrics_of, pair_arms, settled, without_pushing
from hf_colearn.experiments.pairs_retrieval import Retrieval
from hf_colearn.experiments.pairs_students import outputs_of, pair_inputs, pair_student
from hf_colearn.experiments.pairs_teachers import pair_bank, pair_teacher, partner_rows
from hf_colearn.experiments.runner import quiet, run_recipe
from hf_colearn.experiments.scoring import scored_run
from hf_colearn.experiments.semi_supervised import SemiSupervised, SemiSupervisedArm
from hf_colearn.hub.publish import publish
from hf_colearn.utils.command_line import run_script
from hf_colearn.utils.distributed import rank


@dataclass
class Options(RecipeOptions):
    data_dir: str | None = field(
        default=None,
        metadata={"help": "The data, also as the first argument: a folder, a table, or owner/name of the Hub."},
    )
    input: str | None = field(
        default=None, metadata={"help": "Column that the student reads; 'features': all numbers."}
    )
    other: str | None = field(
        default=None, metadata={"help": "Column of the other modality, which the teacher reads."}
    )
    label: str | None = field(default=None, metadata={"help": "Column of labels; 'none' for pairs alone."})
    labels_per_class: list[int] | None = field(
        default=None, metadata={"help": "Hide all labels but so many of every class; several are a sweep."}
    )
    student: str | None = field(
        default=None, metadata={"help": "Hub id or folder of a pretrained backbone; tiny, from scratch, by default."}
    )
    teacher: str | None = field(
        default=None, metadata={"help": "Hub id or folder; by default what a package ships; tiny: random weights."}
    )
    problem_type: str | None = field(default=None, metadata={"help": "Of labels that are not what they seem."})
    test_share: float | None = field(default=None, metadata={"help": "Of the training data, cut off for testing."})
    max_samples: int | None = field(default=None, metadata={"help": "Training samples that are taken, at most."})
    max_length: int | None = field(default=None, metadata={"help": "Of a student's texts, in tokens."})
    pooling: str = field(default="mean", metadata={"help": "Of a teacher's tokens: mean, cls or pooler."})
    template: str = field(default="a photo of {name}", metadata={"help": "What the teacher reads of a class alone."})
    language: str | None = field(default=None, metadata={"help": "ISO 639 code of texts or speech, for the card."})
    teacher_check: bool = field(default=True, metadata={"help": "Ask first whether this teacher will help."})


def with_source(argv: Sequence[str]) -> list[str]:
    """The data may be named first, without an option."""
    return ["--data_dir", *argv] if argv and not argv[0].startswith("-") else list(argv)


def main() -> None:
    options, training = parse_recipe(Options, __file__, with_source(sys.argv[1:]))
    quiet()
    training, repo_id = without_pushing(training)  # of every run; the student is published once, with card and report
    if options.data_dir is None:
        raise ValueError("no data: name a folder, a table or a dataset first, as in `hf-colearn train pictures/`.")
    pairs = load_pairs(
        options.data_dir,
        options.input,
        options.other,
        options.label,
        problem_type=options.problem_type,
        test_share=options.test_share,
        max_samples=options.max_samples,
        seed=training.get("seed") or 0,
        skip_bad_samples=options.skip_bad_samples,
    )
    student = pair_student(pairs, options.student, options.max_length)
    encoder, teacher = pair_teacher(pairs, options.teacher, options.pooling)
    found = [*str(pairs).splitlines(), f"student:  {student.words}", f"teacher:  {teacher}"]
    if rank() == 0:
        print(*found, sep="\n")
    rows = partner_rows(pairs)
    plans = pair_arms(pairs, rows, student, options.arms, options.labels_per_class, training["alpha"], options.seeds)
    training = settled(training, pairs, plans, student.is_tiny)

    # The teacher reads every partner once, and every arm gets a new student of the same kind.
    bank = pair_bank(pairs, encoder, options.template)
    data = pair_inputs(pairs, student)

    def make_student() -> PreTrainedModel:
        return options.adapted(student.make(bank.dim, **outputs_of(pairs)))

    kwargs = {"data_collator": student.collator, "compute_metrics": metrics_of(pairs)}
    inputs = student.pooled(pairs.train, data["train"])
    semi = SemiSupervised(
        data["train"], bank, make_student, inputs, student.views, student.weak, options.optimizer_for, **kwargs
    )

    def make_trainer(plan: ArmPlan, args: CoLearningArguments) -> CoLearningTrainer:
        if isinstance(plan, SemiSupervisedArm):
            return semi.make_trainer(plan, args)
        taught = {} if plan.pairing is None else {"bank": bank, "pairing": plan.pairing}
        optimizer = {"optimizer_cls_and_kwargs": options.optimizer_for(args)}
        return CoLearningTrainer(make_student(), args, train_dataset=data["train"], **taught, **optimizer, **kwargs)

    notes = {"found": found}
    if options.teacher_check and options.check is None:
        notes["teacher_check"] = checked(pairs, semi, plans, rows, training.get("seed") or 0)
    info = ExperimentInfo(
        recipe="pairs",
        title=pairs.title,
        pipeline_tag=student.pipeline_tag,
        dataset_name=pairs.description,
        dataset_type=pairs.source.partition(":")[0],
        teacher=teacher,
        pairing=f"every sample with {pairs.partner}",
        language=options.language,
        license=options.license,
    )
    score = scored_run if pairs.problem_type else Retrieval(pairs, encoder, bank, training["latent_scaling"])
    runs = run_recipe(options, training, info, plans, make_trainer, data, student.processor, notes=notes, score=score)
    if repo_id is not None and runs:
        print(f"Published: {publish(training['output_dir'], repo_id, private=training.get('hub_private_repo')).url}")


if __name__ == "__main__":
    run_script(main)
