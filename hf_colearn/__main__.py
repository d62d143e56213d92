"""`python -m hf_colearn` is the command `hf-colearn`."""

import sys

from hf_colearn.cli import main


if __name__ == "__main__":
    sys.exit(main())
