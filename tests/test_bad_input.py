"""Bad input: a clear error that names the value at fault and the way out, before anything is trained, written or lost.

The cases of single rooms are in the tests of those; here are the trainer's and what belongs to several rooms.
"""

import functools
import random
import resource
from contextlib import contextmanager
from pathlib import Path

import datasets
import numpy as np
import pytest
import torch
from datasets import ClassLabel, Dataset, Features, Value
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModel,
    BertForTokenClassification,
    BertModel,
    EvalPrediction,
    TrainerCallback,
    TrainingArguments,
    ViTForImageClassification,
    Wav2Vec2FeatureExtractor,
)
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

import tiny
from hf_colearn import (
    CoLearningForFeatureClassification,
    CoLearningForImageClassification,
    CoLearningTrainer,
    Combined,
    ConstantAlpha,
    FeatureBackboneConfig,
    FittedAlpha,
    FrozenEncoder,
    HeuristicAlpha,
    LatentMatching,
    Noisy,
    Paired,
    RandomPrompt,
    RandomPrototypes,
    Shuffled,
    TeacherBank,
    classification_metrics,
    with_sample_ids,
)
from hf_colearn.alpha.alpha import Alpha
from hf_colearn.analysis.run import Run, Samples
from hf_colearn.analysis.runs import compare_runs
from hf_colearn.data.images import with_pixel_values
from hf_colearn.data.splits import few_per_class
from hf_colearn.experiments.arms import ArmPlan, pick
from hf_colearn.experiments.runner import run_arms
from hf_colearn.training import data_checks
from refusals import Refusals, assert_refused


REFUSALS = Refusals()
case = REFUSALS.case


@pytest.mark.parametrize(Refusals.NAMES, REFUSALS.cases)
def test_bad_input_is_refused_in_time_with_the_way_out(situation, error, texts, tmp_path):
    assert_refused(situation, error, texts, tmp_path)


# ---- real parts ----


class NeverBegins(TrainerCallback):
    def on_train_begin(self, args, state, control, **kwargs):
        raise AssertionError("training began")


def trainer(folder, student=None, data=None, callbacks=(NeverBegins,), output_dir="out", fields=(), **ours):
    """A trainer of tiny parts that must not begin to train; `fields` are those of the arguments."""
    return CoLearningTrainer(
        tiny.student() if student is None else student,
        tiny.arguments(folder / output_dir, **dict(fields)),
        train_dataset=tiny.digits(32) if data is None else data,
        callbacks=[callback() for callback in callbacks],
        **{"bank": tiny.bank(), "pairing": tiny.random_prompt(), **ours},
    )


def checkpoint(folder, student=None, **ours) -> str:
    """A checkpoint after two steps."""
    fields = {"max_steps": 2, "save_strategy": "steps", "save_steps": 2}
    trainer(folder, student, callbacks=(), output_dir="run", fields=fields, **ours).train()
    return str(folder / "run" / "checkpoint-2")


def relabelled(labels, feature=None) -> Dataset:
    """Digits with other labels."""
    data = tiny.digits(len(labels)).remove_columns("labels").add_column("labels", list(labels))
    return data if feature is None else data.cast_column("labels", feature)


def identified(ids) -> Dataset:
    """Digits with other sample ids."""
    return tiny.digits(len(ids)).remove_columns("sample_id").add_column("sample_id", list(ids))


language_teacher = functools.cache(tiny.minilm)


@functools.cache
def vision_teacher(processor_class=ViTImageProcessorPil) -> FrozenEncoder:
    model = AutoModel.from_config(tiny.vit(num_channels=3)).requires_grad_(False)
    return FrozenEncoder(model, processor_class(size={"height": 8, "width": 8}), pooling="cls")


@functools.cache
def audio_teacher() -> FrozenEncoder:
    return FrozenEncoder(AutoModel.from_config(tiny.wav2vec2()).requires_grad_(False), Wav2Vec2FeatureExtractor())


def encode(folder, teacher, inputs, cache="banks") -> TeacherBank:
    return TeacherBank.encode(teacher, inputs, cache_dir=folder / cache, show_progress=False)


def image(seed=0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8))


