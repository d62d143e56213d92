"""What `python -c` does, in seconds less: a process forked from one that has imported torch and other slow libraries.

Nothing of Hugging Face, of ours or of `tests` is among them, so that a child reads its environment as a fresh process
would (`HF_HOME`, `HF_ENDPOINT`, ...), and what is missing from its path is missing. `processes.forked` has it all.
"""

import atexit
import functools
import gc
import importlib
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import types
from pathlib import Path


PRELOADED = [
    "pandas",
    "PIL.Image",
    "pyarrow.parquet",
    "scipy.optimize",
    "scipy.stats",
    "sklearn.metrics",
    "sympy",
    "torch._dynamo",
    "torch.distributed.tensor",
    "torch.nn.attention.flex_attention",
]


def run(code: str, *argv: str, env: dict[str, str], cwd: str | Path, timeout: float = 120):
    """Runs `code` as `python -c` would, with `argv` behind it.

    Args:
        code (`str`): Python source.
        env (`dict`): The whole environment, `PYTHONPATH` too.
        cwd (`str` or `Path`): The folder to run in.
        timeout (`float`): Seconds until the process and what it started are killed.

    Returns:
        `subprocess.CompletedProcess`: With the exit status and, as text, both outputs.

    Raises:
        subprocess.TimeoutExpired: After `timeout` seconds.
    """
    server = _server()
    with tempfile.TemporaryDirectory() as folder:
        out, err = Path(folder, "out"), Path(folder, "err")
        job = {"code": code, "argv": argv, "env": env, "cwd": str(cwd), "outputs": [str(out), str(err)]}
        server.stdin.write(json.dumps(job).encode() + b"\n")
        pid = int(server.stdout.readline())
        in_time = bool(select.select([server.stdout], [], [], timeout)[0])
        if not in_time:
            os.killpg(pid, signal.SIGKILL)
        status = int(server.stdout.readline())
        done = subprocess.CompletedProcess(["python", "-c", code], status, out.read_text(), err.read_text())
    if not in_time:
        raise subprocess.TimeoutExpired(done.args, timeout, done.stdout, done.stderr)
    return done


@functools.cache
def _server() -> subprocess.Popen:
    """One for all tests of this process, which ends with it."""
    # Unbuffered, so that `select` sees all that is to be read; in a group of its own, out of reach of Ctrl-C.
    server = subprocess.Popen(
        [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0, start_new_session=True
    )
    atexit.register(server.stdin.close)
    return server


def _serve() -> dict | None:
    """Forks for every job; returns it in the child, and nothing in the server, after the last one."""
    for name in PRELOADED:
        importlib.import_module(name)
    gc.freeze()
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            return json.loads(line)
        print(pid, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
    return None


def _become(job: dict) -> dict:
    """Makes this process what `python -c` would be, and returns the namespace of its `__main__`."""
    os.setsid()
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for stream, path in enumerate(job["outputs"], start=1):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), stream)
    os.environ.clear()
    os.environ.update(job["env"])
    os.chdir(job["cwd"])
    sys.path[0:1] = ["", *filter(None, job["env"].get("PYTHONPATH", "").split(os.pathsep))]
    sys.argv, sys.orig_argv = ["-c", *job["argv"]], [sys.executable, "-c", job["code"], *job["argv"]]
    sys.modules["__main__"] = types.ModuleType("__main__")
    return vars(sys.modules["__main__"])


if __name__ == "__main__" and (job := _serve()) is not None:
    exec(compile(job["code"], "<string>", "exec"), _become(job))
