"""A modality is missing: at test, and in most training samples; and training with two modalities to test with one.

Small networks on features of two modalities: handwritten and spoken digits, paired by class, or pictures and speech of Tux
Paint's stamps. A share of the training samples is complete, the others lack one of the two. What is missing is left out,
trained for by modality dropout, or imputed from the other modality by centroids of the complete samples' latents. With
`--only`, all samples are complete, and one modality is there at test. Settings are chosen on validation at the smallest share
and confirmed on other seeds.

    python recipes/missing_modality.py --small                                            # a smoke test: DTMF for speech
    python recipes/missing_modality.py --audio_dir FSDD --choose true --seed 0 --seeds 2  # into missing_modality_settings.yaml
    python recipes/missing_modality.py --audio_dir FSDD --seed 100 --seeds 10
    python recipes/missing_modality.py --data stamps --data_dir STAMPS --seed 100 --seeds 10
    python recipes/missing_modality.py --audio_dir FSDD --only audio --seed 100 --seeds 10
"""

from dataclasses import dataclass
from typing import Any

from hf_colearn import CoLearningArguments, CoLearningTrainer, ConstantAlpha, LatentImputation
from hf_colearn.analysis.runs import means_table
from hf_colearn.data.multimodal import only_modality
from hf_colearn.experiments.arms import check_comparable, pick
from hf_colearn.experiments.info import ExperimentInfo
from hf_colearn.experiments.late_ensemble import LateEnsembleTrainer
from hf_colearn.experiments.missing_modality import (
    AT_TEST,
    MAIN,
    MissingArm,
    MissingMetrics,
    MissingOptions,
    missing_arms,
    one_at_test_arms,
    scored_with_imputation,
    those_with,
    with_noise,
    with_share_complete,
)
from hf_colearn.experiments.options import parse_recipe
from hf_colearn.experiments.runner import quiet, run_recipe
from hf_colearn.experiments.settings import choose_settings, with_chosen
from hf_colearn.utils.command_line import run_script
from hf_colearn.utils.tables import text_table


@dataclass
class Options(MissingOptions):
    pass


def main() -> None:
    options, training = parse_recipe(Options, __file__, by="data")
    quiet()
    options.check_settings_file(__file__)
    arms = missing_arms(options) if options.only is None else one_at_test_arms(options.only)
    plans = pick(arms, options.arms)
    if not options.choose:
        check_comparable(plans, options.seeds)
    data, of_models = options.load()
    metrics = MissingMetrics.of(options.only)

    def make_trainer(arm: MissingArm, args: CoLearningArguments) -> CoLearningTrainer:
        train = data.inputs["train"]
        if arm.sweep is not None:
            train = with_share_complete(train, data.modalities, arm.sweep[1] / 100, args.seed)
        if arm.noise:
            train = with_noise(train, next(name for name in data.modalities if name != options.only), args.seed)
        model = data.make_model(of_models, **arm.model())
        shared: dict[str, Any] = {"compute_metrics": metrics, "callbacks": arm.callbacks()}

        def alone(modality: str, args: CoLearningArguments) -> CoLearningTrainer:
            own, test = those_with(train, modality, data.modalities), data.inputs["validation"]
            splits = {"train_dataset": only_modality(own, modality), "eval_dataset": only_modality(test, modality)}
            return CoLearningTrainer(model.student(modality), args, **splits, **shared)

        if arm.modality is not None:
            return alone(arm.modality, args)
        whole = {"train_dataset": train, "eval_dataset": data.inputs["validation"], **shared}
        if arm.late_ensemble:
            return LateEnsembleTrainer(model, args, alone, **arm.ensemble_options, **whole)
        if arm.centroids:
            whole |= {
                "objective": LatentImputation(),
                "alpha": ConstantAlpha(arm.setting["alpha"], "imputation"),
            }
        return CoLearningTrainer(model, args, **whole)

    file, first = options.settings_file(__file__), training.get("seed") or 0
    if options.choose:
        seeds = range(first, first + options.seeds)
        metric = MAIN if options.only is None else AT_TEST
        choose_settings(plans, seeds, training, make_trainer, None, file, options.comparison, metric)
        return
    plans = with_chosen(plans, file, options.comparison)
    title = "A missing modality" if options.only is None else f"Two modalities in training, {options.only} at test"
    info = ExperimentInfo(recipe="missing_modality", title=title, **data.info)
    runs = run_recipe(
        options,
        training,
        info,
        plans,
        make_trainer,
        data.inputs,
        keeps_student=False,
        groups=data.groups,
        score=scored_with_imputation,
    )
    if runs:  # of the main process
        names = {MAIN: "one missing", AT_TEST: f"{options.only} at test", "accuracy": "both"}
        names |= {f"accuracy_given_{name}": f"given {name}" for name in data.modalities}
        names |= {f"imputation_mse_{name}": f"error of {name}" for name in data.modalities}
        known = {name: shown for name, shown in names.items() if any(name in run.metrics for run in runs)}
        print(f"\n{text_table(means_table(runs, known))}")


if __name__ == "__main__":
    run_script(main)
