"""Decoding of many replies from a few prefixes: the keys and values of a prefix are held once, whoever reads them.

A row is a reply with the part of its prompt that follows the shared prefix; the keys and values of both are its tail.
Every row attends to its prefix, all rows of one prefix in one product, and to its tail; the two are merged by their
log-sum-exp.
"""

from collections.abc import Sequence
from typing import Any, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import Cache, DynamicCache, PreTrainedModel
from transformers.cache_utils import CacheLayerMixin

from models.shared_prefix.attention import share_prefixes
from models.shared_prefix.merged_attention import HIDDEN


class TailLayer(CacheLayerMixin):
    """Keys and values of one layer, rows of equal width in a buffer that is large enough from the start."""

    def __init__(self, capacity: int) -> None:
        """Room for ``capacity`` columns; the buffers are made when the first come."""
        super().__init__()
        self.capacity = capacity
        self.columns = 0

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """The buffers, of the type and device of the first keys."""
        rows, heads, _, size = key_states.shape
        self.keys = key_states.new_empty(rows, heads, self.capacity, size)
        self.values = value_states.new_empty(rows, heads, self.capacity, value_states.shape[-1])
        self.is_initialized = True

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Add columns; returns all that are held, the new ones included."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        assert self.keys is not None and self.values is not None
        end = self.columns + key_states.shape[2]
        self.keys[:, :, self.columns : end], self.values[:, :, self.columns : end] = key_states, value_states
        self.columns = end
        return self.keys[:, :, :end], self.values[:, :, :end]

    def select(self, rows: Int[Tensor, " kept"]) -> None:
        """Keep these rows, each as often as it is named."""
        assert self.keys is not None and self.values is not None
        self.keys, self.values = self.keys[rows], self.values[rows]

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """How many columns a query of this length will see, and the first of them."""
        return self.columns + query_length, 0

    def get_seq_length(self) -> int:
        """Columns that are held."""
        return self.columns

    def get_max_length(self) -> int:
        """Columns that can be held."""
        return self.capacity


