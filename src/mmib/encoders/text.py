"""Text encoding: from word pieces to states, with any encoder of the library transformers."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmib.encoders.levitated import check_levitation, probe_levitation, with_markers
from mmib.encoders.lora import LoraSettings, add_lora, merge_lora
from mmib.encoders.pretrained import is_weightless, locate
from mmib.encoders.text_model import (
    Attention,
    check_attention,
    first_position,
    first_sentence,
    load_model,
    max_length,
    parameters_behind,
    plain_operations,
    read_configuration,
    takes,
    word_embeddings,
)
from mmib.encoders.tokenizer import WordTokenizer, load_tokenizer
from mmib.schema import MARKERS, ConfigError, EncoderError

__all__ = ["Attention", "Markers", "TextEncoder", "WordTokenizer", "load_tokenizer"]

Markers = Literal["inserted", "levitated"]


class TextEncoder(nn.Module):
    """Any Hugging Face encoder, with embeddings for the four entity markers.

    Encoder-decoder models (T5, BART) and two-tower models (CLIP) are used with their text encoder. Decoders (GPT-2)
    also work, though each word only sees the words to its left. docs/how-to/encoders.md lists tested models.

    Args:
        name: `pip:minilm-l6`, a local folder, or a hub name.
        pretrained: load the weights; False initialises them at random from the configuration.
        trainable_layers: number of top layers to train, together with what follows them, such as a final norm.
            Everything below stays frozen and in evaluation mode, and is not backpropagated through: the embeddings,
            markers included, the lower layers, and parameters that these share with higher layers, such as a table of
            relative positions. None trains everything, embeddings included. A layer that is applied repeatedly
            (ALBERT) counts once.
        dropout: replaces the encoder's dropout probabilities.
        attention: attention implementation: `sdpa`, with the kernel that PyTorch selects; `eager`, plain operations;
            `auto`, the first of these two that the architecture supports; `flash_attention_2`, which skips padding,
            for half precision on GPUs with the package flash-attn; or `flex_attention`, on GPUs.
        lora: train low-rank matrices instead of the encoder's weights, on the linear layers that would otherwise be
            trained; markers are trained as without it.
        markers: placement of the entity markers, for tasks that mark entities. `inserted` puts them into the text,
            which is then encoded once for each entity pair. `levitated` appends them to the text, at the positions of
            the first and the last piece of each entity and hidden from the text, which is encoded once for all pairs
            (docs/explanation/method.md); this needs a bidirectional encoder with absolute positions, such as BERT,
            RoBERTa or ELECTRA.

    Parameters that the states do not depend on, such as a pooler's, are frozen, as DDP requires.

    Attributes:
        dim: width d_t of the states.
        tokenizer: its `WordTokenizer`.
        placement: the argument `markers`.

    Raises:
        EncoderError: If the weights cannot be loaded or do not fit the tokenizer, or the model cannot encode words, or
            not with levitated markers.
        ConfigError: If `trainable_layers` exceeds the number of layers; `attention` is unknown, or does not work here
            or with levitated markers; `markers` is unknown; peft is not installed, or a LoRA target matches no layer.
    """

    def __init__(
        self,
        name: str = "pip:minilm-l6",
        pretrained: bool = True,
        trainable_layers: int | None = None,
        dropout: float | None = None,
        attention: Attention = "auto",
        lora: LoraSettings | None = None,
        markers: Markers = "inserted",
    ) -> None:
        super().__init__()
        if markers not in get_args(Markers):
            raise ConfigError(f"markers {markers!r} are unknown: choose from {', '.join(get_args(Markers))}")
        folder, options = locate(name)
        config = read_configuration(folder, dropout, options)
        check_attention(config, attention)
        self.config, self.encoder, missing = load_model(folder, config, pretrained, attention, options)
        self.dim: int = self.encoder.config.hidden_size
        words = word_embeddings(self.encoder)
        self.tokenizer = WordTokenizer(folder, max_length(self.encoder), **options)
        if words.num_embeddings < self.tokenizer.vocabulary_size:
            raise EncoderError(
                f"text encoder {folder!r} has embeddings of {words.num_embeddings} word pieces, and its tokenizer has "
                f"{self.tokenizer.vocabulary_size}: take the tokenizer that the weights were trained with"
            )
        self.markers = nn.Embedding(len(MARKERS), words.embedding_dim)
        with torch.no_grad():
            # Markers start near the mean of the pretrained embeddings, but differ from each other.
            spread = words.weight.std(dim=0)
            self.markers.weight.mul_(spread).add_(words.weight.mean(dim=0))
        if not takes(self.encoder, "inputs_embeds"):
            self.encoder.set_input_embeddings(MarkedEmbedding(words, self.markers, self.tokenizer.vocabulary_size))
        self._first_position = first_position(self.encoder)
        self._freeze(trainable_layers, missing)
        self.placement: Markers = markers
        if self.levitated:
            check_levitation(self.encoder)
            if not is_weightless():
                probe_levitation(self.encoder, self.tokenizer, self, self.with_markers)
        self.lora = lora
        if lora is not None:
            trained = self.markers.weight.requires_grad
            add_lora(self.encoder, lora)
            self.markers.requires_grad_(trained)  # part of encoders that only take ids

    @property
    def levitated(self) -> bool:
        """Whether markers levitate over the text."""
        return self.placement == "levitated"

    def forward(self, input_ids: Tensor, mask: Tensor) -> Tensor:
        """Encode word pieces (B, L), markers included, with their boolean mask, to states (B, L, D)."""
        return self._states(input_ids, mask.long())

    def with_markers(self, input_ids: Tensor, mask: Tensor, places: Tensor) -> tuple[Tensor, Tensor]:
        """Encode a text with levitated markers of its entity pairs.

        Args:
            input_ids: (B, L) word pieces without markers.
            mask: (B, L) boolean, True on pieces.
            places: (B, P, 4) positions of the pieces over which the markers of each pair levitate, in the order of
                `MARKERS`; negative if a row has fewer pairs, whose states are meaningless.

        Returns:
            States of the text, (B, L, D), equal to those of `forward`, and of the markers, (B, P, 4, D).
        """
        whole = with_markers(input_ids, mask, places, self.tokenizer.vocabulary_size, self.markers.weight.dtype)
        states = self._states(whole.input_ids, whole.mask, self._first_position + whole.positions)
        text, markers = states.split([input_ids.shape[1], states.shape[1] - input_ids.shape[1]], dim=1)
        return text, markers.unflatten(1, places.shape[1:])

    def layers(self) -> list[nn.Module]:
        """Return the layers from bottom to top, for any architecture.

        Raises:
            ConfigError: If the encoder has no list of layers.
        """
        config = self.encoder.config
        # ALBERT applies one layer, or one layer of each group, repeatedly.
        depths = (config.num_hidden_layers, getattr(config, "num_hidden_groups", None))
        lists = [m for m in self.encoder.modules() if isinstance(m, nn.ModuleList)]
        for depth in depths:
            for stack in lists:
                if len(stack) == depth:
                    return list(stack)
        raise ConfigError(
            f"{type(self.encoder).__name__} keeps no list of its layers: leave trainable_layers and compile out"
        )

    def merge_lora(self) -> None:
        """Merge LoRA matrices into the weights that they adapt; does nothing without LoRA."""
        if self.lora is not None:
            merge_lora(self.encoder)
            self.lora = None

    def save_architecture(self, folder: Path) -> None:
        """Write configuration and tokenizer to a folder, which can be used as `name` with `pretrained` False."""
        config = copy.deepcopy(self.config)
        config.name_or_path = ""  # a path of this machine
        config.save_pretrained(folder)
        self.tokenizer.save(folder)

    def train(self, mode: bool = True) -> TextEncoder:
        """Set the training mode; frozen parts stay in evaluation mode, without dropout."""
        super().train(mode)
        if self._trained is not None:
            self.encoder.eval()
            for layer in self._trained:
                layer.train(mode)
        return self

    def _states(self, input_ids: Tensor, mask: Tensor | None, position_ids: Tensor | None = None) -> Tensor:
        words = self.encoder.get_input_embeddings()
        if isinstance(words, MarkedEmbedding):
            inputs = {"input_ids": input_ids}
        else:
            inputs = {"inputs_embeds": embed(input_ids, words, self.markers, self.tokenizer.vocabulary_size)}
        if position_ids is not None:
            inputs["position_ids"] = position_ids
        states: Tensor = self.encoder(**inputs, attention_mask=mask).last_hidden_state
        return states

    def _freeze(self, trainable_layers: int | None, missing: set[nn.Parameter]) -> None:
        self._trained = None if trainable_layers is None else self._top_layers(trainable_layers)
        used, below = self._dependencies(self._trained[0] if self._trained else None)
        missing = missing & used
        for name, parameter in self.encoder.named_parameters():
            if parameter in missing:
                raise EncoderError(
                    f"the weights of text encoder {self.config.name_or_path!r} lack {name}: they are of another "
                    f"architecture than its config.json, which says {self.config.model_type}"
                )
        trained = set() if self._trained == [] else used - below
        for parameter in self.parameters():
            parameter.requires_grad_(parameter in trained)

    def _top_layers(self, count: int) -> list[nn.Module]:
        layers = self.layers()
        if not 0 <= count <= len(layers):
            raise ConfigError(f"trainable_layers is {count}: the text encoder has 0 to {len(layers)} layers")
        return layers[len(layers) - count :]

    def _dependencies(self, layer: nn.Module | None) -> tuple[set[nn.Parameter], set[nn.Parameter]]:
        """Return the parameters that the states depend on, and those that the input of a layer depends on.

        Raises:
            EncoderError: If the model gives no states for word pieces, or states that depend on padding.
        """
        ids = [*self.tokenizer.prefix, self.tokenizer.unknown_id, *self.tokenizer.marker_ids.values()]
        input_ids = torch.tensor([ids], device=self.markers.weight.device)
        inputs: list[Tensor] = []
        hooks = [] if layer is None else [layer.register_forward_pre_hook(_remember_input(inputs), with_kwargs=True)]
        try:
            with plain_operations(self.encoder), torch.enable_grad():
                states = self._states(input_ids, None)
                changed = 0.0 if is_weightless() else self._change_by_padding(input_ids, states)
            if states.shape != (1, len(ids), self.dim):
                raise ValueError(f"it gives states of shape {tuple(states.shape)} for {len(ids)} word pieces")
        # The type of error depends on the step that fails in an unsuitable model.
        except Exception as error:
            if is_weightless():  # an operation needs values
                return set(self.parameters()), set()
            raise EncoderError(
                f"{type(self.encoder).__name__} cannot serve as text encoder: it gives no states for word pieces and "
                f"their mask alone ({first_sentence(error)})"
            ) from error
        finally:
            for hook in hooks:
                hook.remove()
        if changed > 1e-4:  # rounding of float32 stays far below
            raise EncoderError(
                f"{type(self.encoder).__name__} cannot serve as text encoder: its states depend on the padding behind "
                "a post, and so on the other posts of a batch"
            )
        return parameters_behind(states), parameters_behind(inputs[0]) if inputs else set()

    def _change_by_padding(self, input_ids: Tensor, states: Tensor) -> float:
        """Return the largest change of the states by padding, relative to the largest state."""
        padded = F.pad(input_ids, (0, 3), value=self.tokenizer.pad_id)
        mask = F.pad(torch.ones_like(input_ids), (0, 3))
        with torch.no_grad():
            change = self._states(padded, mask)[:, : states.shape[1]] - states
            return float(change.abs().max() / states.abs().max())


class MarkedEmbedding(nn.Module):
    """Embeddings of word pieces and markers in one module, for encoders that only take ids."""

    def __init__(self, words: nn.Embedding, markers: nn.Embedding, first_marker: int) -> None:
        super().__init__()
        self.words = words
        self.markers = markers
        self.first_marker = first_marker

    def forward(self, input_ids: Tensor) -> Tensor:
        """Map ids (B, L) to embeddings (B, L, D)."""
        return embed(input_ids, self.words, self.markers, self.first_marker)


def embed(input_ids: Tensor, words: nn.Module, markers: nn.Embedding, first_marker: int) -> Tensor:
    """Return embeddings (B, L, D) of word pieces and, from the id `first_marker` on, of markers."""
    is_marker = input_ids >= first_marker
    embedded: Tensor = words(input_ids.masked_fill(is_marker, 0))
    return torch.where(is_marker[:, :, None], markers((input_ids - first_marker).clamp(min=0)), embedded)


def _remember_input(inputs: list[Tensor]) -> Any:
    """Return a hook that collects the input states of each call of a layer."""

    def hook(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        inputs.append(next(value for value in (*args, *kwargs.values()) if isinstance(value, Tensor)))

    return hook
