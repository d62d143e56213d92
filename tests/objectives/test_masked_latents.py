"""Masked latents: the distance and the targets by hand, what is hidden from whom, and a collapse that happens and is told."""

import pytest
import torch
import torch.nn.functional as F
from transformers import BertTokenizer, PrinterCallback

import tiny
from docstrings import run_example
from hf_colearn import (
    CoLearningBatch,
    CoLearningForImageClassification,
    CoLearningForSequenceClassification,
    CoLearningTrainer,
    MaskedLatentPrediction,
)
from hf_colearn.objectives.masked_latents import TERM, Masked, masked_distance, normalized, spread
from mechanism_cases import LATENT, dense, frames, student, vectors
from refusals import Refusals, assert_refused


NAN = float("nan")
PICTURES = tiny.digits(32).remove_columns("labels")
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefghij"]


def head(width=LATENT):
    return {TERM: {"out_features": width, "reads": "dense_latents"}}


def picture_student(**fields):
    torch.manual_seed(0)
    known = {"latent_dim": LATENT, "num_labels": 10, "dense": True, "training_heads": head(), **fields}
    return CoLearningForImageClassification.from_backbone(tiny.vit(), **known)


def trainer(folder, objective, model=None, data=None, **fields):
    known = {"max_steps": 2, "learning_rate": 0.1, "optim": "sgd", "per_device_train_batch_size": 8, "alpha": 1.0}
    made = CoLearningTrainer(
        dense(**head())() if model is None else model,
        tiny.arguments(folder, **{**known, **fields}),
        train_dataset=frames((), ())["train_dataset"] if data is None else data,
        objective=objective,
    )
    made.remove_callback(PrinterCallback)
    return made


# ---- the distance ----
# Of two samples the first has two hidden positions, the second none; what is not hidden is far away or no number.
HIDDEN = torch.tensor([[True, False, True], [False, False, False]])
TARGETS = torch.tensor([[[1.0, 3.0], [NAN, 1e6], [0.0, 2.0]], [[NAN, NAN]] * 3])


@pytest.mark.parametrize(
    ("beta", "expected"),
    [
        (None, 1.75),  # over dimensions (1 + 9) / 2 and (0 + 4) / 2, over positions 3.5, over two samples
        # smooth L1 with beta 2: 1 / 4 and 3 - 1; 0 and 2 - 1 (of 2, at the bend): 1.125 and .5, then .8125, then half of it
        (2.0, 0.40625),
    ],
)
def test_a_sample_is_the_mean_over_its_hidden_positions_and_all_samples_count(beta, expected):
    found = torch.zeros(2, 3, 2, requires_grad=True)
    loss = masked_distance(found, TARGETS, HIDDEN, beta)
    loss.backward()
    assert loss.item() == pytest.approx(expected)
    assert found.grad.isfinite().all() and not found.grad[~HIDDEN].any()


def test_the_example_of_the_distance_runs():
    run_example(masked_distance)


def test_a_term_reads_the_head_of_its_name():
    told = {TERM: Masked(TARGETS, HIDDEN, HIDDEN)}
    outputs = {"training_outputs": {TERM: torch.zeros(2, 3, 2)}}
    terms = MaskedLatentPrediction()(outputs, CoLearningBatch(from_inputs=told))
    assert terms.keys() == {TERM} and terms[TERM].item() == pytest.approx(1.75)


# ---- the targets ----
def test_layers_are_normalised_over_dimensions_or_over_a_samples_positions():
    h = torch.tensor([[[1.0, 3.0], [5.0, 7.0], [100.0, -100.0]]])
    mask = torch.tensor([[True, True, False]])
    close = {"rtol": 0, "atol": 1e-4}
    # 1 and 3 have the mean 2 and the deviation 1
    torch.testing.assert_close(normalized(h, mask, "layer")[0, 0], torch.tensor([-1.0, 1.0]), **close)
    # 1 and 5 have the mean 3 and the deviation 2, 3 and 7 as well; the third position is padding
    torch.testing.assert_close(normalized(h, mask, "instance")[0, :2], torch.tensor([[-1.0, -1], [1, 1]]), **close)
    assert torch.equal(normalized(h, mask, "none"), h)


