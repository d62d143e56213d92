"""The released code's way, a teacher forward at every step, beside ours, a look-up in the bank."""

import torch
from transformers import BertConfig, BertModel, PreTrainedConfig

from hf_colearn import FrozenEncoder, RandomPrompt, TeacherBank
from tests.benchmarks.encoding import minilm
from tests.benchmarks.timing import Row, paired, ratio_row
from tests.benchmarks.trainers import (
    PROMPTS,
    Turn,
    colearning_trainer,
    make_arguments,
    make_bank,
    make_student,
    vit_small,
    vit_tiny,
)


NOTE = (
    "Both are `CoLearningTrainer`, alike but for the targets: the teacher's tokenizer and forward pass (no gradient) "
    "on the batch's prompts at every step, as in the code released with Lee & Yoon (ICLR 2025), against the bank."
)


class OnlineTeacher(RandomPrompt):
    """Encodes the prompts of a batch whenever they are drawn, and has no use for the bank."""

    def __init__(self, encoder: FrozenEncoder):
        super().__init__(PROMPTS.template, PROMPTS.num_classes)
        self._encoder, self._prompts = encoder, self.prompts

    def targets(self, bank: TeacherBank, sample_ids, epoch, seed) -> torch.Tensor:
        drawn = self.rows(bank, sample_ids, epoch, seed)
        return self._encoder.encode([self._prompts[row] for row in drawn]).clone()  # no inference tensor


def bert_large(tokenizer, device: str = "cpu") -> FrozenEncoder:
    """Of random weights: what they hold does not change the time."""
    sizes = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096}
    return random_bert(BertConfig(**sizes), tokenizer, device)


def random_bert(config: BertConfig, tokenizer, device: str = "cpu") -> FrozenEncoder:
    model = BertModel(config, add_pooling_layer=False).requires_grad_(False)
    return FrozenEncoder(model.to(device), tokenizer, pooling="cls")


def online_row(
    name: str,
    encoder: FrozenEncoder,
    student: str,
    backbone: PreTrainedConfig,
    batch: int,
    timed_steps: int,
    pairs: int,
    device: str = "cpu",
    **arguments,
) -> Row:
    """Our step first, the online one second."""
    bank = make_bank(encoder.dim)

    def trainer(pairing):
        own = make_student(backbone, encoder.dim, batch, device)
        return colearning_trainer(own, make_arguments(batch, timed_steps, **arguments), bank, pairing)

    seconds = paired(Turn(trainer(PROMPTS)), Turn(trainer(OnlineTeacher(encoder))), pairs)
    sizes = f"teacher {name}, student {student}, batch {batch}"
    return ratio_row("online", "step with the teacher online / with the bank", sizes, seconds, note=NOTE)


def rows(quick: bool) -> list[Row]:
    small = minilm()
    if quick:
        tiny = BertConfig(hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64)
        teachers, student = {"tiny BERT": random_bert(tiny, small.processor)}, ("tiny ViT", vit_tiny(), 2, 2, 2)
    else:
        teachers = {"MiniLM-L6": small, "BERT-large's size": bert_large(small.processor)}
        student = ("ViT-S/16, 224 px", vit_small(), 8, 2, 10)
    return [online_row(name, encoder, *student) for name, encoder in teachers.items()]
