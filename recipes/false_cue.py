"""Does the other modality correct a false cue? Handwritten and spoken digits, where a patch in the image says the class.

In training, the patch's place at the image's border says the right digit 19 times in 20; so it does in validation, as for
somebody who does not know of it, and in the ordinary test split. Every model is then scored on the same test samples without
the patch (`cue_removed`) and with one that says another digit, always (`cue_flipped`). The sound has no cue: what it says
is what could correct the image.

    accelerate launch recipes/false_cue.py --small                      # a smoke test: DTMF digits
    accelerate launch recipes/false_cue.py --audio_dir FSDD --seeds 5
    accelerate launch recipes/false_cue.py --audio_dir FSDD --arms ce learned "image alone" --cue_strength 0.8
"""

from dataclasses import dataclass, field
from pathlib import Path

from hf_colearn import CoLearningArguments, CoLearningTrainer
from hf_colearn.analysis.runs import Run, compare_runs
from hf_colearn.analysis.statistics.across_tests import tests_in_words, tests_table
from hf_colearn.corpora.image_audio import AVDigitsOptions, av_processors, with_av_inputs
from hf_colearn.data.false_cue import CUE_LABEL, PatchCue, spurious_splits
from hf_colearn.experiments.arms import ArmPlan, chosen_arms
from hf_colearn.experiments.info import ExperimentInfo, named_data
from hf_colearn.experiments.multimodal import MultimodalOptions, multimodal_arms, multimodal_trainer
from hf_colearn.experiments.options import parse_recipe
from hf_colearn.experiments.runner import quiet, run_recipe
from hf_colearn.experiments.tiny_models import resnet_tiny
from hf_colearn.utils.command_line import run_script


MODALITIES = ("image", "audio")
# The test set whose labels are what the flipped cue says: being right there is to follow it.
FOLLOWED = "cue_followed"


@dataclass
class Options(AVDigitsOptions, MultimodalOptions):
    cue_strength: float = field(default=0.95, metadata={"help": "How often the cue says the class, above 0, up to 1."})
    patch_size: int = field(default=4, metadata={"help": "The patch's side, in pixels of images of 28 x 28."})


def main() -> None:
    options, training = parse_recipe(Options, __file__)
    quiet()
    plans = chosen_arms(options, multimodal_arms(options, training, MODALITIES))
    raw = options.load(options.small, options.skip_bad_samples)
    raw = spurious_splits(raw, "image", PatchCue(options.patch_size), options.cue_strength)
    raw[FOLLOWED] = raw["cue_flipped"].remove_columns("label").rename_column(CUE_LABEL, "label")
    processors = av_processors(options.spectrogram_size)
    data = with_av_inputs(raw, processors)
    more_tests = {name: data.pop(name) for name in ("cue_removed", "cue_flipped", FOLLOWED)}

    def make_trainer(arm: ArmPlan, args: CoLearningArguments) -> CoLearningTrainer:
        backbones = {modality: resnet_tiny(num_channels=1) for modality in MODALITIES}
        model = options.make_model(backbones, id2label={digit: str(digit) for digit in range(10)})
        return multimodal_trainer(options, arm, args, model, data, dict.fromkeys(MODALITIES), ("accuracy", "map"))

    info = ExperimentInfo(
        recipe="false_cue",
        title="Digits, handwritten and spoken, with a false cue in the image",
        pipeline_tag="image-classification",
        **named_data("AV-digits", raw, "pairs", f"handwritten, with a patch, and {options.sound}"),
        pairing="by class, at random within a split",
    )
    runs = run_recipe(
        options, training, info, plans, make_trainer, data, processors,
        more_tests=more_tests, notes={"shares": [FOLLOWED]},
    )  # fmt: skip
    if runs:  # on the main process
        path = Path(training["output_dir"]) / "false_cue.md"
        path.write_text(seen(runs))
        print(f"  {path}", "", path.read_text(), sep="\n")


def seen(runs: list[Run]) -> str:
    """The arms on the three test sets, how often they follow the cue, and what the co-learned ones gain."""
    metrics = {"test": "accuracy", "cue removed": "accuracy_on_cue_removed", "cue flipped": "accuracy_on_cue_flipped"}
    on = {name: compare_runs(runs, metric, source="pairing") for name, metric in metrics.items()}
    follows = {"follows the flipped cue": compare_runs(runs, f"accuracy_on_{FOLLOWED}")}
    parts = [f"Accuracy in percent:\n\n{tests_table(on | follows)}\n", f"{tests_in_words(on)}\n"]
    for name, comparison in list(on.items())[1:]:
        if comparison.verdict:
            parts.append(f"With the {name}, against the label loss alone:\n{comparison.verdict}\n")
    return "\n".join(parts)


if __name__ == "__main__":
    run_script(main)
