"""Self-training and co-training: two views of which a few pairs are labelled label the rest of the pairs for each other.

`--data digits`: written digits (8 x 8 pixels) and spoken ones (log-mel bands in eight segments), paired by class and at random,
so that the views are independent given the class, as Blum & Mitchell (COLT 1998) assume. `--data stamps`: true pairs of Tux
Paint's stamps, frozen features of speech, picture or sentence; a frozen language model that reads the sentences (class names in
prompts) is a third view of two arms. Every student is a small network. In each round the most confident predictions of a view
become labels for the other one, and both are fitted anew. Settings are chosen on a validation part of the training pairs.

    python recipes/co_training.py --data_dir FSDD --seeds 5
    python recipes/co_training.py --data_dir FSDD --seed 0 --seeds 2 --labels_per_class 2 --choose true
    python recipes/co_training.py --data_dir FSDD --seed 100 --seeds 10
    python recipes/co_training.py --data stamps --data_dir STAMPS --student speech --teacher image --labels_per_class 5
    python recipes/co_training.py --small                       # a smoke test: DTMF tones for speech
"""

import gc
from typing import Any

import torch

from hf_colearn import PromptedTexts, classification_metrics
from hf_colearn.corpora.stamps import load_stamps, needs_stamps
from hf_colearn.experiments.co_training import CoTrainingOptions as Options
from hf_colearn.experiments.co_training import CoTrainings, co_training_run, load_digit_pairs, pair_dataset
from hf_colearn.experiments.frozen_features import feature_dataset, feature_student
from hf_colearn.experiments.info import ExperimentInfo, named_data
from hf_colearn.experiments.options import parse_recipe
from hf_colearn.experiments.packaged_models import language_teacher
from hf_colearn.experiments.runner import quiet, run_recipe
from hf_colearn.experiments.settings import choose_settings
from hf_colearn.experiments.stamps import LANGUAGES, SCALES, encoded_stamps
from hf_colearn.utils.command_line import run_script


def main() -> None:
    options, training = parse_recipe(Options, __file__)
    quiet()
    views, seed = (options.student, options.teacher), training.get("seed") or 0
    is_stamps = options.data == "stamps"
    plans = options.plans(__file__, with_prompts=is_stamps and "text" not in views)

    # Features of both views by split, and the classes.
    texts: dict[str, Any] = {}
    if is_stamps:
        needs_stamps(options.data_dir)
        splits = load_stamps(options.data_dir, seed=seed, test_share=0.25, min_per_class=options.min_per_class)
        encoded = {view: encoded_stamps(splits, options.encoder(view), view) for view in views}
        pairs = {
            split: ({view: encoded[view][split] for view in views}, part["label"][:]) for split, part in splits.items()
        }
        texts = {split: part["text"][:] for split, part in splits.items()}
        names = dict(enumerate(splits["train"].features["label"].names))
    else:
        pairs = load_digit_pairs(
            options.data_dir, options.student, seed, options.max_samples, options.skip_bad_samples
        )
        names = {digit: str(digit) for digit in range(10)}
    # Settings are chosen on the validation part, which is trained on afterwards.
    trained_on, tested = (["train"], "validation") if options.choose else (["train", "validation"], "test")
    features = {view: torch.cat([pairs[split][0][view] for split in trained_on]) for view in views}
    labels = [label for split in trained_on for label in pairs[split][1]]
    sentences = [text for split in trained_on for text in texts.get(split, [])]
    train = pair_dataset(features, labels, sentences or None)
    test = pair_dataset(*pairs[tested], texts.get(tested))

    def make_student(view: str) -> Any:
        scale = options.scale_of(view, SCALES if is_stamps else {"speech": 1.0, "image": 1.0})
        return options.adapted(feature_student(features[view], [options.hidden_dim], options.latent_dim, names, scale))

    frozen = {}
    if any("prompts" in plan.method or "sentences" in plan.method for plan in plans):
        frozen["sentence"] = PromptedTexts(language_teacher(options.text_model, "mean"), list(names.values()))
    trainings = CoTrainings(
        train,
        test,
        {view: lambda view=view: make_student(view) for view in views},
        frozen,
        options.rounds,
        options.held_out,
        optimizer=options.optimizer_for,
        compute_metrics=classification_metrics(("accuracy", "macro_f1")),
    )
    test_features = feature_dataset(pairs[tested][0][options.student], pairs[tested][1]).remove_columns("sample_id")
    gc.freeze()  # every training collects garbage, which would look through all that was imported
    if options.choose:
        seeds, file = range(seed, seed + options.seeds), options.settings_file(__file__)
        choose_settings(plans, seeds, training, trainings.make_trainer, test_features, file, options.comparison)
        return
    info = ExperimentInfo(
        recipe="co_training",
        title=f"{'Stamps' if is_stamps else 'Digits'}: {options.student} and {options.teacher} label the pool for each other",
        pipeline_tag="feature-classification",
        **named_data(
            "Tux Paint stamps" if is_stamps else "scikit-learn's digits",
            {"train": train.rename_column("labels", "label"), "test": test.rename_column("labels", "label")},
            "pairs",
            "true pairs"
            if is_stamps
            else f"paired by class with {'spoken digits' if options.data_dir else 'DTMF tones'}",
        ),
        pairing="true pairs" if is_stamps else "by class, at random: independent given the class",
        language=LANGUAGES.get(options.student) if is_stamps else None,
    )
    data = {"train": trainings.train, "validation": test, "test": test_features}
    run_recipe(options, training, info, plans, trainings.make_trainer, data, score=co_training_run)


if __name__ == "__main__":
    run_script(main)
