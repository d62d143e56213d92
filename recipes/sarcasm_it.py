"""Sarcasm in tweets with a picture: BERT-base and ResNet-50 with the label loss and a contrastive loss, mixed by a constant,
heuristic, fitted or learned alpha (Yang et al., NeurIPS 2024).

Published: both networks pretrained, Adam at 1e-5, texts of 50 words; accuracy and macro F1 on the tweets of Cai et al. (ACL
2019). Ours, as nothing is published of them: batches of 32, 15 epochs at a constant learning rate, concatenated latents, crops
of at least half a picture, and 50 tokens instead of words, [CLS] and [SEP] among them. The published validation split
chooses the checkpoint, and the learned alpha takes a tenth of the training split. Hyperparameters are in sarcasm_it.yaml;
each can be given on the command line, too.

    accelerate launch recipes/sarcasm_it.py --data_dir SARCASM --small         # a smoke test: tiny networks, few epochs
    accelerate launch recipes/sarcasm_it.py --data_dir SARCASM --seeds 5       # as published: dataset_image/ and text/
    accelerate launch recipes/sarcasm_it.py --data_dir MMSD2 --texts text_json_final --arms ce learned
    accelerate launch recipes/sarcasm_it.py --hub_id USER/sarcasm              # a mirror: columns image, text, label
"""

from dataclasses import dataclass, field

from transformers import DataCollatorWithPadding

from hf_colearn import CoLearningArguments, CoLearningTrainer
from hf_colearn.corpora.image_text import MODALITIES, ImageTextOptions
from hf_colearn.corpora.sarcasm import CLASSES, load_sarcasm
from hf_colearn.experiments.arms import ArmPlan, chosen_arms
from hf_colearn.experiments.image_text import class_names, image_text_backbones, image_text_processors
from hf_colearn.experiments.info import ExperimentInfo, named_data
from hf_colearn.experiments.multimodal import MultimodalOptions, multimodal_arms, multimodal_trainer
from hf_colearn.experiments.options import parse_recipe
from hf_colearn.experiments.runner import quiet, run_recipe
from hf_colearn.experiments.tiny_models import trained_tokenizer
from hf_colearn.utils.command_line import run_script


@dataclass
class Options(ImageTextOptions, MultimodalOptions):
    hub_config: str | None = field(default=None, metadata={"help": "Of --hub_id, where it has several."})
    texts: str | None = field(
        default=None, metadata={"help": "text (Cai et al.), text_json_final (MMSD2.0) or text_json_clean."}
    )


def main() -> None:
    options, training = parse_recipe(Options, __file__)
    quiet()
    plans = chosen_arms(options, multimodal_arms(options, training, MODALITIES))
    options.needs_data(options.data_dir, "the folder with dataset_image/ and the texts")
    processors = image_text_processors(options)
    raw = load_sarcasm(options.data_dir, options.hub_id, options.hub_config, options.texts, options.skip_bad_samples)
    if processors["text"] is None:
        processors["text"] = trained_tokenizer(raw["train"]["text"], vocab_size=5000)
    data = options.inputs(raw, processors["image"], processors["text"])
    names = class_names(raw["train"], CLASSES)

    def make_trainer(arm: ArmPlan, args: CoLearningArguments) -> CoLearningTrainer:
        model = options.make_model(image_text_backbones(options, processors["text"]), id2label=names)
        collators = {"image": None, "text": DataCollatorWithPadding(processors["text"])}
        return multimodal_trainer(options, arm, args, model, data, collators, ("accuracy", "macro_f1"))

    texts = [options.texts] if options.texts else []
    info = ExperimentInfo(
        recipe="sarcasm_it",
        title="Sarcasm in tweets with a picture",
        pipeline_tag="text-classification",
        **named_data("Multimodal sarcasm", raw, "tweets", *texts, hub_id=options.hub_id),
        pairing="a tweet and its picture",
        language="en",
    )
    run_recipe(options, training, info, plans, make_trainer, data, processors)


if __name__ == "__main__":
    run_script(main)
