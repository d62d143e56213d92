"""Scripts in processes of their own: started as users do, or forked from a process that has imported everything already.

Importing torch, transformers and datasets takes 6 seconds of a core, and a launcher 2 more; a fork takes none.
"""

import functools
import gc
import json
import multiprocessing
import os
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
import time
import traceback
from dataclasses import dataclass
from pathlib import Path

from sklearn import datasets
from sklearn.datasets import load_digits
from sklearn.utils import Bunch


TESTS = Path(__file__).resolve().parent
PYTHONPATH = os.pathsep.join([str(TESTS.parent), str(TESTS)])
PRELOADED = [
    "hf_colearn.experiments.multimodal",
    "hf_colearn.experiments.runner",
    "hf_colearn.experiments.tiny_models",
    "hf_colearn.teachers.encoded.command",
    "hf_colearn.teachers.encoded.hub_output",
    "hf_colearn.teachers.encoded.job",
    "matplotlib.backends.backend_agg",
    "peft",
    "sklearn.datasets",
    "sklearn.decomposition",
    "sklearn.manifold",
    "soundfile",
    "transformers.models.auto.modeling_auto",
    "transformers.models.bert.modeling_bert",
    "transformers.models.resnet.modeling_resnet",
    "transformers.models.vit.modeling_vit",
    "transformers.models.wav2vec2.modeling_wav2vec2",
]


@dataclass
class Done:
    """What the processes wrote, in the order of their ranks."""

    stdout: str
    stderr: str


