"""Class vectors of a graph: pictures of emoji, few labels a class, and what WordNet or a table of concepts says of the classes.

The student is a small network on frozen features of pictures. Its head is an ordinary one, or cosines to class vectors: path
similarities in WordNet, eigenvectors of the graph above the classes, answers to questions about them; or a second head learns
the answers as soft targets. Beside each stands the same with the vectors of other classes, and beside all of them vectors
that say nothing. Two tasks hold some classes out. In the one (--task few_shot) their vectors are made of a few pictures and of
latents that are generated from text, from another class's text, or of pictures alone; in the other (--task unseen) of WordNet
or the concepts alone. Pictures are drawn from OpenMoji's font (CC BY-SA 4.0), WordNet comes with a package; nothing is
downloaded. The split is drawn with the first seed.

    python recipes/graph_classes.py --seeds 5
    python recipes/graph_classes.py --seed 0 --seeds 2 --choose true          # settings, on a validation part
    python recipes/graph_classes.py --seed 100 --seeds 10
    python recipes/graph_classes.py --task unseen --seed 100 --seeds 10
    python recipes/graph_classes.py --task few_shot --seed 100 --seeds 10
    python recipes/graph_classes.py --data_dir EMOJI --drawing twemoji --classes category
"""

from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np

from hf_colearn import CoLearningArguments, CoLearningTrainer, classification_metrics
from hf_colearn.analysis.runs import compare_runs
from hf_colearn.corpora.concepts import load_concepts
from hf_colearn.corpora.emoji import load_emoji
from hf_colearn.data.splits import few_per_class
from hf_colearn.experiments.arms import TunedArm, check_comparable, pick
from hf_colearn.experiments.graph_classes import (
    ClassKnowledge,
    LaterClassesTrainer,
    class_arms,
    encoded_emoji,
    few_shot_arms,
    read_synsets,
    shot_vectors,
    student_of,
    unseen_arms,
)
from hf_colearn.experiments.info import ExperimentInfo, folder_name
from hf_colearn.experiments.options import parse_recipe
from hf_colearn.experiments.packaged_models import PACKAGED_LANGUAGE, PACKAGED_VISION, language_teacher, vision_teacher
from hf_colearn.experiments.runner import quiet, run_recipe
from hf_colearn.experiments.settings import SettingsOptions, choose_settings, with_chosen
from hf_colearn.utils.checks import check_choice
from hf_colearn.utils.command_line import run_script


FOLDER = Path(__file__).parent
KNOWN = "WordNet 3.0 and a table of concepts"
TASKS = {
    "classes": ("what is known of the classes", KNOWN, class_arms),
    "few_shot": ("classes that come later, by few pictures and text", "MiniLM-L6, which reads names", few_shot_arms),
    "unseen": ("classes that come later, by what is known of them", KNOWN, unseen_arms),
}


@dataclass
class Options(SettingsOptions):
    task: str = field(default="classes", metadata={"help": "classes; few_shot or unseen: classes that come later."})
    classes: str = field(default="subgroup", metadata={"help": "subgroup (49) or category (8)."})
    drawing: str = field(default="noto", metadata={"help": "With --data_dir: noto or twemoji."})
    image_model: str = field(default=PACKAGED_VISION, metadata={"help": "Encoder of pictures, a package's."})
    labels_per_class: int = field(default=3, metadata={"help": "Pictures of every class to learn from."})
    new_classes: int = field(default=15, metadata={"help": "How many classes come later."})
    shots: int = field(default=1, metadata={"help": "Pictures of each of them."})
    images_per_class: int | None = field(default=None, metadata={"help": "Of training and test; all by default."})

    def __post_init__(self):
        super().__post_init__()
        check_choice("task", self.task, tuple(TASKS))


def main() -> None:
    options, training = parse_recipe(Options, __file__)
    quiet()
    options.check_settings_file(__file__)
    words, teacher, arms = TASKS[options.task]
    plans = pick(arms(), options.arms)
    file, comparison = options.settings_file(__file__), f"{options.task}, {options.classes}"
    if not options.choose:
        check_comparable(plans, options.seeds)
        plans = with_chosen(plans, file, comparison)

    seed = training.get("seed") or 0
    raw = load_emoji(options.data_dir, options.drawing, options.classes, seed=seed)
    names = raw["train"].features["label"].names
    if options.images_per_class is not None:
        raw = {split: few_per_class(part, options.images_per_class, seed) for split, part in raw.items()}
    language = language_teacher(PACKAGED_LANGUAGE, "mean")
    emoji = encoded_emoji(raw, vision_teacher(options.image_model, "pooler"), language, seed)
    metrics = classification_metrics(("accuracy", "macro_f1"))
    count = 0 if options.task == "classes" else options.new_classes
    new = np.sort(np.random.default_rng(seed).permutation(len(names))[:count])
    seen, later = emoji["train"].of(np.setdiff1d(np.arange(len(names)), new)), emoji["train"].of(new)
    data = {split: part.of(new).dataset() if count else part.dataset() for split, part in emoji.items()}
    data["train"] = seen.dataset()
    table, synsets = FOLDER / f"graph_classes_{options.classes}.csv", FOLDER / "graph_classes_synsets.csv"
    knowledge = ClassKnowledge(names, read_synsets(synsets, names), load_concepts(table), seen.names)

    def make_trainer(arm: TunedArm, args: CoLearningArguments) -> CoLearningTrainer:
        if options.task == "classes":
            head, loss = knowledge.of(arm, args.seed)
            train = few_per_class(data["train"], options.labels_per_class, args.seed, "labels")
            loss["compute_metrics"] = knowledge.metrics(metrics)
            return CoLearningTrainer(options.adapted(student_of(seen, **head)), args, train_dataset=train, **loss)
        if options.task == "unseen":
            head, vectors = knowledge.unseen(arm, args.seed)
            of_new = {"later": lambda student: vectors, "examples": later.dataset()}
        else:
            head = {"head": "prototypes", "learned_class_vectors": True, "latent_dim": 64}
            shots = later.at(few_per_class(later.dataset(), options.shots, args.seed, "labels")["row"][:].numpy())
            of_shots = partial(shot_vectors, arm=arm, seed=args.seed, seen=seen, shots=shots)
            of_new = {"later": of_shots, "examples": shots.dataset()}
        student = options.adapted(student_of(seen, **head))
        return LaterClassesTrainer(student, args, train_dataset=data["train"], compute_metrics=metrics, **of_new)

    if options.choose:
        seeds = range(seed, seed + options.seeds)
        choose_settings(plans, seeds, training, make_trainer, data["validation"], file, comparison)
        return
    source = "OpenMoji" if options.data_dir is None else f"{folder_name(options.data_dir)}, {options.drawing}"
    info = ExperimentInfo(
        recipe="graph_classes",
        title=f"Emoji: {words}",
        pipeline_tag="feature-classification",
        dataset_name=f"emoji ({source}, {options.classes}; {len(data['test'])} test pictures)",
        dataset_type="emoji",
        teacher=teacher,
        pairing="by class",
    )
    runs = run_recipe(options, training, info, plans, make_trainer, data, keeps_student=False)
    if runs and options.task == "classes":  # of the main process
        near = compare_runs(runs, "path_similarity")
        print(f"\nHow near the predicted class is to the true one in WordNet, in %:\n{near.table()}\n{near.verdict}")


if __name__ == "__main__":
    run_script(main)
