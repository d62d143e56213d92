"""What the recipe of vokens compares: its captions, its arms, and the ids of each."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from datasets import Dataset

from hf_colearn.arguments import CoLearningArguments
from hf_colearn.corpora.emoji import load_emoji
from hf_colearn.corpora.stamps import load_stamps
from hf_colearn.data.sample_ids import with_sample_ids
from hf_colearn.data.splits import cut_validation
from hf_colearn.experiments.arms import TunedArm
from hf_colearn.teachers.bank import TeacherBank
from hf_colearn.teachers.pairing import Paired
from hf_colearn.teachers.sequence_bank import SequenceBank
from hf_colearn.teachers.vokens import Clusters, Ids, permuted_vokens, retrieved_vokens, sentence_vokens, text_means


DATA = ("emoji", "stamps")


@dataclass(frozen=True)
class VokenArm(TunedArm):
    """An arm with one kind of vokens, or without.

    Args:
        vokens (`str`, *optional*): `"retrieved"`, `"sentence"`, `"permuted"` or `"text"`; see [`voken_banks`].
    """

    vokens: str | None = None

    def arguments(self, training: Mapping[str, Any], seed: int) -> CoLearningArguments:
        """Those of one run, with the weight of the vokens that the arm's setting has."""
        return super().arguments({**training, "alpha": self.setting.get("alpha")}, seed)


def voken_arms() -> list[VokenArm]:
    """Masked language modelling alone, with vokens, and with vokens that have no image in them."""
    rates = tuple({"rate": rate} for rate in (0.3, 1.0, 3.0))
    weights = tuple({"rate": 1.0, "alpha": alpha} for alpha in (0.5, 0.8, 0.9))

    def arm(name: str, kind: Any, vokens: str) -> VokenArm:
        return VokenArm(name, kind, Paired(), grid=weights, vokens=vokens)

    return [
        VokenArm("MLM alone", "baseline", grid=rates),
        arm("MLM + vokens", "colearned", "retrieved"),
        arm("MLM + image of the sentence", "colearned", "sentence"),
        arm("vokens permuted by type", "null", "permuted"),
        arm("clusters of texts", "null", "text"),
    ]


def voken_banks(
    token_ids: Ids, tokens: SequenceBank, images: TeacherBank, special_ids: Collection[int], num_vokens: int
) -> dict[str, SequenceBank]:
    """The ids of every arm, of as many clusters each.

    `"retrieved"`: the image cluster that is nearest to the token in its sentence; `"sentence"`: that of the sentence's image;
    `"permuted"`: the retrieved ones, permuted for every type of token; `"text"`: the nearest cluster of the texts' mean
    latents.

    Args:
        token_ids, tokens, images, special_ids: As of [`~hf_colearn.teachers.vokens.retrieved_vokens`].
        num_vokens (`int`): K.
    """
    of_images = Clusters(images.lookup(np.arange(len(images))).numpy(), num_vokens)
    of_texts = Clusters(text_means(token_ids, tokens, special_ids), num_vokens)
    retrieved = retrieved_vokens(token_ids, tokens, of_images, special_ids, images)
    ids = {
        "retrieved": retrieved,
        "sentence": sentence_vokens(token_ids, of_images.ids_N, special_ids),
        "permuted": permuted_vokens(retrieved, token_ids, num_vokens),
        "text": retrieved_vokens(token_ids, tokens, of_texts, special_ids, None),
    }
    return {name: SequenceBank.from_ids(of_name, num_ids=num_vokens, vokens=name) for name, of_name in ids.items()}


def load_captions(
    data: str, data_dir: str | None, tokenizer: Any, seed: int, max_tokens: int, max_captions: int | None = None
) -> tuple[dict[str, Dataset], int]:
    """`train`, `validation` and `test` with `image`, `text` and `label`, split by what they show; and how many captions of
    training are left out, since they have more tokens than `max_tokens`.

    Args:
        data (`str`): `"emoji"`, from packages or a folder; or `"stamps"`, from a folder.
        data_dir (`str`, *optional*): The folder.
        tokenizer: The text teacher's.
        seed (`int`): Draws the split.
        max_tokens (`int`): Of a training caption, special ones included.
        max_captions (`int`, *optional*): Of training, at most: the first ones.
    """
    if data == "stamps":
        raw = dict(load_stamps(str(data_dir), seed=seed, min_per_class=16))
    else:
        raw = dict(load_emoji(data_dir, test_share=0.25, seed=seed))
        raw["train"], raw["validation"] = cut_validation(raw["train"], 0.25, seed)
    train = raw["train"].remove_columns("sample_id")
    lengths = [len(ids) for ids in tokenizer(list(train["text"]))["input_ids"]]
    kept = [row for row, length in enumerate(lengths) if length <= max_tokens]
    raw["train"] = with_sample_ids(train.select(kept[:max_captions]))
    return {split: raw[split] for split in ("train", "validation", "test")}, len(lengths) - len(kept)
