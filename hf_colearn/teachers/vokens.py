"""Vokens: the id of an image, or of a cluster of images, for every token of a text; what `VokenClassification` predicts.

Two ways give a token its image: that of its sentence ([`sentence_vokens`]), or the nearest one to the token in its context
([`retrieved_vokens`]). Shapes: N texts with an image each, T_i tokens, K clusters, D dimensions of an image's latent, E of a
token's.
"""

from collections.abc import Collection, Sequence

import numpy as np

from hf_colearn.data.sample_ids import NO_LABEL
from hf_colearn.teachers.bank import TeacherBank
from hf_colearn.teachers.sequence_bank import SequenceBank
from hf_colearn.utils.checks import check_integer
from hf_colearn.utils.extras import extra


Ids = Sequence[Sequence[int]]  # N texts of T_i tokens


class Clusters:
    """K clusters of latents by direction: k-means of what is centred at their mean and has length 1.

    Args:
        latents_ND (`np.ndarray` of shape `(N, D)`): Of images; for a null control, of texts.
        num_clusters (`int`): K.
        seed (`int`, *optional*, defaults to 0): Draws where k-means begins.

    Raises:
        ValueError: If there are fewer latents than clusters.
    """

    def __init__(self, latents_ND: np.ndarray, num_clusters: int, seed: int = 0):
        check_integer("num_clusters", num_clusters, least=2)
        check_integer("seed", seed)
        if len(latents_ND) < num_clusters:
            raise ValueError(
                f"num_clusters={num_clusters} of {len(latents_ND)} latents: pass at most as many clusters as there are latents."
            )
        with extra("report", "clusters need scikit-learn"):
            from sklearn.cluster import KMeans
        self.num_clusters, self.mean_D = num_clusters, latents_ND.mean(axis=0)
        means = KMeans(num_clusters, n_init=4, random_state=seed).fit(_directions(latents_ND - self.mean_D))
        self.centroids_KD, self.ids_N = means.cluster_centers_, means.labels_.astype(np.int64)

    def nearest(self, latents_MD: np.ndarray) -> np.ndarray:
        """The cluster whose centroid has the largest cosine with each latent, both centred, `(M,)` int64."""
        cosines_MK = _directions(latents_MD - self.mean_D) @ _directions(self.centroids_KD).T
        return cosines_MK.argmax(axis=1)


def sentence_vokens(token_ids: Ids, image_of_text: Sequence[int] | np.ndarray, special_ids: Collection[int]) -> Ids:
    """Every token has the id of its sentence's image; special tokens have none, -100.

    Args:
        token_ids (`Sequence` of N lists): The student's input, such as `tokenizer(texts)["input_ids"]`.
        image_of_text (`Sequence[int]`): The image's id of every text, such as `Clusters(images, K).ids_N`.
        special_ids (`Collection[int]`): `tokenizer.all_special_ids`.

    Example:

    ```python
    >>> from hf_colearn.teachers.vokens import sentence_vokens

    >>> sentence_vokens([[2, 7, 8, 3], [2, 7, 3]], [4, 1], special_ids=[2, 3])
    [[-100, 4, 4, -100], [-100, 1, -100]]

    ```
    """
    _check_texts(token_ids, "image_of_text", len(image_of_text))
    return [
        [NO_LABEL if token in special_ids else int(image) for token in tokens]
        for tokens, image in zip(token_ids, image_of_text, strict=True)
    ]


