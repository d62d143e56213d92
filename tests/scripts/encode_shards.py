"""`hf-colearn encode ...` with a log of what it does, line by line: `encode_shards.py LOG ...`.

`encode S`: the inputs of shard S are given to the teacher. `written S`: its file is complete, beside its place. `rename S`: it
is about to be put there.
"""

import hf_colearn  # noqa: F401  (before transformers: the torchaudio guard)


# isort: split

import os
import re
import sys

from hf_colearn import FrozenEncoder
from hf_colearn.cli import main


LOG = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
EVENTS = {"open": "written", "os.rename": "rename"}


def note(what, shard):
    os.write(LOG, f"{what} {shard}\n".encode())


def of_files(event, arguments):
    found = event in EVENTS and re.search(r"\.data-(\d+)-of-\d+\.parquet.*partial", str(arguments[0]))
    if found:
        note(EVENTS[event], int(found[1]))


class Noted(FrozenEncoder):
    def encode(self, inputs, positions=None):
        note("encode", inputs[0].split()[1])  # shard S row R
        return super().encode(inputs, positions)


if __name__ == "__main__":
    FrozenEncoder.from_pretrained = Noted.from_pretrained
    sys.addaudithook(of_files)
    sys.exit(main(["encode", *sys.argv[2:]]))