class Decoding:
    """The state between two passes: prefixes and tails, and which row reads which prefix.

    Attributes:
        prefix: keys and values of the prefixes in each layer, (prefixes, heads, tokens, size).
        prefix_lengths: their lengths in tokens; shorter ones are padded on the right.
        tail: the cache that transformers fills, one `TailLayer` a layer.
        prefix_of_row: which prefix each row reads.
        slot_of_row: the number of each row among those of its prefix; ``slots`` is the most that one prefix has.
        padding: columns on the left of each tail that hold nothing.
    """

    def __init__(self, model: PreTrainedModel, prefixes: Sequence[Sequence[int]], tail_columns: int) -> None:
        """Read the prefixes.

        Args:
            model: a decoder that `share_prefixes` takes.
            prefixes: token ids, at least one each; of similar length, as they are padded to one.
            tail_columns: the most tokens that a row will add to its prefix.

        Raises:
            ModelError: the model's layers cannot share a prefix.
        """
        self.model = share_prefixes(model)
        lengths = [len(prefix) for prefix in prefixes]
        self.prefix_lengths = torch.tensor(lengths, device=model.device)
        self.padded = min(lengths) < max(lengths)
        # Padding on the right changes nothing; a cache without a config keeps what slides out of windows.
        ids = [[*prefix, *[0] * (max(lengths) - len(prefix))] for prefix in prefixes]
        cache = DynamicCache()
        model.base_model(input_ids=torch.tensor(ids, device=model.device), past_key_values=cache, use_cache=True)
        layers = cast(list[CacheLayerMixin], cache.layers)
        self.prefix = [(cast(Tensor, layer.keys), cast(Tensor, layer.values)) for layer in layers]
        self.tail = Cache(layers=[TailLayer(tail_columns) for _ in self.prefix])
        # By window; each pass computes them once for all layers of one kind.
        self._prefix_masks: dict[int | None, Float[Tensor, "prefixes 1 #queries prefix"] | None] = {}
        self._tail_masks: dict[int | None, Float[Tensor, "rows 1 queries columns"]] = {}

    def begin(self, prefix_of_row: Sequence[int], suffixes: Sequence[Sequence[int]]) -> Float[Tensor, "rows width"]:
        """Read what follows the prefix in each row, at least one token; returns hidden states of the last tokens."""
        width = max(map(len, suffixes))
        device = self.prefix_lengths.device
        ids = torch.tensor([[0] * (width - len(suffix)) + list(suffix) for suffix in suffixes], device=device)
        self.padding = torch.tensor([width - len(suffix) for suffix in suffixes], device=device)
        self._assign(torch.tensor(prefix_of_row, device=device))
        return self._read(ids)

    def step(self, tokens: Int[Tensor, " rows"]) -> Float[Tensor, "rows width"]:
        """Read one more token of every row; returns its hidden states."""
        return self._read(tokens[:, None])

    def select(self, rows: Int[Tensor, " kept"]) -> None:
        """Go on with these rows, each as often as it is named; rows of one prefix must stay next to each other."""
        for layer in self.tail.layers:
            assert isinstance(layer, TailLayer)
            layer.select(rows)
        self.padding = self.padding[rows]
        self._assign(self.prefix_of_row[rows])

    def _assign(self, prefix_of_row: Int[Tensor, " rows"]) -> None:
        """Number the rows of each prefix, so that they can be laid side by side."""
        used, index, counts = prefix_of_row.unique_consecutive(return_inverse=True, return_counts=True)
        if len(used) <= len(self.prefix_lengths) // 2:
            self.prefix = [(keys[used], values[used]) for keys, values in self.prefix]
            self.prefix_lengths, prefix_of_row = self.prefix_lengths[used], index
        self.prefix_of_row = prefix_of_row
        firsts = counts.cumsum(0) - counts
        self.slot_of_row = torch.arange(len(index), device=index.device) - firsts[index]
        self.slots = int(counts.max())

    def _read(self, ids: Int[Tensor, "rows tokens"]) -> Float[Tensor, "rows width"]:
        self._prefix_masks.clear()
        self._tail_masks.clear()
        self.columns = self.tail.get_seq_length() + ids.shape[1]
        # The position of a column in its row's sequence; that of padding lies within the prefix, and it is hidden.
        columns = torch.arange(self.columns, device=ids.device) - self.padding[:, None]
        self.positions = self.prefix_lengths[self.prefix_of_row][:, None] + columns
        hidden = self.model.base_model(
            input_ids=ids,
            # A mask of four dimensions is taken as it is: no other one is built, and this state stands for it.
            attention_mask=torch.zeros((1, 1, 1, 1), device=ids.device),
            position_ids=self.positions[:, -ids.shape[1] :].clamp(min=0),
            past_key_values=self.tail,
            use_cache=True,
            layout=self,
        ).last_hidden_state
        return hidden[:, -1]

    def attend(
        self,
        layer: int,
        query: Float[Tensor, "rows heads tokens size"],
        key: Float[Tensor, "rows kv_heads columns size"],
        value: Float[Tensor, "rows kv_heads columns size"],
        scale: float,
        window: int | None,
    ) -> Float[Tensor, "rows heads tokens size"]:
        """Attention of the newest tokens of every row to its prefix and its tail, which ``key`` and ``value`` hold."""
        rows, heads, tokens, size = query.shape
        shared = heads // key.shape[1]
        queries = query.reshape(rows, key.shape[1], shared * tokens, size)
        tail, tail_lse = _attend(queries, key, value, self._tail_mask(tokens, shared, window), scale)
        side_by_side = self._by_prefix(queries)
        prefix, prefix_lse = _attend(
            side_by_side, *self.prefix[layer], self._prefix_mask(tokens, shared, window), scale
        )
        prefix, prefix_lse = self._by_row(prefix), self._by_row(prefix_lse)
        # The weight of the prefix among both: a logistic function of the difference of the normalisers.
        weight = (prefix_lse - tail_lse).sigmoid()
        return (tail + weight * (prefix - tail)).to(query.dtype).reshape(rows, heads, tokens, size)

    def _by_prefix(self, x: Tensor) -> Tensor:
        """From rows to prefixes: (rows, heads, n, size) becomes (prefixes, heads, slots * n, size)."""
        rows, heads, n, size = x.shape
        prefixes = len(self.prefix_lengths)
        if rows == prefixes * self.slots:
            laid = x.reshape(prefixes, self.slots, heads, n, size)
        else:
            laid = x.new_zeros(prefixes, self.slots, heads, n, size)
            laid[self.prefix_of_row, self.slot_of_row] = x
        return laid.transpose(1, 2).reshape(prefixes, heads, self.slots * n, size)

    def _by_row(self, x: Tensor) -> Tensor:
        """From prefixes to rows, the inverse of `_by_prefix`."""
        prefixes, heads, n, size = x.shape
        laid = x.reshape(prefixes, heads, self.slots, n // self.slots, size).transpose(1, 2)
        return laid[self.prefix_of_row, self.slot_of_row]

    def _prefix_mask(
        self, tokens: int, shared: int, window: int | None
    ) -> Float[Tensor, "prefixes 1 #queries prefix"] | None:
        """What rows see of their prefixes: padding is hidden, and what a window has left behind; None hides nothing."""
        if window not in self._prefix_masks:
            columns = torch.arange(self.prefix[0][0].shape[2], device=self.prefix_lengths.device)
            hidden = (columns >= self.prefix_lengths[:, None])[:, None, None] if self.padded else None
            if window is not None:
                queries = self._by_prefix(self.positions[:, None, -tokens:].repeat(1, 1, shared)[..., None])
                left = queries - columns >= window
                hidden = left if hidden is None else hidden | left
            self._prefix_masks[window] = None if hidden is None else hidden.float() * HIDDEN
        return self._prefix_masks[window]

    def _tail_mask(self, tokens: int, shared: int, window: int | None) -> Float[Tensor, "rows 1 queries columns"]:
        """What rows see of their tails: neither padding nor later columns, nor what a window has left behind."""
        if window not in self._tail_masks:
            columns = torch.arange(self.columns, device=self.padding.device)
            queries = columns[-tokens:, None]
            hidden = (columns > queries) | (columns < self.padding[:, None, None])
            if window is not None:
                hidden = hidden | (queries - columns >= window)
            self._tail_masks[window] = (hidden.float() * HIDDEN).repeat(1, shared, 1)[:, None]
        return self._tail_masks[window]


def _attend(
    query: Float[Tensor, "batch heads n size"],
    key: Float[Tensor, "batch heads m size"],
    value: Float[Tensor, "batch heads m size"],
    mask: Tensor | None,
    scale: float,
) -> tuple[Float[Tensor, "batch heads n size"], Float[Tensor, "batch heads n 1"]]:
    """Attention and the log-sum-exp of its scores, in float32."""
    scores = (query @ key.mT).float() * scale
    if mask is not None:
        scores += mask
    lse = scores.logsumexp(-1, keepdim=True)
    return ((scores - lse).exp().to(value.dtype) @ value).float(), lse
