"""Sparse storage of weights that decodes itself in any ONNX runtime.

`encode_model` stores every tensor of a model in its smallest form, `densify` undoes it. Below that, arrays in and
protobuf messages out: `count` a weight, `choose` a `Coding` (index scheme and value scheme), `coding.encode` it; the
model then gets its `initializers`, its `nodes`, its `functions`, and the `domain_import`. `decoders` finds the coding
of every encoded tensor, `scheme_of` the index scheme of a node, `coding.decode` undoes it.
"""

from __future__ import annotations

from .apply import EncodedModel, EncodedTensor, encode_model, file_nbytes
from .bitmask import Bitmask
from .blocks import Blocks
from .choose import Choice, Plan, choose
from .codebook import Codebook
from .coding import Coding
from .counts import Counts, Values, count
from .densify import Decoder, decode, decoders, densify, sparse_tensors
from .full import Full
from .functions import DOMAIN, DOMAIN_VERSION
from .gaps import Gaps
from .limits import FIRST_OPSET, Support
from .narrow import Narrow
from .patterns import Patterns
from .protos import MIN_IR_VERSION, domain_import
from .registry import CODINGS, SCHEMES, VALUE_SCHEMES, scheme_of, values_of
from .rice import Rice
from .rice_codes import RiceCodes
from .scheme import Encoded, Layout, Scheme, ValueScheme
from .split import Split
from .standalone import OUTPUT, standalone_decoders
from .two_of_four import TwoOfFour

__all__ = [
    "CODINGS",
    "DOMAIN",
    "DOMAIN_VERSION",
    "FIRST_OPSET",
    "MIN_IR_VERSION",
    "OUTPUT",
    "SCHEMES",
    "VALUE_SCHEMES",
    "Bitmask",
    "Blocks",
    "Choice",
    "Codebook",
    "Coding",
    "Counts",
    "Decoder",
    "Encoded",
    "EncodedModel",
    "EncodedTensor",
    "Full",
    "Gaps",
    "Layout",
    "Narrow",
    "Patterns",
    "Plan",
    "Rice",
    "RiceCodes",
    "Scheme",
    "Split",
    "Support",
    "TwoOfFour",
    "ValueScheme",
    "Values",
    "choose",
    "count",
    "decode",
    "decoders",
    "densify",
    "domain_import",
    "encode_model",
    "file_nbytes",
    "scheme_of",
    "sparse_tensors",
    "standalone_decoders",
    "values_of",
]
