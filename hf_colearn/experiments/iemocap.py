"""What the two IEMOCAP recipes share: the data, real or synthetic, and their split."""

from dataclasses import dataclass, field
from typing import Any, cast

from datasets import DatasetDict

from hf_colearn.corpora.iemocap import load_iemocap
from hf_colearn.corpora.iemocap_synthetic import write_smoke_test_tree
from hf_colearn.experiments.info import named_data
from hf_colearn.experiments.options import RecipeOptions


@dataclass
class IemocapOptions(RecipeOptions):
    """What both recipes take; each adds its own by inheriting."""

    split: str = field(default="session", metadata={"help": "session (leave one out) or random (as released)."})
    test_session: int = field(default=5, metadata={"help": "The session that is left out, 1 to 5."})

    def load(self, output_dir: str) -> DatasetDict:
        """The utterances; for a smoke test without `--data_dir` synthetic ones, which are written below `output_dir`."""
        folder = self.data_dir
        if self.is_synthetic:
            folder = str(write_smoke_test_tree(f"{output_dir}/data"))
        return load_iemocap(
            folder,
            split=cast(Any, self.split),  # which refuses another word
            test_session=self.test_session,
            skip_bad_samples=self.skip_bad_samples,
        )

    @property
    def is_synthetic(self) -> bool:
        return self.small and self.data_dir is None

    def described(self, raw: DatasetDict) -> dict[str, str]:
        """The fields of [`~hf_colearn.experiments.info.ExperimentInfo`] that name the data."""
        name = "Synthetic utterances in IEMOCAP's layout" if self.is_synthetic else "IEMOCAP"
        return named_data(name, raw, "utterances", f"test split by {self.split}")
