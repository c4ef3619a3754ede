"""Train LeNet-300-100 and LeNet-5 on MNIST and write them as ONNX files.

    python models/train_lenets.py --data DIR [--seed 0] [--only lenet_5] [--out models]
    python models/train_lenets.py --data DIR --validate [--out FOLDER]

The second form is how the hyper-parameters were chosen: it trains on the first 50,000 training images and prints
the error on the other 10,000; it writes the network only where a folder is given. The first form trains on all
60,000 for the full schedule and looks at the test images once, after the last epoch, through onnxruntime and the
file it wrote.

The networks are those of Han, Pool, Tran and Dally (2015), section 4: LeNet-300-100, and LeNet-5 as Caffe
defines it (28×28 input, no padding) with a ReLU after each convolution.
"""

from __future__ import annotations

import itertools
import math
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click
import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from onnxprune_passes.errors import DataError
from torch import nn
from torch.nn import functional

if TYPE_CHECKING:
    from models.mnist import load_mnist, unit_images
else:
    from mnist import load_mnist, unit_images  # the neighbour: Python puts a script's own folder on its path

OPSET: Final = 17
IR_VERSION: Final = 8
VALIDATION_COUNT: Final = 10_000


@dataclass(frozen=True)
class Recipe:
    """How one network is trained: SGD with Nesterov momentum 0.9, learning rate falling to 0 on a half cosine.

    `dropout` is the probability of dropping a hidden fully connected neuron, `input_dropout` that of dropping
    a pixel; neither leaves a node in the ONNX file.
    """

    epochs: int
    batch: int
    learning_rate: float
    weight_decay: float
    dropout: float
    input_dropout: float


RECIPES: Final[dict[str, Recipe]] = {
    "lenet_300_100": Recipe(epochs=40, batch=128, learning_rate=0.1, weight_decay=1e-4, dropout=0.2, input_dropout=0.1),
    "lenet_5": Recipe(epochs=15, batch=64, learning_rate=0.05, weight_decay=1e-4, dropout=0.5, input_dropout=0.0),
}


def build(name: str, recipe: Recipe) -> nn.Sequential:
    """The untrained network, from float32 [N, 1, 28, 28] in 0..1 to logits [N, 10]; layer names become tensor names."""
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    if name == "lenet_300_100":
        layers["flatten"] = nn.Flatten()
        layers["input_dropout"] = nn.Dropout(recipe.input_dropout)
        widths = [784, 300, 100, 10]
    else:
        for index, (inputs, outputs) in enumerate([(1, 20), (20, 50)], start=1):
            layers[f"conv{index}"] = nn.Conv2d(inputs, outputs, kernel_size=5)
            layers[f"conv{index}_relu"] = nn.ReLU()
            layers[f"pool{index}"] = nn.MaxPool2d(2)
        layers["flatten"] = nn.Flatten()
        widths = [800, 500, 10]
    for index, (inputs, outputs) in enumerate(itertools.pairwise(widths), start=1):
        layers[f"fc{index}"] = nn.Linear(inputs, outputs)
        if index < len(widths) - 1:
            layers[f"fc{index}_relu"] = nn.ReLU()
            layers[f"fc{index}_dropout"] = nn.Dropout(recipe.dropout)
    return nn.Sequential(layers)


def train(
    network: nn.Sequential, recipe: Recipe, images: NDArray[np.float32], labels: NDArray[np.int64], seed: int
) -> None:
    """Train `network` in place on images [N, 1, 28, 28] and labels [N]; the last, smaller batch is used too."""
    inputs, targets = torch.from_numpy(images), torch.from_numpy(labels)
    steps = recipe.epochs * math.ceil(len(inputs) / recipe.batch)
    optimizer = torch.optim.SGD(
        network.parameters(),
        lr=recipe.learning_rate,
        momentum=0.9,
        nesterov=True,
        weight_decay=recipe.weight_decay,
    )
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=steps)
    order_source = torch.Generator().manual_seed(seed)
    network.train()
    for epoch in range(1, recipe.epochs + 1):
        total = 0.0
        for rows in torch.split(torch.randperm(len(inputs), generator=order_source), recipe.batch):
            loss = functional.cross_entropy(network(inputs[rows]), targets[rows])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]  # torch ships this method without annotations
            optimizer.step()
            schedule.step()
            total += loss.item() * len(rows)
        print(f"  epoch {epoch:3}/{recipe.epochs}  training loss {total / len(inputs):.5f}", flush=True)


def node_from_layer(name: str, layer: nn.Module, source: str, target: str) -> onnx.NodeProto | None:
    """The ONNX node that computes `target` from `source` as `layer` does at inference; None for Dropout."""
    weights = [f"{name}.weight", f"{name}.bias"]
    match layer:
        case nn.Flatten():
            return helper.make_node("Flatten", [source], [target], name, axis=1)
        case nn.Linear():
            return helper.make_node("Gemm", [source, *weights], [target], name, transB=1)
        case nn.Conv2d():
            return helper.make_node("Conv", [source, *weights], [target], name, kernel_shape=list(layer.kernel_size))
        case nn.ReLU():
            return helper.make_node("Relu", [source], [target], name)
        case nn.MaxPool2d():
            return helper.make_node("MaxPool", [source], [target], name, kernel_shape=[2, 2], strides=[2, 2])
        case nn.Dropout():
            return None
        case _:
            raise TypeError(f"layer {name}: no ONNX node is known for {type(layer).__name__}")


