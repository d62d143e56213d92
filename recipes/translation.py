"""Translation into another modality, and back: Tux Paint's stamps, where speech learns by translating itself into sentences.

Every stamp is a picture, an English sentence and a spoken French one; a few of every category are labelled, the others are
pairs without a label. The student is a small network on frozen features of its modality. In training a head translates its
latent into the sentence's, and another head translates that back into the student's own features (MCTN, Pham et al., AAAI
2019); both are dropped afterwards, and the student reads its own modality alone. Beside the accuracy stands how much of
held-out sentences the translation explains. Settings are chosen on a validation part of the training stamps.

    python recipes/translation.py --data_dir /usr/share/tuxpaint/stamps --seeds 5
    python recipes/translation.py --data_dir STAMPS --seed 0 --seeds 2 --choose true
    python recipes/translation.py --data_dir STAMPS --student image --teacher text --seed 100 --seeds 10
"""

from dataclasses import dataclass, field
from typing import Any

from hf_colearn import TeacherBank, classification_metrics
from hf_colearn.corpora.stamps import load_stamps, needs_stamps
from hf_colearn.experiments.arms import check_comparable, pick
from hf_colearn.experiments.frozen_features import feature_dataset, feature_student, trained_and_tested
from hf_colearn.experiments.info import ExperimentInfo, named_data
from hf_colearn.experiments.options import parse_recipe
from hf_colearn.experiments.runner import quiet, run_recipe
from hf_colearn.experiments.semi_supervised import BUDGET
from hf_colearn.experiments.settings import choose_settings, with_chosen
from hf_colearn.experiments.stamps import LANGUAGES, StampOptions, encoded_stamps
from hf_colearn.experiments.translation import HeldOutTargets, Translations, translation_arms
from hf_colearn.utils.command_line import run_script


@dataclass
class Options(StampOptions):
    labels_per_class: int = field(default=5, metadata={"help": "Samples of every class that have a label."})
    latent_dim: int = field(default=32, metadata={"help": "Width of the latent that is translated."})


def main() -> None:
    options, training = parse_recipe(Options, __file__)
    quiet()
    options.check_settings_file(__file__)
    comparison, seed = f"{options.student} from {options.teacher}", training.get("seed") or 0
    plans = [arm.at(BUDGET, options.labels_per_class) for arm in pick(translation_arms(), options.arms)]
    needs_stamps(options.data_dir)
    splits = load_stamps(options.data_dir, seed=seed, test_share=0.25, min_per_class=options.min_per_class)
    own, other = (encoded_stamps(splits, options.encoder(of), of) for of in (options.student, options.teacher))
    (own_NF, other_ND), labels_N, test = trained_and_tested(splits, (own, other), options.choose)
    test_features = feature_dataset(own[test], splits[test]["label"][:]).remove_columns("sample_id")

    # The training heads, the second of which reads the first.
    narrow = {"hidden_features": options.latent_dim}
    heads = {
        "translation": {"out_features": other_ND.shape[1], **narrow},
        "cycle": {"out_features": own_NF.shape[1], **narrow, "reads": "translation"},
    }

    def make_student(latent_dim: int, terms: Any = ()) -> Any:
        names = dict(enumerate(splits["train"].features["label"].names))
        of_terms = {term: heads[term] for term in terms}
        hidden = [options.hidden_dim]
        student = feature_student(own_NF, hidden, latent_dim, names, options.scale, training_heads=of_terms)
        return options.adapted(student)

    translations = Translations(
        feature_dataset(own_NF, labels_N),
        TeacherBank.from_latents(other_ND),
        lambda terms: make_student(options.latent_dim, terms),
        (own_NF / own_NF.std(dim=0).clamp(min=1e-6)).numpy(),
        make_matching_student=lambda: make_student(other_ND.shape[1]),
        optimizer=options.optimizer_for,
        compute_metrics=classification_metrics(("accuracy", "macro_f1")),
    )
    file = options.settings_file(__file__)
    if options.choose:
        seeds = range(seed, seed + options.seeds)
        choose_settings(plans, seeds, training, translations.make_trainer, test_features, file, comparison)
        return
    check_comparable(plans, options.seeds)
    info = ExperimentInfo(
        recipe="translation",
        title=f"Stamps: {comparison} by translation, few labels and many pairs",
        pipeline_tag="feature-classification",
        **named_data("Tux Paint stamps", splits, "stamps", "English sentences, French speech"),
        teacher=options.teacher_in_words,
        pairing="real triples, split by sentence",
        language=LANGUAGES.get(options.student),
    )
    held_out = HeldOutTargets(
        {"translation": other_ND, "cycle": own_NF}, {"translation": other[test], "cycle": own[test]}
    )
    data = {"train": translations.train, "test": test_features}
    runs = run_recipe(
        options, training, info, with_chosen(plans, file, comparison), translations.make_trainer, data, score=held_out
    )
    if runs:  # of the main process
        print(f"\n{held_out.table(runs)}")


if __name__ == "__main__":
    run_script(main)
