"""Write Caffe's AlexNet with seeded random weights: 60,965,224 parameters, 244 MB, for measuring sizes and memory.

    python models/generate_alexnet.py --out alexnet.onnx                  one file
    python models/generate_alexnet.py --out alexnet.onnx --external       weights in alexnet.onnx.data beside it

The network is that of Krizhevsky, Sutskever and Hinton, "ImageNet Classification with Deep Convolutional Neural
Networks" (2012), in one column as Caffe's model zoo has it: conv2, conv4 and conv5 in two groups. Han et al. (2015)
prune it in their table 4. Weights are drawn as those of `generate_vgg16.py`; they are random, and the network is not
trained.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click
import onnx
from onnx import TensorProto, helper

if TYPE_CHECKING:
    from models.generate_vgg16 import IR_VERSION, OPSET, Layer, shapes_of, write_model
else:
    from generate_vgg16 import IR_VERSION, OPSET, Layer, shapes_of, write_model

SIDE: Final = 227  # pixels of the input
CLASSES: Final = 1000
CONVOLUTIONS: Final = (
    # name, filters, channels that each reads, kernel, stride, padding, groups
    ("conv1", 96, 3, 11, 4, 0, 1),
    ("conv2", 256, 48, 5, 1, 2, 2),
    ("conv3", 384, 256, 3, 1, 1, 1),
    ("conv4", 384, 192, 3, 1, 1, 2),
    ("conv5", 256, 192, 3, 1, 1, 2),
)
NORMALISED: Final = ("conv1", "conv2")
POOLED: Final = ("conv1", "conv2", "conv5")
HIDDEN: Final = 4096


def layers(scale: int = 1) -> list[Layer]:
    """The 8 weighted layers in order; every width but the 3 input channels and 1000 classes is divided by `scale`."""
    table = [
        Layer(name, (filters // scale, channels if name == "conv1" else channels // scale, kernel, kernel))
        for name, filters, channels, kernel, *_ in CONVOLUTIONS
    ]
    flat = CONVOLUTIONS[-1][1] // scale * 6 * 6
    hidden = HIDDEN // scale
    return [*table, Layer("fc6", (hidden, flat)), Layer("fc7", (hidden, hidden)), Layer("fc8", (CLASSES, hidden))]


def nodes() -> list[onnx.NodeProto]:
    """All nodes; the tensor between two of them is called after its producer, the last one `logits`."""
    result: list[onnx.NodeProto] = []
    source = "image"

    def add(op: str, name: str, *, weighted: bool = False, **attributes: Any) -> None:
        nonlocal source
        target = "logits" if name == "fc8" else f"{name}.out"
        weights = [f"{name}.weight", f"{name}.bias"] if weighted else []
        result.append(helper.make_node(op, [source, *weights], [target], name, **attributes))
        source = target

    for name, _, _, kernel, stride, padding, groups in CONVOLUTIONS:
        index = name.removeprefix("conv")
        square = {"kernel_shape": [kernel] * 2, "strides": [stride] * 2, "pads": [padding] * 4}
        add("Conv", name, weighted=True, group=groups, **square)
        add("Relu", f"relu{index}")
        if name in NORMALISED:
            add("LRN", f"norm{index}", size=5, alpha=1e-4, beta=0.75)
        if name in POOLED:
            add("MaxPool", f"pool{index}", kernel_shape=[3, 3], strides=[2, 2])
    add("Flatten", "flatten")
    for name in ("fc6", "fc7", "fc8"):
        add("Gemm", name, weighted=True, transB=1)
        if name != "fc8":
            add("Relu", name.replace("fc", "relu"))
    return result


def model_from_tensors(tensors: list[TensorProto], scale: int, seed: int) -> onnx.ModelProto:
    """The model: input `image` float32 [N, 3, 227, 227], output `logits` float32 [N, 1000]."""
    graph = helper.make_graph(
        nodes(),
        "alexnet",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 3, SIDE, SIDE])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", CLASSES])],
        tensors,
    )
    model = helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="onnxprune models/generate_alexnet.py",
        doc_string="AlexNet with random weights, untrained; for measurements.",
    )
    helper.set_model_props(
        model, {"script": "models/generate_alexnet.py", "seed": str(seed), "scale": str(scale), "trained": "no"}
    )
    return model


@click.command()
@click.option("--out", type=click.Path(path_type=Path), required=True, help="The .onnx file to write.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Seed of the weights.")
@click.option("--external", is_flag=True, help="Put tensors above 1 kB into OUT.data beside it.")
@click.option("--scale", type=click.Choice(["1", "2", "4", "8", "16"]), default="1", help="Divide all widths by this.")
def main(out: Path, seed: int, external: bool, scale: str) -> None:
    """Write AlexNet with He-initialised random weights."""
    factor = int(scale)
    table = layers(factor)
    write_model(out, table, seed, lambda tensors: model_from_tensors(tensors, factor, seed), external=external)
    parameters = sum(math.prod(shape) for shape in shapes_of(table).values())
    place = f"in {out.name}.data" if external else "inline"
    click.echo(f"{out}: {parameters:,} parameters, seed {seed}, weights {place}")


if __name__ == "__main__":
    main()
