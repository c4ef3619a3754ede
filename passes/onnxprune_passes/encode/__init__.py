"""Sparse storage of weights that decodes itself in any ONNX runtime.

`encode_model` stores every tensor of a model in its smallest form, `densify` undoes it. Below that, arrays in and
protobuf messages out: `count` a weight, `choose` a scheme, `scheme.encode` it; the model then gets its
`initializers`, a `decoder_node`, the scheme's `function` and the `domain_import`. `scheme_of` finds the scheme of a
decoder node, `scheme.decode` undoes it.
"""

from __future__ import annotations

from .apply import EncodedModel, EncodedTensor, encode_model
from .bitmask import Bitmask
from .choose import Choice, Plan, choose
from .densify import Decoder, decode, decoders, densify, sparse_tensors
from .functions import DOMAIN, DOMAIN_VERSION
from .gaps import Gaps
from .protos import MIN_IR_VERSION, decoder_node, domain_import, initializers
from .registry import SCHEMES, scheme_of
from .scheme import FIRST_OPSET, Counts, Encoded, Layout, Scheme, Support, count
from .standalone import OUTPUT, standalone_decoders

__all__ = [
    "DOMAIN",
    "DOMAIN_VERSION",
    "FIRST_OPSET",
    "MIN_IR_VERSION",
    "OUTPUT",
    "SCHEMES",
    "Bitmask",
    "Choice",
    "Counts",
    "Decoder",
    "Encoded",
    "EncodedModel",
    "EncodedTensor",
    "Gaps",
    "Layout",
    "Plan",
    "Scheme",
    "Support",
    "choose",
    "count",
    "decode",
    "decoder_node",
    "decoders",
    "densify",
    "domain_import",
    "encode_model",
    "initializers",
    "scheme_of",
    "sparse_tensors",
    "standalone_decoders",
]
