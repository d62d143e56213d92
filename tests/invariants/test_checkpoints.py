"""Saved, resumed and best weights are those of transformers' Trainer, to the last bit and in their own dtypes."""

import itertools

import pytest
import torch
from datasets import Dataset
from peft import IA3Config, LoraConfig, get_peft_model
from safetensors import safe_open
from torch import nn
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertForSequenceClassification,
    PreTrainedModel,
    Trainer,
    TrainerCallback,
    TrainingArguments,
    ViTForImageClassification,
)
from transformers.modeling_outputs import SequenceClassifierOutput

import tiny
from hf_colearn import CoLearningTrainer


def bert():
    return BertForSequenceClassification(tiny.bert(num_labels=3))


def mixed_dtypes():
    model = bert().to(torch.bfloat16)
    model.bert.pooler.double().register_forward_pre_hook(lambda module, args: (args[0].double(),))
    model.classifier.float().register_forward_pre_hook(lambda module, args: (args[0].float(),))
    return model


def replaced_classifier():
    model = bert()
    model.classifier = nn.Sequential(nn.Linear(32, 8), nn.ReLU(), nn.Linear(8, 3))
    return model


def added_module():
    model = bert()
    model.added = nn.ModuleDict({"unused": nn.Linear(3, 2).half()})
    return model


def frozen_body():
    model = bert()
    model.bert.requires_grad_(False)
    return model


def frozen_half_precision_body():
    model = replaced_classifier()
    model.bert.to(torch.float16).requires_grad_(False)
    model.classifier.register_forward_pre_hook(lambda module, args: (args[0].float(),))
    return model


class Counting(nn.Module):
    """A module of buffers alone, which training moves."""

    def __init__(self):
        super().__init__()
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))
        self.register_buffer("mean", torch.zeros(4, dtype=torch.float64))
        self.register_buffer("lost", torch.ones(1), persistent=False)

    def forward(self, x_BD):
        if self.training:
            self.calls += 1
            self.mean += x_BD.detach().double().mean(0)
        return x_BD


class OfUser(PreTrainedModel):
    """A model of the user's own, with batch norm and a module of buffers."""

    config_class = BertConfig

    def __init__(self, config):
        super().__init__(config)
        self.embedding, self.norm, self.counting = nn.Embedding(100, 4), nn.BatchNorm1d(4), Counting()
        self.score = nn.Linear(4, 3)
        self.post_init()

    def forward(self, input_ids, labels=None):
        logits = self.score(self.counting(self.norm(self.embedding(input_ids).mean(1))))
        loss = None if labels is None else nn.functional.cross_entropy(logits, labels)
        return SequenceClassifierOutput(loss=loss, logits=logits)


