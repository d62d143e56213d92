"""Three modalities, picture, sentence and speech: Tux Paint's stamps by category, with the label loss and a contrastive
loss over the three pairs, mixed by a constant, heuristic, fitted or learned alpha (Yang et al., NeurIPS 2024).

The data are Debian's package `tuxpaint-stamps-default`, read where `apt-get install tuxpaint-stamps-default` puts it, or
trimmed to a folder with `metadata.csv`, `images/` and `speech_fr/`. The split is drawn with seed 0, whatever `--seed` is: the
runs of several seeds share it.

    accelerate launch recipes/stamps.py --data_dir /usr/share/tuxpaint/stamps --small      # a smoke test: few epochs
    accelerate launch recipes/stamps.py --data_dir /usr/share/tuxpaint/stamps --seeds 5
    accelerate launch recipes/stamps.py --data_dir STAMPS --fusion lstm --modality_dropout 0.3 --text fr
"""

from dataclasses import dataclass, field

from datasets import Dataset
from transformers import DataCollatorWithPadding
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

from hf_colearn import CoLearningArguments, CoLearningTrainer
from hf_colearn.corpora.stamps import load_stamps, needs_stamps
from hf_colearn.data.audio import with_input_values
from hf_colearn.data.images import with_pixel_values
from hf_colearn.data.text import with_input_ids
from hf_colearn.experiments.arms import ArmPlan, chosen_arms
from hf_colearn.experiments.info import ExperimentInfo, named_data
from hf_colearn.experiments.multimodal import MultimodalOptions, multimodal_arms, multimodal_trainer
from hf_colearn.experiments.options import parse_recipe
from hf_colearn.experiments.runner import quiet, run_recipe
from hf_colearn.experiments.tiny_models import bert_tiny, resnet_tiny, trained_tokenizer
from hf_colearn.models.spectrogram import SpectrogramFeatureExtractor
from hf_colearn.utils.command_line import run_script


MODALITIES = ("image", "text", "speech")
TEXT = ("input_ids", "token_type_ids", "attention_mask")


@dataclass
class Options(MultimodalOptions):
    text: str = field(default="en", metadata={"help": "Language of the sentences: en or fr (what the speech says)."})
    image_size: int = field(default=48, metadata={"help": "Pixels of a picture's side."})
    seconds: float = field(default=3.0, metadata={"help": "Of speech; longer recordings lose their end."})


def main() -> None:
    options, training = parse_recipe(Options, __file__)
    quiet()
    plans = chosen_arms(options, multimodal_arms(options, training, MODALITIES))
    needs_stamps(options.data_dir)
    raw = load_stamps(options.data_dir, text=options.text)
    names = dict(enumerate(raw["train"].features["label"].names))
    processor = ViTImageProcessorPil(size={"height": options.image_size, "width": options.image_size})
    extractor = SpectrogramFeatureExtractor(size=(64, 96), seconds=options.seconds)
    tokenizer = trained_tokenizer(raw["train"]["text"], vocab_size=1000)

    def prepare(part: Dataset) -> Dataset:
        kept = [c for c in ("image", "text", "audio", "label", "sample_id") if c in part.column_names]
        part = with_pixel_values(part.select_columns(kept), processor).rename_column(
            "pixel_values", "image_pixel_values"
        )
        part = with_input_values(part, extractor, label_column="labels", max_seconds=options.seconds)
        part = part.rename_column("pixel_values", "speech_pixel_values")
        part = with_input_ids(part, tokenizer, label_column="labels", max_length=64)
        return part.rename_columns({name: f"text_{name}" for name in TEXT})

    data = {split: prepare(part) for split, part in raw.items()}

    def make_trainer(arm: ArmPlan, args: CoLearningArguments) -> CoLearningTrainer:
        backbones = {
            "image": resnet_tiny(),
            "text": bert_tiny(vocab_size=len(tokenizer), pad_token_id=tokenizer.pad_token_id),
            "speech": resnet_tiny(num_channels=1),
        }
        model = options.make_model(backbones, id2label=names)
        collators = {"image": None, "text": DataCollatorWithPadding(tokenizer), "speech": None}
        return multimodal_trainer(options, arm, args, model, data, collators, ("accuracy", "macro_f1"))

    info = ExperimentInfo(
        recipe="stamps",
        title="Stamps: picture, sentence and speech",
        pipeline_tag="image-classification",
        **named_data("Tux Paint stamps", raw, "stamps", f"sentences '{options.text}', French speech"),
        pairing="real triples, split by description",
        language=options.text,
    )
    processors = {"image": processor, "text": tokenizer, "speech": extractor}
    run_recipe(options, training, info, plans, make_trainer, data, processors)


if __name__ == "__main__":
    run_script(main)
