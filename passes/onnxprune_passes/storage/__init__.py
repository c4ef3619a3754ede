"""Files in, files out: read a model with its weights left in the file, write one as a stream, never half.

wire    walk the serialized protobuf and exchange tensors in it
stubs   what stands in the skeleton for a tensor whose bytes live outside it
keys    the key of every tensor of a model
load    file or ModelProto -> Model
save    Model -> file or ModelProto
"""

from .load import from_proto, from_text, load
from .save import Staged, save, stage, to_proto, to_text

__all__ = ["Staged", "from_proto", "from_text", "load", "save", "stage", "to_proto", "to_text"]
