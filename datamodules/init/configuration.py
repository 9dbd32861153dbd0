"""The configuration to train on a data set, as commented YAML."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

import yaml

from mmib.datamodules.init.labelling import Labelling
from mmib.datamodules.init.recognise import Found
from mmib.datamodules.init.survey import Survey
from mmib.labels import shown

# As in the configurations for the released data sets: three to eight epochs, in 1,700 to 2,300 steps.
STEPS = 1_500
FEWEST_EPOCHS, MOST_EPOCHS = 3, 30
BATCH, SMALL_BATCH, FEW_POSTS = 16, 8, 200
# From this many steps per epoch, validation runs in the middle of an epoch too.
LONG_EPOCH = 200
# Lengths are rounded up to a multiple of ROUND word pieces. They cost nothing beyond the posts' own lengths, so that a
# model of short posts also reads longer ones; text encoders support at most LONGEST.
ROUND, SHORTEST, LONGEST = 16, 128, 512
TOLERATED = 0.05
CROPS = 4
COMMENT_COLUMN = 32
HEAD = """\
# {title}, as mmib init found them. Every line can be changed here, or for one run on the command line, as in
# --trainer.max_epochs 5. A line that is left out has its default: mmib fit --help lists all."""
UNLIKE_TEXT = ("none", "nan", "inf")
PLAIN = re.compile(r"[A-Za-z_/.][\w/.-]*")

COMMENTS = {
    "root": "relative to where mmib is started",
    "separator": "between columns; null for tabs or blanks",
    "word_column": "counted from 0",
    "tag_column": "counted from 0, or -1 for the last",
    "scheme": "of the tags; null to recognise it",
    "holdout": "share of the training posts to validate with",
    "test_holdout": "share of the training posts to test with",
}
ARGUMENTS = [
    "      # arguments: {RELATION: [HEAD, TAIL]}",
    "      #   types of its entities: other pairs are not classified (docs/reference/formats.md)",
]
MODEL = {
    "mner": """\
  init_args:
    beta_text: 1.0e-3            # weight of the text bottleneck; 0 switches it off (docs/explanation/information.md)
    beta_image: 1.0e-3           # weight of the image bottleneck
    gamma: 0.1                   # weight of the alignment of text and image
    mention_dropout: 0.0         # 0.5 keeps the model from memorising the names in the text
    optimizer:
      lr: 3.0e-4                 # of everything beside the text encoder
      text_lr: 1.0e-4            # of the text encoder
      other_lrs:
        '^(crf|head)\\.': 1.0e-3
""",
    "mre": """\
  init_args:
    beta_text: 3.0e-4            # weight of the text bottleneck; 0 switches it off (docs/explanation/information.md)
    beta_image: 3.0e-4           # weight of the image bottleneck
    gamma: 0.1                   # weight of the alignment of text and image
    head_dropout: 0.2
    optimizer:
      lr: 2.0e-4                 # of everything beside the text encoder
      text_lr: 6.0e-5            # of the text encoder
""",
}


def configuration(name: str, found: Found, labels: Labelling, splits: Sequence[Survey], rows: str) -> str:
    """Return the text of a configuration.

    Args:
        name: name of the experiment.
        found: the data.
        labels: its labels.
        splits: surveys of the splits, the training split first.
        rows: name of the posts, in the plural.
    """
    train = splits[0]
    batch = BATCH if train.posts >= FEW_POSTS else SMALL_BATCH
    steps = math.ceil(train.posts / batch)
    epochs = min(MOST_EPOCHS, max(FEWEST_EPOCHS, round(STEPS / steps)))
    interval = 0.5 if steps >= LONG_EPOCH else 1.0
    longest = max(split.longest for split in splits)
    length = min(LONGEST, max(SHORTEST, ROUND * math.ceil(longest / ROUND)))
    missing = max(split.missing for split in splits)
    lines = [
        HEAD.format(title=found.title[0].upper() + found.title[1:]),
        "include:",
        _line("  - base.yaml", "callbacks, seed, gradient clipping"),
        f"  - model/{found.task}.yaml",
        _line(
            "  - model/offline.yaml",
            "small encoders that come as packages; or model/published.yaml: BERT and ResNet-50",
        ),
        _line("  # - trainer/bf16.yaml", "faster where the machine computes in bfloat16"),
        _line("  # - trainer/averaged.yaml", "averages the weights; often better from a thousand steps on"),
        _line("  # - trainer/early_stopping.yaml", "ends when validation no longer improves"),
        f"name: {_scalar(name)}",
        "trainer:",
        _line(f"  max_epochs: {epochs}", f"of {steps:,} steps: {train.posts:,} {rows} in batches"),
        _line(f"  val_check_interval: {interval}", "validate after this share of an epoch (a whole number: steps)"),
        "data:",
        f"  class_path: {found.data_module}",
        "  init_args:",
        *(_line(f"    {key}: {_scalar(value)}", COMMENTS.get(key, "")) for key, value in found.settings.items()),
        *_labels(labels, train.labels),
        *(ARGUMENTS if found.makes_negatives else []),
        f"    batch_size: {batch}",
        _line(f"    max_length: {length}", f"word pieces; the longest post has {longest:,}"),
        _line(f"    max_crops: {CROPS if train.has_crops else 0}", "object crops beside the image: mmib crop-objects"),
        _line(
            f"    max_missing_images: {_tolerated(missing)}",
            f"share of images allowed to be missing; now {missing:.1%}",
        ),
        "model:",
        MODEL[found.task],
    ]
    return "\n".join(lines)


def _line(text: str, comment: str) -> str:
    return f"{text:<{COMMENT_COLUMN}} # {comment}" if comment else text


def _tolerated(missing: float) -> float:
    return max(TOLERATED, math.ceil(100 * missing) / 100)


def _labels(labels: Labelling, counts: Counter[str]) -> list[str]:
    names, negative = labels.labels.names, labels.labels.negative
    if isinstance(labels.source, str):
        return [_line(f"    labels: {labels.source}", shown(names))]
    listed = [_line(f"        - {_scalar(name)}", f"{counts[name]:,} of them to train on") for name in names]
    chosen = [] if negative is None else [_line(f"      negative: {_scalar(negative)}", "no relation: not scored")]
    return ["    labels:", "      names:", *listed, *chosen]


def _scalar(value: Any) -> str:
    """Write a value as YAML, with quotes around strings that could be read as something else."""
    quoted = isinstance(value, str) and not (
        PLAIN.fullmatch(value) and yaml.safe_load(value) == value and value.lower() not in UNLIKE_TEXT
    )
    style = '"' if quoted else None
    return (
        str(yaml.safe_dump(value, default_style=style, allow_unicode=True, width=math.inf))
        .removesuffix("...\n")
        .strip()
    )