def test_targets_are_the_mean_of_the_averages_top_layers_for_the_whole_input(tmp_path):
    model, objective = picture_student(training_heads=head(32)), MaskedLatentPrediction(layers=1)
    made = trainer(tmp_path, objective, model, PICTURES)
    pixels = tiny.digits(4)["pixel_values"][:]
    batch = CoLearningBatch(sample_ids=torch.arange(4))

    inputs, told = objective.on_inputs({"pixel_values": pixels}, batch, made.model)

    with torch.no_grad():
        states = model.eval()(pixel_values=pixels, output_hidden_states=True).hidden_states
    torch.testing.assert_close(told.from_inputs[TERM].targets, F.layer_norm(states[-1], (32,)))
    hidden = told.from_inputs[TERM].hidden
    assert told.from_inputs[TERM].eligible.tolist() == [[False, True, True, True, True]] * 4
    # two of four patches, never [CLS]; a patch of 4 x 4 pixels that is hidden is 0, the others stay
    assert not hidden[:, 0].any() and (hidden[:, 1:].sum(dim=1) == 2).all()
    patches, whole = (F.unfold(x, 4, stride=4).transpose(1, 2) for x in (inputs["pixel_values"], pixels))
    assert not patches[hidden[:, 1:]].any() and torch.equal(patches[~hidden[:, 1:]], whole[~hidden[:, 1:]])


def test_special_tokens_and_padding_are_never_hidden_and_others_become_the_mask_token(tmp_path):
    torch.manual_seed(0)
    model = CoLearningForSequenceClassification.from_backbone(
        tiny.bert(), LATENT, 2, dense=True, training_heads=head()
    )
    objective = MaskedLatentPrediction(0.5, tokenizer=BertTokenizer(vocab={word: i for i, word in enumerate(WORDS)}))
    made = trainer(tmp_path, objective, model, vectors(()))
    ids = torch.tensor([[2, 5, 6, 7, 8, 3], [2, 9, 10, 3, 0, 0]])
    mask = (ids != 0).long()
    batch = CoLearningBatch(sample_ids=torch.arange(2))

    inputs, told = objective.on_inputs({"input_ids": ids, "attention_mask": mask}, batch, made.model)

    hidden = told.from_inputs[TERM].hidden
    assert hidden.sum(dim=1).tolist() == [2, 1] and (ids[hidden] >= 5).all()
    assert torch.equal(inputs["input_ids"], torch.where(hidden, 4, ids))


def test_what_another_objective_was_told_of_its_average_stays(tmp_path):
    objective = MaskedLatentPrediction()
    made = trainer(tmp_path, objective, picture_student(), PICTURES)
    batch = CoLearningBatch(sample_ids=torch.arange(4), momentum={"latents": "of another average"})
    _, told = objective.on_inputs({"pixel_values": tiny.digits(4)["pixel_values"][:]}, batch, made.model)
    assert told.from_inputs.keys() == {TERM} and told.momentum == {"latents": "of another average"}


def test_a_pretraining_needs_no_labels_and_moves_what_the_head_reads(tmp_path):
    made = trainer(
        tmp_path, MaskedLatentPrediction(decay=0.9), data=frames((), ())["train_dataset"].remove_columns("labels")
    )
    before = made.model.training_heads[TERM].weight.clone(), made.model.classifier.weight.clone()
    made.train()
    assert not torch.equal(made.model.training_heads[TERM].weight, before[0])
    assert torch.equal(made.model.classifier.weight, before[1])


# ---- collapse ----
def test_the_spread_is_over_samples_so_that_the_place_alone_has_none():
    mask = torch.tensor([[True, True, True], [True, True, False]])
    y = torch.tensor([[0.0, 1.0, 5.0], [0.0, 1.0, NAN]]).nan_to_num(1e3)[..., None]
    assert spread(y, mask) == 0
    # 0 and 2 at the first position have the deviation 1, the second has none, the third one sample: (1 + 0) / 2
    y[1, 0] = 2
    assert spread(y, mask) == pytest.approx(0.5)