@contextmanager
def files_of_at_most(size):
    """A disk that is full after `size` bytes of a file; a write beyond fails with EFBIG."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


# ---- arguments and alphas ----


@case(TypeError, "args is a TrainingArguments", "pass CoLearningArguments")
def arguments_of_transformers(folder):
    args = TrainingArguments(str(folder / "out"), use_cpu=True)
    yield
    CoLearningTrainer(tiny.student(), args, train_dataset=tiny.digits(8))


@case(ValueError, "alpha=1.5", "outside [0, 1]", "Choose a value from 0")
def alpha_above_one(folder):
    yield
    tiny.arguments(folder / "out", alpha=1.5)


@case(ValueError, "alpha=-0.1", "outside [0, 1]", "Choose a value from 0")
def alpha_below_zero(folder):
    yield
    ConstantAlpha(-0.1)


@case(ValueError, "alpha=nan", "Choose a value from 0")
def alpha_nan(folder):
    yield
    tiny.arguments(folder / "out", alpha=float("nan"))


@case(ValueError, "'norm': 0.6", "sum to 1.2", "scale them down")
def alphas_that_sum_to_more_than_one(folder):
    yield
    ConstantAlpha({"latent": 0.6, "norm": 0.6})


@case(ValueError, "coefficients=[0.5, nan]", "at least one finite number")
def a_polynomial_with_nan(folder):
    yield
    FittedAlpha([0.5, float("nan")])


class Overweight(Alpha):
    def weights(self):
        return {"latent": 1.2}


@case(ValueError, "alpha=1.2", "outside [0, 1]", "Choose a value from 0")
def an_alpha_of_ones_own_above_one(folder):
    yield
    trainer(folder, alpha=Overweight())


@case(ValueError, "alpha=ConstantAlpha", "no auxiliary term", "pass `bank=`")
def an_alpha_without_a_term(folder):
    yield
    trainer(folder, bank=None, pairing=None, alpha=ConstantAlpha(0.5))


@case(ValueError, "alpha is given twice", "ConstantAlpha", "alpha=0.3", "leave one out")
def alpha_given_twice(folder):
    yield
    trainer(folder, alpha=ConstantAlpha(0.5), fields={"alpha": 0.3})


@case(ValueError, "'contrastive'", "computes ['latent']", "ConstantAlpha({'latent': 0.5})")
def alpha_for_another_term(folder):
    yield
    trainer(folder, alpha=ConstantAlpha(0.5, term="contrastive"))


# ---- what is no object of the right kind ----


class Named:
    """An objective of the given terms, which returns what it is given."""

    def __init__(self, terms, returned):
        self.terms, self.returned = terms, returned

    def __call__(self, outputs, batch):
        return self.returned(outputs["latents"])


@case(TypeError, "model='microsoft/resnet-50' is a text", "from_backbone('microsoft/resnet-50'")
def a_model_by_its_name(folder):
    yield
    trainer(folder, student="microsoft/resnet-50")


@case(TypeError, "alpha=0.3 is a float", "CoLearningArguments(alpha=...)", "ConstantAlpha(0.3)")
def a_number_as_alpha(folder):
    yield
    trainer(folder, alpha=0.3)


@case(TypeError, "alpha=HeuristicAlpha is a class", "`HeuristicAlpha(...)`")
def a_class_as_alpha(folder):
    yield
    trainer(folder, alpha=HeuristicAlpha)


@case(TypeError, "objective is a function with terms=None", "(outputs, batch) -> {term: loss}")
def a_function_as_objective(folder):
    yield
    trainer(folder, objective=lambda outputs, batch: {"latent": outputs["latents"].mean()})


@case(TypeError, "objective=LatentMatching is a class", "`LatentMatching()`")
def a_class_as_objective(folder):
    yield
    trainer(folder, objective=LatentMatching)


@case(TypeError, "terms='latent'", "a tuple of names such as ('latent',)")
def terms_that_are_one_text(folder):
    yield
    trainer(folder, objective=Named("latent", None))


@case(ValueError, "has weights of its own (Linear)", "training head of the student", "training_heads=")
def an_objective_with_weights(folder):
    objective = Named(("latent",), None)
    objective.projector = torch.nn.Linear(3, 3)
    yield
    trainer(folder, objective=objective)


@case(ValueError, "Combined has weights of its own (a tensor of shape (2,))", "training head")
def weights_in_an_objective_within_another(folder):
    inner = LatentMatching()
    inner.scales = [torch.ones(2, requires_grad=True)]
    yield
    trainer(folder, objective=Combined(inner))


@case(ValueError, "Named returned the terms ['other']", "its `terms` are ['latent']")
def a_term_that_was_not_announced(folder):
    run = trainer(folder, objective=Named(("latent",), lambda z: {"other": z.mean()}))
    yield
    run.train()


@case(ValueError, "Named returned shape (4,) for the term 'latent'", "a scalar tensor")
def a_term_per_sample(folder):
    run = trainer(folder, objective=Named(("latent",), lambda z: {"latent": z.mean(dim=1)}))
    yield
    run.train()


@case(ValueError, "Named returned float for the term 'latent'", "a scalar tensor")
def a_term_that_is_no_tensor(folder):
    run = trainer(folder, objective=Named(("latent",), lambda z: {"latent": 0.5}))
    yield
    run.train()


@case(TypeError, "Named returned a Tensor", "return a dictionary")
def a_loss_without_a_name(folder):
    run = trainer(folder, objective=Named(("latent",), lambda z: z.mean()))
    yield
    run.train()


@case(TypeError, "bank is a dict", 'teachers={"text": Teacher(...), "audio": Teacher(...)}')
def a_dictionary_of_banks(folder):
    yield
    trainer(folder, bank={"text": tiny.bank(), "audio": tiny.bank()}, pairing=None)


@case(TypeError, "pairing=Shuffled is a class", "`Shuffled()`")
def a_class_as_pairing(folder):
    yield
    trainer(folder, pairing=Shuffled)


@case(TypeError, "pairing is a list", "`Paired(rows)`")
def rows_as_pairing(folder):
    yield
    trainer(folder, pairing=[0, 1, 2])


@case(ValueError, "no column 'pixel_values'", "'pixel_value'", "rename 'pixel_value'")
def a_misnamed_column(folder):
    run = trainer(folder, data=tiny.digits(16).rename_column("pixel_values", "pixel_value"))
    yield
    run.train()


@case(ValueError, "no column 'features'", "CoLearningForFeatureClassification reads", "rename 'feature'")
def a_misnamed_column_of_features(folder):
    student = CoLearningForFeatureClassification.from_backbone(
        FeatureBackboneConfig(feature_dim=64), latent_dim=24, num_labels=10
    )
    data = tiny.digits(16).rename_column("pixel_values", "feature")
    run = trainer(folder, student, data)
    yield
    run.train()


@case(ValueError, "alpha=0.5", "alpha_schedule='heuristic'", "leave alpha out")
def alpha_beside_a_schedule_without_one(folder):
    yield
    tiny.arguments(folder / "out", alpha=0.5, alpha_schedule="heuristic")


@case(ValueError, "alpha_schedule='cosine'", "choose one of constant, heuristic")
def an_unknown_alpha_schedule(folder):
    yield
    tiny.arguments(folder / "out", alpha_schedule="cosine")


@case(ValueError, "latent_loss='kl'", "choose one of mse, smooth_l1, cosine")
def an_unknown_latent_loss(folder):
    yield
    tiny.arguments(folder / "out", latent_loss="kl")


@case(ValueError, "reduction='max'", "choose one of mean, sum")
def an_unknown_reduction(folder):
    yield
    LatentMatching(reduction="max")


@case(ValueError, "id_column=''", "the default is 'sample_id'")
def a_nameless_id_column(folder):
    yield
    tiny.arguments(folder / "out", id_column="")


# ---- students ----


@case(TypeError, "bank is a Tensor", "TeacherBank.from_latents(latents)")
def latents_that_are_no_bank(folder):
    yield
    trainer(folder, bank=torch.zeros(10, 24))


@case(ValueError, "latents are 16 wide, the teacher's 24", "latent_dim=24")
def a_student_of_another_width(folder):
    yield
    trainer(folder, tiny.student(latent_dim=16))


class WithLatents(torch.nn.Module):
    """A model of a user's own, whose latents have the given shape after the batch."""

    def __init__(self, *shape):
        super().__init__()
        self.linear, self.shape = torch.nn.Linear(64, 10), shape

    def forward(self, pixel_values, labels=None):
        logits = self.linear(pixel_values.flatten(1))
        loss = torch.nn.functional.cross_entropy(logits, labels)
        return {"loss": loss, "logits": logits, "latents": torch.zeros(len(logits), *self.shape)}


