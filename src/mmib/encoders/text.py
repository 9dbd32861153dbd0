"""Text encoding: words to word pieces, word pieces to states."""

from __future__ import annotations

import copy
import hashlib
import json
import re
from pathlib import Path
from typing import Any, Literal, cast, get_args

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, AutoTokenizer, PreTrainedModel

from mmib.encoders.pretrained import PREFIX, is_weightless, packaged_file, settle_hub_mode, unreachable
from mmib.schema import MARKERS, ConfigError

Attention = Literal["sdpa", "flash_attention_2", "flex_attention"]


class WordTokenizer:
    """Splits given words into word pieces.

    Marker tokens have ids after the vocabulary and no spelling, and special tokens are not recognised
    in text: whatever a post contains, `[SEP]` or `<mmib:head>` included, is read as plain characters.

    Attributes:
        prefix: ids that open a sequence, such as [CLS].
        suffix: ids that close it, such as [SEP].
        mask_id: the piece in place of a masked one: the tokenizer's mask or, where it has none, unknown piece.
        marker_ids: id of each of `schema.MARKERS`.
        max_length: longest sequence the encoder takes, or None.
    """

    def __init__(self, folder: str, max_length: int | None, **options: Any) -> None:
        try:
            # Byte-level tokenizers need the space before each word.
            self._tokenizer = AutoTokenizer.from_pretrained(folder, add_prefix_space=True, **options)
        except (OSError, ValueError) as error:
            raise unreachable("text", folder, error) from error
        self.vocabulary_size = len(self._tokenizer)
        self.marker_ids = {marker: self.vocabulary_size + number for number, marker in enumerate(MARKERS)}
        self.pad_id: int = self._tokenizer.pad_token_id or 0
        self.unknown_id: int = self._tokenizer.unk_token_id
        self.mask_id: int = self.unknown_id if self._tokenizer.mask_token_id is None else self._tokenizer.mask_token_id
        self.max_length = max_length
        plain = self._tokenizer("a", add_special_tokens=False)["input_ids"]
        framed = self._tokenizer("a", add_special_tokens=True)["input_ids"]
        start = next(at for at in range(len(framed)) if framed[at : at + len(plain)] == plain)
        self.prefix: list[int] = framed[:start]
        self.suffix: list[int] = framed[start + len(plain) :]

    def fingerprint(self) -> str:
        """SHA-256 of all that word pieces depend on."""
        state = [self._tokenizer.backend_tokenizer.to_str(), self.prefix, self.suffix, self.unknown_id]
        return hashlib.sha256(json.dumps(state).encode()).hexdigest()

    def save(self, folder: Path) -> None:
        """Write the tokenizer's files into a folder, from which it can be loaded again."""
        self._tokenizer.save_pretrained(folder)

    def pieces(self, posts: list[list[str]]) -> list[list[list[int]]]:
        """For each post, for each of its words, the word-piece ids; the unknown piece where there is none."""
        return [[ids or [self.unknown_id] for ids in words] for words in self.split(posts)]

    def split(self, posts: list[list[str]]) -> list[list[list[int]]]:
        """See `pieces`; here a word that the tokenizer drops has no piece."""
        if not posts:
            return []
        encoded = self._tokenizer(posts, is_split_into_words=True, add_special_tokens=False, split_special_tokens=True)
        result = []
        for number, words in enumerate(posts):
            pieces: list[list[int]] = [[] for _ in words]
            for piece, word in zip(encoded["input_ids"][number], encoded.word_ids(number), strict=True):
                pieces[word].append(piece)
            result.append(pieces)
        return result


