"""What the two IEMOCAP recipes share: the data, real or synthetic, and their split."""

from dataclasses import dataclass, field
from typing import Any, cast

from datasets import DatasetDict

from hf_colearn.corpora.iemocap import load_iemocap
from hf_colearn.corpora.iemocap_synthetic import write_smoke_test_tree
from hf_colearn.experiments.options import RecipeOptions


@dataclass
class IemocapOptions(RecipeOptions):
    """What both recipes take; each adds its own by inheriting."""

    split: str = field(default="session", metadata={"help": "session (leave one out) or random (as released)."})
    test_session: int = field(default=5, metadata={"help": "The session that is left out, 1 to 5."})

    def load(self, output_dir: str) -> DatasetDict:
        """The utterances; for a smoke test without `--data_dir` synthetic ones, which are written below `output_dir`."""
        if self.small and self.data_dir is None:
            self.data_dir = str(write_smoke_test_tree(f"{output_dir}/data"))
        return load_iemocap(
            self.data_dir,
            split=cast(Any, self.split),  # which refuses another word
            test_session=self.test_session,
            skip_bad_samples=self.skip_bad_samples,
        )

    @property
    def dataset_name(self) -> str:
        """For report and card."""
        synthetic = " (synthetic utterances in its layout)" if self.small else ""
        return f"IEMOCAP{synthetic}, test split by {self.split}"
