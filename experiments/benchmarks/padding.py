"""Share of padding in batches, which packing several posts into one row could still save.

    python -m experiments.benchmarks.padding --batch-sizes 8 16 64 256

Prints the share of positions of an epoch without a word piece: with every post padded to the maximum length, with each
batch padded to its longest post, in random order or as batched by our sampler, and within a budget of as many word
pieces as such a batch has on average. Nothing is timed.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from experiments.benchmarks.corpus import DATA_ROOT, SETS, PostSet, read_posts_of
from experiments.benchmarks.measure import table
from mmib.datamodules.batching import GlobalBatchSampler
from mmib.datamodules.examples import fit_words
from mmib.datamodules.markers import mark_entities
from mmib.encoders.text import WordTokenizer, load_tokenizer

VOCABULARY = "pip:minilm-l6"  # the vocabulary of bert-base-uncased


def lengths_of(rows: Iterable[Any], posts: PostSet, tokenizer: WordTokenizer) -> np.ndarray:
    """(N,) word pieces of each row, including special pieces and markers."""
    rows = list(rows)
    words = tokenizer.pieces([row.words for row in rows])
    if posts.task == "mre":
        marked = (
            mark_entities(tokens, row.head, row.tail, tokenizer, posts.max_length)
            for tokens, row in zip(words, rows, strict=True)
        )
        return np.array([len(row.input_ids) for row in marked])
    return np.array([len(fit_words(tokens, tokenizer, posts.max_length)[0]) for tokens in words])


def share_of_padding(lengths: np.ndarray, batch_size: int, max_tokens: int | None = None) -> float:
    """Share of padding in an epoch of our sampler."""
    sizes = np.stack([lengths, np.ones_like(lengths)], axis=1)
    sampler = GlobalBatchSampler(sizes, batch_size, shuffle=True, seed=0, max_tokens=max_tokens)
    return 1 - lengths.sum() / sum(len(share.rows) * share.size.pieces for share in sampler)


def share_in_random_order(lengths: np.ndarray, batch_size: int) -> float:
    """Share of padding in batches in random order, each padded to its longest row."""
    order = np.random.default_rng(0).permutation(lengths)
    batches = (order[start : start + batch_size] for start in range(0, len(order), batch_size))
    return 1 - lengths.sum() / sum(len(batch) * batch.max() for batch in batches)


def main(arguments: list[str] | None = None) -> None:
    """Compute the shares, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", nargs="+", choices=list(SETS), default=list(SETS))
    parser.add_argument("--batch-sizes", nargs="+", type=int, default=[8, 16, 64, 256])
    parser.add_argument("--data-root", type=Path, default=DATA_ROOT, help="holds the real sets; else drawn posts serve")
    chosen = parser.parse_args(arguments)
    tokenizer, lines = load_tokenizer(VOCABULARY), []
    for name in chosen.sets:
        posts = SETS[name]
        source, rows = read_posts_of(name, chosen.data_root)
        lengths = lengths_of(rows, posts, tokenizer)
        for batch_size in chosen.batch_sizes:
            budget = max(posts.max_length, math.ceil(batch_size * lengths.mean()))
            shares = [
                1 - lengths.mean() / posts.max_length,
                share_in_random_order(lengths, batch_size),
                share_of_padding(lengths, batch_size),
                share_of_padding(lengths, len(lengths), budget),
            ]
            known = [source, f"{lengths.mean():.1f}", batch_size]
            lines.append([*known, *(f"{share:.1%}" for share in shares), budget])
    head = ["", "mean pieces", "batch", "to the maximum", "random order", "ours", "ours within max_tokens", "of"]
    print(f"Share of padding\n\n{table(head, lines)}\n")


if __name__ == "__main__":
    main()
