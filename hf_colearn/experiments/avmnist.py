"""What the two AVMNIST recipes share: the release or AV-digits, and the students."""

from dataclasses import dataclass, field

from datasets import DatasetDict
from transformers import PreTrainedConfig

from hf_colearn.corpora.av_digits import load_av_digits
from hf_colearn.corpora.avmnist import load_avmnist
from hf_colearn.experiments.info import named_data
from hf_colearn.experiments.options import RecipeOptions
from hf_colearn.experiments.tiny_models import RESNETS


DIGITS = {digit: str(digit) for digit in range(10)}


@dataclass
class AvmnistOptions(RecipeOptions):
    """What both recipes take; each adds its own by inheriting."""

    audio_dir: str | None = field(default=None, metadata={"help": "Spoken digits: FSDD's files, or a folder a digit."})

    def load(self) -> DatasetDict:
        """AVMNIST's release of `--data_dir`, or else AV-digits; ends the recipe where there is neither."""
        if self.data_dir is not None:
            return load_avmnist(self.data_dir, seed=0)
        if self.audio_dir is None and not self.small:
            raise ValueError("no data: pass --data_dir (AVMNIST's release), --audio_dir (spoken digits) or --small.")
        return load_av_digits(self.audio_dir, skip_bad_samples=self.skip_bad_samples)

    def described(self, raw: DatasetDict) -> dict[str, str]:
        """The fields of [`~hf_colearn.experiments.info.ExperimentInfo`] that name the data."""
        if self.data_dir is not None:
            return named_data("AVMNIST", raw)
        return named_data("AV-digits", raw, "pairs", f"handwritten and {'spoken' if self.audio_dir else 'DTMF'}")

    def backbone(self) -> PreTrainedConfig | str | None:
        """A ResNet from scratch on one channel, or the checkpoint that `--student` names."""
        return RESNETS[self.student](num_channels=1) if self.student in RESNETS else self.student