def retrieved_vokens(
    token_ids: Ids, tokens: SequenceBank, clusters: Clusters, special_ids: Collection[int], images: TeacherBank | None
) -> Ids:
    r"""Every token has the cluster that is nearest to it in its context; special tokens have none, -100.

    A token's latent of the text teacher is mapped to the images' space by a ridge regression, fitted on the pairs of the mean
    latent of a text's tokens and the text's image; the nearest cluster there is its voken. As the map is linear, the mean over
    a text's tokens is what is predicted of its image. Tan & Bansal (EMNLP 2020) learn both sides of the matching on a
    captioned data set instead.

    Args:
        token_ids (`Sequence` of N lists): The student's input; the teacher's tokens are the same, whatever their numbers.
        tokens ([`SequenceBank`]): The text teacher's latents of every token, `SequenceBank.encode(encoder, texts)`.
        clusters ([`Clusters`]): Of the images' latents; of the tokens' texts where `images` is None.
        special_ids (`Collection[int]`): `tokenizer.all_special_ids`.
        images ([`TeacherBank`], *optional*): The image's latent of every text. None: tokens are not mapped, for clusters of
            the texts themselves, [`text_means`], a null control.

    Raises:
        ValueError: If a text has other tokens for the teacher than for the student.
    """
    is_word = _words(token_ids, tokens, special_ids)
    frames = [tokens.lookup([row])[0].numpy() for row in range(len(tokens))]
    if images is not None:
        _check_texts(token_ids, "images", len(images))
        means_NE = np.stack(
            [frames_TE[words_T].mean(axis=0) for frames_TE, words_T in zip(frames, is_word, strict=True)]
        )
        with extra("report", "the map needs scikit-learn"):
            from sklearn.linear_model import RidgeCV
        ridge = RidgeCV(np.logspace(-3, 3, 13)).fit(means_NE, images.lookup(np.arange(len(images))).numpy())
        frames = [ridge.predict(frames_TE) for frames_TE in frames]
    return [
        np.where(words_T, clusters.nearest(frames_TE), NO_LABEL).tolist()
        for frames_TE, words_T in zip(frames, is_word, strict=True)
    ]


def text_means(token_ids: Ids, tokens: SequenceBank, special_ids: Collection[int]) -> np.ndarray:
    """The mean latent of every text's tokens without special ones, `(N, E)`."""
    is_word = _words(token_ids, tokens, special_ids)
    return np.stack([tokens.lookup([row])[0].numpy()[words_T].mean(axis=0) for row, words_T in enumerate(is_word)])


def permuted_vokens(vokens: Ids, token_ids: Ids, num_vokens: int, seed: int = 0) -> Ids:
    """A null control: every type of token has a fixed permutation of the K ids of its own.

    A token's voken tells its contexts apart as before, but tokens of one image no longer share an id.

    Args:
        vokens, token_ids (`Sequence` of N lists): Of the same tokens.
        num_vokens (`int`): K.
        seed (`int`, *optional*, defaults to 0): Draws the permutations.

    Example:

    ```python
    >>> from hf_colearn.teachers.vokens import permuted_vokens

    >>> permuted_vokens([[-100, 1, 1, 0]], [[2, 7, 8, 7]], num_vokens=2, seed=1)
    [[-100, 0, 1, 1]]

    ```
    """
    check_integer("num_vokens", num_vokens, least=2)
    check_integer("seed", seed)
    _check_texts(token_ids, "vokens", len(vokens))
    order = {
        token: np.random.default_rng([seed, token]).permutation(num_vokens)
        for token in set().union(*map(set, token_ids))
    }
    return [
        [
            NO_LABEL if voken == NO_LABEL else int(order[token][voken])
            for voken, token in zip(of_text, tokens, strict=True)
        ]
        for of_text, tokens in zip(vokens, token_ids, strict=True)
    ]


def _directions(x_ND: np.ndarray) -> np.ndarray:
    return x_ND / np.maximum(np.linalg.norm(x_ND, axis=1, keepdims=True), 1e-12)


def _check_texts(token_ids: Ids, name: str, found: int) -> None:
    if len(token_ids) != found:
        raise ValueError(f"{len(token_ids)} texts, and `{name}` of {found}: pass one a text, in the same order.")


def _words(token_ids: Ids, tokens: SequenceBank, special_ids: Collection[int]) -> list[np.ndarray]:
    """Which tokens of every text are none of the special ones, `(T_i,)` booleans."""
    _check_texts(token_ids, "tokens", len(tokens))
    for row, (of_text, length) in enumerate(zip(token_ids, tokens.lengths, strict=True)):
        if len(of_text) != length:
            raise ValueError(
                f"text {row} has {len(of_text)} tokens for the student and {length} for the teacher: both must split texts "
                "alike, special tokens included, so take the student's vocabulary from the teacher's tokenizer, and truncate "
                "neither."
            )
    is_word = [~np.isin(of_text, list(special_ids)) for of_text in token_ids]
    for row, words_T in enumerate(is_word):
        if not words_T.any():
            raise ValueError(f"text {row} has special tokens alone: leave it out.")
    return is_word
