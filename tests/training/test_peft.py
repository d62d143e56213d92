"""LoRA students of three modalities: what trains, what is saved, and what comes back."""

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig, PeftModel, TaskType, get_peft_model

import families
import tiny
from hf_colearn import CoLearningTrainer, with_sample_ids


# Family: the attention's layers that get adapters, the task type, and the heads that train whole.
ADAPTED = {
    "vit": (["q_proj", "v_proj"], None, ["latent_head", "latent_norm", "classifier"]),
    "bert": (["query", "value"], TaskType.SEQ_CLS, ["latent_head", "classifier"]),
    "wav2vec2": (["q_proj", "v_proj"], None, ["latent_head", "classifier"]),
}
every_family = pytest.mark.parametrize("family", ADAPTED)


def base(family):
    """The same weights at every call, as a checkpoint would give them."""
    latent_norm = "layernorm" if "latent_norm" in ADAPTED[family][2] else "none"
    return families.student(family, latent_norm=latent_norm)


def adapted(family):
    targets, task_type, heads = ADAPTED[family]
    config = LoraConfig(r=4, lora_alpha=8, target_modules=targets, modules_to_save=[*heads], task_type=task_type)
    torch.manual_seed(4)
    return get_peft_model(base(family), config)


def dataset(family):
    batches = [families.inputs(family, seed) for seed in range(8)]  # of two samples each
    columns = {name: torch.cat([batch[name] for batch in batches]).numpy() for name in batches[0]}
    return with_sample_ids(Dataset.from_dict({**columns, "labels": [0, 1, 2, 0] * 4})).with_format("torch")


def logits(model, family):
    with torch.no_grad():
        return model.eval()(**families.inputs(family, seed=20)).logits


@pytest.fixture(scope="module", params=ADAPTED)
def trained(request, tmp_path_factory):
    """A LoRA student after four steps with a teacher, its weights from before, and the folder that it was saved to."""
    family, folder = request.param, tmp_path_factory.mktemp(request.param)
    model = adapted(family)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    trainer = CoLearningTrainer(
        model,
        tiny.arguments(folder / "run", max_steps=4, learning_rate=1e-2, save_strategy="no"),
        train_dataset=dataset(family),
        bank=tiny.bank(rows=16),
    )
    trainer.train()
    trainer.save_model(folder / "saved")
    return family, trainer, before, folder / "saved"


@every_family
def test_a_fresh_adapter_changes_no_output(family):
    with torch.no_grad():
        inputs = families.inputs(family)
        expected, found = base(family)(**inputs), adapted(family).eval()(**inputs)
    assert torch.equal(found.logits, expected.logits)
    assert torch.equal(found.latents, expected.latents)


@every_family
def test_only_adapters_and_heads_are_trainable(family):
    heads = ADAPTED[family][2]
    trainable = [name for name, parameter in adapted(family).named_parameters() if parameter.requires_grad]
    adapters = [name for name in trainable if "lora_" in name]
    assert len(adapters) == 4  # A and B of two layers
    assert sorted(set(trainable) - set(adapters)) == sorted(
        f"base_model.model.{head}.modules_to_save.default.{weight}" for head in heads for weight in ("weight", "bias")
    )


def test_training_with_a_teacher_moves_adapters_and_heads_and_nothing_else(trained):
    family, trainer, before, _ = trained
    moved = {name for name, value in trainer.model.named_parameters() if not torch.equal(value, before[name])}
    assert moved == {name for name, value in trainer.model.named_parameters() if value.requires_grad}
    steps = [entry for entry in trainer.state.log_history if "loss_latent" in entry]
    assert len(steps) == 4
    for entry in steps:  # alpha is 0.5 by default
        assert entry["loss"] == pytest.approx((entry["loss_task"] + entry["loss_latent"]) / 2, abs=1e-3)


def test_a_saved_adapter_loads_onto_the_base_with_equal_outputs(trained):
    family, trainer, _, folder = trained
    assert (folder / "adapter_model.safetensors").exists()
    assert not (folder / "model.safetensors").exists()
    loaded = PeftModel.from_pretrained(base(family), folder)
    expected = logits(trainer.model, family)
    assert torch.equal(logits(loaded, family), expected)
    assert (logits(base(family), family) - expected).abs().max() > 1e-2  # the adapter matters


def test_a_merged_student_is_a_student_that_saves_and_loads(trained, tmp_path):
    family, trainer, _, folder = trained
    merged = PeftModel.from_pretrained(base(family), folder).merge_and_unload()
    assert type(merged) is families.FAMILIES[family][0]
    torch.testing.assert_close(logits(merged, family), logits(trainer.model, family), atol=1e-5, rtol=1e-5)
    merged.save_pretrained(tmp_path)
    again = type(merged).from_pretrained(tmp_path)
    assert torch.equal(logits(again, family), logits(merged, family))


def test_gradient_checkpointing_reaches_the_adapters():
    model = adapted("bert")
    model.gradient_checkpointing_enable()
    model.enable_input_require_grads()
    model.train()(**families.inputs("bert"), labels=torch.tensor([0, 1])).loss.backward()
    gradients = {name: weight.grad for name, weight in model.named_parameters() if "lora_B" in name}
    assert len(gradients) == 2
    assert all(gradient.abs().sum() > 0 for gradient in gradients.values())
