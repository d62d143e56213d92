"""The centroids of an imputation in training: what they are, when they are computed, resume, processes, what is refused."""

import numpy as np
import pytest
import torch
from datasets import Dataset, IterableDataset
from sklearn.cluster import KMeans

import tiny
import tiny_modalities
from hf_colearn import CoLearningTrainer, ConstantAlpha, ImputationError, LatentImputation, ModalityCentroids
from hf_colearn.balance import OGM
from hf_colearn.models.lora import with_lora
from hf_colearn.training.centroids import centroids_of, k_means
from refusals import Refusals, assert_refused
from scripts.impute_two import ABSENT, incomplete, train, trainer


COMPLETE = [i for i in range(16) if not any(i in rows for rows in ABSENT.values())]


class Before(ModalityCentroids):
    """Keeps the model and the centroids of every epoch's start."""

    def on_epoch_begin(self, args, state, control, **kwargs):
        super().on_epoch_begin(args, state, control, **kwargs)
        model = self._trainer().model
        self.kept = [
            *getattr(self, "kept", []),
            ({k: v.clone() for k, v in model.state_dict().items()}, model.training),
        ]


def latents(model, name):
    """Of the complete samples, by the modality's student alone."""
    features = tiny_modalities.data(16)[f"{name}_features"][:][COMPLETE]
    with torch.no_grad():
        return model.student(name).eval()(features).latents


def test_they_are_the_k_means_of_the_complete_samples_by_the_model_of_the_epochs_start(tmp_path):
    run = trainer(tmp_path, callbacks=[before := Before()])
    run.train()
    model, previous = run.model, ["k-means++", "k-means++"]
    assert len(before.kept) == 2
    for state, is_training in before.kept:
        assert is_training  # as before the encoding
        model.load_state_dict(state)
        for i, name in enumerate(model.modalities):
            z_ND = latents(model, name)
            expected = KMeans(3, init=previous[i], n_init=1, random_state=run.args.seed).fit(z_ND.numpy())
            found = state["imputation.centroids"][i]
            torch.testing.assert_close(
                found, torch.from_numpy(expected.cluster_centers_).float(), atol=1e-5, rtol=1e-5
            )
            previous[i] = found.numpy()


def test_one_centroid_is_the_mean_of_the_complete_samples(tmp_path):
    run = trainer(tmp_path, num_centroids=1, max_steps=1, learning_rate=0.0)
    run.train()
    expected = torch.stack([latents(run.model, name).mean(0) for name in run.model.modalities])
    torch.testing.assert_close(centroids_of(run.model)[:, 0], expected)


def test_a_centroid_keeps_its_place_while_the_latents_move():
    # Two clusters at 0 and 10 that move by 1: begun with the former ones, the first stays the first.
    points, before = np.array([[0.0], [0.2], [10.0], [10.2]], dtype=np.float32), torch.tensor([[10.0], [0.0]])
    assert k_means(points + 1, before, seed=0).tolist() == [pytest.approx([11.1]), pytest.approx([1.1])]
    assert k_means(points + 1, before.flip(0), seed=0).tolist() == [pytest.approx([1.1]), pytest.approx([11.1])]
    assert sorted(k_means(points, torch.zeros(2, 1), seed=0).flatten().tolist()) == pytest.approx([0.1, 10.1])


def test_at_most_max_samples_are_encoded_and_every_says_how_often(tmp_path):
    run = trainer(tmp_path, callbacks=[before := Before(every=2, max_samples=4)], max_steps=6)
    run.train()
    first, second, third = [state["imputation.centroids"] for state, _ in before.kept]
    assert torch.equal(first, second) and not torch.equal(second, third)
    assert len(before._candidates(run)) == 4 and set(before._candidates(run)) < set(COMPLETE)


# ---- the step ----
@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return train(tmp_path_factory.mktemp("whole"))