def model_from_network(name: str, network: nn.Sequential, metadata: dict[str, str]) -> onnx.ModelProto:
    """The trained network as ONNX: input `image` [N, 1, 28, 28], output `logits` [N, 10], float32."""
    nodes: list[onnx.NodeProto] = []
    layers = list(network.named_children())
    source = "image"
    for layer_name, layer in layers:
        target = "logits" if layer_name == layers[-1][0] else f"{layer_name}.out"
        node = node_from_layer(layer_name, layer, source, target)
        if node is not None:
            nodes.append(node)
            source = target
    graph = helper.make_graph(
        nodes,
        name,
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 1, 28, 28])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 10])],
        [numpy_helper.from_array(value.numpy(), key) for key, value in network.state_dict().items()],
    )
    model = helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="onnxprune models/train_lenets.py",
        doc_string=f"{name}, trained on MNIST by models/train_lenets.py; image values lie in 0..1 (byte / 255).",
    )
    helper.set_model_props(model, metadata)
    return model


def error_count(model: bytes, images: NDArray[np.float32], labels: NDArray[np.int64]) -> int:
    """How many images [N, 1, 28, 28] onnxruntime puts into another class than `labels` [N]."""
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    return sum(
        int(np.count_nonzero(session.run(["logits"], {"image": images[rows]})[0].argmax(axis=1) != labels[rows]))
        for rows in (slice(start, start + 1000) for start in range(0, len(images), 1000))
    )


def trained_network(
    name: str, recipe: Recipe, images: NDArray[np.float32], labels: NDArray[np.int64], seed: int
) -> nn.Sequential:
    """Build and train; the same seed, thread count and torch build give the same weights."""
    torch.manual_seed(seed)
    torch.use_deterministic_algorithms(True)
    network = build(name, recipe)
    print(f"{name}: {sum(p.numel() for p in network.parameters())} parameters, {recipe}", flush=True)
    train(network, recipe, images, labels, seed)
    return network.eval()


def validate(name: str, data: Path | None, seed: int, out: Path | None) -> None:
    """Train on the first part of the training images, print the error on the other 10,000, write to `out` if given."""
    images, labels = load_mnist("train", data)
    inputs = unit_images(images)
    kept, held = slice(None, -VALIDATION_COUNT), slice(-VALIDATION_COUNT, None)
    recipe = RECIPES[name]
    network = trained_network(name, recipe, inputs[kept], labels[kept], seed)
    errors = error_count(model_from_network(name, network, {}).SerializeToString(), inputs[held], labels[held])
    found = f"{100 * errors / len(labels[held]):.2f} % ({errors} of {len(labels[held])})"
    print(f"{name}: validation error {found}")
    if out is not None:
        notes = _notes(recipe, seed) | {"trained_on": "the first 50,000 training images", "validation_error": found}
        write_file(model_from_network(name, network, notes), out / f"{name}.onnx")


def _notes(recipe: Recipe, seed: int) -> dict[str, str]:
    return {
        "script": "models/train_lenets.py",
        "seed": str(seed),
        "recipe": str(recipe),
        "torch": torch.__version__,
    }


def write_file(model: onnx.ModelProto, path: Path) -> None:
    """Write `model` under another name first, so that no half of a file is ever under `path`."""
    part = path.with_name(path.name + ".part")
    part.write_bytes(model.SerializeToString())
    part.replace(path)


def write(name: str, data: Path | None, seed: int, out: Path) -> None:
    """Train on all training images, write `out`/`name`.onnx and print its test error."""
    images, labels = load_mnist("train", data)
    recipe = RECIPES[name]
    network = trained_network(name, recipe, unit_images(images), labels, seed)
    test_images, test_labels = load_mnist("test", data)
    inputs = unit_images(test_images)
    errors = error_count(model_from_network(name, network, {}).SerializeToString(), inputs, test_labels)
    found = f"{100 * errors / len(test_labels):.2f} % ({errors} of {len(test_labels)})"
    metadata = _notes(recipe, seed) | {"test_error": found}
    path = out / f"{name}.onnx"
    write_file(model_from_network(name, network, metadata), path)
    if error_count(path.read_bytes(), inputs, test_labels) != errors:
        raise click.ClickException(f"{path}: the written file does not score as the network did; write it again")
    print(f"{path}: {path.stat().st_size} bytes, test error {metadata['test_error']}")


@click.command()
@click.option("--data", type=click.Path(path_type=Path), help="Folder with the MNIST files, or its parent.")
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of weights, batches and dropout.")
@click.option("--only", type=click.Choice(list(RECIPES)), help="Train this one; default: both.")
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    help="Folder to write to; default: the folder of this script, and none with --validate.",
)
@click.option("--validate", "validating", is_flag=True, help="Score a 50,000/10,000 split of the training images.")
def main(data: Path | None, seed: int, only: str | None, out: Path | None, validating: bool) -> None:
    """Train the two reference networks on MNIST and write them as ONNX files."""
    torch.set_num_threads(1)  # sums are split by thread: more threads would give other last bits
    for name in [only] if only else RECIPES:
        try:
            if validating:
                validate(name, data, seed, out)
            else:
                write(name, data, seed, out or Path(__file__).parent)
        except DataError as error:
            raise click.ClickException(str(error)) from error


if __name__ == "__main__":
    main()