@case(ValueError, "latents are 12 wide, the teacher's 24", "latent_dim=24")
def a_model_of_ones_own_of_another_width(folder):
    run = trainer(folder, WithLatents(12))
    yield
    run.train()


@case(ValueError, "WithLatents", "shape (4, 5, 24)", "pool them to [B, D]")
def latents_of_three_dimensions(folder):
    run = trainer(folder, WithLatents(5, 24))
    yield
    run.train()


@case(ValueError, "ViTForImageClassification returns no `latents`", "Two ways out", "ModelOutput", ".from_backbone(")
def a_model_without_latents(folder):
    run = trainer(folder, ViTForImageClassification(tiny.vit(num_labels=10)))
    yield
    run.train()


@case(ValueError, "latent_dim=0", "`bank.dim`")
def a_latent_without_width(folder):
    yield
    tiny.student(latent_dim=0)


@case(ValueError, "latent_dim is missing", "latent_dim=bank.dim")
def a_missing_latent_width(folder):
    yield
    tiny.student(latent_dim=None)


@case(ValueError, "latent_dim=24.0", "`bank.dim`")
def a_latent_width_that_is_no_integer(folder):
    yield
    tiny.student(latent_dim=24.0)


@case(ValueError, "head='linear'", "choose one of bottleneck, auxiliary, prototypes")
def an_unknown_head(folder):
    yield
    tiny.student(head="linear")