class TextEncoder(nn.Module):
    """Any Hugging Face encoder, with embeddings for the four entity markers.

    Args:
        name: `pip:minilm-l6`, a local folder, or a hub name.
        pretrained: load the weights; False initialises them at random from the configuration.
        trainable_layers: number of top layers to train; the embeddings, markers included, and the layers
            below stay frozen and in evaluation mode, and no gradient runs through them. None trains everything,
            embeddings included.
        dropout: replaces the encoder's dropout probabilities.
        attention: what computes attention: `sdpa`, PyTorch's choice of kernel; `flash_attention_2`, which leaves
            padding out, for half precision on GPUs with the package flash-attn; or `flex_attention`, on GPUs.

    Attributes:
        dim: width d_t of the states.
        tokenizer: its `WordTokenizer`.

    Raises:
        EncoderError: the weights cannot be loaded.
        ConfigError: `trainable_layers` exceeds the number of layers; `attention` is unknown, or cannot work here.
    """

    def __init__(
        self,
        name: str = "pip:minilm-l6",
        pretrained: bool = True,
        trainable_layers: int | None = None,
        dropout: float | None = None,
        attention: Attention = "sdpa",
    ) -> None:
        super().__init__()
        _check_attention(attention)
        folder, options = _locate(name)
        self.encoder = _load(folder, pretrained, dropout, {**options, "attn_implementation": attention})
        self.tokenizer = WordTokenizer(folder, _max_length(self.encoder), **options)
        self.dim: int = self.encoder.config.hidden_size
        embeddings = cast(nn.Embedding, self.encoder.get_input_embeddings())
        self.markers = nn.Embedding(len(MARKERS), embeddings.embedding_dim)
        with torch.no_grad():
            # Markers start near the centre of the pretrained embeddings, and apart from each other.
            spread = embeddings.weight.std(dim=0)
            self.markers.weight.mul_(spread).add_(embeddings.weight.mean(dim=0))
        self._frozen = self._freeze(trainable_layers)

    def forward(self, input_ids: Tensor, mask: Tensor) -> Tensor:
        """Word pieces (B, L), markers among them, and their boolean mask to states (B, L, D)."""
        first_marker = self.tokenizer.vocabulary_size
        is_marker = input_ids >= first_marker
        words = self.encoder.get_input_embeddings()(input_ids.masked_fill(is_marker, self.tokenizer.pad_id))
        markers = self.markers((input_ids - first_marker).clamp(min=0))
        embedded = torch.where(is_marker[:, :, None], markers, words)
        states: Tensor = self.encoder(inputs_embeds=embedded, attention_mask=mask.long()).last_hidden_state
        return states

    def layers(self) -> list[nn.Module]:
        """Its layers, from the lowest up, whatever the architecture calls them.

        Raises:
            ConfigError: it keeps no list of them.
        """
        depth = self.encoder.config.num_hidden_layers
        stacks = [m for m in self.encoder.modules() if isinstance(m, nn.ModuleList) and len(m) == depth]
        if not stacks:
            raise ConfigError(
                f"{type(self.encoder).__name__} keeps no list of its layers: leave trainable_layers and compile out"
            )
        return list(stacks[0])

    def save_architecture(self, folder: Path) -> None:
        """Write configuration and tokenizer into a folder, which then serves as a name beside `pretrained` False."""
        config = copy.deepcopy(self.encoder.config)
        config.name_or_path = ""  # where it was loaded from on this machine
        config.save_pretrained(folder)
        self.tokenizer.save(folder)

    def train(self, mode: bool = True) -> TextEncoder:
        """Frozen parts stay in evaluation mode, so that no dropout disturbs them."""
        super().train(mode)
        for module in self._frozen:
            module.eval()
        return self

    def _freeze(self, trainable_layers: int | None) -> list[nn.Module]:
        # The pooler is not used: without a gradient it would be an unused parameter under DDP.
        pooler = getattr(self.encoder, "pooler", None)
        unused = [pooler] if pooler is not None else []
        frozen = unused + ([] if trainable_layers is None else self._lower_parts(trainable_layers))
        for module in frozen:
            module.requires_grad_(False)
        return frozen

    def _lower_parts(self, trainable_layers: int) -> list[nn.Module]:
        """Everything below the top `trainable_layers` layers, whatever the architecture calls it."""
        depth = self.encoder.config.num_hidden_layers
        if not 0 <= trainable_layers <= depth:
            raise ConfigError(f"trainable_layers is {trainable_layers}: the text encoder has 0 to {depth} layers")
        layers = self.layers()
        trained = {id(p) for layer in layers[depth - trainable_layers :] for p in layer.parameters()}
        lower = layers[: depth - trainable_layers]
        outside = [m for m in self.encoder.children() if not trained & {id(p) for p in m.parameters()}]
        return [*lower, *outside, self.markers]


def load_tokenizer(name: str) -> WordTokenizer:
    """The tokenizer of a text encoder, by the same names, without its weights.

    Raises:
        EncoderError: it cannot be loaded.
    """
    folder, options = _locate(name)
    return WordTokenizer(folder, None, **options)


def _locate(name: str) -> tuple[str, dict[str, Any]]:
    """The folder or hub name of a text encoder, and how it may be loaded."""
    folder = str(packaged_file(name).parent) if name.startswith(PREFIX) else name
    # A local folder must never make a request to the hub, not even where a file is missing in it.
    local = Path(folder).is_dir()
    if not local:
        settle_hub_mode()
    return folder, {"local_files_only": local}


def _load(folder: str, pretrained: bool, dropout: float | None, options: dict[str, Any]) -> PreTrainedModel:
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=options["local_files_only"])
        if dropout is not None:
            for key in (key for key in vars(config) if re.fullmatch(r".*dropout(_prob)?", key)):
                setattr(config, key, dropout)
        encoder: PreTrainedModel
        if not pretrained or is_weightless():
            encoder = AutoModel.from_config(config, attn_implementation=options["attn_implementation"])
        else:
            encoder = AutoModel.from_pretrained(folder, config=config, **options)
        return encoder
    except ImportError as error:  # the package of an attention
        raise _cannot_attend(options["attn_implementation"], " ".join(str(error).split()).rstrip(".")) from error
    # Damaged weights and ones of another shape come as RuntimeError and SafetensorError.
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise unreachable("text", folder, error) from error


def _check_attention(attention: str) -> None:
    if attention not in get_args(Attention):
        raise ConfigError(f"attention {attention!r} is unknown: choose from {', '.join(get_args(Attention))}")
    if attention == "flex_attention" and not torch.cuda.is_available():
        raise _cannot_attend(attention, "PyTorch computes its gradients on GPUs only")


def _cannot_attend(attention: str, reason: str) -> ConfigError:
    return ConfigError(f"the text encoder cannot use attention {attention!r} here: {reason}; leave it at sdpa")


def _max_length(encoder: PreTrainedModel) -> int | None:
    """Longest sequence that has positions; RoBERTa and its relatives count theirs from after the padding id."""
    positions: int | None = getattr(encoder.config, "max_position_embeddings", None)
    table = next((m for name, m in encoder.named_modules() if name.endswith("position_embeddings")), None)
    first = getattr(table, "padding_idx", None)
    return positions if positions is None or first is None else positions - first - 1
