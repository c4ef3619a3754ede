"""Small models, built by hand, for the tests of the core."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnxprune_passes.model import Model
from onnxprune_passes.storage import from_proto

NDArray = npt.NDArray[Any]


def value(name: str, shape: Sequence[int | str] | None = ("N",), data_type: int = TensorProto.FLOAT) -> Any:
    return helper.make_tensor_value_info(name, data_type, shape)


def stored(name: str, array: NDArray, store: str = "raw") -> TensorProto:
    """A tensor whose values are in `raw_data`, or in the typed field `float_data`, `int32_data`, …"""
    tensor = numpy_helper.from_array(array, name)
    if store == "raw":
        return tensor
    flat = array.reshape(-1).astype(np.int32) if array.dtype == np.bool_ else array.reshape(-1)
    if store == "int32_data" and array.dtype.itemsize == 2 and array.dtype.kind not in "iu":
        flat = flat.view(np.uint16)
    tensor.ClearField("raw_data")
    getattr(tensor, store).extend(flat.tolist())
    return tensor


def made_external(tensor: TensorProto, folder: Path, file: str, keys: Iterable[str] = ("offset", "length")) -> None:
    """Move the raw data of `tensor` to the end of `folder / file`, with only `keys` beside the location."""
    path = folder / file
    path.parent.mkdir(parents=True, exist_ok=True)
    offset = path.stat().st_size if path.exists() else 0
    with path.open("ab") as data:
        data.write(tensor.raw_data)
    entries = {"offset": str(offset), "length": str(len(tensor.raw_data))}
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, text in {"location": file, **{key: entries[key] for key in keys}}.items():
        tensor.external_data.add(key=key, value=text)


def proto(
    nodes: Sequence[onnx.NodeProto] = (),
    initializers: Sequence[TensorProto] = (),
    *,
    inputs: Sequence[Any] = (),
    outputs: Sequence[Any] | None = None,
    opset: int = 18,
    ir_version: int = 8,
    functions: Sequence[onnx.FunctionProto] = (),
) -> onnx.ModelProto:
    """A model; without `outputs` its one output is the last node's first."""
    if outputs is None:
        outputs = [value(nodes[-1].output[0], None)]
    graph = helper.make_graph(list(nodes), "net", list(inputs), list(outputs), list(initializers))
    opsets = [helper.make_opsetid("", opset), *(helper.make_opsetid(f.domain, 1) for f in functions)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=ir_version, functions=list(functions))


def matmuls(weights: Mapping[str, NDArray]) -> Model:
    """One MatMul a weight of shape [in, out]: `y0 = x0 @ first`, …"""
    nodes = [helper.make_node("MatMul", [f"x{i}", name], [f"y{i}"], f"fc{i}") for i, name in enumerate(weights)]
    return from_proto(
        proto(
            nodes,
            [numpy_helper.from_array(array, name) for name, array in weights.items()],
            inputs=[value(f"x{i}", None) for i in range(len(nodes))],
            outputs=[value(f"y{i}", None) for i in range(len(nodes))],
        )
    )


def body(name: str, nodes: Sequence[onnx.NodeProto], initializers: Sequence[TensorProto] = ()) -> onnx.GraphProto:
    """A body without inputs whose output is the last node's first."""
    return helper.make_graph(list(nodes), name, [], [value(nodes[-1].output[0], None)], list(initializers))


def constant(output: str, array: NDArray, name: str = "") -> onnx.NodeProto:
    return helper.make_node("Constant", [], [output], name, value=numpy_helper.from_array(array))


def ramp(*shape: int, dtype: Any = np.float32, start: int = 1) -> NDArray:
    """Distinct whole numbers `start`, `start` + 1, …"""
    array: NDArray = np.arange(start, start + int(np.prod(shape)), dtype=np.float64).astype(dtype).reshape(shape)
    return array


def everything() -> onnx.ModelProto:
    """A model with something in every corner of the format that a load and a save must carry along."""
    sparse = helper.make_sparse_tensor(stored("sparse", ramp(2)), stored("", np.array([3, 60], np.int64)), [80])
    function = helper.make_function(
        "my.domain",
        "Block",
        ["a"],
        ["b"],
        [constant("k", ramp(13, 5)), helper.make_node("Add", ["a", "k"], ["b"])],
        [helper.make_opsetid("", 18)],
        attributes=["alpha"],
        attribute_protos=[helper.make_attribute("beta", stored("beta", ramp(66)))],
    )
    twin = onnx.FunctionProto()
    twin.CopyFrom(function)
    twin.overload, twin.doc_string = "other", "an overload"
    twin.metadata_props.add(key="f", value="g")
    model = proto(
        _nodes_of_everything(sparse),
        _tensors_of_everything(),
        inputs=[value("cond", [], TensorProto.BOOL), value("w", [13, 5])],
        outputs=[value("y", ["rows", 5]), value("float", [13, 5])],
        ir_version=10,
        functions=[function, twin],
    )
    graph = model.graph
    graph.sparse_initializer.append(sparse)
    graph.value_info.append(value("looped", [13, "cols"]))
    graph.doc_string, model.doc_string = "a graph", "a model"
    graph.metadata_props.add(key="graph", value="meta")
    graph.quantization_annotation.add(tensor_name="y").quant_parameter_tensor_names.add(
        key="SCALE_TENSOR", value="scalar"
    )
    model.producer_name, model.producer_version, model.domain, model.model_version = "made", "1.2", "org.example", 7
    helper.set_model_props(model, {"author": "nobody", "": "empty key"})
    info = model.training_info.add()
    rate = stored("rate", ramp(13, 5))
    info.algorithm.CopyFrom(helper.make_graph([constant("t", ramp(13, 5))], "algorithm", [], [value("t")], [rate]))
    info.update_binding.add(key="w", value="t")
    model.MergeFromString(b"\xc2\x3e\x03abc")  # field 1000, which no version knows
    return model


