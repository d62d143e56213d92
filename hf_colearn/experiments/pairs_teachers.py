"""Teachers of anybody's pairs: a frozen model of the other modality, and the bank of what it says of the training samples."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from transformers import BertModel
from transformers.models.resnet.modeling_resnet import ResNetModel
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

from hf_colearn.corpora.pairs import CLASS_NAMES, Pairs
from hf_colearn.experiments.frozen_features import speech_encoder
from hf_colearn.experiments.packaged_models import (
    PACKAGED_LANGUAGE,
    PACKAGED_VISION,
    language_teacher,
    vision_teacher,
)
from hf_colearn.experiments.pairs_students import called
from hf_colearn.experiments.tiny_models import (
    TINY,
    bert_tiny,
    resnet_tiny,
    trained_tokenizer,
    untrained_speech_encoder,
)
from hf_colearn.teachers.bank import TeacherBank
from hf_colearn.teachers.encoder import FrozenEncoder
from hf_colearn.teachers.pairing import Paired, Pairing
from hf_colearn.teachers.where_paired import WherePaired
from hf_colearn.utils.distributed import rank
from hf_colearn.utils.rng import preserve_rng_state


PACKAGED = {"text": PACKAGED_LANGUAGE, "image": PACKAGED_VISION}
_PIXELS, _SECONDS = 64, 30  # of a tiny teacher's pictures; of speech that a teacher is shown


def pair_teacher(pairs: Pairs, name: str | None, pooling: str = "mean") -> tuple[FrozenEncoder | None, str]:
    """The frozen model that reads the other modality, and what it is in words; None where features are the latents.

    Args:
        pairs ([`Pairs`]): A tiny teacher of texts has its vocabulary from them.
        name (`str`, *optional*): A Hub id or folder, `"tiny"` (random weights), or by default what a package ships.
        pooling (`str`, *optional*, defaults to `"mean"`): As of [`FrozenEncoder`].

    Raises:
        ValueError: If there is no default, or a teacher is named where the other column is the latents already.
        ImportError: If the package of the default is missing.
    """
    kind = "text" if pairs.other_kind == CLASS_NAMES else pairs.other_kind
    if kind == "features":
        if name is not None:
            raise ValueError(
                f"--teacher {name}: column '{pairs.columns.other}' is features, which are the latents themselves. Leave "
                "--teacher out."
            )
        return None, f"the features in column '{pairs.columns.other}'"
    if name == TINY:
        return _tiny(pairs, kind), f"a tiny network of {kind} with random weights, not trained"
    if name is None and kind not in PACKAGED:
        raise ValueError(
            f"the other modality, column '{pairs.columns.other}', is {kind}, of which no package ships a model: pass --teacher "
            "with a Hub id or a folder, such as openai/whisper-tiny.en, or tiny (random weights, to try the command)."
        )
    chosen = name or PACKAGED[kind]
    shown = called(chosen)
    if kind == "text":
        return language_teacher(chosen, pooling), f"{shown}, {pooling} pooling, frozen"
    if kind == "image":
        return vision_teacher(chosen, pooling), f"{shown}, frozen"
    return speech_encoder(chosen, _SECONDS, pooling), f"{shown}, {pooling} pooling, frozen"


def _tiny(pairs: Pairs, kind: str) -> FrozenEncoder:
    with preserve_rng_state(torch.device("cpu")):
        torch.manual_seed(0)  # the same teacher for every seed
        if kind == "text":
            texts = sentences(pairs, "{name}") if pairs.other_kind == CLASS_NAMES else _cells(pairs)
            tokenizer: Any = trained_tokenizer(texts, 2048)
            model: Any = BertModel(bert_tiny(vocab_size=len(tokenizer), pad_token_id=tokenizer.pad_token_id))
            return FrozenEncoder(model.requires_grad_(False), tokenizer)
        if kind == "image":
            processor = ViTImageProcessorPil(size={"height": _PIXELS, "width": _PIXELS})
            return FrozenEncoder(ResNetModel(resnet_tiny()).requires_grad_(False), processor)
    return untrained_speech_encoder()


def sentences(pairs: Pairs, template: str) -> list[str]:
    """One about every class, in the order of the classes."""
    if "{name}" not in template:
        raise ValueError(
            f"--template '{template}' has no place for the class: write {{name}} there, as in 'a photo of {{name}}'."
        )
    assert pairs.names is not None
    return [template.format(name=pairs.names[label].replace("_", " ")) for label in sorted(pairs.names)]


def _cells(pairs: Pairs) -> Sequence[Any]:
    return pairs.train.select(np.flatnonzero(pairs.paired))["other"]  # read one at a time


def partner_rows(pairs: Pairs) -> np.ndarray:
    """The bank row of sample id 0, 1, ..., `(N,)`; that of a sample without a partner is 0, see [`true_pairs`]."""
    if pairs.other_kind == CLASS_NAMES:
        return np.maximum(pairs.train["labels"][:], 0)
    return np.where(pairs.paired, np.cumsum(pairs.paired) - 1, 0)


def pair_bank(pairs: Pairs, encoder: FrozenEncoder | None, template: str) -> TeacherBank:
    """The latents of the partners of training samples, in their order, or of one sentence a class."""
    if encoder is None:
        latents = np.asarray(_cells(pairs)[:], dtype=np.float32)
        return TeacherBank.from_latents(latents, teacher=f"column '{pairs.columns.other}'")
    read = sentences(pairs, template) if pairs.other_kind == CLASS_NAMES else _cells(pairs)
    return TeacherBank.encode(encoder, read, show_progress=rank() == 0)


def where_paired(pairing: Pairing, pairs: Pairs) -> Pairing:
    """The pairing, and no target for samples without a partner, where there are any."""
    return pairing if pairs.paired.all() else WherePaired(pairing, pairs.paired)


def true_pairs(rows_N: np.ndarray, pairs: Pairs) -> Pairing:
    """Every sample with its own partner."""
    return where_paired(Paired(rows_N), pairs)
