"""Alignment regularisers: lower bounds on the information that text and image latents share (paper: AR)."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Any, Literal, NamedTuple, cast, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from mmib.base.distributed import global_rows, rank
from mmib.nn.attention import start_as_similarity
from mmib.nn.gaussian import Posterior
from mmib.nn.precision import at_least_float32, autocast_off
from mmib.schema import NO_IMAGE, ConfigError

Granularity = Literal["post", "late"]
Negatives = Literal["global", "local"]
TEMPERATURE_RANGE = (0.01, 1.0)
# Logits that differ by less, a cosine by 1e-5 or less at any usual temperature, are equal.
TIE = 1e-4
# Cosines of single tokens and regions that late interaction holds at a time: 4 MB of float32, and several copies.
MOST_PAIRS = 2**20


class Latents(NamedTuple):
    """Latents of one modality: z (B, T, D) and mask (B, T)."""

    z: Tensor
    mask: Tensor

    def post_mean(self) -> Tensor:
        """(B, D) mean over the valid positions; zero for a post without any."""
        weights = self.mask.to(self.z.dtype)
        summed = torch.einsum("btd,bt->bd", self.z, weights)
        return summed / weights.sum(dim=1, keepdim=True).clamp(min=1.0)

    def pooled(self) -> Latents:
        """Their means as latents of one position, masked where no position is valid."""
        return Latents(self.post_mean()[:, None, :], self.mask.any(dim=1, keepdim=True))


def latents(posterior: Posterior, sampled: bool) -> Latents:
    """Latents sampled from a posterior, or its mean."""
    return Latents(posterior.rsample() if sampled else posterior.mean, posterior.mask)


class Candidates(NamedTuple):
    """The images that this rank's B rows are compared with, among those of the M rows of all ranks.

    Attributes:
        mask: (B, M) True where image j is a candidate of row i: its own image, which is the positive, and those of rows
            with another image. Rows without an image are False throughout.
        first: column of the first row's own image; that of row i is `first + i`.
    """

    mask: Tensor
    first: int = 0

    def own(self, matrix: Tensor) -> Tensor:
        """(B,) the entries of a (B, M) matrix for the rows' own images."""
        return matrix.diagonal(self.first)

    @property
    def anchors(self) -> Tensor:
        """(B,) True for rows with an image: those that are compared."""
        return self.own(self.mask)


class AlignmentOutput(NamedTuple):
    """The regulariser of this rank's rows of one batch.

    Attributes:
        loss: scalar, mean over the anchors; 0 with a graph where no row can be an anchor.
        anchors: scalar, number of rows that were anchors: the weight of `loss` and `scalars` in a mean over ranks and
            batches.
        scalars: named values to log, without a graph: `temperature`, `mi_bound`, `accuracy_t2i`, `accuracy_i2t`
            for InfoNCE, `jsd_bound` for JSD.
    """

    loss: Tensor
    anchors: Tensor
    scalars: dict[str, Tensor]


class Alignment(nn.Module, ABC):
    """Base of alignment regularisers. The constructor of a subclass takes the latent width D first.

    Args:
        negatives: `global` compares the rows of all ranks, so that N ranks train as one process with their rows
            would; `local` those of each rank among themselves.

    Raises:
        ConfigError: anything else.
    """

    def __init__(self, negatives: Negatives = "global") -> None:
        super().__init__()
        if negatives not in get_args(Negatives):
            raise ConfigError(f"negatives {negatives!r} are unknown: choose from {list(get_args(Negatives))}")
        self.negatives = negatives

    def forward(self, text: Latents, image: Latents, image_ids: Tensor) -> AlignmentOutput:
        """Align this rank's rows with the images of all ranks.

        Each rank computes its part of the regulariser of the global batch, an N-th on N ranks, and is sent no more than
        the other ranks' images.

        Args:
            text: latents of the word pieces, z (B, L, D).
            image: latents of the regions, z (B, R, D).
            image_ids: (B,) id of each row's image, -1 for none. Rows of equal id are not each other's negatives,
                rows without an image take no part.
        """
        text, image = self.represent(text, image)
        known = self.of_all_ranks(torch.cat([image.mask.long(), image_ids[:, None]], dim=1))
        images = Latents(self.of_all_ranks(image.z), known[:, :-1].bool())
        first = 0 if self.negatives == "local" else rank() * len(image_ids)
        mask = candidate_mask(known[:, -1])[first : first + len(image_ids)]
        return self.compare(text, images, Candidates(mask, first))

    def of_all_ranks(self, rows: Tensor) -> Tensor:
        """Rows (B, ...) of each rank to those of all, in order of rank; as they are where `negatives` are local."""
        return rows if self.negatives == "local" else global_rows(rows)

    def represent(self, text: Latents, image: Latents) -> tuple[Latents, Latents]:
        """What is compared of each side: the latents themselves, or less, which is cheaper to gather."""
        return text, image

    def similarity(self, text: Latents, image: Latents) -> Tensor:
        """(B,) similarity of each row's text and image, in the measure that is trained; NaN where there is none."""
        return torch.full_like(text.z[:, 0, 0], torch.nan)

    @abstractmethod
    def compare(self, text: Latents, image: Latents, candidates: Candidates) -> AlignmentOutput:
        """The regulariser of what `represent` has prepared.

        Args:
            text: of this rank's B rows.
            image: of the M rows of all ranks.
            candidates: which of the images each row is compared with.
        """


