"""Write VGG-16 with seeded random weights: 138,357,544 parameters, 553 MB, for measuring speed and memory.

    python models/generate_vgg16.py --out vgg16.onnx                  one file
    python models/generate_vgg16.py --out vgg16.onnx --external       weights in vgg16.onnx.data beside it

The network is configuration D of Simonyan and Zisserman, "Very Deep Convolutional Networks for Large-Scale
Image Recognition" (2015), table 1. Weights are drawn as He, Zhang, Ren and Sun, "Delving Deep into Rectifiers"
(2015), equation 10, has it: normal with variance 2 / fan-in; biases are zero. Each layer has its own random
stream, so both forms hold the same bytes and the external form needs memory for one chunk of one layer only.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

import click
import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

OPSET: Final = 17
IR_VERSION: Final = 8
CONV_CHANNELS: Final = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
HIDDEN: Final = 4096
CLASSES: Final = 1000
CHUNK: Final = 1 << 20  # elements drawn and written at a time
ALIGNMENT: Final = 4096  # bytes; external tensors start at a multiple, so that each can be mapped alone
EXTERNAL_THRESHOLD: Final = 1024  # bytes; a tensor of more lies in the data file


@dataclass(frozen=True)
class Layer:
    """One weighted layer: `weight` is its shape, [out, in, height, width] for a Conv and [out, in] for a Gemm."""

    name: str
    weight: tuple[int, ...]

    @property
    def fan_in(self) -> int:
        """How many inputs one neuron reads."""
        return math.prod(self.weight[1:])


def layers(scale: int = 1) -> list[Layer]:
    """The 16 weighted layers in order; every width but the 3 input channels and 1000 classes is divided by `scale`."""
    table: list[Layer] = []
    source = 3
    for block, widths in enumerate(CONV_CHANNELS, start=1):
        for index, width in enumerate(widths, start=1):
            table.append(Layer(f"conv{block}_{index}", (width // scale, source, 3, 3)))
            source = width // scale
    hidden = HIDDEN // scale
    table.append(Layer("fc6", (hidden, source * 7 * 7)))
    table.append(Layer("fc7", (hidden, hidden)))
    table.append(Layer("fc8", (CLASSES, hidden)))
    return table


def parameter_shapes(scale: int = 1) -> dict[str, tuple[int, ...]]:
    """Shape of every initializer of VGG-16 by name, in the order of the file; nothing is allocated."""
    return shapes_of(layers(scale))


def shapes_of(table: Sequence[Layer]) -> dict[str, tuple[int, ...]]:
    """Shape of every initializer of the layers in `table`, a weight and a bias each."""
    shapes: dict[str, tuple[int, ...]] = {}
    for layer in table:
        shapes[f"{layer.name}.weight"] = layer.weight
        shapes[f"{layer.name}.bias"] = layer.weight[:1]
    return shapes


def weight_chunks(layer: Layer, seed: int, index: int) -> Iterator[NDArray[np.float32]]:
    """The weight's elements in row-major order, float32, at most CHUNK at a time; `index` picks the stream."""
    source = np.random.default_rng([seed, index])
    deviation = np.float32(math.sqrt(2.0 / layer.fan_in))
    size = math.prod(layer.weight)
    for start in range(0, size, CHUNK):
        chunk = source.standard_normal(min(CHUNK, size - start), dtype=np.float32)
        chunk *= deviation
        yield chunk


def initializer(name: str, shape: tuple[int, ...], chunks: Iterator[NDArray[np.float32]]) -> TensorProto:
    """A float32 initializer that holds its bytes, little-endian."""
    raw = b"".join(chunk.astype("<f4", copy=False).tobytes() for chunk in chunks)
    return TensorProto(name=name, data_type=TensorProto.FLOAT, dims=shape, raw_data=raw)


def external_initializer(
    name: str, shape: tuple[int, ...], chunks: Iterator[NDArray[np.float32]], file: BinaryIO, location: str
) -> TensorProto:
    """Append the bytes to `file` at the next aligned offset and return the initializer that points there."""
    file.write(b"\0" * (-file.tell() % ALIGNMENT))
    offset = file.tell()
    for chunk in chunks:
        file.write(chunk.astype("<f4", copy=False).data)
    tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=shape, data_location=TensorProto.EXTERNAL)
    for key, value in (("location", location), ("offset", str(offset)), ("length", str(file.tell() - offset))):
        tensor.external_data.add(key=key, value=value)
    return tensor


