"""What is summed over a batch of all ranks, and the named scalars that follow from the sums.

Sums add up over ranks, batches and steps, so that the scalars of an epoch are computed just as those of a step.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from mmib.base.distributed import widened
from mmib.nn.alignment import AlignmentOutput, Latents
from mmib.nn.gaussian import Posterior
from mmib.nn.precision import autocast_off

Totals = dict[str, Tensor]

MODALITIES = ("text", "image")
# A latent dimension is active where its mean varies more than this over the data (Burda et al. 2016, section 5.2).
ACTIVE_VARIANCE = 0.01


def posterior_sums(modality: str, posterior: Posterior, kl: Tensor, counted: Tensor) -> Totals:
    """Sums over the positions of a modality that count; only `<modality>/kl`, (D,) in nats, has a graph.

    Args:
        modality: `text` or `image`.
        posterior: of (B, T) positions.
        kl: (B, T, D) its KL, in nats.
        counted: (B,) False on rows that are fillers.
    """
    with autocast_off(posterior.mean):
        own = posterior._replace(mask=posterior.mask & counted[:, None])
        # Widened: the spread of the KL is the difference of two sums that are nearly equal.
        kl = widened(kl).masked_fill(~counted[:, None, None], 0.0)
        with torch.no_grad():
            mean = own.mean.masked_fill(~own.mask[:, :, None], 0.0)
            deviation = torch.exp(0.5 * own.log_var).mean(dim=2).masked_fill(~own.mask, 0.0)
            sums = {
                "positions": own.mask.sum(),
                "kl_square": kl.sum(dim=2).square().sum(),
                "std": deviation.sum(),
                "mean": mean.sum(dim=(0, 1)),
                "mean_square": mean.square().sum(dim=(0, 1)),
            }
        sums["kl"] = kl.sum(dim=(0, 1))
    return {f"{modality}/{name}": value for name, value in sums.items()}


@torch.no_grad()
def pair_sums(text: Latents, image: Latents, counted: Tensor) -> Totals:
    """Sums over posts with an image: of both sides' mean latents as unit vectors (D,), and of their cosine."""
    paired = (counted & text.mask.any(dim=1) & image.mask.any(dim=1))[:, None]
    with autocast_off(text.z):
        text_unit, image_unit = (
            F.normalize(latents.post_mean().float(), dim=1).masked_fill(~paired, 0.0) for latents in (text, image)
        )
        return {
            "pairs/count": paired.sum(),
            "pairs/text": text_unit.sum(dim=0),
            "pairs/image": image_unit.sum(dim=0),
            "pairs/cosine": (text_unit * image_unit).sum(),
        }


def alignment_sums(output: AlignmentOutput) -> Totals:
    """Sums over anchors; only `align/loss` has a graph. What all ranks share is divided among them."""
    own = output.anchors / output.ranks
    values = {"loss": output.loss, **output.scalars}
    return {"align/anchors": own, **{f"align/{name}": value * own for name, value in values.items()}}


def add(totals: Totals, more: Totals) -> Totals:
    """The sums of both, where `more` lies: what comes out of a checkpoint lies on the CPU."""
    return {name: totals[name].to(value.device) + value if name in totals else value for name, value in more.items()}


def rate(totals: Totals, modality: str) -> Tensor:
    """Nats of each latent dimension, (D,): the KL averaged over a modality's positions; 0 where there are none."""
    return totals[f"{modality}/kl"] / totals[f"{modality}/positions"].clamp(min=1)


def scalars(totals: Totals) -> dict[str, Tensor]:
    """What is logged, by the names of the documentation; what nothing was summed for is left out.

    In nats a post (`loss`, `task`), a word piece or a region (`ib/kl_*`, `ib/kl_std_*`), an anchor (`align/loss`).
    """
    named = {name: totals[name] / totals["posts"] for name in ("loss", "task")}
    for modality in MODALITIES:
        if totals[f"{modality}/positions"] > 0:
            own = {name: _mean(totals, modality, name) for name in ("kl", "kl_square", "std", "mean", "mean_square")}
            kl = own["kl"].sum()
            named |= {
                f"ib/kl_{modality}": kl,
                f"ib/kl_std_{modality}": (own["kl_square"] - kl.square()).clamp(min=0.0).sqrt(),
                f"ib/active_{modality}": (own["mean_square"] - own["mean"].square() > ACTIVE_VARIANCE).sum(),
                f"ib/std_{modality}": own["std"],
                f"ib/beta_{modality}": totals[f"{modality}/beta"] / totals["posts"],
            }
    if totals["align/anchors"] > 0:
        aligned = [name for name in totals if name.startswith("align/") and name != "align/anchors"]
        named |= {name: totals[name] / totals["align/anchors"] for name in aligned}
    if totals["pairs/count"] > 0:
        centres = [totals[f"pairs/{modality}"] / totals["pairs/count"] for modality in MODALITIES]
        # The distance of both sides' centres on the unit sphere (Liang et al. 2022, section 2.1).
        named["align/gap"] = (centres[0] - centres[1]).norm()
        named["align/cosine"] = totals["pairs/cosine"] / totals["pairs/count"]
    return named


def information_plane(totals: Totals) -> dict[str, float]:
    """Rate of each modality and distortion, in nats a post: mean KL, an upper bound on I(X; Z), and the task's loss.

    Where the task labels whole posts, also `information`, H(Y) minus the distortion: a lower bound on I(Z; Y) (Alemi et
    al. 2018, section 2), with the entropy of the labels that were summed.
    """
    posts = float(totals["posts"])
    rates = {f"rate_{modality}": float(totals[f"{modality}/kl"].sum()) / posts for modality in MODALITIES}
    point = {**rates, "distortion": float(totals["task"]) / posts}
    if "labels" in totals:
        entropy = float(torch.special.entr(totals["labels"] / posts).sum())
        point["information"] = entropy - point["distortion"]
    return point


def _mean(totals: Totals, modality: str, name: str) -> Tensor:
    return totals[f"{modality}/{name}"] / totals[f"{modality}/positions"]
