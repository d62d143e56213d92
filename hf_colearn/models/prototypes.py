"""Class vectors as the head: logits are scaled cosines between latents and one vector a class; travels with every checkpoint.

Shapes: B samples, C classes, D latent width.
"""

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn


class PrototypeHead(nn.Module):
    r"""\\(s \cos(z, v_c)\\), with one vector \\(v_c\\) a class and a scale \\(s\\).

    The vectors are a buffer, or a parameter where they are learned. The scale is learned as its logarithm.
    """

    class_vectors: torch.Tensor  # [C, D]

    def __init__(self, latent_dim: int, num_labels: int, learned: bool, scale: float, learned_scale: bool):
        super().__init__()
        self.scale = scale
        vectors_CD = torch.zeros(num_labels, latent_dim)
        if learned:
            self.class_vectors = nn.Parameter(vectors_CD)
        else:
            self.register_buffer("class_vectors", vectors_CD)
        self.log_scale = nn.Parameter(torch.zeros(())) if learned_scale else None
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Learned vectors are random until they are set; fixed ones are 0, which gives every class the same logit."""
        if isinstance(self.class_vectors, nn.Parameter):
            nn.init.normal_(self.class_vectors)
        else:
            self.class_vectors.zero_()
        if self.log_scale is not None:
            self.log_scale.fill_(self.scale).log_()

    def forward(self, latents_BD: torch.Tensor) -> torch.Tensor:
        z_BD, v_CD = F.normalize(latents_BD.float(), dim=-1), F.normalize(self.class_vectors.float(), dim=-1)
        scale = self.scale if self.log_scale is None else self.log_scale.float().exp()
        return (scale * (z_BD @ v_CD.T)).to(latents_BD.dtype)

    @torch.no_grad()
    def set_vectors(self, vectors_CD: torch.Tensor) -> None:
        """Gives every class its vector; their number may change."""
        vectors_CD = vectors_CD.to(self.class_vectors)
        if isinstance(self.class_vectors, nn.Parameter):
            self.class_vectors = nn.Parameter(vectors_CD, requires_grad=self.class_vectors.requires_grad)
        else:
            self.class_vectors = vectors_CD


def check_prototypes(head: str, learned: Any, scale: Any, learned_scale: Any, source: Any = None) -> None:
    """A ValueError where an option of the head is none, or belongs to another head."""
    if isinstance(scale, bool) or not isinstance(scale, (int, float)) or not 0 < scale < float("inf"):
        raise ValueError(f"logit_scale={scale!r} scales no cosine: pass a positive number, such as 10.")
    given = {"learned_class_vectors": learned, "learned_logit_scale": learned_scale}
    for name, value in given.items():
        if not isinstance(value, bool):
            raise TypeError(f"{name}={value!r} is a {type(value).__name__}: pass a bool.")
    if source is not None and (not isinstance(source, str) or not source.strip()):
        raise TypeError(f"class_vectors_from={source!r} names no source: say in words where the vectors come from.")
    given["class_vectors_from"] = source
    if head != "prototypes" and (wrong := [name for name, value in given.items() if value]):
        raise ValueError(f"{wrong[0]}={given[wrong[0]]!r} belongs to head='prototypes', and the head is '{head}'.")


def check_vectors_are_there(config: Any, vectors_CD: torch.Tensor | None) -> None:
    """A ValueError where the head needs vectors and has none, or the other way round."""
    if config.head != "prototypes" and vectors_CD is not None:
        raise ValueError(f"class_vectors belong to head='prototypes', and the head is '{config.head}'.")
    if config.head == "prototypes" and vectors_CD is None and not config.learned_class_vectors:
        raise ValueError(
            "head='prototypes' has no class vectors: pass class_vectors={'cat': vector, ...}, one a class, or "
            "learned_class_vectors=True."
        )


def with_classes(student: Any, class_vectors: Mapping[str, Any], keep: bool) -> Any:
    """See [`~hf_colearn.models.student_base.CoLearningStudent.with_classes`]."""
    if student.config.head != "prototypes":
        raise ValueError(
            f"head='{student.config.head}' has no class vectors to add to: build the student with head='prototypes'."
        )
    if hasattr(student, "peft_config"):  # as PEFT marks every model whose layers it has changed
        raise ValueError("the student has adapters: merge them first, `model.merge_and_unload()`.")
    if not isinstance(class_vectors, Mapping) or not class_vectors:
        raise TypeError("pass the new classes by name, such as `with_classes({'lynx': vector})`.")
    known = [student.config.id2label[i] for i in range(student.config.num_labels)] if keep else []
    if doubled := [name for name in class_vectors if name in known]:
        raise ValueError(f"the student knows the class '{doubled[0]}' already: leave it out, or pass keep=False.")
    vectors_CD = as_class_vectors(class_vectors, student.config.latent_dim)
    names = [*known, *class_vectors]
    if len(names) < 2:
        raise ValueError(f"'{names[0]}' alone leaves nothing to choose between: pass at least 2 classes.")
    changed = copy.deepcopy(student)
    changed.zero_grad()
    changed.config.id2label = dict(enumerate(names))
    changed.config.label2id = {name: i for i, name in enumerate(names)}
    own_CD = changed.classifier.class_vectors.detach()
    changed.classifier.set_vectors(torch.cat([own_CD, vectors_CD.to(own_CD)]) if keep else vectors_CD)
    return changed


def as_class_vectors(vectors: Any, latent_dim: int | None, names: Sequence[str] | None = None) -> torch.Tensor:
    """Class vectors as a tensor `[C, D]` in the order of the classes.

    Args:
        vectors (`Mapping[str, Any]` or a tensor of shape `(C, D)`): A vector a class, by name or in the classes' order.
        latent_dim (`int`, *optional*): D.
        names (`Sequence[str]`, *optional*): The classes' names in their order; by default the mapping's own.

    Raises:
        ValueError: If a class has no vector, a vector no class, or one is 0, not finite or of another width.
    """
    if isinstance(vectors, Mapping):
        known = list(vectors) if names is None else list(names)
        if missing := [name for name in known if name not in vectors]:
            raise ValueError(
                f"class '{missing[0]}' has no vector (those given are of {_some(vectors)}): pass one for every class."
            )
        if unknown := [name for name in vectors if name not in known]:
            raise ValueError(
                f"there is a vector of '{unknown[0]}', which is none of the {len(known)} classes ({_some(known)}): leave it "
                "out; classes that the student is not trained on are added by `student.with_classes({...})`."
            )
        rows = [torch.as_tensor(vectors[name]).float() for name in known]
        for name, row in zip(known, rows, strict=True):
            if row.ndim != 1 or (latent_dim is not None and len(row) != latent_dim):
                raise ValueError(f"the vector of '{name}' is of shape {tuple(row.shape)}: {_way_out(latent_dim)}.")
        widths = {len(row) for row in rows}
        if len(widths) != 1:
            raise ValueError(f"the class vectors have the widths {sorted(widths)}: they must have one and the same.")
        vectors_CD = torch.stack(rows)
    else:
        vectors_CD = torch.as_tensor(vectors).float()
        if vectors_CD.ndim != 2 or (latent_dim is not None and vectors_CD.shape[1] != latent_dim):
            raise ValueError(f"the class vectors are of shape {tuple(vectors_CD.shape)}: {_way_out(latent_dim)}.")
        if names is not None and len(vectors_CD) != len(names):
            raise ValueError(f"there are {len(vectors_CD)} class vectors for {len(names)} classes: pass one a class.")
    is_bad = ~vectors_CD.isfinite().all(dim=1) | (vectors_CD == 0).all(dim=1)
    if is_bad.any():
        which = int(is_bad.nonzero()[0])
        name = (names or (list(vectors) if isinstance(vectors, Mapping) else range(len(vectors_CD))))[which]
        raise ValueError(f"the vector of class '{name}' is 0 or not finite, so it has no direction: mend it.")
    return vectors_CD


def _way_out(latent_dim: int | None) -> str:
    width = "D" if latent_dim is None else str(latent_dim)
    return (
        f"pass one vector of width {width} a class, the student's latent_dim (or build it with `latent_dim` of theirs)"
    )


def _some(names: Any) -> str:
    shown = ", ".join(f"'{name}'" for name in list(names)[:4])
    return shown if len(names) <= 4 else f"{shown}, ..."