def initializers(table: Sequence[Layer], seed: int, file: BinaryIO | None, location: str) -> list[TensorProto]:
    """All initializers; with a `file`, those above EXTERNAL_THRESHOLD go into it under the name `location`."""
    tensors: list[TensorProto] = []
    for index, layer in enumerate(table):
        zeros = np.zeros(layer.weight[0], dtype=np.float32)
        for name, shape, chunks in (
            (f"{layer.name}.weight", layer.weight, weight_chunks(layer, seed, index)),
            (f"{layer.name}.bias", layer.weight[:1], iter([zeros])),
        ):
            if file is not None and 4 * math.prod(shape) > EXTERNAL_THRESHOLD:
                tensors.append(external_initializer(name, shape, chunks, file, location))
            else:
                tensors.append(initializer(name, shape, chunks))
    return tensors


def steps() -> list[tuple[str, str]]:
    """Operator and name of every node from `image` to `logits`, in order."""
    result: list[tuple[str, str]] = []
    for block, widths in enumerate(CONV_CHANNELS, start=1):
        for index in range(1, len(widths) + 1):
            result += [("Conv", f"conv{block}_{index}"), ("Relu", f"relu{block}_{index}")]
        result.append(("MaxPool", f"pool{block}"))
    result += [("Flatten", "flatten"), ("Gemm", "fc6"), ("Relu", "relu6"), ("Gemm", "fc7"), ("Relu", "relu7")]
    return [*result, ("Gemm", "fc8")]


def node(op: str, name: str, source: str, target: str) -> onnx.NodeProto:
    """One node; a weighted one reads `name`.weight and `name`.bias."""
    weights = [f"{name}.weight", f"{name}.bias"]
    match op:
        case "Conv":
            return helper.make_node(op, [source, *weights], [target], name, kernel_shape=[3, 3], pads=[1, 1, 1, 1])
        case "Gemm":
            return helper.make_node(op, [source, *weights], [target], name, transB=1)
        case "MaxPool":
            return helper.make_node(op, [source], [target], name, kernel_shape=[2, 2], strides=[2, 2])
        case _:
            return helper.make_node(op, [source], [target], name)


def nodes() -> list[onnx.NodeProto]:
    """All nodes; the tensor between two of them is called after its producer, the last one `logits`."""
    result: list[onnx.NodeProto] = []
    source = "image"
    for op, name in steps():
        target = "logits" if name == "fc8" else f"{name}.out"
        result.append(node(op, name, source, target))
        source = target
    return result


def model_from_tensors(tensors: list[TensorProto], scale: int, seed: int) -> onnx.ModelProto:
    """The model: input `image` float32 [N, 3, 224, 224], output `logits` float32 [N, 1000]."""
    graph = helper.make_graph(
        nodes(),
        "vgg16",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 3, 224, 224])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", CLASSES])],
        tensors,
    )
    model = helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="onnxprune models/generate_vgg16.py",
        doc_string="VGG-16 with random weights, untrained; for measurements.",
    )
    helper.set_model_props(
        model, {"script": "models/generate_vgg16.py", "seed": str(seed), "scale": str(scale), "trained": "no"}
    )
    return model


def write_model(
    out: Path,
    table: Sequence[Layer],
    seed: int,
    build: Callable[[list[TensorProto]], onnx.ModelProto],
    *,
    external: bool,
) -> None:
    """Write what `build` makes of the initializers of `table` to `out`, and their bytes to `out`.data when `external`.

    Both appear under their final names only when complete.
    """
    part = out.with_name(out.name + ".part")
    if external:
        data = out.with_name(out.name + ".data")
        data_part = data.with_name(data.name + ".part")
        with data_part.open("wb") as file:
            tensors = initializers(table, seed, file, data.name)
        part.write_bytes(build(tensors).SerializeToString())
        data_part.replace(data)
    else:
        part.write_bytes(build(initializers(table, seed, None, "")).SerializeToString())
    part.replace(out)


@click.command()
@click.option("--out", type=click.Path(path_type=Path), required=True, help="The .onnx file to write.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Seed of the weights.")
@click.option("--external", is_flag=True, help="Put tensors above 1 kB into OUT.data beside it.")
@click.option("--scale", type=click.IntRange(1, 64), default=1, show_default=True, help="Divide all widths by this.")
def main(out: Path, seed: int, external: bool, scale: int) -> None:
    """Write VGG-16 with He-initialised random weights."""
    write_model(out, layers(scale), seed, lambda tensors: model_from_tensors(tensors, scale, seed), external=external)
    parameters = sum(math.prod(shape) for shape in parameter_shapes(scale).values())
    place = f"in {out.name}.data" if external else "inline"
    click.echo(f"{out}: {parameters:,} parameters, seed {seed}, weights {place}")


if __name__ == "__main__":
    main()
