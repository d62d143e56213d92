"""Methods of modality balance against the label loss, each modality alone, their late ensemble, and null controls.

Data are handwritten and spoken digits, Tux Paint's stamps on frozen features, CREMA-D, Kinetics-Sounds, or the precomputed
features of any data set. Settings of all arms, the baseline and the references among them, are chosen on validation by the same
small budget, and confirmed on other seeds.

    python recipes/balance.py --small                                          # a smoke test: handwritten and DTMF digits
    python recipes/balance.py --audio_dir FSDD --choose --seed 0 --seeds 2     # into balance_settings.yaml
    python recipes/balance.py --audio_dir FSDD --seed 100 --seeds 10           # confirms them, all methods
    python recipes/balance.py --data stamps --data_dir STAMPS --seeds 10
    python recipes/balance.py --audio_dir FSDD --seeds 5 --methods ogm agm mla --fusions concat film
    python recipes/balance.py --data cremad --data_dir CREMA-D --seeds 5       # the protocol of Yang et al. (NeurIPS 2024)
    python recipes/balance.py --features FOLDER --seeds 10                     # train.npz, test.npz: {modality}, label
"""

from dataclasses import dataclass

from hf_colearn import CoLearningArguments, CoLearningTrainer
from hf_colearn.experiments.arms import check_comparable, pick
from hf_colearn.experiments.balance import BalanceArm, balance_arms, epochs_of
from hf_colearn.experiments.balance_data import BalanceOptions, load_balance_data
from hf_colearn.experiments.balance_table import BalanceTable
from hf_colearn.experiments.cost import StepCost
from hf_colearn.experiments.multimodal import multimodal_trainer
from hf_colearn.experiments.options import parse_recipe
from hf_colearn.experiments.runner import quiet, run_recipe
from hf_colearn.experiments.settings import choose_settings, with_chosen
from hf_colearn.utils.command_line import run_script


@dataclass
class Options(BalanceOptions):
    pass


def main() -> None:
    options, training = parse_recipe(Options, __file__, by="data")
    quiet()
    options.check_settings_file(__file__)
    data = load_balance_data(options)
    epochs = epochs_of(training, len(data.inputs["train"]))
    arms, notes = balance_arms(options.methods, data.modalities, options.fusions, epochs)
    plans = pick(arms, options.arms)

    def make_trainer(arm: BalanceArm, args: CoLearningArguments) -> CoLearningTrainer:
        model = data.make_model(options, **arm.model)
        collators = dict.fromkeys(data.modalities)
        return multimodal_trainer(
            options, arm, args, model, data.inputs, collators, ("accuracy",), arm.balance(), lambda: [StepCost()]
        )

    file, first = options.settings_file(__file__), training.get("seed") or 0
    if options.choose:
        seeds = range(first, first + options.seeds)
        choose_settings(plans, seeds, training, make_trainer, None, file, options.comparison)
        return
    check_comparable(plans, options.seeds)
    plans = with_chosen(plans, file, options.comparison)
    info = data.experiment("balance")
    runs = run_recipe(
        options,
        training,
        info,
        plans,
        make_trainer,
        data.inputs,
        data.processor,
        keeps_student=False,
        groups=data.groups,
        notes={"balance": notes},
    )
    if runs:  # of the main process
        table = BalanceTable(plans, runs, notes)
        title = f"{info.title}: {info.dataset_name}"
        print(f"\n{title}\n\n{table.text()}\n", *table.write(training["output_dir"], title), sep="\n  ")


if __name__ == "__main__":
    run_script(main)
