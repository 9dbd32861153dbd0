"""Export the whole network to ONNX, from word pieces and pixels to scores, and compare it with PyTorch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from mmib.backbone import ExtractionNetwork
from mmib.base.files import atomic_file, write_text
from mmib.base.onnx_files import INSTALL, OPSET, exported, missing_packages, open_session
from mmib.datamodules.examples import collate_regions, collate_text
from mmib.datamodules.posts import LabelledPost, RelationPost
from mmib.export import numpy_crf
from mmib.export.model import TrainedModel
from mmib.nn.crf import LinearChainCRF
from mmib.schema import ExportError, PostBatch, Prepared, task_named

MODEL, CRF_SCORES, CRF_CODE = "model.onnx", "crf.json", "numpy_crf.py"
MOST_BYTES = 2**31 - 2**24  # limit of a protobuf message, minus space for the graph
# Maximum difference of scores between PyTorch and onnxruntime; the relative one is for networks with large scores.
TOLERANCE, RELATIVE_TOLERANCE = 1e-4, 1e-5

# Size of each axis; a dynamic axis has a name instead.
Axes = tuple[str | int, ...]


class Inputs(NamedTuple):
    """Inputs of the network, as in `PostBatch`; `pixels` (P, 3, height, width), where P may be 0."""

    input_ids: Tensor
    text_mask: Tensor
    positions: Tensor
    pixels: Tensor
    region_mask: Tensor
    boxes: Tensor


TYPES = {
    **dict.fromkeys(("input_ids", "positions"), "int64"),
    **dict.fromkeys(("text_mask", "region_mask"), "bool"),
    **dict.fromkeys(("pixels", "boxes"), "float32"),
}


class Sizes(NamedTuple):
    """Maximum sizes of a random batch: posts, word pieces, words, and images per post."""

    posts: int
    pieces: int
    words: int
    pictures: int


# The network is traced with these sizes, but must work for others too.
EXAMPLE = Sizes(posts=3, pieces=11, words=5, pictures=2)
# The last one has no images.
TRIALS = (EXAMPLE, Sizes(1, 16, 1, 1), Sizes(4, 9, 7, 3), Sizes(2, 10, 3, 0))


class ScoringNetwork(nn.Module):
    """Maps tensors to scores at the means of the latents; no shape depends on the values of tensors."""

    def __init__(self, network: ExtractionNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(
        self,
        input_ids: Tensor,
        text_mask: Tensor,
        positions: Tensor,
        pixels: Tensor,
        region_mask: Tensor,
        boxes: Tensor,
    ) -> Tensor:
        """Map `Inputs` to logits (B, C) or emissions (B, W, K)."""
        backbone = self.network.backbone
        nothing = torch.zeros_like(input_ids)  # for fields that only training and evidence use
        batch = PostBatch(
            rows=nothing[:, 0],
            input_ids=input_ids,
            text_mask=text_mask,
            word_ids=nothing,
            mentions=nothing,
            positions=positions,
            region_mask=region_mask,
            image_ids=nothing[:, 0],
            features=self._features(pixels, region_mask),
            pixels=None,
            boxes=boxes,
        )
        fused = backbone.fuse(batch, *backbone.posteriors(batch).latents(sampled=False))
        return self.network.scores(fused.states)

    def _features(self, pixels: Tensor, region_mask: Tensor) -> Tensor:
        """(B, R, V) features of the regions in the mask, in order, and zeros elsewhere."""
        encoded = self.network.backbone.image_encoder(pixels).flatten(0, 1)
        with_zero = torch.cat([encoded.new_zeros(1, encoded.shape[1]), encoded])
        there = region_mask.flatten().long()
        return with_zero[there.cumsum(0) * there].reshape(*region_mask.shape, -1)


def require_packages() -> None:
    """Check that the packages for the ONNX export are installed.

    Raises:
        ExportError: a package is missing.
    """
    if missing := missing_packages():
        raise ExportError(f"mmib export --onnx needs {', '.join(missing)}: {INSTALL}")


def write_onnx(model: TrainedModel, folder: Path) -> dict[str, Any]:
    """Write `model.onnx` into a folder and, for tagging with a CRF, the files that decode its emissions.

    Returns:
        A description for config.json: types and shapes, names of the scores, special pieces, boxes of an image's
        regions, and the largest deviation measured.

    Raises:
        ExportError: the network cannot be exported, or the exported one computes different scores.
        OSError: a file cannot be written.
    """
    if task_named(model.task).finds == "relations" and model.network.backbone.text_encoder.levitated:
        raise ExportError(
            f"the model of {model.task} has levitated markers, which model.onnx has no input for: leave --onnx out, or "
            "train one with inserted markers"
        )
    network = ScoringNetwork(model.network).eval()
    content = _content(network, model)
    deviation = _largest_deviation(content, network, model)
    with atomic_file(folder / MODEL) as file:
        file.write(content)
    crf = getattr(model.network, "crf", None)
    if isinstance(crf, LinearChainCRF):
        named = zip(("start", "transition", "end"), crf.scores(), strict=True)
        chain = {"tags": model.outputs, **{name: scores.tolist() for name, scores in named}}
        write_text(folder / CRF_SCORES, json.dumps(chain, ensure_ascii=False) + "\n")
        write_text(folder / CRF_CODE, Path(numpy_crf.__file__).read_text(encoding="utf-8"))
    tokenizer = model.network.backbone.text_encoder.tokenizer
    return {
        "opset": OPSET,
        "inputs": {name: {"type": TYPES[name], "shape": list(axes)} for name, axes in _axes(model).items()},
        "output": {
            "name": _output(model),
            "type": "float32",
            "shape": list(_output_axes(model)),
            "scores_of": list(model.outputs),
        },
        "pieces": {
            "prefix": tokenizer.prefix,
            "suffix": tokenizer.suffix,
            "unknown": tokenizer.unknown_id,
            "space": tokenizer.space,
            "markers": tokenizer.marker_ids,
        },
        "regions": model.image_encoder.region_boxes(),
        "largest_deviation": deviation,
    }


def _tags_words(model: TrainedModel) -> bool:
    """Whether the head scores every word, rather than the post or a pair of entities."""
    return task_named(model.task).finds == "entities"


def _positions(model: TrainedModel) -> str | int:
    """Number of positions of a post that the head reads: one per word, or as many as in the task's own batches."""
    if _tags_words(model):
        return "words"
    task, tokenizer = task_named(model.task), model.network.backbone.text_encoder.tokenizer
    words, label = ["a", "b"], model.labels.names[0]
    post = (
        RelationPost(words=words, image="", place="", head=(0, 1), tail=(1, 2), relation=label)
        if task.finds == "relations"
        else LabelledPost(words=words, image="", place="", label=label)
    )
    prepared = Prepared(tokenizer, model.max_length, model.labels)
    example = task.encode(0, post, tokenizer.pieces([words])[0], prepared)
    fields = {**collate_text([example], tokenizer.pad_id), **collate_regions([[]], [None], 1), "pixels": None}
    return task.collate([example], fields, model.labels).positions.shape[1]


