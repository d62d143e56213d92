"""Does any alpha make a weak modality better than it is when trained alone? Tux Paint's stamps, on frozen features.

Every stamp is a picture, an English sentence and a spoken French one. EfficientNet-Lite0 sees the pictures and MiniLM reads the
sentences, both frozen; of the speech there are the mean and the deviation of every mel band: the weak modality. Small
networks on these features learn from the label loss and a contrastive loss between the three, weighed by constant and learned
alphas. Beside them stand each modality alone, trained as long, and the late ensemble.

    python recipes/weak_modality.py --data_dir /usr/share/tuxpaint/stamps --seeds 20
    python recipes/weak_modality.py --data_dir STAMPS --seeds 20 --labels_per_class 5     # the others are pairs without a label
"""

from dataclasses import dataclass, field

from hf_colearn import CoLearningArguments, CoLearningTrainer, FeatureBackboneConfig
from hf_colearn.corpora.stamps import load_stamps, needs_stamps
from hf_colearn.data.splits import hide_labels
from hf_colearn.experiments.arms import ArmPlan, chosen_arms
from hf_colearn.experiments.frozen_features import stamp_features
from hf_colearn.experiments.info import ExperimentInfo, named_data
from hf_colearn.experiments.multimodal import MultimodalOptions, multimodal_arms, multimodal_trainer
from hf_colearn.experiments.options import parse_recipe
from hf_colearn.experiments.runner import quiet, run_recipe
from hf_colearn.utils.command_line import run_script


MODALITIES = ("image", "text", "speech")


@dataclass
class Options(MultimodalOptions):
    labels_per_class: int | None = field(
        default=None, metadata={"help": "Labels of every category, drawn by the seed; the rest are pairs without one."}
    )
    hidden_dim: int = field(default=64, metadata={"help": "Width of the hidden layer on the features."})
    seconds: float = field(default=3.0, metadata={"help": "Of speech; longer recordings lose their end."})


def main() -> None:
    options, training = parse_recipe(Options, __file__)
    quiet()
    plans = chosen_arms(options, multimodal_arms(options, training, MODALITIES))
    needs_stamps(options.data_dir)
    raw = load_stamps(options.data_dir)
    names = dict(enumerate(raw["train"].features["label"].names))
    data = stamp_features(raw, options.seconds)
    train = {name: data["train"][f"{name}_features"][:] for name in MODALITIES}

    def make_trainer(arm: ArmPlan, args: CoLearningArguments) -> CoLearningTrainer:
        backbones = {
            name: FeatureBackboneConfig(features_NF.shape[1], [options.hidden_dim], standardized=True)
            for name, features_NF in train.items()
        }
        model = options.make_model(backbones, id2label=names)
        for name, features_NF in train.items():
            model.encoders[name].backbone.set_statistics(features_NF)
        seen = data
        if options.labels_per_class is not None:
            seen = {**data, "train": hide_labels(data["train"], options.labels_per_class, args.seed)}
        return multimodal_trainer(options, arm, args, model, seen, dict.fromkeys(MODALITIES), ("accuracy", "macro_f1"))

    labels = "all labelled" if options.labels_per_class is None else f"{options.labels_per_class} labels a category"
    info = ExperimentInfo(
        recipe="weak_modality",
        title="A weak modality",
        pipeline_tag="feature-extraction",
        **named_data("Tux Paint stamps", raw, "stamps", "frozen features", labels),
        pairing="real triples, split by description",
        language="en",
    )
    run_recipe(options, training, info, plans, make_trainer, data, keeps_student=False)


if __name__ == "__main__":
    run_script(main)