@case(ValueError, "latent_norm='batchnorm'", "choose 'layernorm' or 'none'")
def an_unknown_norm(folder):
    yield
    tiny.student(latent_norm="batchnorm")


@case(ValueError, "pooling='max'", "choose one of cls, mean, masked_mean, pooler")
def an_unknown_pooling_of_a_student(folder):
    yield
    tiny.student(pooling="max")


@case(ValueError, "architecture 'bert'", ".from_backbone(checkpoint")
def a_language_model_loaded_as_a_student(folder):
    BertModel(tiny.bert()).save_pretrained(folder / "bert")
    yield
    CoLearningForImageClassification.from_pretrained(folder / "bert")


# ---- training data ----


@case(ValueError, "the training set is empty", "Look at its split")
def an_empty_training_set(folder):
    run = trainer(folder, data=tiny.digits(8).select([]))
    yield
    run.train()


@case(ValueError, "no column 'sample_id'", "'labels'", "with_sample_ids")
def a_training_set_without_ids(folder):
    run = trainer(folder, data=tiny.digits(8).remove_columns("sample_id"))
    yield
    run.train()


@case(ValueError, "'sample_id'", "'10'", "with_sample_ids")
def ids_that_are_texts(folder):
    run = trainer(folder, data=identified(["10", "11", "12"]))
    yield
    run.train()


@case(ValueError, "sample id 10 is paired with row 10", "the bank has 10 rows", "encode one input a row")
def ids_beyond_the_bank(folder):
    run = trainer(folder, data=tiny.digits(11), pairing=Paired())
    yield
    run.train()


@case(ValueError, "sample id -1", "(0 to 9)")
def negative_ids(folder):
    run = trainer(folder, data=identified([0, -1]), pairing=Paired())
    yield
    run.train()


@case(ValueError, "1 labels in column 'labels'", "such as 10", "num_labels=10", "Mend the labels")
def labels_beyond_the_classes(folder):
    run = trainer(folder, data=relabelled([0, 9, 10]))
    yield
    run.train()


@case(ValueError, "such as -1", "(0 to 9)", "Mend the labels")
def negative_labels(folder):
    run = trainer(folder, data=relabelled([0, -1]))
    yield
    run.train()


@case(ValueError, "'seven'", "class_encode_column")
def labels_that_are_texts(folder):
    run = trainer(folder, data=relabelled(["seven", "nine"]))
    yield
    run.train()


@case(ValueError, "float64", "0.5", "class labels are integers")
def labels_that_are_fractions(folder):
    run = trainer(folder, data=relabelled([0.5, 1.5]))
    yield
    run.train()


@case(ValueError, "none of the 3 samples has a label", "weight of 0.5", "alpha=1")
def labels_that_are_all_missing(folder):
    run = trainer(folder, data=relabelled([None, -100, None]))
    yield
    run.train()


def transformed(stored, encoding) -> Dataset:
    """Digits with a column `label` that a transform turns into `labels`."""

    def encode_labels(batch):
        labels = [encoding[label] for label in batch.pop("label")]
        return {**batch, "labels": labels}

    return relabelled(stored).rename_column("labels", "label").with_transform(encode_labels)


@case(ValueError, "such as 12", "num_labels=10", "Mend the labels")
def labels_beyond_the_classes_behind_a_transform(folder):
    run = trainer(folder, data=transformed([3, 12], {3: 3, 12: 12}), fields={"remove_unused_columns": False})
    yield
    run.train()


@case(ValueError, "names 12 classes", "num_labels=10", "num_labels=12")
def more_class_names_than_classes(folder):
    run = trainer(folder, data=relabelled([0, 1], ClassLabel(num_classes=12)))
    yield
    run.train()


@case(ValueError, "of type tuple", "'sample_id'", "let the dataset give dictionaries")
def a_dataset_of_tuples(folder):
    run = trainer(folder, data=torch.utils.data.TensorDataset(torch.zeros(8, 1, 8, 8), torch.zeros(8)))
    yield
    run.train()


@case(ValueError, "a column 'sample_id' already", "pass another `column`")
def samples_numbered_twice(folder):
    yield
    with_sample_ids(tiny.digits(8))


