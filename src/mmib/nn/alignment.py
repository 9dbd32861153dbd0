"""Alignment regularisers: lower bounds on the mutual information of text and image latents (paper: AR)."""

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
# Logits that differ by less (a cosine by 1e-5 or less at usual temperatures) count as equal.
TIE = 1e-4
# Token-region cosines that late interaction computes at a time: 4 MB of float32, and several copies.
MOST_PAIRS = 2**20


class Latents(NamedTuple):
    """Latents of one modality: z (B, T, D) and mask (B, T)."""

    z: Tensor
    mask: Tensor

    def post_mean(self) -> Tensor:
        """Return the (B, D) mean over valid positions; zero for a post without any."""
        weights = self.mask.to(self.z.dtype)
        summed = torch.einsum("btd,bt->bd", self.z, weights)
        return summed / weights.sum(dim=1, keepdim=True).clamp(min=1.0)

    def pooled(self) -> Latents:
        """Return the means as latents of one position, masked if no position is valid."""
        return Latents(self.post_mean()[:, None, :], self.mask.any(dim=1, keepdim=True))


def latents(posterior: Posterior, sampled: bool) -> Latents:
    """Return a sample of a posterior, or its mean."""
    return Latents(posterior.rsample() if sampled else posterior.mean, posterior.mask)


class Candidates(NamedTuple):
    """The candidate images of this rank's B rows, among those of the M rows of all ranks.

    Attributes:
        mask: (B, M) True where image j is a candidate of row i: the row's own image, which is the positive, and those
            of rows with a different image. All False for rows without an image.
        first: column of the first row's own image; that of row i is `first + i`.
    """

    mask: Tensor
    first: int = 0

    def own(self, matrix: Tensor) -> Tensor:
        """Return the (B,) entries of a (B, M) matrix for the rows' own images."""
        return matrix.diagonal(self.first)

    @property
    def anchors(self) -> Tensor:
        """(B,) True for anchors: rows with an image."""
        return self.own(self.mask)


class AlignmentOutput(NamedTuple):
    """The regulariser on this rank's rows of a batch.

    Attributes:
        loss: scalar, mean over the anchors; 0 with a graph if there are none.
        anchors: scalar number of anchors: the weight of `loss` and `scalars` in a mean over ranks and batches.
        scalars: values to log, by name and without a graph: `temperature`, `mi_bound`, `accuracy_t2i` and
            `accuracy_i2t` for InfoNCE, `jsd_bound` for JSD.
    """

    loss: Tensor
    anchors: Tensor
    scalars: dict[str, Tensor]


class Alignment(nn.Module, ABC):
    """Base of alignment regularisers. The first constructor argument of a subclass is the latent width D.

    Args:
        negatives: `global` takes negatives from all ranks, so that N ranks train like one process with all their rows;
            `local` takes them from the same rank.

    Raises:
        ConfigError: If `negatives` is neither.
    """

    def __init__(self, negatives: Negatives = "global") -> None:
        super().__init__()
        if negatives not in get_args(Negatives):
            raise ConfigError(f"negatives {negatives!r} are unknown: choose from {list(get_args(Negatives))}")
        self.negatives = negatives

    def forward(self, text: Latents, image: Latents, image_ids: Tensor) -> AlignmentOutput:
        """Align this rank's rows with the images of all ranks.

        Each rank computes its share of the regulariser of the global batch, an N-th on N ranks, and receives only the
        other ranks' images.

        Args:
            text: latents of the word pieces, z (B, L, D).
            image: latents of the regions, z (B, R, D).
            image_ids: (B,) id of each row's image, -1 for none. Rows with the same id are not each other's negatives;
                rows without an image are ignored.
        """
        text, image = self.represent(text, image)
        known = self.of_all_ranks(torch.cat([image.mask.long(), image_ids[:, None]], dim=1))
        images = Latents(self.of_all_ranks(image.z), known[:, :-1].bool())
        first = 0 if self.negatives == "local" else rank() * len(image_ids)
        mask = candidate_mask(known[:, -1])[first : first + len(image_ids)]
        return self.compare(text, images, Candidates(mask, first))

    def of_all_ranks(self, rows: Tensor) -> Tensor:
        """Gather the rows (B, ...) of all ranks, in order of rank; unchanged if `negatives` are local."""
        return rows if self.negatives == "local" else global_rows(rows)

    def represent(self, text: Latents, image: Latents) -> tuple[Latents, Latents]:
        """Return what is compared of each modality: by default the latents; less is cheaper to gather."""
        return text, image

    def similarity(self, text: Latents, image: Latents) -> Tensor:
        """Return the (B,) similarity of each row's text and image, in the trained measure; NaN if undefined."""
        return torch.full_like(text.z[:, 0, 0], torch.nan)

    @abstractmethod
    def compare(self, text: Latents, image: Latents, candidates: Candidates) -> AlignmentOutput:
        """Compute the regulariser on the output of `represent`.

        Args:
            text: text of this rank's B rows.
            image: images of the M rows of all ranks.
            candidates: the candidate images of each row.
        """


