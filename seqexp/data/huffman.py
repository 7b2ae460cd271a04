"""Huffman codes of words, for hierarchical softmax (Morin & Bengio 2005; Mikolov et al. 2013b)."""

import heapq

import numpy as np
import numpy.typing as npt


def huffman_paths(
    counts: npt.NDArray[np.int64],
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float32]]:
    """Return the inner nodes above each word, from the root on, and which of their two children it is under.

    Both are (V, longest path); nodes are filled up with -1, and those of n words have the numbers 0 to n - 2.
    A child is 1 or 0. Words that count nothing have no path.
    """
    words = np.flatnonzero(counts > 0)
    # Ties are broken by the number, so that the tree is the same everywhere. Leaves: their place in `words`.
    heap = [(int(counts[word]), place) for place, word in enumerate(words)]
    heapq.heapify(heap)
    parent = np.zeros(2 * len(words) - 1, np.int64)
    child = np.zeros(2 * len(words) - 1, np.int64)
    for node in range(len(words), 2 * len(words) - 1):
        (first, left), (second, right) = heapq.heappop(heap), heapq.heappop(heap)
        parent[[left, right]], child[right] = node, 1
        heapq.heappush(heap, (first + second, node))
    root = 2 * len(words) - 2
    paths: list[list[tuple[int, int]]] = []
    for place in range(len(words)):
        path, node = [], place
        while node != root:
            path.append((int(parent[node]) - len(words), int(child[node])))
            node = int(parent[node])
        paths.append(path[::-1])
    longest = max(map(len, paths))
    nodes = np.full((len(counts), longest), -1, np.int32)
    children = np.zeros((len(counts), longest), np.float32)
    for word, path in zip(words, paths, strict=True):
        nodes[word, : len(path)] = [node for node, _ in path]
        children[word, : len(path)] = [one for _, one in path]
    return nodes, children