class Plain(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = OfUser(tiny.bert(num_labels=3))

    def forward(self, input_ids, labels=None):
        return self.inner(input_ids, labels)


def lora(**kwargs):
    config = LoraConfig(r=2, target_modules=["query"], modules_to_save=["classifier"], init_lora_weights=False)
    return get_peft_model(bert().to(torch.bfloat16), config, **kwargs)


def half_precision_lora():
    return lora(autocast_adapter_dtype=False)


def ia3():
    return get_peft_model(bert(), IA3Config(target_modules=["key"], feedforward_modules=[], task_type="SEQ_CLS"))


def vit_with_another_classifier():
    model = ViTForImageClassification(tiny.vit(num_labels=3)).to(torch.bfloat16)
    model.classifier = nn.Sequential(nn.Linear(32, 8), nn.ReLU(), nn.Linear(8, 3))
    model.classifier.register_forward_pre_hook(lambda module, args: (args[0].float(),))
    return model


def student():
    model = tiny.student(num_labels=3)
    model.backbone.to(torch.bfloat16)
    model.latent_head.register_forward_pre_hook(lambda module, args: (args[0].float(),))
    return model


def data(model):
    rng = torch.Generator().manual_seed(0)
    labels = torch.arange(8) % 3
    if "pixel_values" in getattr(model, "main_input_name", ""):
        inputs = {"pixel_values": torch.randn(8, 1, 8, 8, generator=rng)}
    else:
        inputs = {"input_ids": torch.randint(5, 100, (8, 6), generator=rng)}
    columns = {**inputs, "labels": inputs["input_ids"] if isinstance(model, BertForMaskedLM) else labels}
    return Dataset.from_dict({name: column.tolist() for name, column in columns.items()}).with_format("torch")


class Snapshots(TrainerCallback):
    """The weights at every save."""

    def __init__(self):
        self.taken = {}

    def on_save(self, args, state, control, model=None, **kwargs):
        self.taken[state.global_step] = weights_of(model)


def weights_of(model):
    return {name: weight.detach().clone() for name, weight in model.state_dict().items()}


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    for name, weight in expected.items():
        assert found[name].dtype == weight.dtype, name
        assert torch.equal(found[name], weight), name


def run(cls, make, folder, resume=None, best=True):
    torch.manual_seed(0)
    model = make()
    ranks = itertools.count()
    args = tiny.arguments(
        folder, cls=TrainingArguments if cls is Trainer else type(tiny.arguments()), max_steps=4,
        per_device_train_batch_size=4, save_strategy="epoch", eval_strategy="epoch", load_best_model_at_end=best,
        metric_for_best_model="rank", greater_is_better=False,
    )  # fmt: skip
    trainer = cls(
        model, args, train_dataset=data(model), eval_dataset=data(model),
        compute_metrics=lambda predicted: {"rank": next(ranks)},  # the first evaluation is the best
        callbacks=[snapshots := Snapshots()],
    )  # fmt: skip
    trainer.train(resume_from_checkpoint=resume)
    return weights_of(trainer.model), snapshots.taken


MODELS = [
    mixed_dtypes, lambda: BertForMaskedLM(tiny.bert()), replaced_classifier, added_module, frozen_body,
    frozen_half_precision_body, lambda: OfUser(tiny.bert(num_labels=3)), Plain, lora, ia3,
]  # fmt: skip
# Trainer does not read the older names that it saves, and makes float32 of an adapter.
NOT_LOADED_BY_TRAINER = [vit_with_another_classifier, student, half_precision_lora]


@pytest.mark.parametrize("make", [*MODELS, *NOT_LOADED_BY_TRAINER])
def test_best_and_resumed_weights_are_those_that_were_saved_as_of_trainer(make, tmp_path):
    best, taken = run(CoLearningTrainer, make, tmp_path / "ours")
    assert_same(best, taken[2])
    first = tmp_path / "ours" / "checkpoint-2"
    resumed, _ = run(CoLearningTrainer, make, tmp_path / "ours", resume=str(first), best=False)
    assert_same(resumed, taken[4])
    if make in NOT_LOADED_BY_TRAINER:
        return
    best_of_plain, taken_of_plain = run(Trainer, make, tmp_path / "plain")
    assert_same(best, best_of_plain)
    assert_same(taken[4], taken_of_plain[4])
    for file in first.glob("*.safetensors"):
        with safe_open(file, "pt") as ours, safe_open(tmp_path / "plain" / "checkpoint-2" / file.name, "pt") as plain:
            assert_same(*({name: saved.get_tensor(name) for name in saved.keys()} for saved in (ours, plain)))  # noqa: SIM118


@pytest.mark.parametrize("make", [mixed_dtypes, lambda: BertForMaskedLM(tiny.bert()), vit_with_another_classifier])
@pytest.mark.parametrize("form", ["several files", "a file of torch"])
def test_checkpoints_in_other_files_are_read_as_exactly(make, form, tmp_path):
    _, taken = run(CoLearningTrainer, make, tmp_path, best=False)
    checkpoint = tmp_path / "checkpoint-2"
    torch.manual_seed(0)
    model = make()
    model.load_state_dict(taken[2])
    (checkpoint / "model.safetensors").unlink()
    if form == "several files":
        model.save_pretrained(checkpoint, max_shard_size="10KB")
        assert (checkpoint / "model.safetensors.index.json").is_file()
    else:
        torch.save(model.state_dict(), checkpoint / "pytorch_model.bin")
    resumed, _ = run(CoLearningTrainer, make, tmp_path, resume=str(checkpoint), best=False)
    assert_same(resumed, taken[4])
