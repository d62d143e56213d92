"""What banks of vectors and of sequences share: what is recorded of them, their moments, and how they are scaled.

Shapes: D dimensions.
"""

from typing import Any

import torch

from hf_colearn.teachers import fingerprint
from hf_colearn.teachers.latent_scale import SCALINGS
from hf_colearn.utils.checks import check_choice


class BankBase:
    """Base of the banks, which knows them by their `description` and their `_moments`."""

    description: dict[str, Any]

    @property
    def _moments(self) -> tuple[torch.Tensor, torch.Tensor]:
        """The mean and the standard deviation, `(D,)` each."""
        raise NotImplementedError

    @property
    def fingerprint(self) -> str:
        return self.description["fingerprint"]

    @property
    def scaling(self) -> str:
        return self.description.get("scaling", {"how": "none"})["how"]

    def mean(self) -> torch.Tensor:
        """The mean over all latents of the rows, `(D,)` float32."""
        return self._moments[0]

    def std(self) -> torch.Tensor:
        """The standard deviation of every dimension over all latents of the rows (the population's), `(D,)` float32."""
        return self._moments[1]

    def _check_scaling(self, how: str) -> None:
        """Refuses a scaling that is none, or a second one."""
        check_choice("how", how, SCALINGS)
        if "scaling" in self.description:
            known = f"scaling='{self.scaling}', and '{how}' is asked for"
            raise ValueError(f"the bank has {known}: scale the bank that it was made of, or leave it as it is.")

    def _scaled_description(self, scaling: dict[str, Any]) -> dict[str, Any]:
        """What is recorded of the scaled bank, which names the one that was scaled where that changes latents."""
        if scaling["how"] == "none":
            return {**self.description, "scaling": scaling}
        scaling = {**scaling, "bank": self.fingerprint}
        return {**self.description, "scaling": scaling, "fingerprint": fingerprint.of_json({"scaling": scaling})}
