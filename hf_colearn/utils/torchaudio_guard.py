"""The guard: imports torchaudio, without its compiled part where that part cannot load.

The registry's torchaudio 2.11 is compiled for one CUDA build of torch. Beside a CPU build, or another CUDA version,
its library does not load and `import torchaudio` fails, and with it `import peft`, `import evaluate` and parts of
`transformers`. What `hf_colearn` needs of torchaudio (resampling, spectrograms, mel filters) is plain PyTorch.
"""

import sys
from traceback import walk_tb
from types import ModuleType


_LOADER = "torchaudio._extension.utils"  # the module whose `_load_lib` loads torchaudio's compiled libraries


def import_torchaudio() -> str:
    """Imports torchaudio so that later imports of it succeed; does nothing where torchaudio loads as it is.

    Where its compiled part fails to load, torchaudio is told that it has none, which is a case that it knows: its
    transforms and functionals then run in PyTorch. Only the few functions that exist in C++ alone (`forced_align`,
    `rnnt_loss`, the CUDA CTC decoder) stay unavailable. Every other error of torchaudio is raised as it is.

    Returns:
        `str`: `"compiled"`, `"pure-python"` or `"missing"` (torchaudio, or a torch that can be imported).

    Example:

    ```python
    >>> from hf_colearn.utils.torchaudio_guard import import_torchaudio

    >>> import_torchaudio()
    'pure-python'
    >>> import peft, evaluate  # these import torchaudio when they find it
    ```
    """
    try:
        import torch  # noqa: F401
    except Exception:  # not our matter: whoever imports torch next gets the same error, and the doctor explains it
        return "missing"
    try:
        import torchaudio
    except ModuleNotFoundError as error:
        if error.name == "torchaudio":
            return "missing"
        raise
    except (ImportError, OSError, RuntimeError) as error:
        if not _comes_from_compiled_part(error):
            raise
        torchaudio = _import_without_compiled_part()
    return "compiled" if torchaudio._extension._IS_TORCHAUDIO_EXT_AVAILABLE else "pure-python"


def _comes_from_compiled_part(error: Exception) -> bool:
    modules = [frame.f_globals.get("__name__", "") for frame, _ in walk_tb(error.__traceback__)]
    return any(module.startswith("torchaudio._extension") for module in modules)


def _import_without_compiled_part() -> ModuleType:
    # The failed import left torchaudio's loader module behind: keep that one, drop the other half-imported ones.
    loader = sys.modules[_LOADER]
    for name in [name for name in sys.modules if name.startswith("torchaudio.")]:
        del sys.modules[name]
    vars(loader)["_load_lib"] = lambda lib: False  # what it answers where a build of torchaudio has no such library
    sys.modules[_LOADER] = loader
    import torchaudio

    return torchaudio