def candidate_mask(image_ids: Tensor) -> Tensor:
    """(B, B) True where row j is a candidate of anchor i: the positive, which is i, and rows with a different image.

    Rows without an image are all False, also on the diagonal.
    """
    has_image = image_ids != NO_IMAGE
    other = image_ids[:, None] != image_ids[None, :]
    positive = torch.eye(len(image_ids), dtype=torch.bool, device=image_ids.device)
    return (other | positive) & has_image[:, None] & has_image[None, :]


def info_nce(logits: Tensor, candidates: Candidates) -> Tensor:
    """Return InfoNCE of each anchor (van den Oord et al. 2018, equation 4): minus the log-softmax of the positive.

    Args:
        logits: (B, M) score of anchor i against image j.
        candidates: the candidates; a row without any is no anchor.

    Returns:
        (B,) loss in nats, 0 for rows that are no anchors.
    """
    losses = lowered(logits, candidates).logsumexp(dim=1) - candidates.own(logits)
    return losses.masked_fill(~candidates.anchors, 0.0)


def lowered(logits: Tensor, candidates: Candidates) -> Tensor:
    """Lower the logits of non-candidates to a negligible but finite value, as a softmax of -inf only is undefined."""
    return logits.masked_fill(~candidates.mask, torch.finfo(logits.dtype).min / 4)


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Return the scalar mean of `values` where `mask` is True; 0 with a graph if it is nowhere."""
    return values.masked_fill(~mask, 0.0).sum() / mask.sum().clamp(min=1)


class BoundedParameter(torch.autograd.Function):
    """Clamp for parameters whose gradient, unlike that of `clamp`, can lead back from the bounds.

    At a bound `clamp` has no gradient, so that the parameter would stay there forever. Here gradients that lead back
    into the range pass, and gradients that lead further out are 0, so that the parameter never moves far outside.
    """

    @staticmethod
    def forward(ctx: Any, parameter: Tensor, low: float, high: float) -> Tensor:
        """Clamp the values to `low` and `high`."""
        ctx.save_for_backward(parameter)
        ctx.bounds = low, high
        return parameter.clamp(low, high)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        """Return the gradient, 0 where descent would lead further out."""
        (gradient,) = gradients
        (parameter,) = ctx.saved_tensors
        low, high = ctx.bounds
        outward = ((parameter <= low) & (gradient > 0)) | ((parameter >= high) & (gradient < 0))
        return gradient.masked_fill(outward, 0.0), None, None


class InfoNCEAlignment(Alignment):
    """Symmetric InfoNCE on cosine similarities of linear projections (the default).

    The projections start as identities, so that the latents themselves are aligned, from which attention between them
    benefits.

    Args:
        dim: latent width D.
        granularity: `post` compares the masked means of both modalities; `late` averages, over tokens and over regions,
            the best match of each in the other modality, so that single words can match single regions.
        temperature: divisor of the cosines, within [0.01, 1].
        learn_temperature: learn the temperature in log space, starting from `temperature`, within [0.01, 1].
        negatives: see `Alignment`.

    Raises:
        ConfigError: If the granularity is unknown, or the temperature is outside the range.
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
        """The current temperature, a scalar."""
        low, high = map(math.log, TEMPERATURE_RANGE)
        return cast(Tensor, BoundedParameter.apply(self.log_temperature, low, high)).exp()

    def represent(self, text: Latents, image: Latents) -> tuple[Latents, Latents]:
        """Return the projected latents, or their means."""
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
        """Return (B,) InfoNCE from the images of this rank's rows to the texts of all ranks.

        Each rank has the logits of its own texts; the log-sum-exps of its columns are combined with the other ranks'.
        """
        parts = self.of_all_ranks(lowered(logits, candidates).logsumexp(dim=0)[None])
        columns = parts.logsumexp(dim=0).narrow(0, candidates.first, len(logits))
        return (columns - candidates.own(logits)).masked_fill(~candidates.anchors, 0.0)

    @torch.no_grad()
    def similarity(self, text: Latents, image: Latents) -> Tensor:
        """Return the cosine similarity, -1 to 1; see `Alignment.similarity`."""
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
    """Return masks of the logits that are above a positive, and of those equal to it, the positive included."""
    ahead = logits - positives
    return ahead > TIE, ahead.abs() <= TIE


