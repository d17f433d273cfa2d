"""The label files of a stack as one array for a Labels layer: read when looked at, painted on.

Holds a few planes in memory, however long the stack; what is painted goes to `on_edit`, plane by
plane. Has what napari asks of a layer's data, and no more. Plain NumPy: knows no Qt and no napari.
"""

from __future__ import annotations

import math
import threading
from collections import OrderedDict
from collections.abc import Callable
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_samic.core.types import IntArray

KEPT = 8
"""Planes that are kept in memory."""
LARGE_PX = 1024 * 1024
"""A plane above this takes longer to read than the window may wait."""
Index = tuple[int, ...]


class LabelStack:
    """See the module.

    Parameters
    ----------
    stack_shape : tuple of int
        () for a lone image.
    shape : (H, W)
    read : callable
        Labels of a plane, (H, W) int32, or None if there are none yet. May come from any thread.
    on_edit : callable
        Called with the index of a plane after its pixels were set.
    later : callable, optional
        Asked to call `plane` in a job when a large plane is looked at, which is blank until then.

    Attributes
    ----------
    painted : dict of index to (H, W) int32
        What was painted and not yet `saved`.
    dtype, shape, ndim, size
        As of an array.
    """

    dtype = np.dtype(np.int32)

    def __init__(
        self,
        stack_shape: Index,
        shape: tuple[int, int],
        read: Callable[[Index], IntArray | None],
        on_edit: Callable[[Index], None] = lambda _index: None,
        later: Callable[[Index], None] | None = None,
    ) -> None:
        self.stack_shape, self.plane_shape = stack_shape, shape
        self.shape = (*stack_shape, *shape)
        self.ndim, self.size = len(self.shape), math.prod(self.shape)
        self.on_edit, self._later = on_edit, later
        self._read = read
        self._kept: OrderedDict[Index, NDArray[np.int32]] = OrderedDict()
        self.painted: dict[Index, NDArray[np.int32]] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return self.shape[0]

    def plane(self, index: Index) -> NDArray[np.int32]:
        """One plane, (H, W), not to be changed; background where there is no file."""
        with self._lock:
            if index in self.painted:
                return self.painted[index]
            if index in self._kept:
                self._kept.move_to_end(index)
                return self._kept[index]
        stored = self._read(index)
        fresh = np.zeros(self.plane_shape, np.int32) if stored is None else np.array(stored)
        self.put(index, fresh)
        return fresh

    def _looked_at(self, index: Index) -> NDArray[np.int32]:
        with self._lock:
            here = index in self.painted or index in self._kept
        if here or self._later is None or math.prod(self.plane_shape) <= LARGE_PX:
            return self.plane(index)
        self._later(index)
        return np.broadcast_to(np.int32(0), self.plane_shape)

    def put(self, index: Index, labels: IntArray) -> None:
        """A plane was made anew: show these labels."""
        with self._lock:
            self._kept[index] = np.array(labels, np.int32)
            self._kept.move_to_end(index)
            while len(self._kept) > KEPT:
                self._kept.popitem(last=False)

    def saved(self, index: Index, labels: NDArray[np.int32]) -> None:
        """What was painted is in a file now, unless more was painted since."""
        if self.painted.get(index) is labels:
            self.put(index, labels)
            del self.painted[index]

    def forget(self, index: Index | None = None) -> None:
        """Read a plane (None: all) from its file again."""
        with self._lock:
            if index is None:
                self._kept.clear()
            else:
                self._kept.pop(index, None)

    # --- as an array

    def __getitem__(self, key: Any) -> NDArray[np.int32]:
        lead, rest = self._split(key)
        if all(isinstance(k, int | np.integer) for k in lead):
            index = tuple(int(k) % n for k, n in zip(lead, self.stack_shape, strict=True))
            return np.array(self._looked_at(index)[rest])
        if any(isinstance(k, np.ndarray | list) for k in lead):
            arrays = np.broadcast_arrays(*(np.asarray(k) for k in (*lead, *rest)))
            out = np.zeros(arrays[0].shape, np.int32)
            for index, where in self._planes_in(arrays):
                inside = tuple(a[where] for a in arrays[-2:])
                out[where] = self.plane(index)[inside]
            return out
        return self._block(lead)[(..., *rest)]

    def __setitem__(self, key: Any, value: Any) -> None:
        lead, rest = self._split(key)
        if not any(isinstance(k, np.ndarray | list) for k in lead):
            self._paint_block(lead, rest, value)
            return
        arrays = np.broadcast_arrays(*(np.asarray(k) for k in (*lead, *rest)))
        values = np.broadcast_to(value, arrays[0].shape)
        for index, where in self._planes_in(arrays):
            self._paint(index, tuple(a[where] for a in arrays[-2:]), values[where])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        del copy
        every = self._block((slice(None),) * len(self.stack_shape))
        return every if dtype is None else every.astype(dtype)

    def _split(self, key: Any) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
        keys = key if isinstance(key, tuple) else (key,)
        if Ellipsis in [k for k in keys if not isinstance(k, np.ndarray | list)]:
            place = next(i for i, k in enumerate(keys) if k is Ellipsis)
            missing = self.ndim - len(keys) + 1
            keys = (*keys[:place], *(slice(None),) * missing, *keys[place + 1 :])
        keys = (*keys, *(slice(None),) * (self.ndim - len(keys)))
        count = len(self.stack_shape)
        return keys[:count], keys[count:]

    def _planes_in(self, arrays: Any) -> list[tuple[Index, NDArray[np.bool_]]]:
        lead = np.stack([np.asarray(a).ravel() for a in arrays[:-2]], axis=1)
        planes = []
        for row in np.unique(lead, axis=0):
            where = np.all([a == v for a, v in zip(arrays[:-2], row, strict=True)], axis=0)
            planes.append((tuple(int(v) for v in row), where))
        return planes

    def _paint_block(self, lead: tuple[Any, ...], rest: tuple[Any, ...], value: Any) -> None:
        axes = self._axes(lead)
        ranges = tuple(len(a) for a, k in zip(axes, lead, strict=True) if isinstance(k, slice))
        inside = np.broadcast_to(np.int32(0), self.plane_shape)[rest].shape
        values = np.broadcast_to(value, (*ranges, *inside))
        flat = values.reshape(-1, *inside)  # one entry a plane
        for place, index in enumerate(product(*axes)):
            self._paint(tuple(int(i) for i in index), rest, flat[place])

    def _paint(self, index: Index, inside: Any, values: Any) -> None:
        plane = np.array(self.plane(index))
        plane[inside] = values
        self.painted[index] = plane
        self.on_edit(index)

    def _axes(self, lead: tuple[Any, ...]) -> list[NDArray[Any]]:
        return [
            np.arange(n)[k] if isinstance(k, slice) else np.array([k % n])
            for k, n in zip(lead, self.stack_shape, strict=True)
        ]

    def _block(self, lead: tuple[Any, ...]) -> NDArray[np.int32]:
        """Several planes at once: for a 3-D view, or a script that asks for all."""
        axes = self._axes(lead)
        shape = tuple(len(a) for a in axes)
        planes = [self.plane(tuple(int(i) for i in index)) for index in product(*axes)]
        block = np.stack(planes).reshape(*shape, *self.plane_shape)
        flat = tuple(0 if not isinstance(k, slice) else slice(None) for k in lead)
        return block[flat]
