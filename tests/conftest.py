"""Offline, in a home of its own, with tiny models from configs and real digits; set before anything of HF is imported."""

import os
import tempfile


_HOME = tempfile.mkdtemp(prefix="hf_colearn_tests_")
os.environ.update(
    HF_HOME=_HOME,
    HF_HUB_OFFLINE="1",
    HF_HUB_DISABLE_TELEMETRY="1",
    HF_DATASETS_DISABLE_PROGRESS_BARS="1",
    TOKENIZERS_PARALLELISM="false",
    OMP_NUM_THREADS="1",
    ACCELERATE_USE_CPU="true",
    CUDA_VISIBLE_DEVICES="",
    MPLBACKEND="Agg",
)

import gc  # noqa: E402
import shutil  # noqa: E402

import pytest  # noqa: E402

import hf_colearn  # noqa: E402, F401
import processes  # noqa: E402
import tiny  # noqa: E402


processes.brief()


LONG = ({"processes"}, {"child_python", "main_of", "report", "subprocess"})  # what the modules of long tests import


def pytest_collection_modifyitems(items):
    """What takes longest comes first, so that no process waits for it at the end: real data, then started processes."""
    items.sort(
        key=lambda item: (item.path.parent.name != "shared", *(not names & vars(item.module).keys() for names in LONG))
    )


def pytest_collection_finish(session):
    gc.freeze()  # every `Trainer.train` collects garbage, and would look through all that was imported: 0.4 s


def pytest_sessionfinish(session, exitstatus):
    shutil.rmtree(_HOME, ignore_errors=True)


@pytest.fixture(scope="session")
def minilm():
    """A real language teacher, from its PyPI package."""
    return tiny.minilm()


@pytest.fixture(scope="session")
def digits():
    """Real handwritten digits: 256 samples with `pixel_values` [1, 8, 8], `labels` and `sample_id`."""
    return tiny.digits(256)


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
