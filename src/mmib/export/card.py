"""The model card of an export: training data, scores, use, and limits."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from mmib.export.model import TrainedModel
from mmib.runs.reader import dotted
from mmib.schema import SHIPPED_TASKS, Task, task_named
from mmib.scores import few_items

SCORES = ("precision", "recall", "f1", "accuracy")
SPLITS = {"test": "Test", "val": "Validation"}
# Tasks of the Hub, by what a task finds. The Hub has no task for relations, which classify a text with marked spans.
PIPELINES = {"entities": "token-classification", "relations": "text-classification", "labels": "text-classification"}
USE = """## Use

```python
from mmib import Extractor

found = Extractor.from_pretrained("THIS_FOLDER").extract("Ada met Grace in London", image="photo.jpg")
print(found.to_dict())
```

Nothing is downloaded, and no code of this folder is run. On the command line:
`mmib extract --model THIS_FOLDER posts.jsonl -o out.jsonl`.
"""
LIMITS = """## Limits

- It was trained on the data named above and is worth its scores there alone; other languages, topics and times of
  social media will give worse ones. A confidence is calibrated where the table above names a
  temperature; else it is the raw probability.
- Names, faces and opinions of real people may stand in posts. What is extracted is what a model believes, and may be
  wrong: do not decide about people by it.
- Words beyond the longest input are not read; an image that cannot be read is an error, and none is no error.

## Licence

The code of mmib is under Apache-2.0. These weights were made from pretrained encoders and from data that have their own
terms, which hold for the weights too where their owners say so. Look them up before you pass this folder on.
"""


def model_card(models: Sequence[TrainedModel]) -> str:
    """Format the card of one model, or of one model per task."""
    tasks = [task_named(model.task) for model in models]
    names = " and ".join(
        f"{task.title} on {model.card.get('corpus', 'unnamed data')}" for task, model in zip(tasks, models, strict=True)
    )
    sections = [section for task, model in zip(tasks, models, strict=True) for section in _sections(task, model)]
    return _front(tasks, models) + "\n" + "\n".join([f"# mmib: {names}\n", *sections, USE + _plugins(tasks), LIMITS])


def _front(tasks: Sequence[Task], models: Sequence[TrainedModel]) -> str:
    """Format the metadata that a model hub reads from a card."""
    results = [result for task, model in zip(tasks, models, strict=True) for result in _results(task, model)]
    # With several models, use the task of entities: the others read its output.
    found = [task.finds for task in tasks]
    data = ModelCardData(
        library_name="mmib",
        license="other",
        license_name="terms-of-data-and-encoders",
        pipeline_tag=PIPELINES[min(found, key=list(PIPELINES).index)],
        tags=["information-extraction", "multimodal", *(task.title.replace(" ", "-") for task in tasks)],
        model_name=f"mmib: {' and '.join(task.title for task in tasks)}" if results else None,
        eval_results=results or None,
    )
    return f"---\n{data.to_yaml()}\n---\n"


def _results(task: Task, model: TrainedModel) -> Iterator[EvalResult]:
    """The finite scores of a model on each split, in the hub's format. A model is from one training, so one seed."""
    corpus = str(model.card.get("corpus", "unnamed data"))
    for split, title in SPLITS.items():
        scores = model.card.get(split) or {}
        for metric in SCORES:
            if math.isfinite(scores.get(metric, math.nan)):
                yield EvalResult(
                    task_type=PIPELINES[task.finds],
                    task_name=task.title,
                    dataset_type=re.sub(r"[^a-z0-9]+", "-", corpus.lower()).strip("-") or "unnamed",
                    dataset_name=corpus,
                    dataset_split={"val": "validation"}.get(split, split),
                    metric_type=metric,
                    metric_name=f"{title} {metric}",
                    metric_value=round(scores[metric], 4),
                    metric_args={"seeds": 1, "seed": model.card.get("seed")},
                )


def _plugins(tasks: Sequence[Task]) -> str:
    """Explain how to register tasks that do not come with mmib."""
    return "".join(
        f"\nThe task {task.name} is a plugin: add `--plugin {type(task).__module__}`, or in Python import that module "
        "first.\n"
        for task in tasks
        if task.name not in SHIPPED_TASKS
    )