def candidate_mask(image_ids: Tensor) -> Tensor:
    """(B, B) True where row j is a candidate of anchor i: the positive, which is i, and rows with another image.

    Rows without an image are False throughout, also on the diagonal.
    """
    has_image = image_ids != NO_IMAGE
    other = image_ids[:, None] != image_ids[None, :]
    positive = torch.eye(len(image_ids), dtype=torch.bool, device=image_ids.device)
    return (other | positive) & has_image[:, None] & has_image[None, :]


def info_nce(logits: Tensor, candidates: Candidates) -> Tensor:
    """InfoNCE of each anchor (van den Oord et al. 2018, equation 4): minus the log-softmax of the positive.

    Args:
        logits: (B, M) score of anchor i against image j.
        candidates: a row without a candidate is no anchor.

    Returns:
        (B,) loss in nats, 0 for rows that are no anchor.
    """
    losses = lowered(logits, candidates).logsumexp(dim=1) - candidates.own(logits)
    return losses.masked_fill(~candidates.anchors, 0.0)


def lowered(logits: Tensor, candidates: Candidates) -> Tensor:
    """Logits with those of other images so low that they count for nothing, but finite: -inf alone has no softmax."""
    return logits.masked_fill(~candidates.mask, torch.finfo(logits.dtype).min / 4)


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Scalar mean of `values` where `mask`; 0 with a graph where nothing is."""
    return values.masked_fill(~mask, 0.0).sum() / mask.sum().clamp(min=1)


class BoundedParameter(torch.autograd.Function):
    """A parameter clamped to a range that gradient descent can leave its bounds again.

    At a bound `clamp` has no gradient, so that the parameter would stay there for good. Here a step back into the range
    has its gradient; one further out has none, so that the way back is never long.
    """

    @staticmethod
    def forward(ctx: Any, parameter: Tensor, low: float, high: float) -> Tensor:
        """The values within `low` and `high`."""
        ctx.save_for_backward(parameter)
        ctx.bounds = low, high
        return parameter.clamp(low, high)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        """The gradient, 0 where descent would go further out."""
        (gradient,) = gradients
        (parameter,) = ctx.saved_tensors
        low, high = ctx.bounds
        outward = ((parameter <= low) & (gradient > 0)) | ((parameter >= high) & (gradient < 0))
        return gradient.masked_fill(outward, 0.0), None, None


class InfoNCEAlignment(Alignment):
    """Symmetric InfoNCE on cosine similarities of linear projections (the project's default).

    The projections start as identities: the latents themselves are aligned, so that attention between them can use it.

    Args:
        dim: latent width D.
        granularity: `post` compares the masked means of both sides; `late` averages, over tokens and over regions,
            the best match of each on the other side, so that single words can find single regions.
        temperature: divides the cosines; within [0.01, 1].
        learn_temperature: learn it in log space, from `temperature` on, within [0.01, 1].
        negatives: see `Alignment`.

    Raises:
        ConfigError: an unknown granularity or a temperature outside the range.
    """

    log_temperature: Tensor

    def __init__(
        self,
        dim: int,
        granularity: Granularity = "post",
        temperature: float = 0.07,
        learn_temperature: bool = False,
        negatives: Negatives = "global",
    ) -> None:
        super().__init__(negatives)
        similarities = {"post": post_similarity, "late": late_similarity}
        if granularity not in similarities:
            raise ConfigError(f"alignment granularity {granularity!r} is unknown: choose from {list(similarities)}")
        low, high = TEMPERATURE_RANGE
        if not low <= temperature <= high:
            raise ConfigError(f"alignment temperature {temperature} is outside [{low}, {high}]")
        self.granularity = granularity
        self.similarities = similarities[granularity]
        self.project_text = nn.Linear(dim, dim)
        self.project_image = nn.Linear(dim, dim)
        start_as_similarity(self.project_text, self.project_image)
        log_temperature = torch.tensor(math.log(temperature))
        if learn_temperature:
            self.log_temperature = nn.Parameter(log_temperature)
        else:
            self.register_buffer("log_temperature", log_temperature)

    @property
    def temperature(self) -> Tensor:
        """The scalar temperature in use."""
        low, high = map(math.log, TEMPERATURE_RANGE)
        return cast(Tensor, BoundedParameter.apply(self.log_temperature, low, high)).exp()

    def represent(self, text: Latents, image: Latents) -> tuple[Latents, Latents]:
        """Projected latents, or their means."""
        projected_text = Latents(at_least_float32(self.project_text(text.z)), text.mask)
        projected_image = Latents(at_least_float32(self.project_image(image.z)), image.mask)
        if self.granularity == "late":
            return projected_text, projected_image
        with autocast_off(text.z):
            return projected_text.pooled(), projected_image.pooled()

    def compare(self, text: Latents, image: Latents, candidates: Candidates) -> AlignmentOutput:
        """See `Alignment.compare`."""
        with autocast_off(text.z):
            logits = self.similarities(text, image) / self.temperature
            losses = 0.5 * (info_nce(logits, candidates) + self._column_losses(logits, candidates))
            loss = masked_mean(losses, candidates.anchors)
            scalars = self._scalars(logits.detach(), losses.detach(), candidates)
        return AlignmentOutput(loss, candidates.anchors.sum(), scalars)

    def _column_losses(self, logits: Tensor, candidates: Candidates) -> Tensor:
        """(B,) InfoNCE from the images of this rank's rows to the texts of all ranks.

        Each rank has the logits of its own texts; what it makes of each column is put together with the others' part.
        """
        parts = self.of_all_ranks(lowered(logits, candidates).logsumexp(dim=0)[None])
        columns = parts.logsumexp(dim=0).narrow(0, candidates.first, len(logits))
        return (columns - candidates.own(logits)).masked_fill(~candidates.anchors, 0.0)

    @torch.no_grad()
    def similarity(self, text: Latents, image: Latents) -> Tensor:
        """Cosine similarity, -1 to 1; see `Alignment.similarity`."""
        represented = self.represent(text, image)
        with autocast_off(text.z):
            cosines = self.similarities(*represented).diagonal()
        return cosines.masked_fill(~represented[1].mask.any(dim=1), torch.nan)

    def _scalars(self, logits: Tensor, losses: Tensor, candidates: Candidates) -> dict[str, Tensor]:
        anchors = candidates.anchors
        bounds = candidates.mask.sum(dim=1).clamp(min=1).log() - losses
        masked = logits.masked_fill(~candidates.mask, -math.inf)
        positives = candidates.own(masked)
        rows = torch.stack(rivals(masked, positives[:, None])).sum(dim=2)
        columns = torch.stack(rivals(masked, self.of_all_ranks(positives))).sum(dim=1)
        columns = self.of_all_ranks(columns[None]).sum(dim=0).narrow(1, candidates.first, len(logits))
        return {
            "temperature": self.temperature.detach(),
            "mi_bound": masked_mean(bounds, anchors),
            "accuracy_t2i": masked_mean(retrieved(*rows), anchors),
            "accuracy_i2t": masked_mean(retrieved(*columns), anchors),
        }


def rivals(logits: Tensor, positives: Tensor) -> tuple[Tensor, Tensor]:
    """Which logits are above a positive, and which are equal to it, the positive itself among them."""
    ahead = logits - positives
    return ahead > TIE, ahead.abs() <= TIE


def retrieved(better: Tensor, equal: Tensor) -> Tensor:
    """(B,) chance that the best candidate is the positive, where ties are broken at random.

    Two files may hold the same image, so that ties are common; the rounding of two equal scores must not decide.

    Args:
        better: (B,) number of candidates above the positive; see `rivals`.
        equal: (B,) number of those equal to it, the positive among them; 0 for a row that is no anchor.
    """
    return ((better == 0) & (equal > 0)) / equal.clamp(min=1)


def post_similarity(text: Latents, image: Latents) -> Tensor:
    """(B, B) cosine between the mean of text i and the mean of image j."""
    text_mean = F.normalize(text.post_mean(), dim=-1)
    image_mean = F.normalize(image.post_mean(), dim=-1)
    return text_mean @ image_mean.T


def late_similarity(text: Latents, image: Latents) -> Tensor:
    """(B, M) late interaction: best region of each token and best token of each region, both means averaged.

    0 between two rows of which one has no valid position. Large batches are computed a part of the texts at a time, and
    again on the way back, so that memory does not grow with the square of the batch.
    """
    images = Latents(F.normalize(image.z, dim=-1), image.mask)
    size = max(1, MOST_PAIRS // max(1, text.z.shape[1] * image.z.shape[0] * image.z.shape[1]))
    if len(text.z) <= size:
        return _late_cosines(text, images)
    parts = [Latents(z, mask) for z, mask in zip(text.z.split(size), text.mask.split(size), strict=True)]
    return torch.cat([checkpoint(_late_cosines, part, images, use_reentrant=False) for part in parts])


def _late_cosines(text: Latents, image: Latents) -> Tensor:
    """`late_similarity` to images whose latents are unit vectors."""
    cosines = torch.einsum("ild,jrd->ijlr", F.normalize(text.z, dim=-1), image.z)
    lowest = -2.0  # below every cosine, finite so that a fully masked row has finite gradients
    best_region = cosines.masked_fill(~image.mask[None, :, None, :], lowest).amax(dim=3)
    best_token = cosines.masked_fill(~text.mask[:, None, :, None], lowest).amax(dim=2)
    token_weight = text.mask / text.mask.sum(dim=1, keepdim=True).clamp(min=1)
    region_weight = image.mask / image.mask.sum(dim=1, keepdim=True).clamp(min=1)
    over_tokens = torch.einsum("ijl,il->ij", best_region, token_weight.to(cosines.dtype))
    over_regions = torch.einsum("ijr,jr->ij", best_token, region_weight.to(cosines.dtype))
    comparable = text.mask.any(dim=1)[:, None] & image.mask.any(dim=1)[None, :]
    return (0.5 * (over_tokens + over_regions)).masked_fill(~comparable, 0.0)


class JSDAlignment(Alignment):
    """A discriminator between true and mismatched pairs, after the method's released code.

    The loss is the binary cross-entropy on true pairs plus that on negatives; a row's negative image is that of the
    next row, in cyclic order, whose image is another. `jsd_bound` = 2 log 2 - loss is at most twice the
    Jensen-Shannon divergence between joint and product distribution; it is not mutual information. The released
    code averages D scores a pair; here the discriminator has one.

    Args:
        dim: latent width D.
        negatives: see `Alignment`.
    """

    def __init__(self, dim: int, negatives: Negatives = "global") -> None:
        super().__init__(negatives)
        self.discriminator = nn.Sequential(nn.Linear(2 * dim, dim), nn.GELU(), nn.Linear(dim, 1))

    def represent(self, text: Latents, image: Latents) -> tuple[Latents, Latents]:
        """Means."""
        return text.pooled(), image.pooled()

    def compare(self, text: Latents, image: Latents, candidates: Candidates) -> AlignmentOutput:
        """See `Alignment.compare`."""
        negatives, anchors = rolled_negatives(candidates)
        text_mean, image_mean = text.post_mean(), image.post_mean()
        positive = self._score(text_mean, image_mean.narrow(0, candidates.first, len(text_mean)))
        negative = self._score(text_mean, image_mean[negatives])
        with autocast_off(positive):
            # softplus(-s) and softplus(s) are the two cross-entropies of a sigmoid, in their stable form.
            losses = F.softplus(-at_least_float32(positive)) + F.softplus(at_least_float32(negative))
            loss = masked_mean(losses, anchors)
            bound = masked_mean(2 * math.log(2) - losses.detach(), anchors)
        return AlignmentOutput(loss, anchors.sum(), {"jsd_bound": bound})

    @torch.no_grad()
    def similarity(self, text: Latents, image: Latents) -> Tensor:
        """The discriminator's probability that they belong together, 0 to 1; see `Alignment.similarity`."""
        score = at_least_float32(self._score(text.post_mean(), image.post_mean())).sigmoid()
        return score.masked_fill(~image.mask.any(dim=1), torch.nan)

    def _score(self, text_mean: Tensor, image_mean: Tensor) -> Tensor:
        scores: Tensor = self.discriminator(torch.cat([text_mean, image_mean], dim=-1))
        return scores.squeeze(-1)


def rolled_negatives(candidates: Candidates) -> tuple[Tensor, Tensor]:
    """For each row the next one of all ranks, cyclically, with another image.

    Returns:
        (B,) index of the negative's image (a row's own where there is none), (B,) True where there is one.
    """
    size, total = candidates.mask.shape
    rows = candidates.first + torch.arange(size, device=candidates.mask.device)
    images = torch.arange(total, device=candidates.mask.device)
    valid = candidates.mask & (rows[:, None] != images[None, :])
    distance = ((images[None, :] - rows[:, None]) % total).masked_fill(~valid, total)
    found = valid.any(dim=1)
    return torch.where(found, (rows + distance.amin(dim=1)) % total, rows), found
