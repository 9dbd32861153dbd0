"""Decode a linear-chain CRF with NumPy alone; an ONNX export has a copy of this file and its scores, `crf.json`.

The results are those of `mmib.nn.crf.LinearChainCRF`. `start` (K,), `transition` (K, K) from row to column, and
`end` (K,) are scores in nats; those of forbidden transitions are so low that no path takes them.

Shapes: B posts, W words, K tags. Masks are boolean and left-aligned: the words of a post come first. Values at
masked positions have no effect. W is at least 1; a post may have no words.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray


def viterbi(
    emissions: ArrayLike, mask: ArrayLike, start: ArrayLike, transition: ArrayLike, end: ArrayLike
) -> NDArray[np.int64]:
    """Return the most probable tag sequence of each post.

    Args:
        emissions: (B, W, K) scores in nats.
        mask: (B, W) True at words.
        start: scores of the first tag.
        transition: scores of transitions between neighbouring tags.
        end: scores of the last tag.

    Returns:
        (B, W) tag ids, 0 where masked.

    Raises:
        ValueError: the shapes do not match.
    """
    scores, words, first, step, last = _fitting(emissions, mask, start, transition, end)
    best = first + scores[:, 0]
    came_from = []
    for word in range(1, scores.shape[1]):
        reached, there = best[:, :, None] + step, words[:, word, None]
        # Past its last word, a post keeps its state.
        came_from.append(np.where(there, reached.argmax(axis=1), np.arange(len(step))))
        best = np.where(there, reached.max(axis=1) + scores[:, word], best)
    path = [(best + last).argmax(axis=1)]
    for before in reversed(came_from):
        path.append(np.take_along_axis(before, path[-1][:, None], axis=1)[:, 0])
    return np.where(words, np.stack(path[::-1], axis=1), 0)


def marginals(
    emissions: ArrayLike, mask: ArrayLike, start: ArrayLike, transition: ArrayLike, end: ArrayLike
) -> NDArray[np.float64]:
    """Return the probability of each tag at each word; arguments as in `viterbi`.

    Returns:
        (B, W, K), summing to 1 over the tags of a word; zero where masked.

    Raises:
        ValueError: the shapes do not match.
    """
    scores, words, first, step, last = _fitting(emissions, mask, start, transition, end)
    before, after = [first + scores[:, 0]], [np.broadcast_to(last, scores[:, 0].shape)]
    for word in range(1, scores.shape[1]):
        reached = np.logaddexp.reduce(before[-1][:, :, None] + step, axis=1) + scores[:, word]
        before.append(np.where(words[:, word, None], reached, before[-1]))
    for word in range(scores.shape[1] - 1, 0, -1):
        onwards = np.logaddexp.reduce(step + (scores[:, word] + after[-1])[:, None, :], axis=2)
        after.append(np.where(words[:, word, None], onwards, after[-1]))
    joint = np.stack(before, axis=1) + np.stack(after[::-1], axis=1)
    weights = np.exp(joint - joint.max(axis=2, keepdims=True))
    return np.where(words[:, :, None], weights / weights.sum(axis=2, keepdims=True), 0.0)


def _fitting(
    emissions: ArrayLike, mask: ArrayLike, start: ArrayLike, transition: ArrayLike, end: ArrayLike
) -> tuple[NDArray[np.float64], NDArray[np.bool_], NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Convert the arguments to arrays, with zero emissions at masked positions."""
    words = np.asarray(mask, dtype=bool)
    scores, *chain = (np.asarray(array, dtype=np.float64) for array in (emissions, start, transition, end))
    tags = scores.shape[-1]
    shapes, expected = [array.shape for array in chain], [(tags,), (tags, tags), (tags,)]
    if scores.ndim != 3 or words.shape != scores.shape[:2] or shapes != expected:
        given = ", ".join(map(str, [scores.shape, words.shape, *shapes]))
        raise ValueError(f"the shapes {given} are not (B, W, K), (B, W), (K,), (K, K), (K,)")
    first, step, last = chain
    return np.where(words[:, :, None], scores, 0.0), words, first, step, last
