"""Where our processors are saved; travels with them."""

import json
from pathlib import Path

from transformers.utils import PROCESSOR_NAME


def nest(file: str, kind: str) -> list[str]:
    """Moves a processor's own file into `processor_config.json`, under `kind`, where transformers looks first.

    From a file of its own, transformers infers processors of other kinds by name (a video processor from an image
    processor), and asks at the terminal whether their code may run, though there is none.
    """
    own, nested = Path(file), Path(file).with_name(PROCESSOR_NAME)
    nested.write_text(json.dumps({kind: json.loads(own.read_text())}, indent=2) + "\n")
    own.unlink()
    return [str(nested)]
