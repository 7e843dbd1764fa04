"""Keys and values in slots: one slot holds one sequence, and slots of one length lie side by side in a pool.

A pool is one tensor per layer, so attention over the first rows of a pool is one matrix product without a gather or a
copy. Rows in use come first; behind them lie idle rows, kept because a later prompt may begin with what they hold.
A sequence that outgrows its slot moves to the next longer pool.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from batchchat.engines.continuous.allocation import zeros

_SHORTEST = 64


@dataclass(frozen=True, slots=True)
class LayerShape:
    """What one layer keeps per token."""

    heads: int
    key_dim: int
    value_dim: int
    dtype: torch.dtype
    device: torch.device


@dataclass(eq=False, slots=True)
class Slot:
    """A place for one sequence. `tokens` are the ids that it is for (the sequence's own list, which grows);
    the keys and values of the first `computed` of them are there."""

    tokens: list[int]
    pool: Pool
    row: int
    computed: int = 0
    reusable: int = 0
    """How many of the computed tokens another sequence may take over."""
    promised: int = 0
    """How many of `tokens` will be reusable at least, if the sequence goes on."""
    last_used: int = 0

    @property
    def writable(self) -> int:
        return self.pool.length


def bucket(length: int) -> int:
    """The slot length for a sequence of `length` tokens: 64, 96, 128, 192, 256, 384, … (at most half is unused).

    Attention runs over whole slots, since products over a part of them copy it first."""
    size = _SHORTEST
    while size < length:
        if size + size // 2 >= length:
            return size + size // 2
        size *= 2
    return size


@dataclass(eq=False)
class Pool:
    """Slots of `length` tokens. Rows `[0, active)` are in use, rows `[active, len(slots))` idle, the rest free."""

    length: int
    shapes: dict[int, LayerShape]
    keys: dict[int, torch.Tensor] = field(default_factory=dict)
    """Per layer `[capacity, heads, length, key_dim]`; values likewise."""
    values: dict[int, torch.Tensor] = field(default_factory=dict)
    blocks: list[torch.Tensor] = field(default_factory=list)
    """All of these: for each group of layers keys and values `[layers, capacity, heads, length, dim]`."""
    groups: list[list[int]] = field(default_factory=list)
    slots: list[Slot] = field(default_factory=list)
    active: int = 0
    capacity: int = 0
    version: int = 0
    """Grows with each move of the tensors."""

    @property
    def idle(self) -> list[Slot]:
        return self.slots[self.active :]

    def resize(self, capacity: int) -> None:
        """Make room for exactly `capacity` rows, at least those occupied. Where memory runs out all stays usable."""
        assert capacity >= len(self.slots)
        before, self.capacity = self.capacity, capacity
        try:
            if before != capacity:
                self.hold(capacity)
        except BaseException:
            self.capacity = min(before, capacity)
            raise

    @torch.inference_mode()
    def learn(self, layer: int) -> None:
        """Hold what a layer that was not known before keeps, too."""
        self._take(self._blocks([layer], self.capacity), [layer])
        self.groups.append([layer])

    @torch.inference_mode()
    def hold(self, capacity: int) -> None:
        """New tensors with what the old ones held, one group of layers after the other."""
        groups = _alike(self.shapes)
        if groups == self.groups:
            for number, layers in enumerate(groups):
                self._take(self._blocks(layers, capacity), layers, 2 * number)
            return
        blocks = [self._blocks(layers, capacity) for layers in groups]
        self.blocks, self.groups = [], groups
        for pair, layers in zip(blocks, groups, strict=True):
            self._take(pair, layers)

    def _blocks(self, layers: list[int], capacity: int) -> list[torch.Tensor]:
        """Keys and values of some layers alike, as far as there are any. The rest is zero: what is masked must be
        finite."""
        rows, used = len(self.slots), max((slot.computed for slot in self.slots), default=0)
        shape = self.shapes[layers[0]]
        blocks = []
        for store, dim in ((self.keys, shape.key_dim), (self.values, shape.value_dim)):
            block = zeros((len(layers), capacity, shape.heads, self.length, dim), shape.dtype, shape.device)
            for place, layer in enumerate(layers):
                if layer in store:
                    block[place, :rows, :, :used] = store[layer][:rows, :, :used]
            blocks.append(block)
        return blocks

    def _take(self, blocks: list[torch.Tensor], layers: list[int], number: int | None = None) -> None:
        """Use the keys and values of some layers, as blocks `number` and the next or behind all others."""
        first = len(self.blocks) if number is None else number
        self.blocks[first : first + 2] = blocks
        for place, layer in enumerate(layers):
            self.keys[layer], self.values[layer] = (block[place] for block in blocks)
        self.version += 1

    def insert(self, slot: Slot) -> None:
        """Give an active slot a row: the first one behind the active rows. The caller has made room."""
        assert len(self.slots) < self.capacity
        self.slots.append(slot)
        slot.pool, slot.row = self, len(self.slots) - 1
        self.activate(slot, fresh=True)

    def activate(self, slot: Slot, fresh: bool = False) -> None:
        """Move an idle (or just added and still empty) slot among the active ones."""
        other = self.slots[self.active]
        if other is not slot:
            self._exchange(slot, other, fresh)
        self.active += 1

    def retire(self, slot: Slot) -> None:
        """Move an active slot among the idle ones."""
        last = self.slots[self.active - 1]
        if last is not slot:
            self._exchange(slot, last)
        self.active -= 1

    @torch.inference_mode()
    def remove(self, slot: Slot, scrub: bool = False) -> None:
        """Free a slot's row. `scrub` clears it first, where it may hold numbers that are not finite."""
        if scrub:
            for block in self.blocks:
                block[:, slot.row].zero_()
        hole = slot.row
        if hole < self.active:
            self.active -= 1
            self._fill(hole, self.active)
            hole = self.active
        self._fill(hole, len(self.slots) - 1)
        self.slots.pop()

    def _fill(self, hole: int, row: int) -> None:
        """Move what is in `row` into the row `hole`."""
        if row != hole:
            slot = self.slots[row]
            self._copy(slot, hole)
            self.slots[hole], slot.row = slot, hole

    @torch.inference_mode()
    def _exchange(self, one: Slot, other: Slot, one_is_empty: bool = False) -> None:
        if one_is_empty:
            self._copy(other, one.row)
        else:
            used = max(one.computed, other.computed)
            for block in self.blocks:
                held = block[:, one.row, :, :used].clone()
                block[:, one.row, :, :used] = block[:, other.row, :, :used]
                block[:, other.row, :, :used] = held
        self.slots[one.row], self.slots[other.row] = other, one
        one.row, other.row = other.row, one.row

    @torch.inference_mode()
    def _copy(self, slot: Slot, row: int) -> None:
        for block in self.blocks:
            block[:, row, :, : slot.computed] = block[:, slot.row, :, : slot.computed]


@torch.inference_mode()
def copy_prefix(source: Slot, target: Slot, count: int) -> None:
    """Copy the keys and values of the first `count` tokens, and say so in the target."""
    one, other = target.pool, source.pool
    if one.groups == other.groups:
        for mine, theirs in zip(one.blocks, other.blocks, strict=True):
            mine[:, target.row, :, :count] = theirs[:, source.row, :, :count]
    else:  # a pool from the time when the layers were not known yet
        for mine, theirs in ((one.keys, other.keys), (one.values, other.values)):
            for layer, tensor in theirs.items():
                mine[layer][target.row, :, :count] = tensor[source.row, :, :count]
    target.computed = count


def _alike(shapes: dict[int, LayerShape]) -> list[list[int]]:
    """Layers whose keys, and whose values, are one tensor: on the CPU those of one shape, so that a slot is moved at
    once; elsewhere each alone, so that a pool that grows needs little memory on top."""
    groups: dict[object, list[int]] = {}
    for layer, shape in shapes.items():
        groups.setdefault(shape if shape.device.type == "cpu" else layer, []).append(layer)
    return list(groups.values())
