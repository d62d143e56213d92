"""Prototypes of new classes from a few images and from text. Shapes: N samples, D latent width, E width of a text's latent."""

from collections.abc import Callable, Mapping, Sequence

import torch
from sklearn.linear_model import RidgeCV

from hf_colearn.utils.checks import is_number


_PENALTIES = (0.01, 0.1, 1.0, 10.0, 100.0, 1e3, 1e4)


def few_shot_prototypes(
    latents: torch.Tensor,
    classes: Sequence[str],
    generated: Mapping[str, torch.Tensor] | None = None,
    text_weight: float = 1.0,
) -> dict[str, torch.Tensor]:
    r"""A vector of every class: the mean of a few image latents and of latents that were generated from text.

    \\(p_c = (\bar z_c + \lambda \bar g_c) / (1 + \lambda)\\), with \\(\bar z_c\\) the mean latent of the class's images and
    \\(\bar g_c\\) that of its texts' ([`text_to_latents`]). They are what `head="prototypes"` takes, and
    `student.with_classes(...)` for classes that it was not trained on.

    Source: "Multimodal Prototypical Networks for Few-shot Learning" (Pahde et al., WACV 2021). There a
    network is trained to generate them; here they may come from anywhere. The paper's weighting was not verified.

    Args:
        latents (`torch.Tensor` of shape `(N, D)`): The student's, of the few images.
        classes (`Sequence[str]`): The class of each.
        generated (`Mapping[str, torch.Tensor]`, *optional*): Latents `(M, D)` of every class, generated from M texts.
        text_weight (`float`, *optional*, defaults to 1): \\(\lambda\\), from 0 (images alone).

    Returns:
        `dict[str, torch.Tensor]`: A vector `(D,)` a class, in the order in which the classes first come: that of the numbers
        which `with_classes(..., keep=False)` gives them.

    Raises:
        ValueError: If a class has no generated latent, a shape does not fit, or a latent is not finite.

    Example:

    ```python
    >>> import torch
    >>> from hf_colearn import few_shot_prototypes

    >>> images = torch.tensor([[0.0], [2.0]])
    >>> few_shot_prototypes(images, ["owl", "owl"], {"owl": torch.tensor([[4.0]])})  # (1 + 4) / 2
    {'owl': tensor([2.5000])}
    ```
    """
    if not is_number(text_weight) or not 0 <= text_weight < float("inf"):
        raise ValueError(f"text_weight={text_weight!r}: pass a number from 0, which is images alone.")
    if latents.ndim != 2 or len(latents) != len(classes) or not len(latents):
        raise ValueError(
            f"there are latents of shape {tuple(latents.shape)} for {len(classes)} samples: pass [N, D], and N classes."
        )
    prototypes = {}
    for name in dict.fromkeys(classes):
        own_ND = latents[[i for i, of in enumerate(classes) if of == name]].float()
        prototype_D = _mean(own_ND, latents.shape[1], f"the images of '{name}'")
        if generated is not None:
            if name not in generated:
                raise ValueError(f"class '{name}' has no generated latents: pass some, or leave `generated` out.")
            text_D = _mean(generated[name], latents.shape[1], f"the texts of '{name}'").to(prototype_D)
            prototype_D = (prototype_D + text_weight * text_D) / (1 + text_weight)
        prototypes[name] = prototype_D
    return prototypes


def text_to_latents(text_latents: torch.Tensor, latents: torch.Tensor) -> Callable[[torch.Tensor], torch.Tensor]:
    """Generates latents from text: a ridge regression from a text encoder's latents to the student's, fitted to pairs.

    The pairs are those of classes that the student was trained on, so that nothing of the new classes' images is in it. The
    penalty is chosen among powers of ten by leaving out one pair at a time.

    Args:
        text_latents (`torch.Tensor` of shape `(N, E)`): Of the texts, such as a [`TeacherBank`]'s rows.
        latents (`torch.Tensor` of shape `(N, D)`): The student's, of their images.

    Returns:
        `Callable`: From text latents `(M, E)` to latents `(M, D)`.

    Example:

    ```python
    >>> import torch
    >>> from hf_colearn.teachers.few_shot_prototypes import text_to_latents

    >>> text = torch.linspace(-1, 1, 9)[:, None]
    >>> text_to_latents(text, 2 * text + 1)(torch.tensor([[0.5]])).round(decimals=1)
    tensor([[2.]])
    ```
    """
    if text_latents.ndim != 2 or latents.ndim != 2 or len(text_latents) != len(latents) or len(latents) < 2:
        raise ValueError(
            f"text latents of shape {tuple(text_latents.shape)} and latents of {tuple(latents.shape)} are no pairs: pass "
            "[N, E] and [N, D] with N > 1."
        )
    ridge = RidgeCV(_PENALTIES).fit(text_latents.numpy(), latents.numpy())

    def generate(text_latents_ME: torch.Tensor) -> torch.Tensor:
        predicted_MD = torch.from_numpy(ridge.predict(text_latents_ME.numpy()))
        return predicted_MD.reshape(len(text_latents_ME), -1).to(latents.dtype)

    return generate


def _mean(latents: torch.Tensor, width: int, whose: str) -> torch.Tensor:
    if latents.ndim != 2 or latents.shape[1] != width or not len(latents):
        raise ValueError(f"the latents of {whose} are of shape {tuple(latents.shape)}: pass some of width {width}.")
    if not latents.isfinite().all():
        raise ValueError(f"a latent of {whose} is not finite: leave its sample out.")
    return latents.float().mean(dim=0)
