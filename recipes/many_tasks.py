"""One trunk for many tasks: does a model that learns pictures, tables, names and sounds at once learn each better?

Every task is small and has few labels: handwritten digits and pictures of emoji as patches, the names of emoji as a language
model reads them, wines and tumours as tables; with a folder of spoken digits their spectrograms, with one of Tux Paint's
stamps pictures and sentences together. A stem a modality makes tokens of them, one transformer trunk reads all, and every
task has a head (after HighMMT, Liang et al., TMLR 2023). Beside it stand a model of the same size for every task, and a trunk
whose other tasks have permuted labels. All have as many updates a task. Settings are chosen on a validation part.

    python recipes/many_tasks.py --seeds 5
    python recipes/many_tasks.py --audio_dir FSDD --data_dir STAMPS --seeds 5
    python recipes/many_tasks.py --seed 0 --seeds 2 --choose true
"""

from dataclasses import dataclass, field

from hf_colearn import UnpairedBatches
from hf_colearn.experiments.arms import check_comparable, pick
from hf_colearn.experiments.info import ExperimentInfo
from hf_colearn.experiments.many_tasks import (
    OF_FOLDERS,
    PACKAGED,
    ManyTasks,
    many_tasks_arms,
    table_by_task,
    tasks_run,
)
from hf_colearn.experiments.options import parse_recipe
from hf_colearn.experiments.runner import quiet, run_recipe
from hf_colearn.experiments.settings import SettingsOptions, choose_settings, with_chosen
from hf_colearn.experiments.tiny_models import trunk_tiny
from hf_colearn.utils.command_line import run_script


@dataclass
class Options(SettingsOptions):
    audio_dir: str | None = field(default=None, metadata={"help": "A folder of spoken digits (FSDD): one more task."})
    tasks: list[str] = field(
        default_factory=lambda: list(PACKAGED), metadata={"help": f"Of packages: some of {', '.join(PACKAGED)}."}
    )
    labels_per_class: int = field(default=10, metadata={"help": "Samples of every class that are trained on."})
    hidden_size: int = field(default=64, metadata={"help": "Width of the trunk."})
    num_layers: int = field(default=2, metadata={"help": "Layers of the trunk."})
    latent_dim: int = field(default=32, metadata={"help": "Width of every task's latent."})


def main() -> None:
    options, training = parse_recipe(Options, __file__)
    quiet()
    options.check_settings_file(__file__)
    plans, seed = pick(many_tasks_arms(), options.arms), training.get("seed") or 0
    if unknown := [name for name in options.tasks if name not in PACKAGED]:
        raise ValueError(f"there is no task '{unknown[0]}' in packages: choose among {', '.join(PACKAGED)}.")
    tasks = {name: PACKAGED[name]() for name in options.tasks}
    folders = {"speech": options.audio_dir, "stamps": options.data_dir}
    tasks |= {name: OF_FOLDERS[name](folder) for name, folder in folders.items() if folder is not None}
    trunk = trunk_tiny(options.hidden_size, options.num_layers)
    many = ManyTasks(tasks, trunk, options.latent_dim, options.labels_per_class, seed)
    comparison, file = ", ".join(tasks), options.settings_file(__file__)
    if options.choose:
        seeds = range(seed, seed + options.seeds)
        choose_settings(plans, seeds, training, many.make_trainer, many.validation, file, comparison)
        return
    check_comparable(plans, options.seeds)
    info = ExperimentInfo(
        recipe="many_tasks",
        title=f"{len(tasks)} tasks through one trunk, few labels each",
        pipeline_tag="many-tasks",
        dataset_name=f"small tasks: {comparison}",
        dataset_type="many-tasks",
        pairing="none: no sample of one task belongs to one of another",
    )
    parts = {"train": many.train, "validation": many.validation, "test": many.test}
    data = {split: UnpairedBatches(part) for split, part in parts.items()}
    plans = with_chosen(plans, file, comparison)
    if runs := run_recipe(options, training, info, plans, many.make_trainer, data, score=tasks_run):
        print(f"\naccuracy in %\n{table_by_task(runs)}")


if __name__ == "__main__":
    run_script(main)
