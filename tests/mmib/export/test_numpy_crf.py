"""The CRF in NumPy matches the network's, and has no other dependencies."""

from __future__ import annotations

import ast
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mmib.export import numpy_crf
from mmib.nn.crf import LinearChainCRF, bio_constraints
from mmib.tagging import bio_tags

TAGS = bio_tags(("PER", "LOC", "ORG", "MISC"))
Scores = tuple[np.ndarray, np.ndarray, np.ndarray]
lengths = st.lists(st.integers(0, 6), min_size=1, max_size=5)


def random_crf(constrained: bool) -> tuple[LinearChainCRF, Scores]:
    """A float64 CRF, and its scores as written by an export."""
    module = LinearChainCRF(len(TAGS), *(bio_constraints(TAGS) if constrained else ())).double()
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=2.0)
    start, transition, end = (scores.detach().numpy() for scores in module.scores())
    return module, (start, transition, end)


def random_posts(lengths: list[int], padding: int) -> tuple[torch.Tensor, torch.Tensor]:
    words = max(*lengths, 1) + padding
    mask = torch.arange(words)[None, :] < torch.tensor(lengths)[:, None]
    return 2 * torch.randn(len(lengths), words, len(TAGS), dtype=torch.float64), mask


@settings(max_examples=40, deadline=None)
@given(lengths=lengths, padding=st.integers(0, 3), constrained=st.booleans(), seed=st.integers(0, 1000))
def test_tags_and_marginals_match_the_network(lengths: list[int], padding: int, constrained: bool, seed: int) -> None:
    torch.manual_seed(seed)
    (module, scores), (emissions, mask) = random_crf(constrained), random_posts(lengths, padding)
    best = numpy_crf.viterbi(emissions.numpy(), mask.numpy(), *scores)
    assert best.tolist() == module.viterbi(emissions, mask).tolist()
    shares = numpy_crf.marginals(emissions.numpy(), mask.numpy(), *scores)
    np.testing.assert_allclose(shares, module.marginals(emissions, mask).numpy(), atol=1e-9)


def test_padding_after_the_words_has_no_effect() -> None:
    _, scores = random_crf(constrained=True)
    emissions, mask = (tensor.numpy() for tensor in random_posts([4, 0, 2], 0))
    filler = np.full((3, 2, len(TAGS)), np.nan)
    filler[:, 0] = np.inf
    longer = np.concatenate([np.where(mask[:, :, None], emissions, np.nan), filler], axis=1)
    longer_mask = np.pad(mask, ((0, 0), (0, 2)))
    for decode in (numpy_crf.viterbi, numpy_crf.marginals):
        plain, padded = decode(emissions, mask, *scores), decode(longer, longer_mask, *scores)
        np.testing.assert_array_equal(padded[:, :4], plain)
        assert not padded[:, 4:].any()


def test_shapes_that_would_be_broadcast_incorrectly_are_refused() -> None:
    _, (start, transition, end) = random_crf(constrained=False)
    emissions, mask = (tensor.numpy() for tensor in random_posts([3, 2], 0))
    with pytest.raises(ValueError, match=r"\(3,\)"):
        numpy_crf.viterbi(emissions, mask[0], start, transition, end)
    with pytest.raises(ValueError, match="not"):
        numpy_crf.marginals(emissions, mask, start, start, end)


def test_only_numpy_is_imported() -> None:
    """Exports include a copy for use without mmib and torch."""
    imported = {
        name.partition(".")[0]
        for node in ast.walk(ast.parse(Path(numpy_crf.__file__).read_text(encoding="utf-8")))
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [str(node.module)]
            if isinstance(node, ast.ImportFrom)
            else []
        )
    }
    assert imported == {"__future__", "numpy"}
