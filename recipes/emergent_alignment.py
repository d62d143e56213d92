"""Emergent alignment: sentences find speech that they never met in training, through pictures that both were paired with.

Tux Paint's stamps are true triples: a picture, an English sentence and a spoken French one. Half of the training stamps are
pairs of picture and sentence, the other half of picture and speech; no sentence and no speech of one stamp is seen together
(ImageBind, Girdhar et al., CVPR 2023). Small projections of frozen features learn a common space by a contrastive loss on
these pairs, without any label. Scored is how held-out sentences find their speech. Settings are chosen on a validation part of
the training stamps.

    python recipes/emergent_alignment.py --data_dir /usr/share/tuxpaint/stamps --seeds 5
    python recipes/emergent_alignment.py --data_dir STAMPS --seed 0 --seeds 2 --choose true
    python recipes/emergent_alignment.py --data_dir STAMPS --student text --teacher image --seed 100 --seeds 10
"""

from dataclasses import dataclass, field

from hf_colearn.corpora.stamps import load_stamps, needs_stamps
from hf_colearn.experiments.arms import check_comparable, pick
from hf_colearn.experiments.emergent_alignment import EmergentAlignment, FoundPartners, alignment_arms, triples
from hf_colearn.experiments.frozen_features import encoder_in_words, trained_and_tested
from hf_colearn.experiments.info import ExperimentInfo, named_data
from hf_colearn.experiments.options import parse_recipe
from hf_colearn.experiments.runner import quiet, run_recipe
from hf_colearn.experiments.settings import choose_settings, with_chosen
from hf_colearn.experiments.stamps import COLUMNS, SCALES, StampOptions, encoded_stamps
from hf_colearn.utils.command_line import run_script


@dataclass
class Options(StampOptions):
    student: str = field(default="text", metadata={"help": "What asks: speech, text or image."})
    teacher: str = field(
        default="speech", metadata={"help": "What is asked: another; both are paired with the third."}
    )
    latent_dim: int = field(default=64, metadata={"help": "Width of the common space."})


def main() -> None:
    options, training = parse_recipe(Options, __file__)
    quiet()
    options.check_settings_file(__file__)
    query, found = options.student, options.teacher
    (anchor,) = set(COLUMNS) - {query, found}
    comparison, seed = f"{query} to {found} through {anchor}", training.get("seed") or 0
    plans = pick(alignment_arms(), options.arms)
    needs_stamps(options.data_dir)
    splits = load_stamps(options.data_dir, seed=seed, test_share=0.25, min_per_class=options.min_per_class)
    encoded = {name: encoded_stamps(splits, options.encoder(name), name) for name in COLUMNS}
    features, labels_N, test = trained_and_tested(splits, [*encoded.values()], options.choose)
    roles = {"anchor": anchor, "query": query, "found": found}
    aligned = EmergentAlignment(
        dict(zip(encoded, features, strict=True)),
        labels_N,
        latent_dim=options.latent_dim,
        hidden_dim=options.hidden_dim,
        scales=SCALES if options.feature_scale is None else dict.fromkeys(COLUMNS, options.feature_scale),
        **roles,
    )
    tested = triples({name: of[test] for name, of in encoded.items()}, splits[test])
    file = options.settings_file(__file__)
    if options.choose:
        seeds, metric = range(seed, seed + options.seeds), aligned.metric
        held_out = tested.remove_columns(["text", "label"])
        choose_settings(plans, seeds, training, aligned.make_trainer, held_out, file, comparison, metric)
        return
    check_comparable(plans, options.seeds)
    info = ExperimentInfo(
        recipe="emergent_alignment",
        title=f"Stamps: {comparison}",
        pipeline_tag="feature-extraction",
        **named_data("Tux Paint stamps", splits, "stamps", "English sentences, French speech"),
        pairing=f"half of the stamps {anchor} and {query}, half {anchor} and {found}; split by sentence; features of "
        + ", ".join(map(encoder_in_words, (options.image_model, options.text_model, options.speech_model))),
    )
    score = FoundPartners(**roles)
    runs = run_recipe(
        options,
        training,
        info,
        with_chosen(plans, file, comparison),
        aligned.make_trainer,
        {"train": splits["train"], "validation": splits["validation"], "test": tested},
        keeps_student=False,
        score=score,
    )
    if runs:  # of the main process
        print(f"\n{query} to {found}, in %:\n{score.table(runs)}")


if __name__ == "__main__":
    run_script(main)