def _sections(task: Task, model: TrainedModel) -> Iterable[str]:
    card = model.card
    yield (
        f"## {task.title.capitalize()}\n\n"
        "Text and image are compressed by a variational information bottleneck each, aligned by a contrastive "
        "regulariser and fused by attention (MMIB, arXiv 2304.02328).\n\n" + _table(("what", "value"), facts(model))
    )
    yield "### Scores\n\n" + (_table(("split", *SCORES), _scores(card)) or "Not scored.\n") + _cautions(model)
    if card.get("int8"):
        yield "### 8-bit integers\n\n" + _int8(card["int8"])
    if card.get("data"):
        rows = [(split, part.get("rows"), str(part.get("sha256"))[:16]) for split, part in card["data"].items()]
        yield "### Data\n\n" + _table(("split", "rows", "SHA-256 begins"), rows)
    if card.get("settings"):
        yield "### Settings\n\n" + _table(("setting", "value"), dotted(card["settings"]))


def facts(model: TrainedModel) -> list[tuple[str, Any]]:
    """Architecture and training of a model, as names and values for readers of the card."""
    backbone, temperature = model.network.backbone, model.temperature
    known: list[tuple[str, Any]] = [
        ("labels", ", ".join(model.labels.scored)),
        ("negative class", model.labels.negative or "none: every label counts"),
        ("text encoder", backbone.text_encoder.encoder.config.model_type + f", width {backbone.dim}"),
        ("longest input", f"{model.max_length} word pieces"),
        ("image encoder", f"{model.image_encoder.architecture}, regions: {model.image_encoder.regions}"),
        ("object crops", f"up to {model.max_crops} beside the whole image" if model.max_crops else "none"),
        ("trained with images", "yes" if model.reads_images else "no: images are not looked at"),
        ("experiment, seed", f"{model.card.get('experiment')}, {model.card.get('seed')}"),
    ]
    if temperature.count and temperature.error_before is not None and temperature.error_after is not None:
        errors = f"{temperature.error_before:.3f} before, {temperature.error_after:.3f} after"
        fitted = f"{temperature.value:.3f}, fitted on {temperature.count:,} validation predictions"
        known.append(("temperature of confidence", f"{fitted}; expected calibration error {errors}"))
    known += [(name, model.card[name]) for name in ("ended",) if model.card.get(name)]
    return [*known, *(model.card.get("versions") or {}).items()]


def _cautions(model: TrainedModel) -> str:
    """Warn of splits that have too few gold items, as runs and reports do."""
    classes = {split: (model.card.get(split) or {}).get("classes", {}) for split in SPLITS}
    cautions = ((split, few_items(found, model.labels.negative)) for split, found in classes.items())
    return "".join(f"\n{SPLITS[split]}: {caution}.\n" for split, caution in cautions if caution)


def _scores(card: dict[str, Any]) -> list[tuple[Any, ...]]:
    return [
        (split, *(f"{scores[name]:.4f}" if name in scores else "" for name in SCORES))
        for split in ("val", "test")
        if (scores := card.get(split))
    ]


def _int8(measured: dict[str, Any]) -> str:
    """Compare size and F1 of the 8-bit integer and float32 networks."""
    files = (("model.onnx", "float32"), ("model.int8.onnx", "int8"))
    rows = [(name, f"{measured[key]['bytes']:,}", f"{measured[key]['f1']:.4f}") for name, key in files]
    split = SPLITS[measured["split"]].lower()
    return f"F1 by onnxruntime on {measured['rows']:,} {split} rows:\n\n" + _table(("file", "bytes", "F1"), rows)


def _table(heading: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Format a Markdown table; empty if there are no rows."""
    if not rows:
        return ""
    lines = [heading, ["---"] * len(heading), *rows]
    cells = [[" ".join(str(cell).split()).replace("|", "\\|") for cell in line] for line in lines]
    return "".join(f"| {' | '.join(line)} |\n" for line in cells)
