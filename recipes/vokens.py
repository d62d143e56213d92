"""Vokens: a small BERT that learns masked words of captions, and which image belongs to every word.

The captions are Tux Paint's English sentences, or the names of emoji, and the images that they describe are clustered by
frozen features (k-means). Every token has a voken, the cluster that is nearest to it in its sentence: a text teacher's latents
of tokens are mapped to the images' space by a ridge regression, fitted on the training pairs. In another arm it is the cluster
of the sentence's own image. Null controls have the vokens permuted for every type of token, and as many clusters of the text
teacher's own latents, without an image.

The main metric is chosen beforehand: the accuracy of a linear probe that tells the categories of held-out captions from the
encoder's mean over tokens, and knows a few labelled captions. The other one is the accuracy of masked tokens.

    python recipes/vokens.py --small                                                  # a smoke test: emoji
    python recipes/vokens.py --data stamps --data_dir STAMPS --seed 0 --seeds 2 --choose true
    python recipes/vokens.py --data stamps --data_dir STAMPS --seed 100 --seeds 10
    python recipes/vokens.py --data emoji --seed 100 --seeds 10
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from transformers import BertConfig, DataCollatorWithPadding

from hf_colearn import CoLearningArguments, CoLearningForMaskedLM, Teacher, TeacherBank, VokenClassification
from hf_colearn.corpora.stamps import needs_stamps
from hf_colearn.data.token_masking import TokenMasking
from hf_colearn.experiments.arms import check_comparable, pick
from hf_colearn.experiments.frozen_features import encoder_in_words, picture_encoder
from hf_colearn.experiments.info import ExperimentInfo, named_data
from hf_colearn.experiments.masked_lm import CaptionScore, ProbedTrainer, caption_dataset, reduced_tokenizer
from hf_colearn.experiments.options import parse_recipe
from hf_colearn.experiments.packaged_models import PACKAGED_LANGUAGE, PACKAGED_VISION, language_teacher
from hf_colearn.experiments.runner import quiet, run_recipe
from hf_colearn.experiments.settings import SettingsOptions, choose_settings, with_chosen
from hf_colearn.experiments.vokens import DATA, VokenArm, load_captions, voken_arms, voken_banks
from hf_colearn.teachers.sequence_bank import SequenceBank
from hf_colearn.utils.checks import check_choice, check_integer
from hf_colearn.utils.command_line import run_script


@dataclass
class Options(SettingsOptions):
    data: str = field(default="emoji", metadata={"help": "The captions: emoji or stamps (--data_dir)."})
    text_model: str = field(default=PACKAGED_LANGUAGE, metadata={"help": "The text teacher, a package's."})
    image_model: str = field(default=PACKAGED_VISION, metadata={"help": "Encoder of pictures; tiny: random weights."})
    num_vokens: int = field(default=30, metadata={"help": "Clusters of images."})
    labels_per_class: int = field(default=5, metadata={"help": "Labelled captions of every category, for the probe."})
    hidden_dim: int = field(default=64, metadata={"help": "Width of the small BERT."})
    layers: int = field(default=2, metadata={"help": "Of the small BERT."})
    max_tokens: int = field(default=16, metadata={"help": "Longer captions of training are left out."})
    max_captions: int | None = field(default=None, metadata={"help": "Of training, at most; all by default."})

    def __post_init__(self):
        super().__post_init__()
        check_choice("data", self.data, DATA)
        for name in ("num_vokens", "labels_per_class", "hidden_dim", "layers", "max_tokens"):
            check_integer(name, getattr(self, name), 1)


def main() -> None:
    options, training = parse_recipe(Options, __file__)
    quiet()
    options.check_settings_file(__file__)
    plans = pick(voken_arms(), options.arms)
    if options.data == "stamps":
        needs_stamps(options.data_dir)
    first = training.get("seed") or 0
    text, vision = language_teacher(options.text_model, pooling="mean"), picture_encoder(options.image_model)
    raw, left_out = load_captions(
        options.data, options.data_dir, text.processor, first, options.max_tokens, options.max_captions
    )
    train = raw["train"]

    # The student has the pieces of the text teacher's vocabulary that the captions need, so that both have the same tokens.
    tokenizer = reduced_tokenizer(text.processor, train["text"], options.max_tokens)
    data = {split: caption_dataset(tokenizer, part) for split, part in raw.items()}
    images = TeacherBank.encode(vision, train["image"], show_progress=False)
    tokens = SequenceBank.encode(text, train["text"][:])
    banks = voken_banks(data["train"]["input_ids"][:], tokens, images, tokenizer.all_special_ids, options.num_vokens)

    masking = TokenMasking(tokenizer)
    score = CaptionScore(data["train"], tokenizer, options.labels_per_class, masking)

    def make_student() -> CoLearningForMaskedLM:
        config = BertConfig(
            vocab_size=len(tokenizer),
            hidden_size=options.hidden_dim,
            num_hidden_layers=options.layers,
            num_attention_heads=max(1, options.hidden_dim // 16),
            intermediate_size=2 * options.hidden_dim,
            max_position_embeddings=options.max_tokens,
        )
        heads: Mapping[str, Any] = {"vokens": {"out_features": options.num_vokens, "reads": "dense_latents"}}
        return CoLearningForMaskedLM.from_backbone(
            config, options.hidden_dim, pooling="mean", dense=True, training_heads=heads
        )

    def make_trainer(arm: VokenArm, args: CoLearningArguments) -> ProbedTrainer:
        teaching: dict[str, Any] = {}
        if arm.vokens is not None:
            teachers = {"vokens": Teacher(banks[arm.vokens])}
            teaching = {"teachers": teachers, "objective": VokenClassification()}
        return ProbedTrainer(
            model=options.adapted(make_student()),
            args=args,
            train_dataset=data["train"],
            eval_dataset=data["validation"],
            data_collator=DataCollatorWithPadding(tokenizer),
            augment=masking,
            score=score,
            optimizer_cls_and_kwargs=options.optimizer_for(args),
            **teaching,
        )

    file = options.settings_file(__file__)
    seeds = range(first, first + options.seeds)
    if options.choose:
        choose_settings(plans, seeds, training, make_trainer, None, file, options.data)
        return
    check_comparable(plans, options.seeds)
    plans = with_chosen(plans, file, options.data)
    name = {"emoji": "emoji and their names", "stamps": "Tux Paint stamps, English sentences"}[options.data]
    info = ExperimentInfo(
        recipe="vokens",
        title="Vokens: masked words of captions, and the image of every word",
        pipeline_tag="fill-mask",
        **named_data(name, {split: raw[split] for split in ("train", "test")}, "captions"),
        teacher=f"{options.num_vokens} clusters of images by {encoder_in_words(options.image_model)}, retrieved for tokens by "
        f"{encoder_in_words(options.text_model)}, both frozen",
        pairing="the image that a caption describes",
        language="en",
    )
    of_text = [TeacherBank.encode(text, raw[split]["text"][:], show_progress=False) for split in ("train", "test")]
    latents = tuple(bank.lookup(range(len(bank))).numpy() for bank in of_text)
    references = score.references(data["test"], {"the text teacher": latents}, seeds)
    notes = {"longer_captions_left_out": left_out, "accuracy_of_references": references}
    if run_recipe(options, training, info, plans, make_trainer, data, tokenizer, score=score, notes=notes):
        print("A probe with the same labels:", ", ".join(f"{name} {value:.3f}" for name, value in references.items()))


if __name__ == "__main__":
    run_script(main)