def _nodes_of_everything(sparse: onnx.SparseTensorProto) -> list[onnx.NodeProto]:
    big = ramp(13, 5)
    add = helper.make_node("Add", ["w", "c"], ["inner_out"])
    inner = body("inner", [constant("c", big + 1), add, constant("d", ramp(70))], [stored("w", big)])
    outer_nodes = [helper.make_node("If", ["cond"], ["deep"], "", then_branch=inner, else_branch=inner)]
    outer_nodes.append(helper.make_node("Identity", ["deep"], ["branch_out"]))
    then_branch, else_branch = (body(name, outer_nodes, [stored("w", big + k)]) for k, name in enumerate(("t", "e")))
    loop = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["go_out"]), helper.make_node("Add", ["state", "step"], ["state_out"])],
        "loop",
        [value("i", [], TensorProto.INT64), value("go", [], TensorProto.BOOL), value("state", [13, 5])],
        [value("go_out", [], TensorProto.BOOL), value("state_out", [13, 5])],
        [stored("step", big * 2)],
        value_info=[value("step", [13, 5])],
    )
    tables = [stored("p", big), stored("q", ramp(3))]
    nodes = [
        helper.make_node("If", ["cond"], ["picked"], "", then_branch=then_branch, else_branch=else_branch),
        helper.make_node("Loop", ["trip", "cond", "picked"], ["looped"], "loop", body=loop),
        constant("const", ramp(2, 40), "named"),
        helper.make_node("Constant", [], ["sparse_const"], sparse_value=sparse),
        helper.make_node("Custom", ["const"], ["custom"], domain="my.domain", tables=tables),
        helper.make_node("Block", ["looped"], ["blocked"], domain="my.domain", doc_string="calls Block"),
        helper.make_node("Add", ["blocked", "w"], ["y"]),
    ]
    nodes[5].overload = "other"
    nodes[6].metadata_props.add(key="node", value="meta")
    return nodes


def _tensors_of_everything() -> list[TensorProto]:
    big = ramp(13, 5)
    tensors = [
        stored("w", big),
        stored("float", big, "float_data"),
        stored("double", ramp(66, dtype=np.float64), "double_data"),
        stored("double raw", ramp(66, dtype=np.float64)),
        stored("half", ramp(65, dtype=np.float16), "int32_data"),
        stored("sixty-four", ramp(64)),
        stored("long", ramp(100, dtype=np.int64)),
        stored("long typed", ramp(100, dtype=np.int64), "int64_data"),
        stored("bytes", ramp(200, dtype=np.uint8)),
        stored("bytes typed", ramp(200, dtype=np.uint8), "int32_data"),
        stored("none", np.zeros((0, 4), np.float32)),
        stored("scalar", np.array(2.5, np.float32)),
        stored("trip", np.array(2, np.int64)),
        TensorProto(name="words", data_type=TensorProto.STRING, dims=[2], string_data=[b"\xff\x00", "ü".encode()]),
        helper.make_tensor("nibbles", TensorProto.INT4, [70], [k % 8 for k in range(70)]),
        TensorProto(name="complex", data_type=TensorProto.COMPLEX64, dims=[70], float_data=ramp(140).tolist()),
        helper.make_tensor("e4m3", TensorProto.FLOAT8E4M3FN, [70], bytes(range(70)), raw=True),
        helper.make_tensor("bf16", TensorProto.BFLOAT16, [70], [float(k) for k in range(70)]),
    ]
    tensors[0].doc_string = "the weight"
    tensors[0].metadata_props.add(key="t", value="u")
    tensors[3].data_location = TensorProto.DEFAULT  # said, not only meant: onnx.load leaves it so
    return tensors


def tensors_in(message: Any) -> list[onnx.TensorProto]:
    """Every TensorProto of `message`, those of sparse tensors too."""
    if isinstance(message, onnx.TensorProto):
        return [message]
    found = []
    for field, there in message.ListFields():
        if field.message_type is not None:
            for one in there if hasattr(there, "__len__") else [there]:
                found += tensors_in(one)
    return found


def relu(*tensors: TensorProto) -> onnx.ModelProto:
    return proto([helper.make_node("Relu", [tensors[0].name], ["y"])], tensors)


def node(
    op_type: str, *inputs: str, out: str = "y", name: str = "", domain: str = "", **attributes: Any
) -> onnx.NodeProto:
    return helper.make_node(op_type, list(inputs), [out], name, domain=domain, **attributes)


def model_of(*nodes: onnx.NodeProto, functions: tuple[onnx.FunctionProto, ...] = (), **tensors: NDArray) -> Model:
    return from_proto(
        proto(
            nodes,
            [stored(name, array) for name, array in tensors.items()],
            inputs=[value("x", None)],
            functions=functions,
        )
    )
