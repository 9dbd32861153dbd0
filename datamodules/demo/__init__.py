"""The demo corpus: synthetic posts in the formats of MNRE and Twitter-2017, with known best possible scores."""

from mmib.datamodules.demo.ceilings import expected_best_f1
from mmib.datamodules.demo.corpus import write_demo_corpus
from mmib.datamodules.demo.reading import read_ceilings, read_levels, read_truth
from mmib.datamodules.demo.settings import NOISE_KINDS, SIZES, SPLITS, DemoSettings

__all__ = [
    "NOISE_KINDS",
    "SIZES",
    "SPLITS",
    "DemoSettings",
    "expected_best_f1",
    "read_ceilings",
    "read_levels",
    "read_truth",
    "write_demo_corpus",
]
