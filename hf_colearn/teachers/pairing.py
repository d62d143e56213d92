"""Which bank row a training sample sees: pairings, which are pure functions of (sample id, epoch, seed).

Shapes: B sample ids of a batch, D dimensions of a latent, N rows of the bank.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import torch

from hf_colearn.data.sample_ids import NO_LABEL
from hf_colearn.teachers.latent_column import OwnLatents
from hf_colearn.teachers.sequence_bank import AnyBank, SequenceBank
from hf_colearn.utils.checks import check_integer, check_names, is_number
from hf_colearn.utils.draws import draw_bits


# Independent streams of draws from one seed.
_PER_SAMPLE_NOISE, _IS_MISMATCHED, _OTHER_ROW, _IS_PAIRED = 2, 3, 4, 5  # 1 is the default, for rows


class Pairing:
    """Which latent of a bank a training sample sees, as a pure function of (sample ids, epoch, seed).

    The same arguments give the same targets in whatever batch, process, worker or resumed run they are asked for, so
    a pairing keeps no state and advances no generator. A pairing of your own gives `rows`, or `targets` where it
    shows something else than rows of the bank; `check` is optional.

    Example:

    ```python
    >>> import numpy as np
    >>> from hf_colearn import Pairing, Teacher, TeacherBank

    >>> class Reversed(Pairing):
    ...     def rows(self, bank, sample_ids, epoch, seed):
    ...         return len(bank) - 1 - sample_ids

    >>> bank = TeacherBank.from_latents(np.array([[0.0], [10.0], [20.0]]))
    >>> Teacher(bank, Reversed()).targets(np.array([0, 1, 2]), epoch=0, seed=0).flatten().tolist()
    [20.0, 10.0, 0.0]

    ```
    """

    def rows(self, bank: AnyBank, sample_ids: np.ndarray, epoch: int, seed: int) -> np.ndarray:
        """The bank row of every sample, `(B,)` int64."""
        raise NotImplementedError

    def targets(self, bank: AnyBank, sample_ids: np.ndarray, epoch: int, seed: int) -> torch.Tensor:
        """The target latent of every sample, `(B, D)` float32 on the CPU; of a [`SequenceBank`] `(B, T, D)`, of ids `(B, T)`.

        A row of NaN (of ids, -100) says that a sample has no target (as [`PairedFraction`] does; a bank of latents holds none):
        it has no part in the loss, nor has a sample that mixup or cutmix mixes with it.
        """
        return bank.lookup(self.rows(bank, sample_ids, epoch, seed))

    def check(self, bank: AnyBank, sample_ids: np.ndarray) -> None:
        """Refuses, before training, a bank or sample ids that this pairing cannot serve: a ValueError that names the value."""


def per_sample(values: np.ndarray, sample_ids: np.ndarray, what: str) -> np.ndarray:
    """`values[sample_ids]`, with an error that names the id instead of wrapping round or crashing."""
    outside = (sample_ids < 0) | (sample_ids >= len(values))
    if outside.any():
        raise ValueError(
            f"sample id {sample_ids[outside][0]} is out of range: {what} holds {len(values)} entries, so ids run from "
            f"0 to {len(values) - 1}. Number the samples with `with_sample_ids` and pass one entry a sample."
        )
    return values[sample_ids]


def without_target(targets: torch.Tensor, has_target_B: np.ndarray) -> torch.Tensor:
    """Targets `(B, ...)` with none (NaN, of ids -100) for the samples that are not to have one."""
    none = torch.nan if targets.is_floating_point() else NO_LABEL
    has_B = torch.from_numpy(has_target_B).view(-1, *[1] * (targets.ndim - 1))
    return torch.where(has_B, targets, none)


def holds_ids(bank: Any) -> bool:
    """Whether a bank holds sequences of ids, and no latents."""
    return isinstance(bank, SequenceBank) and bank.dim is None


def as_integers(values: Sequence[int] | np.ndarray, what: str) -> np.ndarray:
    """A list, column or tensor of integers as an int64 array of one dimension."""
    array = np.asarray(values)
    if array.ndim != 1 or not len(array) or not np.issubdtype(array.dtype, np.integer):
        raise ValueError(
            f"{what} must be a non-empty list of integers, one a sample; got {array.dtype} of shape {array.shape}."
        )
    return array.astype(np.int64)


class Paired(Pairing):
    """Every sample sees its own row (the paper's z; the others are its z-hat).

    Args:
        rows (`Sequence[int]`, *optional*): The bank row of sample id 0, 1, ...: with a bank of one prompt a class,
            the labels. By default sample id i sees row i. [`TeacherBank.rows_of`] finds them by the teacher's inputs, where
            samples of one thing, such as two photographs with one caption, share a row.
    """

    def __init__(self, rows: Sequence[int] | np.ndarray | None = None):
        self.row_of_id = None if rows is None else as_integers(rows, "rows")

    def rows(self, bank, sample_ids, epoch=0, seed=0):
        return sample_ids if self.row_of_id is None else per_sample(self.row_of_id, sample_ids, "`rows`")

    def check(self, bank, sample_ids):
        rows = self.rows(bank, sample_ids)
        if isinstance(bank, OwnLatents):
            bank.lookup(rows)  # refuses others than the samples' own
            return
        outside = (rows < 0) | (rows >= len(bank))
        if (rows == NO_LABEL).any():
            raise ValueError(
                f"sample id {sample_ids[rows == NO_LABEL][0]} is paired with row {NO_LABEL}, which is no label: pair by what "
                "every sample has, or leave samples without a label out."
            )
        if outside.any():
            raise ValueError(
                f"sample id {sample_ids[outside][0]} is paired with row {rows[outside][0]}, but the bank has "
                f"{len(bank)} rows (0 to {len(bank) - 1}): encode one input a row, or correct `Paired(rows=...)`."
            )


class PairingWrapper(Pairing):
    """Base of those that alter what another pairing shows; rows and checks are that one's unless overridden."""

    def __init__(self, pairing: Pairing):
        if not isinstance(pairing, Pairing):
            shown = f"the class {pairing.__name__}" if isinstance(pairing, type) else f"a {type(pairing).__name__}"
            raise TypeError(f"pairing is {shown}: pass an object, `{type(self).__name__}(Paired(), ...)`.")
        self.pairing = pairing

    def rows(self, bank, sample_ids, epoch, seed):
        return self.pairing.rows(bank, sample_ids, epoch, seed)

    def check(self, bank, sample_ids):
        self.pairing.check(bank, sample_ids)


class Shuffled(PairingWrapper):
    """Every sample sees the row of another one, by a new permutation without fixed points every epoch.

    The permutation is one cycle over all rows, so every row is seen as often as when paired. Source: "a random other
    utterance" of Lee & Yoon (ICLR 2025).

    Args:
        rows (`Sequence[int]`, *optional*): As in [`Paired`]: the own row of sample id 0, 1, ...
    """

    def __init__(self, rows: Sequence[int] | np.ndarray | None = None):
        super().__init__(Paired(rows))

    def rows(self, bank, sample_ids, epoch, seed):
        self.pairing.check(bank, sample_ids)
        return _next_in_cycle(len(bank), epoch, seed)[super().rows(bank, sample_ids, epoch, seed)]

    def check(self, bank, sample_ids):
        super().check(bank, sample_ids)
        if len(bank) < 2:
            raise ValueError(f"Shuffled needs a bank of at least 2 rows to give each another's; it has {len(bank)}.")


@lru_cache(maxsize=8)  # each teacher's of the epoch
def _next_in_cycle(size: int, epoch: int, seed: int) -> np.ndarray:
    """The row that comes after each one in a random cycle over all of them, `(size,)` int64."""
    order = np.random.default_rng([seed, epoch]).permutation(size)
    following = np.empty_like(order)
    following[order] = np.roll(order, -1)
    return following


class RandomPrompt(Pairing):
    """Every sample sees the prompt of a random class, drawn anew every epoch, independent of its label.

    Args:
        template (`str`): A text with `{}` for the number of the class, as in `"This is about class {}."`, or with `{name}`
            for its name, as in `"a photo of {name}"`.
        num_classes (`int`, *optional*): How many prompts there are, where there are no names; `prompts` are the inputs of
            the bank.
        names (`Sequence[str]`, *optional*): The names of the classes in their order, such as
            `dataset.features["label"].names`.

    Example:

    ```python
    >>> from hf_colearn import RandomPrompt

    >>> RandomPrompt("This is about class {}.", num_classes=2).prompts
    ['This is about class 0.', 'This is about class 1.']
    >>> RandomPrompt("a photo of {name}", names=["a cat", "a dog"]).prompts
    ['a photo of a cat', 'a photo of a dog']

    ```
    """

    def __init__(self, template: str, num_classes: int | None = None, names: Sequence[str] | None = None):
        if names is None:
            check_integer("num_classes", num_classes, least=1)
        else:
            check_names("names", names, "a cat")
        if names is not None and num_classes not in (None, len(names)):
            raise ValueError(f"num_classes={num_classes} and {len(names)} names: pass a name a class, or names alone.")
        self.template, self.names = template, None if names is None else list(names)
        self.num_classes = (num_classes or 0) if names is None else len(names)
        if not self.num_classes:
            raise ValueError("names=[] gives no prompt: pass at least one.")
        try:
            has_number = template.format("0", name="") != template.format("1", name="")
            has_name = template.format("", name="0") != template.format("", name="1")
        except (AttributeError, LookupError, ValueError):
            has_number = has_name = False
        if not has_number and not has_name:
            raise ValueError(
                f"template='{template}' has no single place for the class: write one {{}} there for its number, or {{name}} "
                "for its name."
            )
        if has_name and names is None:
            raise ValueError(
                f"template='{template}' asks for the classes' names: pass names=[...], or write {{}} for their numbers."
            )

    @property
    def prompts(self) -> list[str]:
        """The teacher's inputs, one a class: bank row i belongs to `prompts[i]`."""
        names = self.names or [""] * self.num_classes
        return [self.template.format(i, name=name) for i, name in enumerate(names)]

    def rows(self, bank, sample_ids, epoch, seed):
        return (draw_bits(sample_ids, epoch, seed) % np.uint64(self.num_classes)).astype(np.int64)

    def check(self, bank, sample_ids):
        if len(bank) != self.num_classes:
            raise ValueError(
                f"RandomPrompt draws from {self.num_classes} prompts, but the bank has {len(bank)} rows: build it "
                "with `TeacherBank.encode(encoder, pairing.prompts)`."
            )
        for row, (found, prompt) in enumerate(zip(bank.inputs or self.prompts, self.prompts, strict=True)):
            if found != prompt:
                raise ValueError(
                    f"row {row} of the bank was encoded from '{found}', not from the prompt '{prompt}': this is "
                    "the bank of another template. Build it with `TeacherBank.encode(encoder, pairing.prompts)`."
                )


class Noisy(PairingWrapper):
    """Adds Gaussian noise to the targets of another pairing, drawn anew every epoch.

    The released code of Lee & Yoon (ICLR 2025) adds noise of *standard deviation* 1e-3 (`1e-3 * torch.randn`), where
    the paper's text reads as a *variance* of 1e-3; pass `std=1e-3 ** 0.5` for that reading.

    Args:
        pairing (`Pairing`): Whose targets get the noise.
        std (`float`, *optional*, defaults to 1e-3): The noise's standard deviation, in the units of the bank's latents as
            they are scaled (`CoLearningArguments.latent_scaling`).
    """

    def __init__(self, pairing: Pairing, std: float = 1e-3):
        if not is_number(std) or not 0 <= std < float("inf"):
            raise ValueError(f"std={std!r} is no standard deviation: pass a finite number that is not negative.")
        super().__init__(pairing)
        self.std = std

    def targets(self, bank, sample_ids, epoch, seed):
        t_BD = self.pairing.targets(bank, sample_ids, epoch, seed)
        noise_BD = np.empty(t_BD.shape, dtype=np.float32)
        for noise_D, bits in zip(noise_BD, draw_bits(sample_ids, epoch, seed, _PER_SAMPLE_NOISE), strict=True):
            np.random.Generator(np.random.Philox(key=int(bits))).standard_normal(out=noise_D, dtype=np.float32)
        return t_BD + self.std * torch.from_numpy(noise_BD)

    def check(self, bank, sample_ids):
        super().check(bank, sample_ids)
        if holds_ids(bank):
            raise ValueError("Noisy adds noise to latents, and the bank holds ids: leave it out.")


class _Share(PairingWrapper):
    """Alters a share of the samples, drawn once a seed: the same in all epochs, and still among them at a larger share."""

    def __init__(self, pairing: Pairing, share: float):
        if not is_number(share) or not 0 <= share <= 1:
            raise ValueError(f"share={share!r} is no share of the samples: pass a number from 0 to 1.")
        super().__init__(pairing)
        self.share = share

    def _drawn(self, sample_ids: np.ndarray, seed: int, stream: int) -> np.ndarray:
        """Whether a sample is among the share, `(B,)` booleans."""
        return (draw_bits(sample_ids, 0, seed, stream) >> np.uint64(11)) * 2.0**-53 < self.share


class Mismatched(_Share):
    """Assigns wrong rows to a fixed share of the samples: for a sweep over badly paired data.

    Whether a sample is mismatched, and with which row, is drawn once a seed and stays over the epochs; at a larger share
    the same samples keep their wrong rows, and more get one: any but their own, all equally likely. Where inputs repeat
    in the bank it may hold the same latent: for pairs by class, use a bank of one row a class.

    Args:
        pairing (`Pairing`): Whose rows are the right ones, such as [`Paired`]; none that alters latents, as [`Noisy`] does.
        share (`float`): Of the samples, 0 to 1; each is drawn by itself, so the number varies a little.
    """

    def __init__(self, pairing: Pairing, share: float):
        super().__init__(pairing, share)
        if type(pairing).targets is not Pairing.targets:
            name = type(pairing).__name__
            raise ValueError(
                f"Mismatched chooses rows of the bank, and {name} shows something else than these: wrap it the other way "
                f"round, such as `Noisy(Mismatched(...))`, or leave {name} out."
            )

    def rows(self, bank, sample_ids, epoch, seed):
        own = self.pairing.rows(bank, sample_ids, epoch, seed)
        steps = 1 + draw_bits(sample_ids, 0, seed, _OTHER_ROW) % np.uint64(max(1, len(bank) - 1))
        others = (own + steps.astype(np.int64)) % len(bank)  # 1 to N - 1 rows on, so never back at the own one
        return np.where(self._drawn(sample_ids, seed, _IS_MISMATCHED), others, own)

    def check(self, bank, sample_ids):
        super().check(bank, sample_ids)
        if len(bank) < 2:
            raise ValueError(f"Mismatched needs a bank of at least 2 rows to find a wrong one; it has {len(bank)}.")


class PairedFraction(_Share):
    """Gives only a share (0 to 1) of the samples a target: for a sweep over the amount of paired data.

    The others are trained on their labels alone. The latent loss is the mean over those that have a target, so at the same
    alpha each of them weighs the more, the fewer they are. Who has one is drawn as in [`Mismatched`], independently of it.
    """

    def targets(self, bank, sample_ids, epoch, seed):
        targets = self.pairing.targets(bank, sample_ids, epoch, seed)
        return without_target(targets, self._drawn(sample_ids, seed, _IS_PAIRED))
