"""Latents of positions beside a teacher's frames, by hand: what counts, how lengths come together, what is refused."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from datasets import Dataset

from docstrings import run_example
from hf_colearn import (
    CoLearningArguments,
    CoLearningBatch,
    CoLearningForFeatureClassification,
    CoLearningTrainer,
    Combined,
    DenseMatching,
    FeatureBackboneConfig,
    LatentMatching,
    SequenceBank,
    Teacher,
    TeacherBank,
    with_sample_ids,
)
from hf_colearn.data.augmentation import ImageAugmentation
from hf_colearn.experiments.scoring import scored_run
from hf_colearn.objectives.alignment import aligned
from hf_colearn.training.counts import of_terms, step_counts
from refusals import Refusals, assert_refused


NAN = float("nan")
# Three samples of 3 positions, of which 3, 1 and 2 count; their latents are 0 but for the padding, which is far away.
MASK = torch.tensor([[True, True, True], [True, False, False], [True, True, False]])
LATENTS = torch.where(MASK[..., None], torch.zeros(3, 3, 1), 1e6)
TARGETS = torch.tensor([[[1.0], [2.0], [3.0]], [[4.0], [NAN], [NAN]], [[NAN], [NAN], [NAN]]])  # the third has none


def outputs(latents=LATENTS, mask=MASK, **heads):
    return {"dense_latents": latents, "dense_mask": mask, "training_outputs": heads}


def batch(targets=TARGETS, **kwargs):
    return CoLearningBatch(targets={"teacher": targets}, **kwargs)


def student(width=2, **kwargs):
    config = FeatureBackboneConfig(feature_dim=3)
    return CoLearningForFeatureClassification.from_backbone(config, width, 2, **{"dense": True, **kwargs})


def sequences(width=2, lengths=(2, 3, 1, 2)):
    rng = np.random.default_rng(0)
    return SequenceBank.from_sequences([rng.normal(size=(length, width)) for length in lengths])


# ---- the loss ----
@pytest.mark.parametrize(
    ("loss", "expected"),
    [
        # Over positions (1 + 4 + 9) / 3 and 16 / 1, then over the two samples that have a target.
        ("mse", (14 / 3 + 16) / 2),
        # Beyond a distance of 1 the distance less 1/2: (.5 + 1.5 + 2.5) / 3 and 3.5.
        ("smooth_l1", (1.5 + 3.5) / 2),
        # The cosine with a vector of 0 is 0.
        ("cosine", 1.0),
    ],
)
def test_the_mean_is_over_a_samples_positions_and_then_over_samples(loss, expected):
    assert DenseMatching(loss=loss)(outputs(), batch()) == {"dense": pytest.approx(expected, rel=1e-6)}


def test_a_long_sample_weighs_no_more_than_a_short_one_and_dimensions_are_averaged():
    targets = torch.tensor([[[3.0, 1.0], [3.0, 1.0], [3.0, 1.0]], [[0.0, 2.0], [NAN, NAN], [NAN, NAN]]])

    # (9 + 1) / 2 at each of three positions, (0 + 4) / 2 at one: (5 + 2) / 2.
    assert DenseMatching()(outputs(torch.zeros(2, 3, 2), MASK[:2]), batch(targets))["dense"] == 3.5


def test_neither_padding_nor_a_sample_without_a_target_gets_a_gradient():
    latents = LATENTS.clone().requires_grad_()

    DenseMatching()(outputs(latents), batch())["dense"].backward()

    # d/dz of the mean: -2 t / (3 positions * 2 samples) and -2 t / (1 * 2).
    expected = [[-1 / 3, -2 / 3, -1.0], [-4.0, 0.0, 0.0], [0.0, 0.0, 0.0]]
    torch.testing.assert_close(latents.grad[..., 0], torch.tensor(expected))


def test_a_batch_without_a_target_adds_nothing():
    latents = LATENTS.clone().requires_grad_()

    loss = DenseMatching(lengths="interpolate")(outputs(latents), batch(torch.full((3, 2, 1), NAN)))["dense"]
    loss.backward()

    assert loss == 0 and latents.grad.abs().sum() == 0


def test_the_mean_is_over_the_samples_of_the_whole_step():
    # Two of this micro-batch's samples have a target, and 4 on average over the step's.
    counts = {"teacher": torch.tensor(4.0)}

    whole = DenseMatching()(outputs(), batch(step_counts=counts))["dense"]

    torch.testing.assert_close(whole, torch.tensor((14 / 3 + 16) / 2 * 2 / 4))
    found = step_counts(None, [{"teacher_latents": TARGETS}, {"teacher_latents": torch.full_like(TARGETS, NAN)}])
    assert found["teacher"] == 1.0 and of_terms(batch(step_counts=found))["dense"] == 1.0


def test_a_named_teacher_has_a_term_and_a_head_of_its_own():
    objective = DenseMatching("signal")
    read = outputs(dense_signal=torch.ones(3, 3, 1))

    loss = objective(read, CoLearningBatch(targets={"signal": TARGETS, "other": TARGETS}))

    assert objective.terms == ("dense_signal",)
    torch.testing.assert_close(loss["dense_signal"], torch.tensor(((0 + 1 + 4) / 3 + 9) / 2))


# ---- lengths ----
@pytest.mark.parametrize(("lengths", "mode"), [("interpolate", "linear"), ("nearest", "nearest-exact")])
@pytest.mark.parametrize("positions", [1, 2, 5, 7, 12])
def test_other_lengths_are_those_of_torch(lengths, mode, positions):
    targets = torch.randn(2, 5, 3)

    found = aligned(targets, torch.ones(2, positions, dtype=torch.bool), lengths)

    expected = F.interpolate(targets.transpose(1, 2), size=positions, mode=mode).transpose(1, 2)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize(
    ("lengths", "expected"),
    [
        # Two frames 0 and 6 on three positions: their middles are at (j + 1/2) 2/3 - 1/2 = -1/6, 1/2, 7/6 in frames.
        ("interpolate", [0.0, 3.0, 6.0]),
        ("nearest", [0.0, 6.0, 6.0]),
        ("exact", [0.0, 6.0, NAN]),
    ],
)
def test_a_samples_own_frames_cover_its_own_positions(lengths, expected):
    targets = torch.tensor([[[0.0], [6.0], [NAN], [NAN]]])
    mask = torch.tensor([[True, True, True, False, False]])

    found = aligned(targets, mask, lengths)

    torch.testing.assert_close(found[0, :, 0], torch.tensor([*expected, NAN, NAN]), equal_nan=True)


def test_padding_on_the_left_is_left_out():
    found = aligned(torch.tensor([[[2.0], [4.0]]]), torch.tensor([[False, True, True]]), "nearest")

    torch.testing.assert_close(found[0, :, 0], torch.tensor([NAN, 2.0, 4.0]), equal_nan=True)


def test_what_else_is_in_the_batch_does_not_change_a_samples_targets():
    targets, mask = torch.tensor([[[1.0], [5.0], [2.0]]]), torch.ones(1, 4, dtype=torch.bool)
    wider = torch.cat([F.pad(targets, (0, 0, 0, 4), value=NAN), torch.ones(1, 7, 1)])
    longer = torch.cat([F.pad(mask, (0, 2)), torch.ones(1, 6, dtype=torch.bool)])

    torch.testing.assert_close(aligned(wider, longer, "interpolate")[:1, :4], aligned(targets, mask, "interpolate"))


def test_exact_lengths_are_those_of_samples_that_have_a_target():
    # The sample without one has 2 positions, and the pairing has looked up a row of 3 frames for it.
    assert DenseMatching(lengths="exact")(outputs(), batch()) != {}


# ---- in the trainer ----
def trainer(folder, model, objective=None, **teachers):
    columns = {"features": np.ones((4, 3, 3), dtype=np.float32).tolist(), "label": [0, 1, -100, 0]}
    options = {"report_to": "none", "save_strategy": "no", "use_cpu": True, "disable_tqdm": True, "max_steps": 2}
    args = CoLearningArguments(str(folder / "out"), per_device_train_batch_size=2, alpha=0.5, **options)
    data = with_sample_ids(Dataset.from_dict(columns))
    return CoLearningTrainer(model, args, train_dataset=data, objective=objective or DenseMatching(), **teachers)


def test_a_run_of_sequences_trains_and_is_scored_without_their_targets(tmp_path):
    run = trainer(tmp_path, student(), DenseMatching(lengths="interpolate"), bank=sequences())

    run.train()

    assert run.state.log_history[-1]["train_loss"] > 0
    scored = scored_run(run, run.train_dataset.remove_columns("sample_id").select([0, 1]), "dense", "colearned")
    assert scored.train.latents.shape == (4, 2) and scored.train.targets is None
    assert scored.facts["num_paired"] == 4


@pytest.mark.parametrize("documented", [DenseMatching])
def test_the_example_runs(documented):
    run_example(documented)


# ---- refusals ----
refusals = Refusals()


@refusals.case(ValueError, "sample 1", "2 positions", "3 frames", "lengths='interpolate'")
def lengths_that_differ(folder):
    mask = torch.tensor([[True, True, True], [True, True, False]])
    yield
    DenseMatching()(outputs(torch.zeros(2, 3, 1), mask), batch(torch.ones(2, 3, 1)))


@refusals.case(ValueError, "sample 0", "2 positions", "3 frames")
def a_target_that_is_longer_than_all_positions(folder):
    yield
    DenseMatching()(outputs(torch.zeros(1, 2, 1), torch.ones(1, 2, dtype=torch.bool)), batch(torch.ones(1, 3, 1)))


@refusals.case(ValueError, "lengths='same'", "exact, interpolate, nearest")
def a_rule_of_lengths_that_is_unknown(folder):
    yield
    DenseMatching(lengths="same")


@refusals.case(ValueError, "one latent a sample", "dense=True")
def a_student_that_is_not_dense(folder):
    yield
    trainer(folder, student(dense=False), bank=sequences())


@refusals.case(ValueError, "2 wide", "the teacher's 5", "latent_dim=5", "'reads': 'dense_latents'")
def latents_of_another_width(folder):
    yield
    trainer(folder, student(), bank=sequences(5))


@refusals.case(ValueError, "training head 'dense'", "'latents'", "one vector a sample")
def a_head_that_reads_one_vector_a_sample(folder):
    yield
    trainer(folder, student(training_heads={"dense": 2}), bank=sequences())


@refusals.case(ValueError, "holds ids", "VokenClassification")
def ids_where_latents_are_compared(folder):
    yield
    trainer(folder, student(), bank=SequenceBank.from_ids([[1, 2]] * 4))


@refusals.case(ValueError, "TeacherBank", "SequenceBank", "LatentMatching")
def one_vector_a_row_where_sequences_are_compared(folder):
    yield
    trainer(folder, student(), bank=TeacherBank.from_latents(np.eye(4, 2)))


@refusals.case(ValueError, "no teacher 'signal'", "['speech']")
def a_teacher_that_is_not_there(folder):
    yield
    trainer(folder, student(), DenseMatching("signal"), teachers={"speech": Teacher(sequences())})


@refusals.case(ValueError, "holds sequences", "DenseMatching()")
def sequences_where_one_vector_is_compared(folder):
    yield
    trainer(folder, student(), Combined(LatentMatching()), bank=sequences())


@refusals.case(ValueError, "no dense_latents", "dense=True")
def outputs_without_dense_latents(folder):
    yield
    DenseMatching()({"latents": torch.ones(3, 1)}, batch())


@refusals.case(ValueError, "torch.int64", "SequenceBank.from_sequences")
def targets_that_are_ids(folder):
    yield
    DenseMatching()(outputs(), batch(torch.ones(3, 3, dtype=torch.int64)))


@refusals.case(ValueError, "ids", "mixup=0, cutmix=0")
def ids_that_would_be_mixed(folder):
    images = {"pixel_values": torch.ones(2, 3, 8, 8), "labels": torch.tensor([0, 1])}
    yield
    ImageAugmentation(2, magnitude=0)(images | {"teacher_latents_vokens": torch.ones(2, 3, dtype=torch.int64)})


@pytest.mark.parametrize(Refusals.NAMES, refusals.cases)
def test_it_is_refused(situation, error, texts, tmp_path):
    assert_refused(situation, error, texts, tmp_path)


def test_a_frame_that_is_mixed_with_padding_is_padding():
    targets = torch.tensor([[[1.0], [2.0]], [[3.0], [NAN]]])
    images = {"pixel_values": torch.ones(2, 3, 8, 8), "labels": torch.tensor([0, 1]), "teacher_latents": targets}

    mixed = ImageAugmentation(2, magnitude=0, cutmix=0)(images)["teacher_latents"]

    assert mixed.isnan()[..., 0].tolist() == [[False, True], [False, True]]
    torch.testing.assert_close(
        mixed[0, 0] + mixed[1, 0], torch.tensor([4.0])
    )  # shares of one and the rest of the other
