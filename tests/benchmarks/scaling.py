"""From one process to two, each with its own batch: `CoLearningTrainer` beside plain data parallelism."""

import multiprocessing
import os
import socket
from collections.abc import Callable
from contextlib import ExitStack, contextmanager
from functools import partial
from multiprocessing.connection import Connection

import numpy as np
import torch
from datasets.utils.logging import disable_progress_bar
from transformers import Trainer
from transformers.utils import logging

from hf_colearn import (
    CoLearningTrainer,
    Combined,
    ConstantAlpha,
    ContrastiveAlignment,
    LatentMatching,
    MultimodalCollator,
    TeacherBank,
    with_sample_ids,
)
from tests.benchmarks.alpha import LATENT_DIM, make_data, make_model
from tests.benchmarks.timing import Row, in_turn, median_with_interval
from tests.benchmarks.trainers import Turn, make_arguments


NOTE = (
    "Weak scaling: every process has one thread and a batch of its own, so that an efficiency is a step's time with one "
    "process over that with two. Plain `Trainer` and ours (a bank's latents, and contrastive terms with all negatives) "
    "take turns within the same processes, one process and two in turn as well; both are DistributedDataParallel over gloo."
)
HEADS = {"latent": LATENT_DIM}
ARMS = ("plain", "ours")


def make_turns(samples: int, side: int, width: int, batch_size: int, steps: int) -> dict[str, Turn]:
    """Both trainers of a process, with a model of the same weights each."""
    data, collator = make_data(samples, side), MultimodalCollator({"image": None, "depth": None})
    args = make_arguments(batch_size, steps, dataloader_pin_memory=False, logging_steps=10_000, report_to=[])
    args.remove_unused_columns = False
    plain = Trainer(
        model=make_model(width, side, training_heads=HEADS), args=args, train_dataset=data, data_collator=collator
    )
    latents_ND = np.random.default_rng(0).normal(size=(samples, LATENT_DIM)).astype(np.float32)
    ours = CoLearningTrainer(
        make_model(width, side, training_heads=HEADS),
        args,
        train_dataset=with_sample_ids(data),
        data_collator=collator,
        bank=TeacherBank.from_latents(latents_ND),
        objective=Combined(LatentMatching(), ContrastiveAlignment()),
        alpha=ConstantAlpha({"latent": 0.3, "contrastive": 0.3}),
    )
    return {"plain": Turn(plain), "ours": Turn(ours)}


def work(connection: Connection, environment: dict[str, str], sizes: tuple[int, ...]) -> None:
    """Runs in a process: says that it is ready, and takes turns as it is told."""
    os.environ.update(environment)
    torch.set_num_threads(1)
    logging.set_verbosity_error()
    disable_progress_bar()
    turns = make_turns(*sizes)
    connection.send("ready")
    while (arm := connection.recv()) is not None:
        connection.send(turns[arm]())


@contextmanager
def processes(number: int, sizes: tuple[int, ...]):
    """A group of processes; gives a call that lets all of them take a turn: the seconds of a step of the first."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["hf_colearn"])
    with socket.create_server(("127.0.0.1", 0)) as free:
        meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
    connections, running = [], []
    for rank in range(number):
        names = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": number, "LOCAL_WORLD_SIZE": number}
        environment = {**meeting, "OMP_NUM_THREADS": "1", **{name: str(value) for name, value in names.items()}}
        ours, theirs = context.Pipe()
        running.append(context.Process(target=work, args=(theirs, environment, sizes), daemon=True))
        running[-1].start()
        theirs.close()  # or the end of the process would not show
        connections.append(ours)

    def turn(arm: str) -> float:
        for connection in connections:
            connection.send(arm)
        return [connection.recv() for connection in connections][0]

    try:
        assert [connection.recv() for connection in connections] == ["ready"] * number
        yield turn
    finally:
        for process in running:
            process.kill()


def step_seconds(rounds: int, sizes: tuple[int, ...]) -> np.ndarray:
    """Of plain and ours with one process, and of both with two: `(rounds, 4)`."""
    with ExitStack() as stack:
        groups = [stack.enter_context(processes(number, sizes)) for number in (1, 2)]
        calls: list[Callable[[], float]] = [partial(turn, arm) for turn in groups for arm in ARMS]
        return in_turn(calls, rounds)


def rows(quick: bool) -> list[Row]:
    """The efficiencies, and one over the other, with short steps and with long ones."""
    short, long = ((640, 32, 128, 32, 10), 20, ""), ((96, 32, 384, 32, 3), 12, ">= 0.97")
    return [row for given in ([((32, 16, 32, 4, 2), 2, "")] if quick else [short, long]) for row in _rows(*given)]


def _rows(sizes: tuple[int, ...], rounds: int, target: str) -> list[Row]:
    seconds = step_seconds(rounds, sizes)
    plain, ours = (seconds[:, arm] / seconds[:, 2 + arm] for arm in (0, 1))
    shown = f"2 ViTs of width {sizes[2]}, batch {sizes[3]} a process"
    return [
        Row("scaling", what, shown, *median_with_interval(values), "x", f"{rounds} rounds", aim, NOTE)
        for what, values, aim in (
            ("efficiency of ours / of plain, 1 to 2 processes", ours / plain, target),
            ("efficiency of plain, 1 to 2 processes", plain, ""),
            ("efficiency of ours, 1 to 2 processes", ours, ""),
        )
    ]
