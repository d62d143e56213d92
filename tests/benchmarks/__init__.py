"""What co-learning costs, measured: `python -m tests.benchmarks` from the root of the repository writes RESULTS.md.

Every claim is a ratio of two things that took turns in one process, never an absolute time: machines differ, and a
busy machine slows both alike.
"""

import os


# Before torch starts its threads: those that wait sleep instead of spinning. On a machine that is busy with other
# things, spinning made a tiny step a hundred times slower, and the large ones noisy.
os.environ.update(OMP_WAIT_POLICY="passive", HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false")

import hf_colearn  # noqa: E402, F401  (the torchaudio guard, before anything of transformers)