def test_eight_micro_batches_of_one_are_one_of_eight(whole, tmp_path):
    weights, losses = train(tmp_path, per_device_train_batch_size=1, gradient_accumulation_steps=8)
    torch.testing.assert_close(weights, whole[0], atol=1e-6, rtol=1e-5)
    assert losses == [pytest.approx(log, rel=1e-4) for log in whole[1]]
    assert all(log["loss_imputation"] > 0 for log in losses)


@pytest.mark.parametrize("step", [1, 2])  # within an epoch, and at its end
def test_a_resumed_run_is_the_uninterrupted_one_to_the_last_bit(step, tmp_path):
    fields = {"model": {"modality_dropout": 0.5}, "optim": "adamw_torch", "learning_rate": 0.01}
    run = trainer(tmp_path / "a", save_strategy="steps", save_steps=step, **fields)
    run.train()
    resumed = trainer(tmp_path / "b", **fields)
    resumed.train(resume_from_checkpoint=str(tmp_path / "a" / f"checkpoint-{step}"))
    expected = run.model.state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in resumed.model.state_dict().items())


@pytest.mark.parametrize("kind", ["bfloat16", "LoRA", "averaged weights"])
def test_it_trains_with(kind, tmp_path):
    run = trainer(tmp_path, bf16=kind == "bfloat16", ema_decay=0.1 if kind == "averaged weights" else None)
    if kind == "LoRA":
        run.model = run.model_wrapped = with_lora(run.model, 2)
    before = {name: weight.clone() for name, weight in run.model.named_parameters() if weight.requires_grad}
    run.train()
    centroids_MKD = centroids_of(run.model)
    assert centroids_MKD.isfinite().all() and centroids_MKD.flatten(1).any(1).all()
    moved = {name.split(".")[-2] for name, weight in run.model.named_parameters() if "imputation" in name
             and weight.requires_grad and not torch.equal(weight, before[name])}  # fmt: skip
    assert moved == {"0", "1"}


# ---- does it impute? ----
def paired(samples, seed):
    """Two modalities that say which of three clusters a sample is of, the same clusters in every part."""
    drawn, centres = np.random.default_rng(seed), np.random.default_rng(0).normal(size=(2, 3, 4)).astype(np.float32)
    labels = np.arange(samples) % 3
    noise = 0.3 * drawn.normal(size=(2, samples, 4)).astype(np.float32)
    columns = {f"{name}_features": centres[i][labels] + noise[i] for i, name in enumerate(tiny_modalities.NAMES)}
    return Dataset.from_dict({**columns, "labels": labels}).with_format("torch")


def imputation_errors(folder, num_centroids, **callback):
    """On samples that are new, after training with 6 complete ones of 60."""
    absent = {"image": range(6, 33), "audio": range(33, 60)}
    dataset = paired(60, 1).add_column(
        "modality_mask", [[i not in absent[name] for name in absent] for i in range(60)]
    )
    net = tiny_modalities.model(
        latent_norm="layernorm", imputation="centroids", imputation_options={"num_centroids": num_centroids}
    )
    run = tiny_modalities.trainer(
        None, net, dataset.with_format("torch"), folder, max_steps=48, per_device_train_batch_size=20, logging_steps=48,
        learning_rate=0.02, objective=LatentImputation(), alpha=ConstantAlpha(0.5, "imputation"),
        callbacks=[ModalityCentroids(every=4, **callback), ImputationError()],
    )  # fmt: skip
    run.train()
    run.evaluate(paired(60, 2))
    return [value for name, value in run.state.log_history[-1].items() if "imputation_error" in name]


def test_with_one_in_ten_complete_it_is_better_than_the_global_mean_and_permuted_centroids_are_not(tmp_path):
    imputed = imputation_errors(tmp_path, 3)
    mean = imputation_errors(tmp_path, 1)  # K = 1
    permuted = imputation_errors(tmp_path, 3, permuted=True)
    assert len(imputed) == 2 and all(error < 0.5 for error in imputed)
    assert all(0.99 < error < 1.3 for error in mean)  # 1 is the mean of the samples themselves
    assert all(worse > better for worse, better in zip(permuted, mean, strict=True))


