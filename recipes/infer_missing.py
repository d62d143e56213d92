"""A missing text is inferred: retrieval by what a joint masked autoencoder makes of a picture, of speech, or of both.

Emoji with their names, or Tux Paint's stamps: pictures with an English sentence and a spoken French one. The latents of a
modality are principal components of what a frozen encoder gives. One network learns, without labels, to decode every modality's
latent from the others, of which training hides some. Then the texts of held-out samples are hidden: what is inferred for them,
in the main metrics from the picture, asks for training samples of the same category by their texts (mean average precision and
precision at 10), and for the own text among the held-out ones (recall at 5). Beside it stand the picture as its own query, the
mean text, wrong pairs, imputation by centroids, regressions, and the true text. Every seed has another split; settings are
chosen on a validation part of training.

    python recipes/infer_missing.py --small                                      # a smoke test on random features
    python recipes/infer_missing.py --seed 0 --seeds 2 --choose true             # OpenMoji's font
    python recipes/infer_missing.py --seed 100 --seeds 10
    python recipes/infer_missing.py --data stamps --data_dir STAMPS --seed 100 --seeds 10
    python recipes/infer_missing.py --data stamps --data_dir STAMPS --given speech --seed 100 --seeds 10
"""

from dataclasses import dataclass, field

import torch
from datasets import Dataset

from hf_colearn.analysis.runs import means_table
from hf_colearn.corpora.emoji import load_emoji
from hf_colearn.corpora.stamps import load_stamps, needs_stamps
from hf_colearn.data.splits import with_validation
from hf_colearn.experiments.arms import check_comparable, pick
from hf_colearn.experiments.frozen_features import encoded_splits
from hf_colearn.experiments.infer_missing import Inference, feature_rows, inference_arms
from hf_colearn.experiments.info import ExperimentInfo, named_data
from hf_colearn.experiments.options import parse_recipe
from hf_colearn.experiments.runner import quiet, run_recipe
from hf_colearn.experiments.settings import choose_settings, with_chosen
from hf_colearn.experiments.stamps import COLUMNS, EncoderOptions
from hf_colearn.utils.checks import check_choice
from hf_colearn.utils.command_line import run_script
from hf_colearn.utils.tables import text_table


MODALITIES = {"emoji": ("image", "text"), "stamps": ("image", "text", "speech")}
IDS = {"emoji": "emoji", "stamps": "stamp_id"}


@dataclass
class Options(EncoderOptions):
    data: str = field(default="emoji", metadata={"help": "emoji or stamps."})
    given: str = field(default="image", metadata={"help": "What the text is inferred from; of stamps also speech."})
    min_per_class: int = field(default=12, metadata={"help": "Categories with fewer samples are left out."})
    latent_dim: int = field(default=128, metadata={"help": "Principal components of every modality."})
    hidden_dim: int = field(default=256, metadata={"help": "Width of the joint latent."})
    num_layers: int = field(default=1, metadata={"help": "Of the autoencoder's encoder."})
    mask_probability: float = field(default=0.5, metadata={"help": "That training hides another modality, too."})
    num_centroids: int = field(default=16, metadata={"help": "Of every modality, where centroids impute."})

    def __post_init__(self):
        super().__post_init__()
        check_choice("data", self.data, MODALITIES)
        check_choice("given", self.given, [name for name in MODALITIES[self.data] if name != "text"])

    def load(self, seed: int) -> dict[str, Dataset]:
        """The pictures with `text`, `label` and, of stamps, `audio`."""
        if self.data == "stamps":
            needs_stamps(self.data_dir)
            return dict(load_stamps(self.data_dir or "", seed, test_share=0.25, min_per_class=self.min_per_class))
        raw = load_emoji(self.data_dir, classes="subgroup", min_per_class=self.min_per_class, seed=seed)
        return with_validation(raw, 0.3, seed)


def main() -> None:
    options, training = parse_recipe(Options, __file__)
    quiet()
    options.check_settings_file(__file__)
    plans = pick(inference_arms(), options.arms)
    file, comparison = options.settings_file(__file__), f"{options.data}, from {options.given}"
    seed = training.get("seed") or 0
    if not options.choose:
        check_comparable(plans, options.seeds)
        plans = with_chosen(plans, file, comparison)
    modalities, whole = MODALITIES[options.data], options.load(seed)
    features = {
        name: encoded_splits(whole, options.encoder(name), COLUMNS[name], IDS[options.data]) for name in modalities
    }
    labels, sentences, ids = (
        [x for part in whole.values() for x in part[of]] for of in ("label", "text", IDS[options.data])
    )
    row_of = {name: row for row, name in enumerate(ids)}

    def split(seed: int) -> tuple[list[int], list[int]]:
        # Settings are chosen on the validation part, which is trained on afterwards.
        known, held_out = (["train"], "validation") if options.choose else (["train", "validation"], "test")
        parts = {name: [row_of[x] for x in part[IDS[options.data]]] for name, part in options.load(seed).items()}
        return [row for name in known for row in parts[name]], parts[held_out]

    inference = Inference(
        feature_rows({name: torch.cat([*parts.values()]) for name, parts in features.items()}, labels, sentences),
        split,
        modalities,
        options.given,
        whole["train"].features["label"].names,
        plans,
        latent_dim=options.latent_dim,
        autoencoder={name: getattr(options, name) for name in ("hidden_dim", "num_layers", "mask_probability")},
        centroids={"num_centroids": options.num_centroids},
    )
    if options.choose:
        seeds = range(seed, seed + options.seeds)
        choose_settings(plans, seeds, training, inference.make_trainer, None, file, comparison, "map")
        return
    info = ExperimentInfo(
        recipe="infer_missing",
        title=f"{options.data.capitalize()}: the text inferred from {options.given}, and retrieval by it",
        pipeline_tag="feature-classification",
        **named_data(
            "Tux Paint stamps" if options.data == "stamps" else "emoji", whole, "samples", "another split a seed"
        ),
        pairing="every sample's own modalities",
        language="en",
    )
    data = {"train": inference.split(seed).known, "validation": [], "test": inference.split(seed).held_out}
    runs = run_recipe(
        options, training, info, plans, inference.make_trainer, data, keeps_student=False, score=inference
    )
    if runs:  # of the main process
        metrics = dict.fromkeys(name for run in runs for name in run.metrics)
        by_arm = means_table(runs, {name: name.replace("_", " ") for name in metrics})
        print(f"\n{text_table([list(row) for row in zip(*by_arm, strict=True)])}")  # an arm a column


if __name__ == "__main__":
    run_script(main)
