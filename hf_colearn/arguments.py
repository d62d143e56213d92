"""Training arguments: transformers' own, and ours."""

from dataclasses import dataclass, field

from transformers import TrainingArguments

from hf_colearn.alpha import check_weights
from hf_colearn.losses import LATENT_LOSSES, REDUCTIONS


ALPHA_SCHEDULES = ("constant", "heuristic")


@dataclass
class CoLearningArguments(TrainingArguments):
    """All of [`~transformers.TrainingArguments`], and what co-learning adds.

    Objects given to [`CoLearningTrainer`] (`alpha=`, `objective=`) take the place of the fields here.

    Args:
        alpha (`float`, *optional*): The auxiliary term's share of the loss, in [0, 1]; 0.5 where there is a teacher
            and nothing else is said.
        alpha_schedule (`str`, *optional*, defaults to `"constant"`): `"constant"` or `"heuristic"` (1 - exp(-1/t) in
            epoch t, which has no `alpha` of its own).
        latent_loss (`str`, *optional*, defaults to `"mse"`): `"mse"`, `"cosine"` or `"smooth_l1"`.
        latent_reduction (`str`, *optional*, defaults to `"mean"`): `"mean"` over the latent's dimensions (released
            code) or `"sum"` (the paper's squared norm).
        id_column (`str`, *optional*, defaults to `"sample_id"`): The training set's column of sample ids.

    Raises:
        ValueError: Naming the value that is out of range.
    """

    alpha: float | None = field(default=None, metadata={"help": "Share of the auxiliary term, 0 to 1 (default 0.5)."})
    alpha_schedule: str = field(
        default="constant", metadata={"help": "How alpha moves: constant, or heuristic (1 - exp(-1/epoch))."}
    )
    latent_loss: str = field(default="mse", metadata={"help": "Distance of latents: mse, cosine or smooth_l1."})
    latent_reduction: str = field(default="mean", metadata={"help": "Over the latent's dimensions: mean or sum."})
    id_column: str = field(default="sample_id", metadata={"help": "Column of the training set with sample ids."})

    def __post_init__(self):
        super().__post_init__()
        if self.alpha is not None:
            self.alpha = float(self.alpha)  # YAML reads 5e-1 as text
            check_weights({"latent": self.alpha})
        for name, choices in (
            ("alpha_schedule", ALPHA_SCHEDULES),
            ("latent_loss", LATENT_LOSSES),
            ("latent_reduction", REDUCTIONS),
        ):
            if getattr(self, name) not in choices:
                raise ValueError(f"{name}='{getattr(self, name)}' is unknown: choose one of {', '.join(choices)}.")
        if self.alpha_schedule == "heuristic" and self.alpha is not None:
            raise ValueError(
                f"alpha={self.alpha} has no place in alpha_schedule='heuristic', which is 1 - exp(-1/epoch): leave "
                "alpha out, or set alpha_schedule='constant'."
            )
        if not self.id_column:
            raise ValueError("id_column='' names no column: the default is 'sample_id'.")