def stds(made):
    return [entry[f"{TERM}_std"] for entry in made.state.log_history if f"{TERM}_std" in entry]


def pretrained(folder, steps, **options):
    """Of pictures, fast."""
    model = picture_student(latent_norm="none")
    fields = {"max_steps": steps, "learning_rate": 0.02, "optim": "adamw_torch", "logging_steps": 5}
    made = trainer(folder, MaskedLatentPrediction(**options), model, PICTURES, **fields)
    made.train()
    return made, stds(made)


def test_a_collapse_is_told_once_with_its_value_and_the_ways_out(tmp_path, caplog):
    # The average is the student (decay 0) and nothing is normalised: to give the same for all samples is the way down.
    made, found = pretrained(tmp_path, 100, decay=0, normalization="none", on_collapse="stop")
    assert found[-1] < 0.3 * found[0] and made.state.global_step == 5 * len(found) < 100
    assert caplog.text.count("The targets of masked latent prediction collapse") == 1
    ways = ("Raise decay=0", "lower the learning rate", "normalization='none'")
    assert all(words in caplog.text for words in (f"is {found[-1]:.3g}, and was", *ways))


def test_without_a_collapse_nothing_is_told(tmp_path, caplog):
    made, found = pretrained(tmp_path, 20, decay=0.999, on_collapse="stop")
    assert len(found) == 4 and min(found) > 0.5 * found[0]
    assert "collapse" not in caplog.text


# ---- refusals ----
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ratio": 1.0}, "ratio=1.0: pass a share between 0 and 1"),
        ({"span": 0}, "span=0: pass a whole number, at least 1"),
        ({"layers": 0}, "layers=0: pass a whole number, at least 1"),
        ({"beta": 0.0}, "beta=0.0: choose a number above 0"),
        ({"normalization": "batch"}, "normalization='batch' is unknown"),
        ({"on_collapse": "ignore"}, "on_collapse='ignore' is unknown"),
        ({"collapse_below": 2}, "collapse_below=2: pass a share"),
        ({"decay": 1.0}, "decay=1.0 of the momentum encoder"),
        ({"tokenizer": object()}, "object has no mask token"),
    ],
)
def test_impossible_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        MaskedLatentPrediction(**options)


refusals = Refusals()
case = refusals.case


@pytest.mark.parametrize(Refusals.NAMES, refusals.cases)
def test_it_is_refused_before_anything_is_trained_or_written(situation, error, texts, tmp_path):
    assert_refused(situation, error, texts, tmp_path)


@case(ValueError, "one latent a sample", "`dense=True`")
def a_student_that_is_not_dense(folder):
    yield
    trainer(folder / "out", MaskedLatentPrediction(), student())


@case(ValueError, "the training head 'masked_latents' is missing", "'out_features': 4, 'reads': 'dense_latents'")
def a_student_without_the_head(folder):
    yield
    trainer(folder / "out", MaskedLatentPrediction(), dense()())


@case(ValueError, "'masked_latents' is 4 wide, and the targets are 32 wide", "'out_features': 32")
def a_head_of_another_width_than_the_layers(folder):
    yield
    trainer(folder / "out", MaskedLatentPrediction(layers=1), picture_student())


@case(ValueError, "layers=1", "hidden states of 0 layers", "leave layers out")
def layers_of_a_backbone_without_hidden_states(folder):
    made = trainer(folder / "out", MaskedLatentPrediction(layers=1), student(dense=True, training_heads=head(5)))
    yield
    made.train()


@case(ValueError, "one vector a sample", "pass [B, T, F]")
def features_without_steps(folder):
    made = trainer(folder / "out", MaskedLatentPrediction(), data=vectors(()))
    yield
    made.train()


@case(ValueError, "have no ids", "with_sample_ids(train)")
def samples_without_ids(folder):
    data = frames((), ())["train_dataset"].remove_columns("sample_id")
    made = trainer(folder / "out", MaskedLatentPrediction(), data=data)
    yield
    made.train()
