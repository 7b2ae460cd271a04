"""Word vectors without learning: positive pointwise mutual information, and a truncated SVD of it.

The baseline of word vectors; with the choices of Levy, Goldberg & Dagan (2015): contexts are smoothed by
count^0.75, and the singular values enter by their square root.
"""

import numpy as np
import numpy.typing as npt

SMOOTHING = 0.75


def ppmi_vectors(
    rows: npt.NDArray[np.int64],
    columns: npt.NDArray[np.int64],
    weights: npt.NDArray[np.float32],
    size: int,
    dim: int,
) -> npt.NDArray[np.float32]:
    """Return vectors (V, D) of `size` words from co-occurrences (row, column, weight), each pair once.

    Each pair is taken in both orders. If there are at most `dim` words, the vectors are shorter than `dim`.
    """
    from scipy.sparse import coo_matrix
    from scipy.sparse.linalg import svds

    counts = coo_matrix((weights, (rows, columns)), shape=(size, size)).tocsr()
    counts = (counts + counts.T).tocoo()
    sums = np.bincount(counts.row, counts.data, minlength=size)
    smoothed = sums**SMOOTHING
    smoothed /= smoothed.sum()
    information = np.log(counts.data / (sums[counts.row] * smoothed[counts.col]))
    positive = information > 0
    if not positive.any():
        return np.zeros((size, min(dim, max(1, size - 1))), np.float32)
    matrix = coo_matrix(
        (information[positive].astype(np.float32), (counts.row[positive], counts.col[positive])),
        shape=(size, size),
    ).tocsr()
    start = np.random.default_rng(0).standard_normal(size).astype(np.float32)
    left, values, _ = svds(matrix, k=min(dim, size - 1), v0=start)
    found: npt.NDArray[np.float32] = (left * np.sqrt(values)).astype(np.float32)
    return found
