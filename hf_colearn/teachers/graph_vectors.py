"""Class vectors of a graph: Laplacian eigenvectors of any edges, and what WordNet says of the classes' names.

They are what `head="prototypes"` takes as `class_vectors`. Shapes: N nodes, C classes, A anchors, D dimensions.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.linalg import eigh
from scipy.sparse import coo_array, csr_array
from scipy.sparse.csgraph import connected_components, laplacian
from scipy.sparse.linalg import eigsh

from hf_colearn.corpora.base import table_rows
from hf_colearn.corpora.wordnet import WordNet
from hf_colearn.utils.checks import check_choice, check_integer, check_names


KINDS = ("path", "laplacian", "commute_time")
_DENSE = 3000  # nodes up to which all eigenvectors are computed
_SEPARATORS = {".csv": ",", ".tsv": "\t"}

Edges = Iterable[Sequence[Any]] | Mapping[str, Iterable[str]] | str | Path


def graph_vectors(
    edges: Edges, dim: int | None, names: Sequence[str] | None = None, commute_time: bool = False
) -> dict[str, torch.Tensor]:
    r"""A vector of every node: the D smoothest eigenvectors of the graph's Laplacian, of which near nodes have near entries.

    \\(L = I - \Delta^{-1/2} A \Delta^{-1/2}\\), with A the edges' weights in both directions and \\(\Delta\\) the nodes'
    sums of them; dimension k of the vectors is the eigenvector of the k-th smallest eigenvalue above 0. Its sign is that which
    makes its largest entry positive. Eigenvectors of one eigenvalue are any basis of their space, as the solver has it: their
    cosines between nodes are defined where all of them are among the D.

    Source: "Laplacian Eigenmaps" (Belkin & Niyogi, Neural Computation 2003), whose rows differ by a factor, which cosines do
    not see; as class vectors, a relative of "The More You Know: Using Knowledge Graphs for Image Classification" (Marino et
    al., CVPR 2017).

    Args:
        edges: Pairs of names, or triples with a weight; a file of them (`.csv` or `.tsv`, an edge a line, no header); or the
            neighbours by node, such as `graph.adj` of networkx. The direction does not matter, and an edge that is there
            twice counts once, with the larger weight.
        dim (`int`, *optional*): D, below the number of nodes. All eigenvectors together are orthogonal from node to node, so
            that they tell nodes apart and not how near they are; None, for all of them, is for commute times alone.
        names (`Sequence[str]`, *optional*): The nodes to return, such as the classes; all by default, in alphabetical order.
        commute_time (`bool`, *optional*, defaults to `False`): Whether to divide every eigenvector by the root of its
            eigenvalue, so that smoother ones weigh more: the embedding of a random walk's commute times ("Clustering and
            Embedding Using Commute Times", Qiu & Hancock, TPAMI 2007). A larger D then adds ever less.

    Returns:
        `dict[str, torch.Tensor]`: A vector `(D,)` a name.

    Raises:
        ValueError: If the graph is in several parts (a distance between them means nothing), or a name is no node of it.

    Example:

    ```python
    >>> from hf_colearn import graph_vectors

    >>> vectors = graph_vectors([("cat", "feline"), ("lion", "feline"), ("feline", "animal"), ("frog", "animal")], dim=2)
    >>> [round(float(vectors[name][0]), 2) for name in ("cat", "lion", "frog")]
    [-0.35, -0.35, 0.61]
    ```
    """
    nodes, adjacency_NN = _adjacency(edges)
    _check_connected(nodes, adjacency_NN)
    if dim is None and not (commute_time and len(nodes) <= _DENSE):
        raise ValueError(
            f"dim=None is for commute times of up to {_DENSE:,} nodes: pass a number below {len(nodes):,}."
        )
    dim = len(nodes) - 1 if dim is None else dim
    check_integer("dim", dim, least=1)
    if dim >= len(nodes):
        raise ValueError(f"dim={dim}: a graph of {len(nodes)} nodes has {len(nodes) - 1} such eigenvectors at most.")
    if names is not None:
        check_names("names", names, "cat")
        if missing := [name for name in names if name not in nodes]:
            raise ValueError(f"'{missing[0]}' is no node of the graph: add its edges, or leave it out of `names`.")
    values_D, eigenvectors_ND = _smoothest(adjacency_NN, dim)
    vectors_ND = torch.from_numpy(eigenvectors_ND / np.sqrt(values_D) if commute_time else eigenvectors_ND).float()
    return {name: vectors_ND[nodes[name]].clone() for name in (nodes if names is None else names)}


def wordnet_vectors(
    names: Sequence[str],
    kind: str = "path",
    dim: int | None = None,
    anchors: Sequence[str] | None = None,
    synsets: Mapping[str, str] | None = None,
    folder: str | Path | None = None,
) -> dict[str, torch.Tensor]:
    r"""A vector of every class by what WordNet knows of its name.

    `"path"`: entry a is \\(1 / (1 + d)\\), with d the steps in WordNet's hierarchy from the class to the anchor a. The anchors
    are the classes themselves, so that `D = C`; further classes for a trained student are held against the student's:
    `student.with_classes(wordnet_vectors(["lion"], anchors=[...]))`.
    `"laplacian"`, `"commute_time"`: [`graph_vectors`] of everything above the classes, with D dimensions. Classes that are to
    come must be among the names from the beginning.

    Args:
        names (`Sequence[str]`): Of the C classes. An ambiguous name has its most frequent sense.
        kind (`str`, *optional*, defaults to `"path"`): `"path"`, `"laplacian"` or `"commute_time"`.
        dim (`int`, *optional*): D of the eigenvectors; of commute times all by default.
        anchors (`Sequence[str]`, *optional*): The A names that paths lead to; the classes by default.
        synsets (`Mapping[str, str]`, *optional*): The senses of names that are no nouns or mean another sense, such as
            `{"crane": "crane.n.05"}`. [`~hf_colearn.corpora.wordnet.WordNet.senses`] lists those of a word.
        folder (`str` or `Path`, *optional*): Of WordNet's files, see [`~hf_colearn.corpora.wordnet.WordNet`].

    Raises:
        ValueError: If a name is no noun of WordNet, or two have the same sense.
        FileNotFoundError: If there is no WordNet.

    Example:

    ```python
    >>> from hf_colearn import wordnet_vectors

    >>> wordnet_vectors(["dog", "cat", "crane"], synsets={"crane": "crane.n.05"})["dog"]
    tensor([1.0000, 0.2000, 0.1111])
    ```
    """
    check_choice("kind", kind, KINDS)
    check_names("names", names, "cat")
    if (kind == "path" and dim is not None) or (kind != "path" and anchors is not None):
        raise ValueError(
            f"kind='{kind}' with dim={dim} and anchors={anchors}: paths lead to anchors, and have no dim; eigenvectors have a "
            "dim, such as 16, and no anchors."
        )
    wordnet = WordNet(folder)
    targets = names if anchors is None else anchors
    senses = wordnet.synsets_of(dict.fromkeys([*names, *targets]), synsets)
    if kind != "path":
        edges, nodes = wordnet.edges(senses.values()), [senses[name] for name in names]
        vectors = graph_vectors(edges, dim, nodes, commute_time=kind == "commute_time")
        return dict(zip(names, vectors.values(), strict=True))
    return {
        name: torch.tensor([wordnet.path_similarity(senses[name], senses[target]) for target in targets])
        for name in names
    }


def permuted_classes(vectors: Mapping[str, torch.Tensor], seed: int) -> dict[str, torch.Tensor]:
    """The null control: the same vectors, each of another class, drawn by the seed. No class keeps its own.

    Of a graph it is the graph with permuted names. Refuses fewer than 2 classes.

    Example:

    ```python
    >>> import torch
    >>> from hf_colearn import permuted_classes

    >>> permuted_classes({"cat": torch.tensor([1.0]), "dog": torch.tensor([2.0])}, seed=0)
    {'cat': tensor([2.]), 'dog': tensor([1.])}
    ```
    """
    if len(vectors) < 2:
        raise ValueError(f"{len(vectors)} class has no other one to take a vector from: pass at least 2.")
    order = [list(vectors)[i] for i in np.random.default_rng(seed).permutation(len(vectors))]
    next_one = dict(zip(order, [*order[1:], order[0]], strict=True))  # one cycle through all
    return {name: vectors[next_one[name]] for name in vectors}


# ---- the graph ----
def _adjacency(edges: Edges) -> tuple[dict[str, int], csr_array]:
    """The row of every node by name, in alphabetical order, and the symmetric matrix of weights."""
    weights: dict[tuple[str, str], float] = {}
    for where, one, other, weight in _listed(edges):
        if not all(isinstance(node, str) and node for node in (one, other)):
            raise ValueError(f"{where} joins {one!r} and {other!r}: nodes are names, such as ('cat', 'feline').")
        if one == other:
            raise ValueError(f"{where} joins '{one}' with itself: leave it out.")
        if not 0 < weight < math.inf:
            raise ValueError(f"{where} has the weight {weight}: pass a positive one, or leave the edge out.")
        pair = (min(one, other), max(one, other))
        weights[pair] = max(weight, weights.get(pair, 0.0))
    if not weights:
        raise ValueError("there is no edge: pass pairs of names, such as [('cat', 'feline')].")
    nodes = {name: row for row, name in enumerate(sorted({name for pair in weights for name in pair}))}
    rows, columns = np.array([(nodes[one], nodes[other]) for one, other in weights]).T
    half_NN = coo_array((np.array(list(weights.values())), (rows, columns)), shape=(len(nodes), len(nodes))).tocsr()
    return nodes, half_NN + half_NN.T


def _listed(edges: Edges) -> Iterator[tuple[str, Any, Any, float]]:
    """Every edge: where it stands, its ends and its weight."""
    rows: Iterable[tuple[str, Sequence[Any]]]
    if isinstance(edges, (str, Path)):
        file = Path(edges)
        if file.suffix not in _SEPARATORS:
            raise ValueError(f"'{file}' is neither .csv nor .tsv: write an edge a line, two names and a comma or tab.")
        rows = table_rows(file, "pass a file of edges, or pairs of names", delimiter=_SEPARATORS[file.suffix])
    elif isinstance(edges, Mapping):
        pairs = ((node, other) for node, others in edges.items() for other in others)
        rows = ((f"the edge of '{pair[0]}'", pair) for pair in pairs)
    else:
        rows = ((f"edge {number}", edge) for number, edge in enumerate(edges))
    for where, edge in rows:
        if isinstance(edge, str) or len(edge) not in (2, 3):
            raise ValueError(f"{where} is {edge!r}: pass two names, and a weight where edges differ.")
        try:
            weight = float(edge[2]) if len(edge) == 3 else 1.0
        except (TypeError, ValueError) as error:
            raise ValueError(f"{where} has the weight {edge[2]!r}: pass a number, or leave it out.") from error
        yield where, edge[0], edge[1], weight


def _check_connected(nodes: Mapping[str, int], adjacency_NN: csr_array) -> None:
    count, part_N = connected_components(adjacency_NN, directed=False)
    if count > 1:
        sizes = np.bincount(part_N)
        first = {part: name for name, part in zip(reversed(list(nodes)), reversed(part_N), strict=True)}
        shown = ", ".join(f"that of '{first[part]}' with {sizes[part]}" for part in np.argsort(-sizes)[:4])
        more = ", ..." if count > 4 else ""
        raise ValueError(
            f"the graph is in {count} parts ({shown}{more} nodes), and no eigenvector relates one to another: join them, "
            "such as by edges to a common root, or pass the edges of one part."
        )


def _smoothest(adjacency_NN: csr_array, dim: int) -> tuple[np.ndarray, np.ndarray]:
    """The D smallest eigenvalues above 0 and their eigenvectors `(N, D)`."""
    laplacian_NN = laplacian(adjacency_NN, normed=True)
    if (size := adjacency_NN.shape[0]) <= _DENSE:
        values, vectors_ND = eigh(laplacian_NN.toarray(), subset_by_index=(1, dim))
    else:
        start_N = np.random.default_rng(0).standard_normal(size)  # the same result in every call
        values, vectors_ND = eigsh(laplacian_NN, k=dim + 1, sigma=-1e-3, v0=start_N)
        order = np.argsort(values)[1:]
        values, vectors_ND = values[order], vectors_ND[:, order]
    sizes_ND = np.abs(vectors_ND)
    largest_D = np.argmax(sizes_ND > sizes_ND.max(axis=0) - 1e-6, axis=0)  # the first of those that are as large
    return values, vectors_ND * np.sign(vectors_ND[largest_D, np.arange(dim)])