def _axes(model: TrainedModel) -> dict[str, Axes]:
    """Axes of each of the `Inputs`."""
    text: Axes = ("posts", "pieces")
    return {
        "input_ids": text,
        "text_mask": text,
        "positions": ("posts", _positions(model)),
        "pixels": ("pictures", *model.image_encoder.input_size),
        "region_mask": ("posts", "regions"),
        "boxes": ("posts", "regions", 4),
    }


def _output(model: TrainedModel) -> str:
    return "emissions" if _tags_words(model) else "logits"


def _output_axes(model: TrainedModel) -> Axes:
    scores = len(model.outputs)
    return ("posts", "words", scores) if _tags_words(model) else ("posts", scores)


def _content(network: ScoringNetwork, model: TrainedModel) -> bytes:
    """Return the content of the ONNX file.

    Raises:
        ExportError: ONNX does not support an operation, or the weights exceed the size of one file.
    """
    size = sum(tensor.numel() * tensor.element_size() for tensor in network.state_dict().values())
    if size > MOST_BYTES:
        raise ExportError(f"the weights have {size:,} bytes: an ONNX file holds {MOST_BYTES:,} at most")
    free = {
        name: {axis: size for axis, size in enumerate(axes) if isinstance(size, str)}
        for name, axes in _axes(model).items()
    }
    return exported(network, _sampled(model, EXAMPLE), Inputs._fields, _output(model), free)


def _largest_deviation(content: bytes, network: ScoringNetwork, model: TrainedModel) -> float:
    """Largest difference between the scores of onnxruntime and PyTorch, over batches of several shapes.

    Raises:
        ExportError: it exceeds the tolerance, or onnxruntime cannot compute the scores.
    """
    largest = 0.0
    try:
        session = open_session(content)
        for sizes in TRIALS:
            inputs = _sampled(model, sizes)
            with torch.no_grad():
                expected = network(*inputs).numpy()
            (found,) = session.run(None, {name: tensor.numpy() for name, tensor in inputs._asdict().items()})
            if not np.allclose(found, expected, rtol=RELATIVE_TOLERANCE, atol=TOLERANCE):
                apart = np.abs(found - expected).max()
                raise ExportError(f"onnxruntime and PyTorch differ by {apart:.1e} on {sizes}: nothing is written")
            largest = max(largest, float(np.abs(found - expected).max()))
    except ExportError:
        raise
    # onnxruntime's errors have no common base class but Exception.
    except Exception as error:
        reason = " ".join(str(error).split())
        raise ExportError(f"onnxruntime cannot run the exported network: {reason[:300]}") from error
    return largest


def _sampled(model: TrainedModel, sizes: Sizes) -> Inputs:
    """Sample posts with random pieces, lengths and images; the first has the maximum lengths, the last has no image."""
    generator = torch.Generator().manual_seed(0)
    encoder, tokenizer = model.image_encoder, model.network.backbone.text_encoder.tokenizer
    posts, pieces = sizes.posts, min(sizes.pieces, model.max_length)
    read = _positions(model)

    def whole(low: int, high: int, *shape: int) -> Tensor:
        """Random integers from low to high, inclusive."""
        return torch.randint(low, high + 1, shape, generator=generator)

    lengths, pictures = whole(1, pieces, posts), whole(0, sizes.pictures, posts)
    lengths[0], pictures[-1], pictures[0] = pieces, 0, sizes.pictures
    cells = len(encoder.region_boxes())
    regions = cells * max(1, sizes.pictures)
    return Inputs(
        input_ids=whole(0, max(tokenizer.marker_ids.values()), posts, pieces),
        text_mask=torch.arange(pieces)[None, :] < lengths[:, None],
        positions=whole(0, pieces - 1, posts, sizes.words if isinstance(read, str) else read),
        pixels=torch.randn(int(pictures.sum()), *encoder.input_size, generator=generator),
        region_mask=torch.arange(regions)[None, :] < cells * pictures[:, None],
        boxes=torch.rand(posts, regions, 4, generator=generator),
    )
