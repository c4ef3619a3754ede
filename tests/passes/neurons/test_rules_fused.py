"""Fused ops: attention in one node, products, convolutions and activations of onnxruntime's own domain."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

MS = {"domains": ', "com.microsoft": 1', "exact": False}
ONNX = {"opset": 23, "ir": 11, "exact": False}
TOKENS = "g (float[N,5,4] x) => (float[N,5,2] y)"
PROJECT = "q = MatMul(x, wq) k = MatMul(x, wk) v = MatMul(x, wv)"
QKV = dict.fromkeys(("wq", "wk", "wv"), ((4, 6),))
HEADS = "q_num_heads=3, kv_num_heads=3"
ROWS = "g (float[N,3] x) => (float[N,2] y)"
DENSE = {"w1": ((3, 4), {1: [1]}), "b1": [1.0, 2.0, 3.0, 4.0], "w2": ((4, 2), {0: [3]})}
IMAGE = "g (float[N,2,4,4] x) => (float[N,2,h,w] y)"
CONV = {"w1": ((4, 2, 1, 1), {0: [1]}), "b1": [1.0, 2.0, 3.0, 4.0], "w2": ((2, 4, 1, 1), {1: [3]})}


def attention(call: str, text: str = TOKENS) -> str:
    return f"{text} {{ {PROJECT} a = {call} y = MatMul(a, wo) }}"


def dense(middle: str) -> str:
    return f"{ROWS} {{ h = MatMul(x, w1) {middle} y = MatMul(m, w2) }}"


SIZED = {"split": [0, 0, 3, 2], "join": [0, 0, -1]}
SPLIT = """qs = Reshape(q, split) ks = Reshape(k, split) vs = Reshape(v, split) qh = Transpose<perm=[0,2,1,3]>(qs)
kh = Transpose<perm=[0,2,1,3]>(ks) vh = Transpose<perm=[0,2,1,3]>(vs)"""
Case = tuple[str, dict[str, Any], dict[str, Any]]

CASES: dict[str, Case] = {
    "fused_attention_head": (
        attention(f"Attention<{HEADS}>(q, k, v)"),
        {**QKV, "wo": ((6, 2), {0: [2, 3]})},
        ONNX,
    ),
    "fused_attention_head_of_zero_values": (
        attention(f"Attention<{HEADS}>(q, k, v)"),
        {**QKV, "wv": ((4, 6), {1: [4, 5]}), "wo": ((6, 2),)},
        ONNX,
    ),
    "fused_attention_inner": (
        attention(f"Attention<{HEADS}>(q, k, v)"),
        {**QKV, "wq": ((4, 6), {1: [1]}), "wk": ((4, 6), {1: [3, 5]}), "wo": ((6, 2),)},
        ONNX,
    ),
    "fused_attention_values": (
        attention(f"Attention<{HEADS}, scale=0.5, is_causal=1>(q, k, v)"),
        {**QKV, "wv": ((4, 6), {1: [1, 3]}), "wo": ((6, 2), {0: [5]})},
        ONNX,
    ),
    "fused_attention_half_a_head": (
        attention(f"Attention<{HEADS}>(q, k, v)"),
        {**QKV, "wo": ((6, 2), {0: [2]})},
        ONNX,
    ),
    "fused_attention_shared_keys": (
        attention("Attention<q_num_heads=4, kv_num_heads=2>(q, k, v)"),
        {
            "wq": ((4, 8),),
            "wk": ((4, 4),),
            "wv": ((4, 4),),
            "wo": ((8, 2), {0: [0, 1, 2, 3, 4]}),
        },
        ONNX,
    ),
    "fused_attention_four_axes": (
        f"""{TOKENS} {{ {PROJECT} {SPLIT} o = Attention(qh, kh, vh) oh = Transpose<perm=[0,2,1,3]>(o)
        f = Reshape(oh, join) y = MatMul(f, wo) }}""",
        {**QKV, **SIZED, "wo": ((6, 2), {0: [2, 3]}), "wq": ((4, 6), {1: [0, 4]})},
        ONNX,
    ),
    "fused_attention_four_axes_inner": (
        f"""{TOKENS} {{ {PROJECT} {SPLIT} o = Attention(qh, kh, vh) oh = Transpose<perm=[0,2,1,3]>(o)
        f = Reshape(oh, join) y = MatMul(f, wo) }}""",
        {**QKV, **SIZED, "wo": ((6, 2),), "wq": ((4, 6), {1: [0, 2, 4]})},
        ONNX,
    ),
    "fused_attention_mask": (
        attention(f"Attention<{HEADS}>(q, k, v, mask)"),
        {**QKV, "mask": np.triu(np.full((5, 5), -9, np.float32), 1), "wo": ((6, 2), {0: [2, 3]})},
        ONNX,
    ),
    "fused_attention_mask_a_head": (
        attention(f"Attention<{HEADS}>(q, k, v, mask)"),
        {**QKV, "mask": ((1, 3, 5, 5),), "wo": ((6, 2), {0: [2, 3]})},
        ONNX,
    ),
    "fused_attention_keys_are_an_output": (
        f"""g (float[N,5,4] x) => (float[N,5,2] y, float[N,3,5,2] pk) {{ {PROJECT}
        a, pk, pv = Attention<{HEADS}>(q, k, v) y = MatMul(a, wo) }}""",
        {**QKV, "wo": ((6, 2), {0: [2, 3]})},
        ONNX,
    ),
    "multi_head_attention": (
        attention("com.microsoft.MultiHeadAttention<num_heads=3>(q, k, v, b)"),
        {**QKV, "b": ((18,),), "wo": ((6, 2), {0: [2, 3]})},
        MS,
    ),
    "multi_head_attention_inner": (
        attention("com.microsoft.MultiHeadAttention<num_heads=3>(q, k, v, b)"),
        {
            **QKV,
            "wq": ((4, 6), {1: [1, 3, 5]}),
            "b": np.array([1, 0, 1, 0, 1, 0, *range(1, 13)], np.float32),
            "wo": ((6, 2),),
        },
        MS,
    ),
    "multi_head_attention_values": (
        attention("com.microsoft.MultiHeadAttention<num_heads=3>(q, k, v)"),
        {**QKV, "wo": ((6, 2), {0: [0, 2, 4]})},
        MS,
    ),
    "multi_head_attention_packed": (
        f"""{TOKENS} {{ p = MatMul(x, w) r = Reshape(p, split) a = com.microsoft.MultiHeadAttention<num_heads=3>(r)
        y = MatMul(a, wo) }}""",
        {"w": ((4, 18),), "split": [0, 0, 3, 3, 2], "wo": ((6, 2), {0: [2, 3]})},
        MS,
    ),
    "packed_attention": (
        f"""{TOKENS} {{ h = MatMul(x, w1) a = com.microsoft.Attention<num_heads=3>(h, w, b) y = MatMul(a, wo) }}""",
        {"w1": ((4, 4), {1: [0]}), "w": ((4, 18), {0: [2]}), "b": ((18,),), "wo": ((6, 2), {0: [4, 5]})},
        MS,
    ),
    "packed_attention_inner": (
        f"{TOKENS} {{ a = com.microsoft.Attention<num_heads=3>(x, w, b) y = MatMul(a, wo) }}",
        {
            "w": ((4, 18), {1: [0, 2, 4]}),
            "b": np.array([0, 1, 0, 1, 0, 1, *range(1, 13)], np.float32),
            "wo": ((6, 2),),
        },
        MS,
    ),
    "packed_attention_constant_feature": (
        f"""{TOKENS} {{ h = MatMul(x, w1) c = Add(h, b1) a = com.microsoft.Attention<num_heads=3>(c, w, b)
        y = MatMul(a, wo) }}""",
        {
            "w1": ((4, 4), {1: [0]}),
            "b1": [0.5, 0.25, 0.5, 0.25],
            "w": ((4, 18),),
            "b": ((18,),),
            "wo": ((6, 2),),
        },
        MS,
    ),
    "packed_attention_turning": (
        f"{TOKENS} {{ a = com.microsoft.Attention<num_heads=1, do_rotary=1>(x, w, b) y = MatMul(a, wo) }}".replace(
            "[N,5,4]", "[N,5,16]"
        ),
        {"w": ((16, 48), {1: [0]}), "b": np.zeros(48, np.float32), "wo": ((16, 2), {0: [1]})},
        MS,
    ),
    "fused_matmul": (
        dense("m = Relu(h)").replace("MatMul(m, w2)", "com.microsoft.FusedMatMul<alpha=0.5, transB=1>(m, w2)"),
        {**DENSE, "w2": ((2, 4), {1: [3]})},
        {**MS, "exact": True},
    ),
    "fused_matmul_scores": (
        f"""{TOKENS} {{ {PROJECT} {SPLIT} s = com.microsoft.FusedMatMul<alpha=0.5, transB=1>(qh, kh)
        o = MatMul(s, vh) oh = Transpose<perm=[0,2,1,3]>(o) f = Reshape(oh, join) y = MatMul(f, wo) }}""",
        {**QKV, **SIZED, "wo": ((6, 2), {0: [2, 3]}), "wq": ((4, 6), {1: [0]}), "wk": ((4, 6), {1: [4]})},
        {**MS, "exact": True},
    ),
    "fused_matmul_turned_input": (
        f"""{ROWS.replace("[N,", "[4,")} {{ h = MatMul(x, w1) m = com.microsoft.FusedMatMul<transA=1>(h, x)
        y = MatMul(m, w2) }}""",
        {"w1": ((3, 4), {1: [1]}), "w2": ((3, 2),)},
        {**MS, "exact": True},
    ),
    "fused_conv": (
        f"""{IMAGE} {{ m = com.microsoft.FusedConv<activation="Relu", kernel_shape=[1,1]>(x, w1, b1)
        y = com.microsoft.FusedConv<activation="Relu", kernel_shape=[1,1]>(m, w2) }}""",
        CONV,
        {**MS, "exact": True},
    ),
    "fused_conv_adds": (
        f"""{IMAGE} {{ c = Conv(x, w3, b3)
        m = com.microsoft.FusedConv<activation="Relu", kernel_shape=[1,1]>(x, w1, b1, c) y = Conv(m, w2) }}""",
        {**CONV, "w3": ((4, 2, 1, 1), {0: [1]}), "b3": [1.0, 2.0, 3.0, 4.0]},
        {**MS, "exact": True},
    ),
    "fused_gelu": (dense("m = com.microsoft.Gelu(h)"), DENSE, MS),
    "fused_bias_gelu": (dense("m = com.microsoft.BiasGelu(h, b1)"), DENSE, MS),
    "fused_fast_gelu": (dense("m = com.microsoft.FastGelu(h, b1)"), DENSE, MS),
    "fused_quick_gelu": (dense("a = Add(h, b1) m = com.microsoft.QuickGelu<alpha=1.5>(a)"), DENSE, MS),
    "fused_skip_layer_norm": (
        dense("m = com.microsoft.SkipLayerNormalization(h, h, s)").replace("[N,", "[N,5,"),
        {**DENSE, "s": ((4,),)},
        MS,
    ),
    "rms_norm": (dense("m = RMSNormalization(h, s)"), {**DENSE, "s": ((4,),)}, ONNX),
    "layer_norm_beside": (
        f"""{TOKENS} {{ q = MatMul(x, wq) qs = Reshape(q, split) n = LayerNormalization(qs, s) f = Reshape(n, join)
        y = MatMul(f, wo) }}""",
        {**SIZED, "wq": ((4, 6),), "s": ((2,),), "wo": ((6, 2), {0: [2, 3]})},
        {"exact": False},
    ),
    "rms_norm_of_heads": (
        f"""{TOKENS} {{ {PROJECT} {SPLIT} qn = RMSNormalization(qh, s) kn = RMSNormalization(kh, s)
        o = Attention(qn, kn, vh) oh = Transpose<perm=[0,2,1,3]>(o) f = Reshape(oh, join) y = MatMul(f, wo) }}""",
        {**QKV, **SIZED, "s": ((2,),), "wo": ((6, 2), {0: [2, 3]}), "wq": ((4, 6), {1: [0, 2, 4]})},
        ONNX,
    ),
    "swiglu": (
        f"""{ROWS} {{ g1 = MatMul(x, wg) s = Sigmoid(g1) a = Mul(g1, s) u = MatMul(x, wu) m = Mul(a, u)
        y = MatMul(m, wd) }}""",
        {"wg": ((3, 5), {1: [0]}), "wu": ((3, 5), {1: [2]}), "wd": ((5, 2), {0: [4]})},
        {"exact": False},
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_golden(name: str, golden: Callable[..., None]) -> None:
    golden(name, *CASES[name])