def start(*command, folder, expect=0, timeout=240) -> Done:
    """Runs a command in a folder and returns what it wrote; it must end with `expect`, and nothing outlives it."""
    run = subprocess.Popen(
        [*map(str, command)],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": PYTHONPATH},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        done = Done(*run.communicate(timeout=timeout))
    except subprocess.TimeoutExpired:
        os.killpg(run.pid, signal.SIGKILL)  # the processes that it started, too
        stdout, stderr = run.communicate()
        raise AssertionError(f"not done after {timeout} s:\n{stdout[-4000:]}\n{stderr[-4000:]}") from None
    assert run.returncode == expect, f"ended with {run.returncode}:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    return done


def accelerate(script, *argv, folder, processes=2) -> Done:
    """`accelerate launch`, as a user starts it."""
    launcher = ["-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", processes]
    return start(sys.executable, *launcher, script, *argv, folder=folder)


def of_torchrun(processes):
    """The environments that torchrun gives the processes of one machine."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": processes, "LOCAL_WORLD_SIZE": processes}
    ranks = [{**shared, "RANK": rank, "LOCAL_RANK": rank} for rank in range(processes)]
    return [{name: str(value) for name, value in environment.items()} for environment in ranks]


def started(script, *argv, folder, output, environment=None, load_digits=None):
    """One process of [`forked`], which writes to `output` with the suffixes `.out` and `.err`; the caller ends it."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    method = multiprocessing.get_start_method()
    process = context.Process(
        target=_run, args=(str(script), [*map(str, argv)], folder, output, environment or {}, method, load_digits)
    )
    process.start()
    return process


def forked(script, *argv, folder, processes=1, expect=0, timeout=240, load_digits=None) -> Done:
    """Runs a script as `python script` or, with several processes, in the environment that torchrun gives each.

    The processes are fresh but for their imports: they are forked from a server of `multiprocessing` that has done
    nothing else. All of them must end with `expect`; after `timeout` seconds they are killed. `load_digits` takes the
    place of scikit-learn's, such as `first_digits`.
    """
    environments = of_torchrun(processes) if processes > 1 else [{}]
    with tempfile.TemporaryDirectory() as written:
        outputs = [Path(written, str(rank)) for rank in range(processes)]
        running = [
            started(script, *argv, folder=folder, output=output, environment=environment, load_digits=load_digits)
            for output, environment in zip(outputs, environments, strict=True)
        ]
        deadline = time.monotonic() + timeout
        for process in running:
            process.join(max(0, deadline - time.monotonic()))
        codes = [process.exitcode for process in running]  # None of one that is not done
        for process in running:
            process.kill()
        done = Done(*("".join(output.with_suffix(x).read_text() for output in outputs) for x in (".out", ".err")))
    assert codes == [expect] * processes, f"ended with {codes}:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    return done


def checked(student, *options, recipes, folder, expect=0) -> Done:
    """What `hf-colearn card --check` starts, without that command."""
    record = json.loads(Path(student, "colearning.json").read_text())
    asked = [*record["argv"], "--output_dir", folder / "scratch", *options, "--check", student]
    return forked(recipes / f"{record['recipe']}.py", *asked, folder=folder, expect=expect)


def first_digits():
    """A third of scikit-learn's digits, of its first writers, for what does not depend on their number."""
    digits = load_digits()
    return Bunch(images=digits.images[:600], target=digits.target[:600])


def brief():
    """What other packages take time for without a difference to a test.

    t-SNE takes a quarter of its iterations, the fewest that scikit-learn accepts: a map of 500 points took 2 seconds. A
    data loader that is left before its end waits half a second for each of its workers, instead of 5.
    Every `Trainer.train` collects garbage, which Python does anyway when there is much; accelerate looks for deepspeed on
    the whole path several times a step, and pytest looks with it; `datasets` waits 5 seconds at the end of a pass over shuffled
    Parquet files for pyarrow's threads to end; and `torch.manual_seed` keeps a formatted stack for each
    kind of device that is not initialised, to seed it later, where there is none.
    """
    import torch
    from accelerate.utils import imports, memory
    from datasets import config
    from sklearn.manifold import TSNE
    from torch.utils.data import _utils

    init = TSNE.__init__
    if not hasattr(init, "__wrapped__"):
        TSNE.__init__ = functools.wraps(init)(lambda *args, **given: init(*args, **given | {"max_iter": 250}))
    _utils.MP_STATUS_CHECK_INTERVAL = 0.5
    config.SLEEP_TIME_ON_THREADS_SHUTDOWN = 0
    memory.clear_device_cache = lambda garbage_collection=False: None
    imports._is_package_available = functools.cache(imports._is_package_available)
    for device in (torch.cuda, torch.xpu, torch.mtia):
        if not device.is_available():
            device.manual_seed_all = lambda seed: None


def _run(script, argv, folder, output, environment, start_method, load_digits):
    """In the forked process."""
    for stream, suffix in ((1, ".out"), (2, ".err")):
        file = os.open(output.with_suffix(suffix), os.O_WRONLY | os.O_CREAT)
        os.dup2(file, stream)
    gc.freeze()  # as in conftest.py
    brief()
    multiprocessing.set_start_method(start_method, force=True)  # or data loaders' workers would import everything anew
    if load_digits is not None:
        datasets.load_digits = load_digits
    os.chdir(folder)
    os.environ.update(environment)
    sys.path[:0] = [str(Path(script).parent), *PYTHONPATH.split(os.pathsep)]
    sys.argv = [script, *argv]
    runpy.run_path(script, run_name="__main__")


def write_cases(cases, train):
    """For a script with a folder as its argument: what `train(name, folder, processes)` came to in every case, or its error."""
    import torch

    from hf_colearn.utils.distributed import destroy_process_group, rank, world_size

    folder, found = Path(sys.argv[1]), {}
    for name in cases:
        try:
            found[name] = train(name, folder, processes=2)
        except Exception:  # told by the test, case by case
            found[name] = {"error": traceback.format_exc()}
    torch.save({"world_size": world_size(), "found": found}, folder / f"result-{rank()}.pt")
    destroy_process_group()


def cases_of_two(script, folder):
    """What each of two processes found with such a script, case by case."""
    import torch

    forked(script, folder, folder=folder, processes=2)
    results = [torch.load(folder / f"result-{rank}.pt", weights_only=True) for rank in range(2)]
    assert [result["world_size"] for result in results] == [2, 2]
    return [result["found"] for result in results]