def stored_images(folder, cells, feature) -> Dataset:
    """Images on disk, so that a cache of preprocessed ones would be written beside them."""
    features = Features({"image": feature, "label": Value("int64")})
    columns = {"image": cells, "label": list(range(len(cells)))}
    Dataset.from_dict(columns, features=features).save_to_disk(folder / "data")
    return datasets.load_from_disk(folder / "data")


def encoded(seed) -> dict:
    cell = datasets.Image().encode_example(image(seed))
    return {"bytes": cell["bytes"], "path": None}


@case(ValueError, "row 0 holds 'cat.png'", "cast_column")
def texts_as_a_students_images(folder):
    data = stored_images(folder, ["cat.png"], Value("string"))
    yield
    with_pixel_values(data, ViTImageProcessorPil())


@case(ValueError, "the image in row 2 cannot be decoded", "remove or mend it")
def an_undecodable_image_of_a_student(folder):
    cells = [encoded(0), encoded(1), {"bytes": b"no image", "path": None}]
    data = stored_images(folder, cells, datasets.Image())
    yield
    with_pixel_values(data, ViTImageProcessorPil(size={"height": 8, "width": 8}))


@case(ValueError, "the image in row 1 cannot be decoded", "remove or mend it")
def a_truncated_image_of_a_student(folder):
    whole = encoded(1)["bytes"]
    data = stored_images(folder, [encoded(0), {"bytes": whole[: len(whole) // 2], "path": None}], datasets.Image())
    yield
    with_pixel_values(data, ViTImageProcessorPil(size={"height": 8, "width": 8}))


@case(ValueError, "no column 'photo'", "'image'", "name it")
def a_missing_image_column(folder):
    data = stored_images(folder, [encoded(0)], datasets.Image())
    yield
    with_pixel_values(data, ViTImageProcessorPil(), column="photo")


@case(ValueError, "the dataset is empty", "split, filter or selection")
def no_images(folder):
    data = stored_images(folder, [encoded(0)], datasets.Image()).select([])
    yield
    with_pixel_values(data, ViTImageProcessorPil())


@case(ValueError, "class 2 has 1 samples, 2 were asked for", "take fewer per class")
def too_few_samples_of_a_class(folder):
    data = relabelled([0, 0, 1, 1, 2])
    yield
    few_per_class(data, 2, seed=0, label_column="labels")


@case(ValueError, "labels_per_class=0", "at least 1")
def no_samples_of_a_class(folder):
    data = relabelled([0, 1])
    yield
    few_per_class(data, 0, seed=0, label_column="labels")


# ---- pairings ----


@case(ValueError, "pairing=RandomPrompt", "pass `bank=`")
def a_pairing_without_a_bank(folder):
    yield
    trainer(folder, bank=None)


@case(ValueError, "template='This is a class.'", "write one {}")
def a_template_without_a_place(folder):
    yield
    RandomPrompt("This is a class.", num_classes=10)


@case(ValueError, "template='{} or {}'", "write one {}")
def a_template_with_two_places(folder):
    yield
    RandomPrompt("{} or {}", num_classes=10)


@case(ValueError, "draws from 12 prompts", "10 rows", "TeacherBank.encode(encoder, pairing.prompts)")
def prompts_of_another_number(folder):
    run = trainer(folder, pairing=tiny.random_prompt(12))
    yield
    run.train()


@case(ValueError, "'This is about class 0.'", "'A photo of 0.'", "TeacherBank.encode(encoder, pairing.prompts)")
def the_bank_of_another_template(folder):
    run = trainer(folder, pairing=RandomPrompt("A photo of {}.", 10))
    yield
    run.train()


@case(ValueError, "sample id 1 is paired with row 10", "correct `Paired(rows=...)`")
def paired_rows_beyond_the_bank(folder):
    run = trainer(folder, data=tiny.digits(3), pairing=Paired([0, 10, 2]))
    yield
    run.train()


@case(ValueError, "sample id 3 is out of range", "3 entries", "pass one entry a sample")
def fewer_paired_rows_than_samples(folder):
    run = trainer(folder, data=tiny.digits(8), pairing=Paired([0, 1, 2]))
    yield
    run.train()


@case(ValueError, "Shuffled needs a bank of at least 2 rows", "it has 1")
def shuffling_one_row(folder):
    run = trainer(folder, data=tiny.digits(1), bank=tiny.bank(rows=1), pairing=Shuffled())
    yield
    run.train()


@case(ValueError, "std=-0.1", "pass a finite number")
def noise_of_a_negative_deviation(folder):
    yield
    Noisy(Paired(), std=-0.1)


@case(ValueError, "num_prototypes=0", "a whole number, at least 1")
def no_prototypes(folder):
    yield
    RandomPrototypes(num_prototypes=0)


# ---- teachers and their inputs ----


@case(ValueError, "pooling='max'", "choose one of cls, mean, masked_mean, pooler")
def an_unknown_pooling_of_a_teacher(folder):
    yield
    FrozenEncoder(vision_teacher().model, vision_teacher().processor, pooling="max")


@case(ValueError, "ViTModel has", "trainable weights", "requires_grad_(False)")
def a_teacher_that_would_learn(folder):
    yield
    FrozenEncoder(AutoModel.from_config(tiny.vit(num_channels=3)), vision_teacher().processor)


@case(ValueError, "has no padding token", "tokenizer.pad_token = tokenizer.eos_token")
def a_tokenizer_without_padding(folder):
    teacher = tiny.minilm()
    teacher.processor.pad_token = None
    yield
    FrozenEncoder(teacher.model, teacher.processor)


@case(ValueError, "2 of 3 latents", "row 1", "encode in float32")
def latents_that_are_nan_or_infinite(folder):
    yield
    TeacherBank.from_latents(torch.tensor([[0.0, 1.0], [float("nan"), 0.0], [0.0, float("inf")]]))


@case(ValueError, "shape (3,)", "pass [N, D]")
def a_single_latent_as_a_bank(folder):
    yield
    TeacherBank.from_latents(np.zeros(3))


@case(ValueError, "NaN or infinite values for input", "('one')", 'dtype="float32"')
def a_teacher_that_gives_nan(folder):
    teacher = tiny.minilm()
    teacher.model.embeddings.word_embeddings.weight.data[:] = float("nan")
    yield
    encode(folder, teacher, ["one", "one"])


@case(ValueError, "the list is empty", "Pass at least one")
def no_teacher_inputs(folder):
    yield
    encode(folder, language_teacher(), [])


@case(ValueError, "inputs='one prompt'", "pass a list")
def a_single_text_as_inputs(folder):
    yield
    encode(folder, language_teacher(), "one prompt")


@case(ValueError, "teacher input 1 is of type Image", "a text is needed", "a teacher of that modality")
def an_image_for_a_language_teacher(folder):
    yield
    encode(folder, language_teacher(), ["one", image()])


@case(ValueError, "teacher input 1 is 'cat.png'", "the path of a file is needed", "a teacher of that modality")
def a_text_for_a_vision_teacher(folder):
    yield
    encode(folder, vision_teacher(), [image(), "cat.png"])


@case(ValueError, "teacher input 1 ", "cannot identify image", "remove or mend it")
def an_undecodable_image_for_a_teacher(folder):
    yield
    encode(folder, vision_teacher(), [image(), {"bytes": b"no image", "path": None}])


@case(ValueError, "teacher input 0 has no samples", "remove or mend it")
def audio_without_a_sample(folder):
    yield
    encode(folder, audio_teacher(), [{"array": np.zeros(0, dtype=np.float32), "sampling_rate": 16_000}])


@case(ValueError, "teacher input 0 is no audio", "remove or mend it")
def undecodable_audio(folder):
    yield
    encode(folder, audio_teacher(), [{"bytes": b"no audio", "path": None}])


@case(ValueError, "teacher input 0 has 1600 samples of 1600 that are NaN or infinite", "remove or mend it")
def audio_that_is_nan(folder):
    yield
    encode(folder, audio_teacher(), [{"array": np.full(1600, np.nan, dtype=np.float32), "sampling_rate": 16_000}])


class AnotherImageAtEveryRead:
    def __init__(self):
        self.reads = 0

    def __len__(self):
        return 4

    def __getitem__(self, position):
        if not 0 <= position < 4:
            raise IndexError(position)
        self.reads += 1
        return image(self.reads)


@case(ValueError, "teacher input ", "changed between two reads", "augment the student's only")
def augmented_teacher_inputs(folder):
    yield
    encode(folder, vision_teacher(), AnotherImageAtEveryRead())


class Jittering(ViTImageProcessorPil):
    """Augments: no two calls give the same brightness."""

    def __call__(self, images, **kwargs):
        batch = super().__call__(images, **kwargs)
        batch["pixel_values"] = batch["pixel_values"] * random.uniform(0.9, 1.1)
        return batch


class Flipping(ViTImageProcessorPil):
    """Augments: mirrors an image in one of two calls."""

    def __call__(self, images, **kwargs):
        batch = super().__call__(images, **kwargs)
        if random.random() < 0.5:
            batch["pixel_values"] = batch["pixel_values"].flip(-1)
        return batch


@case(ValueError, "Jittering", "'pixel_values'", "augment the student's inputs only")
def a_processor_that_augments(folder):
    yield
    encode(folder, vision_teacher(Jittering), [image()])


@case(ValueError, "Flipping", "'pixel_values'", "augment the student's inputs only")
def a_processor_that_augments_now_and_then(folder):
    random.seed(5)  # 0.62, 0.74, 0.80, 0.94, 0.74, 0.92, 0.03: six calls pass before the first one mirrors
    yield
    encode(folder, vision_teacher(Flipping), [image()])


# ---- the cache of banks ----


def cached(folder) -> Path:
    """A whole bank in the cache."""
    encode(folder, language_teacher(), ["one", "two"])
    (entry,) = (folder / "banks").iterdir()
    return entry


@case(ValueError, "latents.arrow", "the bank is truncated", "Delete the folder")
def a_truncated_bank(folder):
    latents = cached(folder) / "latents.arrow"
    latents.write_bytes(latents.read_bytes()[:-100])
    yield
    encode(folder, language_teacher(), ["one", "two"])


@case(ValueError, "latents.arrow", "of another program", "Delete ")
def a_bank_whose_latents_are_no_arrow_file(folder):
    latents = cached(folder) / "latents.arrow"
    latents.write_bytes(b"x" * latents.stat().st_size)
    yield
    encode(folder, language_teacher(), ["one", "two"])


@case(ValueError, "bank.json", "of another program", "Delete the folder")
def the_bank_of_another_program(folder):
    (cached(folder) / "bank.json").write_text('{"money": 1000}')
    yield
    encode(folder, language_teacher(), ["one", "two"])


@case(ValueError, "format 99 instead of 1", "Delete the folder")
def a_bank_of_another_format(folder):
    description = cached(folder) / "bank.json"
    description.write_text(description.read_text().replace('"format": 1', '"format": 99'))
    yield
    encode(folder, language_teacher(), ["one", "two"])


@case(ValueError, "says that it is the bank", "Delete the folder")
def a_bank_put_there_by_hand(folder):
    entry = cached(folder)
    TeacherBank.from_latents(np.zeros((2, 384))).save(entry)
    yield
    encode(folder, language_teacher(), ["one", "two"])


@case(FileNotFoundError, "holds no teacher bank", "bank.json is missing", "delete the folder")
def a_cache_entry_without_a_description(folder):
    (cached(folder) / "bank.json").unlink()
    yield
    encode(folder, language_teacher(), ["one", "two"])


@case(FileNotFoundError, "nowhere' holds no teacher bank", "encode a bank")
def a_bank_that_is_not_there(folder):
    yield
    TeacherBank.load(folder / "nowhere")


@case(OSError, "cannot be written", "pass another `cache_dir`", "HF_HOME")
def a_cache_below_a_file(folder):
    (folder / "file").touch()
    yield
    encode(folder, language_teacher(), ["one"], cache="file/banks")


PROMPTS = [f"This is about class {i}." for i in range(64)]
RAW_BYTES = 64 * 384 * 4


@case(OSError, "is full", "the bank was not written", "Free some space", "another `cache_dir`")
def a_full_disk_before_encoding(folder):
    cached(folder)
    yield
    with files_of_at_most(RAW_BYTES - 1):
        encode(folder, language_teacher(), PROMPTS)


@case(OSError, "is full", "the bank was not written", "Free some space", "another `cache_dir`")
def a_full_disk_after_encoding(folder):
    cached(folder)
    yield
    with files_of_at_most(RAW_BYTES):  # Arrow needs more for the same latents: the texts and its own marks
        encode(folder, language_teacher(), PROMPTS)


@case(IndexError, "row 10 is out of range", "0 to 9")
def a_row_beyond_the_bank(folder):
    yield
    tiny.bank().lookup([3, 10])


# ---- resuming ----


@case(ValueError, "a checkpoint of another architecture", "Resume with the model that wrote it")
def resuming_another_student(folder):
    written, run = checkpoint(folder, tiny.student(tiny.resnet())), trainer(folder)
    yield
    run.train(resume_from_checkpoint=written)


@case(ValueError, "2 weights do not fit", "latent_head", "Resume with the model that wrote it")
def resuming_without_a_latent_head(folder):
    written, run = checkpoint(folder), trainer(folder)
    weights = load_file(f"{written}/model.safetensors")
    without = {name: weight for name, weight in weights.items() if not name.startswith("latent_head")}
    save_file(without, f"{written}/model.safetensors", metadata={"format": "pt"})
    yield
    run.train(resume_from_checkpoint=written)


@case(ValueError, "the state of ConstantAlpha", "HeuristicAlpha", "resume with the alpha of that run")
def resuming_with_another_alpha(folder):
    written, run = checkpoint(folder), trainer(folder, alpha=HeuristicAlpha())
    yield
    run.train(resume_from_checkpoint=written)


@case(ValueError, "Can't find a valid checkpoint", "nowhere")
def resuming_from_nowhere(folder):
    run = trainer(folder)
    yield
    run.train(resume_from_checkpoint=str(folder / "nowhere"))


# ---- metrics and comparisons ----


@case(ValueError, "score nan in row 1", "lower the learning rate")
def nan_logits(folder):
    logits = np.array([[0.0, 1.0], [np.nan, 0.0]])
    yield
    classification_metrics()(EvalPrediction(predictions=logits, label_ids=np.array([0, 1])))


@case(ValueError, "unknown metrics ['recall']", "choose from ['accuracy'")
def an_unknown_metric(folder):
    yield
    classification_metrics(("accuracy", "recall"))


ARMS = [ArmPlan("baseline", "baseline"), ArmPlan("prompts", "colearned", tiny.random_prompt())]


def run_them(folder, plans, seeds=(0,)):
    def make_trainer(plan, seed):
        return trainer(folder, pairing=plan.pairing, bank=tiny.bank() if plan.pairing else None)

    return run_arms(plans, seeds, make_trainer, tiny.digits(8))


@case(ValueError, "no arm 'prompt'", "choose among 'baseline', 'prompts'")
def an_unknown_arm(folder):
    yield
    pick(ARMS, ["baseline", "prompt"])


@case(ValueError, "arm 'noise' is of kind 'control'", "'baseline' (no teacher)", "'null'")
def an_arm_of_an_unknown_kind(folder):
    yield
    run_them(folder, [*ARMS, ArmPlan("noise", "control")])


@case(ValueError, "2 arms are named 'prompts'", "give every arm its own name")
def two_arms_of_one_name(folder):
    yield
    run_them(folder, [*ARMS, ARMS[1]])


@case(ValueError, "need exactly one arm of kind 'baseline'", "got ['colearned']")
def a_comparison_without_a_baseline(folder):
    yield
    run_them(folder, ARMS[1:])


@case(ValueError, "{'baseline': 0, 'prompts': 0} scores", "one score for each of the same seeds")
def a_comparison_without_seeds(folder):
    yield
    run_them(folder, ARMS, seeds=())


@case(ValueError, "metric='accuracy'", "arm 'baseline'", "['map']", "`compute_metrics`")
def a_metric_that_was_not_measured(folder):
    nothing = np.zeros(1, dtype=int)
    kept = Samples(nothing, np.zeros((1, 24)))
    run = Run("baseline", "baseline", 0, {"map": 0.5}, [], 1.0, nothing, nothing, np.ones(1), kept)
    yield
    compare_runs([run])


# ---- good input that looks bad ----


def a_transform_that_encodes_names(folder):
    data = transformed(["seven", "nine"] * 4, {"seven": 7, "nine": 9})
    return trainer(folder, data=data, callbacks=(), fields={"max_steps": 1, "remove_unused_columns": False})


def a_transform_that_merges_classes(folder):
    data = transformed([0, 57] * 4, {0: 0, 57: 5})
    return trainer(folder, data=data, callbacks=(), fields={"max_steps": 1, "remove_unused_columns": False})


def a_regression_of_transformers(folder):
    student, data = ViTForImageClassification(tiny.vit(num_labels=1)), relabelled([0.5, 1.5] * 4)
    return trainer(folder, student, data, callbacks=(), bank=None, pairing=None, fields={"max_steps": 1})


def labels_that_the_loss_ignores(folder):
    return trainer(folder, data=relabelled([3, -100] * 4), callbacks=(), fields={"max_steps": 1})


@pytest.mark.parametrize(
    "situation",
    [
        a_transform_that_encodes_names,
        a_transform_that_merges_classes,
        a_regression_of_transformers,
        labels_that_the_loss_ignores,
    ],
)
def test_good_input_that_looks_bad_trains(situation, tmp_path):
    run = situation(tmp_path)
    run.train()
    assert run.state.global_step == 1


def test_one_label_a_token_is_not_held_against_the_number_of_classes():
    data = Dataset.from_dict({"labels": [[0, 7], [1], [2, 3, 30]]})
    assert data_checks.labels_fit(data, BertForTokenClassification(tiny.bert())) is None


def test_looking_at_a_sample_does_not_move_the_random_numbers_of_its_transform():
    def noisy(batch):
        return {**batch, "noise": torch.rand(len(batch["label"])).tolist(), "labels": batch["label"]}

    student, data = tiny.student(num_labels=4), relabelled([3, 4]).rename_column("labels", "label")
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    with pytest.raises(ValueError, match="such as 4"):
        data_checks.labels_fit(data.with_transform(noisy), student)  # looks at the sample whose label is 4
    assert torch.equal(torch.rand(3), expected)
