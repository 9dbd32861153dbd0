"""Checks a data set on disk for missing files and for problems that stop a training run or go unnoticed in it."""

from mmib.datamodules.check.findings import Finding, SetReport, SplitReport, every_finding, status
from mmib.datamodules.check.recognise import find_sets
from mmib.datamodules.check.repair import write_repaired
from mmib.datamodules.check.texts import Pieces
from mmib.datamodules.check.whole import check_set

__all__ = [
    "Finding",
    "Pieces",
    "SetReport",
    "SplitReport",
    "check_set",
    "every_finding",
    "find_sets",
    "status",
    "write_repaired",
]