def retrieved(better: Tensor, equal: Tensor) -> Tensor:
    """Return the (B,) probability that the best candidate is the positive if ties are broken at random.

    Two files may contain the same image, so that ties are common and must not be decided by rounding.

    Args:
        better: (B,) number of candidates above the positive; see `rivals`.
        equal: (B,) number of candidates equal to it, the positive included; 0 for a row that is no anchor.
    """
    return ((better == 0) & (equal > 0)) / equal.clamp(min=1)


def post_similarity(text: Latents, image: Latents) -> Tensor:
    """Return the (B, M) cosines between the mean of text i and the mean of image j."""
    text_mean = F.normalize(text.post_mean(), dim=-1)
    image_mean = F.normalize(image.post_mean(), dim=-1)
    return text_mean @ image_mean.T


def late_similarity(text: Latents, image: Latents) -> Tensor:
    """Return the (B, M) late interaction: the average of two means, over each token's best region and vice versa.

    It is 0 between two rows if one has no valid position. Large batches are computed in chunks of texts, and recomputed
    in the backward pass, so that memory does not grow with the square of the batch size.
    """
    images = Latents(F.normalize(image.z, dim=-1), image.mask)
    size = max(1, MOST_PAIRS // max(1, text.z.shape[1] * image.z.shape[0] * image.z.shape[1]))
    if len(text.z) <= size:
        return _late_cosines(text, images)
    parts = [Latents(z, mask) for z, mask in zip(text.z.split(size), text.mask.split(size), strict=True)]
    return torch.cat([checkpoint(_late_cosines, part, images, use_reentrant=False) for part in parts])


def _late_cosines(text: Latents, image: Latents) -> Tensor:
    """`late_similarity` for image latents that are unit vectors."""
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
    """Discriminator between true and mismatched pairs, after the method's released code.

    The loss is the binary cross-entropy on true pairs plus that on negatives. A row's negative is the image of the next
    row, in cyclic order, with a different image. `jsd_bound` = 2 log 2 - loss is at most twice the Jensen-Shannon
    divergence between joint and product distribution; it is not mutual information. The released code averages D scores
    per pair; this discriminator has one.

    Args:
        dim: latent width D.
        negatives: see `Alignment`.
    """

    def __init__(self, dim: int, negatives: Negatives = "global") -> None:
        super().__init__(negatives)
        self.discriminator = nn.Sequential(nn.Linear(2 * dim, dim), nn.GELU(), nn.Linear(dim, 1))

    def represent(self, text: Latents, image: Latents) -> tuple[Latents, Latents]:
        """Return the means."""
        return text.pooled(), image.pooled()

    def compare(self, text: Latents, image: Latents, candidates: Candidates) -> AlignmentOutput:
        """See `Alignment.compare`."""
        negatives, anchors = rolled_negatives(candidates)
        text_mean, image_mean = text.post_mean(), image.post_mean()
        positive = self._score(text_mean, image_mean.narrow(0, candidates.first, len(text_mean)))
        negative = self._score(text_mean, image_mean[negatives])
        with autocast_off(positive):
            # softplus(-s) and softplus(s) are the two cross-entropies of a sigmoid, in stable form.
            losses = F.softplus(-at_least_float32(positive)) + F.softplus(at_least_float32(negative))
            loss = masked_mean(losses, anchors)
            bound = masked_mean(2 * math.log(2) - losses.detach(), anchors)
        return AlignmentOutput(loss, anchors.sum(), {"jsd_bound": bound})

    @torch.no_grad()
    def similarity(self, text: Latents, image: Latents) -> Tensor:
        """Return the discriminator's probability of a true pair, 0 to 1; see `Alignment.similarity`."""
        score = at_least_float32(self._score(text.post_mean(), image.post_mean())).sigmoid()
        return score.masked_fill(~image.mask.any(dim=1), torch.nan)

    def _score(self, text_mean: Tensor, image_mean: Tensor) -> Tensor:
        scores: Tensor = self.discriminator(torch.cat([text_mean, image_mean], dim=-1))
        return scores.squeeze(-1)


def rolled_negatives(candidates: Candidates) -> tuple[Tensor, Tensor]:
    """Find for each row the next one of all ranks, cyclically, with a different image.

    Returns:
        (B,) index of the negative's image (the row's own if there is none), and (B,) True where there is one.
    """
    size, total = candidates.mask.shape
    rows = candidates.first + torch.arange(size, device=candidates.mask.device)
    images = torch.arange(total, device=candidates.mask.device)
    valid = candidates.mask & (rows[:, None] != images[None, :])
    distance = ((images[None, :] - rows[:, None]) % total).masked_fill(~valid, total)
    found = valid.any(dim=1)
    return torch.where(found, (rows + distance.amin(dim=1)) % total, rows), found
