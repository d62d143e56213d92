"""A test part of distinct content: samples that share an input or its partner stay on one side.

Shapes: N samples.
"""

from collections.abc import Hashable, Sequence

import numpy as np

from hf_colearn.data.sample_ids import NO_LABEL


def content_groups(*contents: Sequence[Hashable | None]) -> np.ndarray:
    """Numbers the groups of samples that share any of their contents, also by way of others, `(N,)` int64.

    Args:
        contents (`Sequence`): Each N values, such as digests of pictures and texts; None is shared with nobody.

    Example:

    ```python
    >>> from hf_colearn.data.content_split import content_groups

    >>> content_groups(["a", "a", "b", "c"], ["x", "y", "y", None]).tolist()
    [0, 0, 0, 1]
    ```
    """
    parent = list(range(len(contents[0])))

    def root(sample: int) -> int:
        while parent[sample] != sample:
            parent[sample] = parent[parent[sample]]
            sample = parent[sample]
        return sample

    for values in contents:
        first: dict[Hashable, int] = {}
        for sample, value in enumerate(values):
            if value is not None:
                a, b = root(sample), root(first.setdefault(value, sample))
                parent[max(a, b)] = min(a, b)
    roots = [root(sample) for sample in range(len(parent))]
    return np.unique(roots, return_inverse=True)[1]


def cut_groups(groups_N: np.ndarray, classes_N: np.ndarray | None, share: float, seed: int) -> np.ndarray:
    """Which samples are of the test part, `(N,)` booleans: whole groups, drawn class by class until each has its share.

    A group counts for the commonest class in it. Groups without a label stay in training where others have one; a class of one
    group does, too.

    Args:
        groups_N (`np.ndarray` of shape `(N,)`): As [`content_groups`] numbers them.
        classes_N (`np.ndarray` of shape `(N,)`, *optional*): Classes from 0, -100 for none; by default one for all.
        share (`float`): Of the samples of every class, between 0 and 1.
        seed (`int`): Draws the groups.

    Raises:
        ValueError: If the share is none, or no class has two groups.
    """
    if not 0 < share < 1:
        raise ValueError(f"test_share={share} cuts no test part: pass a share between 0 and 1.")
    classes_N = np.zeros(len(groups_N), dtype=np.int64) if classes_N is None else classes_N
    sizes = np.bincount(groups_N)
    labelled = classes_N != NO_LABEL
    votes = np.zeros((len(sizes), max(int(classes_N.max()), 0) + 1), dtype=np.int64)
    np.add.at(votes, (groups_N[labelled], classes_N[labelled]), 1)
    of_group, has_label = votes.argmax(axis=1), votes.any(axis=1)
    rng, chosen = np.random.default_rng(seed), np.zeros(len(sizes), dtype=bool)
    for label in range(votes.shape[1]):
        groups = rng.permutation(np.flatnonzero(has_label & (of_group == label)))
        wanted, taken = max(1, round(share * votes[groups, label].sum())), 0
        fitting = [group for group in groups if votes[group, label] <= 1.5 * wanted]
        for group in (fitting or sorted(groups, key=lambda group: votes[group, label]))[
            : len(groups) - 1
        ]:  # one stays
            if taken < wanted and (not taken or taken + votes[group, label] <= 1.5 * wanted):
                chosen[group], taken = True, taken + votes[group, label]
    if not chosen.any():
        raise ValueError(
            "no test part can be cut: every class has a single distinct sample. Add samples, or bring a split 'test'."
        )
    return chosen[groups_N]
