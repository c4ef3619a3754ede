"""Samples that a function of the user's makes: `--data module:function`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnxprune_passes.errors import DataError

from onnxprune.feeds.layout import Layout
from onnxprune.named import named_function
from onnxprune.runtime import Array, TensorSpec
from onnxprune.samples.arrays import ArraySamples
from onnxprune.samples.base import Samples
from onnxprune.samples.fit import by_name, fitted
from onnxprune.samples.options import DataOptions


@dataclass(frozen=True)
class FittedSamples:
    """A user's `Samples`, each batch checked against the model's inputs."""

    inner: Any
    specs: tuple[TensorSpec, ...]
    note: str

    def __len__(self) -> int:
        return len(self.inner)

    def batch(self, rows: NDArray[np.int64]) -> tuple[dict[str, Array], Array | None]:
        """See `Samples.batch`."""
        feeds, labels = self.inner.batch(rows)
        return fitted(self.note, feeds, labels, self.specs, len(rows))


@dataclass(frozen=True)
class DatasetSamples:
    """A data set with `len` and items by number, and what makes a batch of a list of items."""

    dataset: Any
    collate: Callable[[list[Any]], Any]
    specs: tuple[TensorSpec, ...]
    note: str

    def __len__(self) -> int:
        return len(self.dataset)

    def batch(self, rows: NDArray[np.int64]) -> tuple[dict[str, Array], Array | None]:
        """See `Samples.batch`."""
        item = self.collate([self.dataset[row] for row in rows.tolist()])
        feeds, labels = by_name(self.note, item, self.specs)
        return fitted(self.note, feeds, labels, self.specs, len(rows))


def samples_from_function(
    spec: str, specs: Sequence[TensorSpec], options: DataOptions
) -> tuple[Samples, Samples | None]:
    """What "module:function" gives when it is called without arguments.

    It may give `Samples` (see `onnxprune.samples.Samples`); a `torch.utils.data.DataLoader`, whose data set and
    `collate_fn` are used (its order and workers are not: the training has its own); any other iterable of batches,
    which is read into memory once; or a tuple of two of these, to train on and to validate on.

    Raises:
        DataError: it gives something else, or what does not fit the model; says what was expected and found.
        SelectionError: there is no such function.
    """
    options.require_only("module:function", ())
    found = named_function(spec)()
    if isinstance(found, tuple) and len(found) == 2 and all(_is_source(one) for one in found):
        return _samples(spec, found[0], specs), _samples(f"{spec}, validation", found[1], specs)
    return _samples(spec, found, specs), None


def _is_source(value: Any) -> bool:
    return _is_samples(value) or isinstance(value, Iterable)


def _is_samples(value: Any) -> bool:
    return hasattr(value, "__len__") and callable(getattr(value, "batch", None))


def _samples(spec: str, found: Any, specs: Sequence[TensorSpec]) -> Samples:
    samples: Samples
    if _is_samples(found):
        samples = FittedSamples(found, tuple(specs), getattr(found, "note", "") or f"{spec}: {len(found)} samples")
    elif _is_loader(found):
        note = f"{spec}: {len(found.dataset)} samples of a loader's data set"
        samples = DatasetSamples(found.dataset, found.collate_fn, tuple(specs), note)
    elif isinstance(found, Iterable) and not isinstance(found, (str, bytes, dict)):
        samples = _read_once(spec, found, specs)
    else:
        raise DataError(
            f"{spec} gave {type(found).__name__}; expected Samples (len and batch(rows)), an iterable of batches, or a "
            f"tuple of two, to train on and to validate on"
        )
    if not len(samples):
        raise DataError(f"{spec} gave no samples; the model takes {', '.join(map(str, specs))}")
    return samples


def _is_loader(value: Any) -> bool:
    dataset = getattr(value, "dataset", None)
    by_number = hasattr(dataset, "__getitem__") and hasattr(dataset, "__len__")
    return by_number and callable(getattr(value, "collate_fn", None))


def _read_once(spec: str, batches: Iterable[Any], specs: Sequence[TensorSpec]) -> ArraySamples:
    """All batches of an iterable, in memory."""
    feeds: list[dict[str, Array]] = []
    labels: list[Array | None] = []
    for item in batches:
        named, given = by_name(spec, item, specs)
        arrays, fit = fitted(spec, named, given, specs)
        sizes = {len(array) for array in (*arrays.values(), *(() if fit is None else (fit,))) if array.ndim}
        if len(sizes) != 1:
            raise DataError(f"{spec}: a batch has {sorted(sizes)} samples in its parts; give the same number in each")
        feeds.append(arrays)
        labels.append(fit)
    if not feeds:
        raise DataError(f"{spec} gave no batches; the model takes {', '.join(map(str, specs))}")
    axes = {name: 0 if array.ndim else None for name, array in feeds[0].items()}
    try:
        joined = {
            name: feeds[0][name] if axis is None else np.concatenate([one[name] for one in feeds])
            for name, axis in axes.items()
        }
        given_labels = [one for one in labels if one is not None]
        together = np.concatenate(given_labels) if given_labels else None
    except ValueError as error:
        raise DataError(f"{spec}: batches differ in shape ({error}); pad them, or give Samples") from error
    count = next(len(joined[name]) for name, axis in axes.items() if axis == 0)
    if together is not None and len(together) != count:
        raise DataError(f"{spec}: labels in some batches only; give them in all or in none")
    return ArraySamples(joined, together, Layout(axes, count), f"{spec}: {count} samples, read into memory")