def test_permuted_centroids_are_the_same_ones_and_none_keeps_its_place(tmp_path):
    permuted = ModalityCentroids(permuted=True)
    centroids_MKD = torch.randn(2, 8, 4)
    moved_MKD = centroids_MKD.clone()
    permuted._permute(moved_MKD, seed=0)
    for before_KD, after_KD in zip(centroids_MKD, moved_MKD, strict=True):
        assert not (before_KD == after_KD).all(1).any()
        assert torch.equal(before_KD.sort(0).values, after_KD.sort(0).values)


# ---- what is refused ----
refusals = Refusals()


@refusals.case(ValueError, "8 training samples have all modalities, and num_centroids=9", "at least as many complete")
def fewer_complete_samples_than_centroids(folder):
    yield
    trainer(folder / "out", num_centroids=9)


@refusals.case(ValueError, "0 training samples have all modalities", "at least as many complete")
def no_complete_sample(folder):
    data = incomplete({"image": range(8), "audio": range(8, 16)})
    yield
    trainer(folder / "out", data)


@refusals.case(ValueError, "8 training samples have all modalities, and num_centroids=9", "of fewer")
def fewer_complete_samples_than_a_mask_says(folder):
    mask = [[i in COMPLETE, True] for i in range(16)]
    yield
    trainer(folder / "out", tiny_modalities.data(16, modality_mask=mask), num_centroids=9, data_collator=None)


@refusals.case(ValueError, "8 training samples have all modalities, and num_centroids=9", "of fewer")
def fewer_complete_samples_than_a_transform_says(folder):
    rows = [incomplete()[i] for i in range(16)]  # a list, whose samples alone tell what they lack
    run = trainer(folder / "out", rows, num_centroids=9)
    yield
    run.train()


@refusals.case(ValueError, "CoLearningForMultimodalClassification has none", "imputation='centroids'")
def a_model_without_imputation(folder):
    yield
    tiny_modalities.trainer(None, folder=folder / "out", callbacks=[ModalityCentroids()])


@refusals.case(ValueError, "CoLearningForImageClassification has none", "leave the callback out")
def a_student(folder):
    yield
    CoLearningTrainer(
        tiny.student(), tiny.arguments(folder / "out"), train_dataset=tiny.digits(8), callbacks=[ModalityCentroids()]
    )


@refusals.case(ValueError, "OGM balances the latents and logits of what is there", "leave one of them out")
def a_balance_method(folder):
    net = tiny_modalities.model(imputation="centroids", imputation_options={"num_centroids": 2})
    yield
    tiny_modalities.trainer(OGM(), net, folder=folder / "out", callbacks=[ModalityCentroids()])


@refusals.case(ValueError, "CoLearningForMultimodalClassification has none", "imputation='centroids'")
def an_autoencoder(folder):
    net = tiny_modalities.model(imputation="autoencoder")
    yield
    tiny_modalities.trainer(None, net, folder=folder / "out", callbacks=[ModalityCentroids()])


@refusals.case(ValueError, "the training set is a stream (IterableDataset)", "pass a `datasets.Dataset`")
def a_stream(folder):
    stream = IterableDataset.from_generator(lambda: iter(tiny_modalities.data(4)))
    yield
    trainer(folder / "out", stream)


@refusals.case(ValueError, "permuted=True with num_centroids=1", "Pass 2 or more")
def one_centroid_that_is_permuted(folder):
    yield
    trainer(folder / "out", num_centroids=1, callbacks=[ModalityCentroids(permuted=True)])


@refusals.case(ValueError, "every=0", "at least 1")
def centroids_of_no_epoch(folder):
    yield
    ModalityCentroids(every=0)


@refusals.case(ValueError, "has no centroids yet", "ModalityCentroids()")
def no_callback(folder):
    run = trainer(folder / "out", callbacks=[])
    yield
    run.train()


@pytest.mark.parametrize(Refusals.NAMES, refusals.cases)
def test_it_is_refused(situation, error, texts, tmp_path):
    assert_refused(situation, error, texts, tmp_path)
