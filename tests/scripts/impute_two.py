"""Imputation on the processes of a torchrun: `impute_two.py FOLDER`."""

import sys
from pathlib import Path

import hf_colearn  # noqa: F401  (before transformers: the torchaudio guard)


# isort: split

import torch
from accelerate import PartialState

import tiny_modalities
from hf_colearn import ConstantAlpha, LatentImputation, ModalityCentroids, MultimodalCollator
from hf_colearn.data.multimodal import missing_as_none
from hf_colearn.utils.distributed import destroy_process_group, rank, world_size


SAMPLES = 8  # of an optimizer step, on all processes together
# In their order, 4 on each of two processes: in the first step the second one has no audio, in the second no label.
ABSENT, UNLABELLED = {"image": (1, 9, 12), "audio": (4, 5, 6, 7, 10)}, (0, 12, 13, 14, 15)


def incomplete(absent=ABSENT, unlabelled=UNLABELLED, samples=16, **columns):
    """Samples of which some lack a modality or a label."""
    whole = tiny_modalities.data(samples, **columns).with_format(None)

    def without(row, number):
        for name, rows in absent.items():
            row[f"{name}_features"] = None if number in rows else row[f"{name}_features"]
        return row | {"labels": -100 if number in unlabelled else row["labels"]}

    return whole.map(without, with_indices=True, features=whole.features).with_transform(missing_as_none)


def trainer(folder, dataset=None, num_centroids=3, callbacks=None, model=None, **fields):
    """A trainer that imputes, without noise, in the order of the samples."""
    options = {"num_centroids": num_centroids, "modulation": False}
    net = tiny_modalities.model(imputation="centroids", imputation_options=options, **(model or {}))
    plain = {"optim": "sgd", "learning_rate": 0.5, "train_sampling_strategy": "sequential", "max_steps": 4}
    return tiny_modalities.trainer(
        None,
        net,
        incomplete() if dataset is None else dataset,
        folder,
        objective=LatentImputation(),
        alpha=ConstantAlpha(0.5, "imputation"),
        callbacks=[ModalityCentroids()] if callbacks is None else callbacks,
        **{
            "data_collator": MultimodalCollator(dict.fromkeys(net.modalities)),
            **plain,
            "per_device_train_batch_size": SAMPLES // world_size(),
            **fields,
        },
    )


def train(folder, **kwargs):
    """The weights after two epochs, centroids among them, and the losses that were logged."""
    run = trainer(folder, ddp_find_unused_parameters=False, logging_steps=1, **kwargs)
    run.train()
    losses = [{key: log[key] for key in log if key.startswith("loss_")} for log in run.state.log_history[:-1]]
    return {name: value.clone() for name, value in run.model.state_dict().items()}, losses


def main():
    folder = Path(sys.argv[1])
    assert PartialState(cpu=True).num_processes == world_size() == 2
    torch.save(train(folder), folder / f"result-{rank()}.pt")
    destroy_process_group()


if __name__ == "__main__":
    main()
