"""A picture as the array that a model takes: its size, channels, layout and scale are read from the input's shape."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from onnxprune_passes.errors import DataError, SelectionError

from onnxprune.runtime import Array, TensorSpec, is_float
from onnxprune.samples.options import DataOptions

if TYPE_CHECKING:
    from PIL.Image import Image

_GREY_TO_BYTES = ("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBX", "RGBa", "CMYK", "YCbCr", "LAB", "HSV")


@dataclass(frozen=True)
class PixelFormat:
    """What an input expects of a picture.

    `channels` is 1 (grey) or 3, `axis` where they stand in a sample (None: no such axis). A pixel p in 0..255 is fed as
    (p · scale − mean) / std, in float32 before it becomes `dtype`.
    """

    height: int
    width: int
    channels: int
    axis: int | None
    dtype: np.dtype[np.generic]
    scale: float
    mean: NDArray[np.float32]
    std: NDArray[np.float32]
    resize: int | None
    stretch: bool
    reverse: bool

    def __str__(self) -> str:
        """`RGB 224x224, times 0.00392, minus 0.5, over 0.5`."""
        kind = "grey" if self.channels == 1 else "BGR" if self.reverse else "RGB"
        numbers = [f"times {self.scale:.5g}"] if self.scale != 1 else []
        numbers += [f"minus {_listed(self.mean)}"] if self.mean.any() else []
        numbers += [f"over {_listed(self.std)}"] if (self.std != 1).any() else []
        return ", ".join([f"{kind} {self.height}x{self.width}", *numbers])

    def array(self, image: Image) -> Array:
        """One sample, in the layout of the input. Raises `ValueError` for pictures of other than 8-bit pixels."""
        if image.mode not in _GREY_TO_BYTES:
            raise ValueError(f"pixels of mode {image.mode}, expected 8 bits a channel")
        converted = self._sized(image.convert("L" if self.channels == 1 else "RGB"))
        pixels = np.asarray(converted).reshape(self.height, self.width, self.channels)
        if self.reverse:
            pixels = pixels[:, :, ::-1]
        if is_float(self.dtype):
            scaled = (pixels.astype(np.float32) * np.float32(self.scale) - self.mean) / self.std
            pixels = scaled.astype(self.dtype)
        else:
            pixels = pixels.astype(self.dtype)
        if self.axis is None:
            return np.asarray(pixels[:, :, 0])
        return np.ascontiguousarray(np.moveaxis(pixels, 2, self.axis))

    def _sized(self, image: Image) -> Image:
        """The picture in the wanted size: scaled until it covers it, then its centre; or stretched."""
        from PIL.Image import Resampling

        wanted = (self.width, self.height)
        if self.stretch:
            return image if image.size == wanted else image.resize(wanted, Resampling.BILINEAR)
        width, height = image.size
        if self.resize is not None:
            factor = self.resize / min(width, height)
        else:
            factor = max(self.width / width, self.height / height)
        scaled = (max(int(width * factor + 1e-9), self.width), max(int(height * factor + 1e-9), self.height))
        if scaled != image.size:
            image = image.resize(scaled, Resampling.BILINEAR)
        left, top = (round((have - want) / 2) for have, want in zip(image.size, wanted, strict=True))
        return image.crop((left, top, left + self.width, top + self.height))


def pixel_format(spec: TensorSpec, options: DataOptions) -> PixelFormat:
    """How pictures are fed to the input `spec`: [N, C, H, W], [N, H, W, C] or [N, H, W], C being 1 or 3.

    Raises:
        DataError: the input is no picture, or its size is open and `options` do not say it.
        SelectionError: options that contradict the input.
    """
    axis, channels, open_sizes = _place(spec, options)
    height, width = _size(spec, open_sizes, options)
    if spec.dtype is None or (not is_float(spec.dtype) and spec.dtype.kind not in "iu"):
        raise DataError(f"input {spec} takes no pixels; give an .npz file or module:function")
    floats = is_float(spec.dtype)
    if not floats and {"scale", "mean", "std"} & set(options.given):
        raise SelectionError(f"input {spec} takes pixels as bytes: --data-option scale, mean and std have no meaning")
    if options.resize is not None and (options.fit == "stretch" or options.resize < max(height, width)):
        raise SelectionError(
            f"--data-option resize={options.resize} must be at least {max(height, width)}, the larger side of the "
            f"input, and excludes fit=stretch"
        )
    if options.order is not None and channels == 1:
        raise SelectionError(f"input {spec} takes grey pictures: --data-option order has no meaning")
    return PixelFormat(
        height,
        width,
        channels,
        axis,
        spec.dtype,
        (1 / 255 if options.scale is None else options.scale) if floats else 1.0,
        _per_channel("mean", options.mean, channels, 0.0),
        _per_channel("std", options.std, channels, 1.0),
        options.resize,
        options.fit == "stretch",
        options.order == "bgr",
    )


def _place(spec: TensorSpec, options: DataOptions) -> tuple[int | None, int, tuple[int | str | None, ...]]:
    """Where in a sample the channels stand, how many, and the declared height and width."""
    shape = spec.shape
    if len(shape) == 3 and options.layout is None:
        return None, 1, shape[1:]
    if len(shape) == 4:
        if options.layout != "nhwc" and shape[1] in (1, 3):
            return 0, int(shape[1]), shape[2:]
        if options.layout != "nchw" and shape[3] in (1, 3):
            return 2, int(shape[3]), shape[1:3]
    asked = f" as {options.layout}" if options.layout else ""
    raise DataError(
        f"input {spec} is no picture{asked}: expected [N, C, H, W] or [N, H, W, C] with 1 or 3 channels, or [N, H, W]; "
        f"give an .npz file or module:function"
    )


def _size(spec: TensorSpec, declared: tuple[int | str | None, ...], options: DataOptions) -> tuple[int, int]:
    wanted = options.size or (None, None)
    sizes = []
    for dim, asked in zip(declared, wanted, strict=True):
        if isinstance(dim, int) and asked is not None and asked != dim:
            raise SelectionError(f"--data-option size contradicts input {spec}: leave it out")
        size = dim if isinstance(dim, int) else asked
        if size is None:
            raise DataError(f"input {spec} takes pictures of any size; say which: --data-option size=224x224")
        sizes.append(size)
    return sizes[0], sizes[1]


def _per_channel(name: str, values: tuple[float, ...], channels: int, default: float) -> NDArray[np.float32]:
    if len(values) not in (0, 1, channels):
        raise SelectionError(
            f"--data-option {name} has {len(values)} numbers, the input {channels} channels: give one number or one "
            f"for each channel"
        )
    return np.broadcast_to(np.array(values or (default,), np.float32), (channels,))


def _listed(numbers: NDArray[np.float32]) -> str:
    return " ".join(f"{number:.4g}" for number in dict.fromkeys(numbers.tolist()))
