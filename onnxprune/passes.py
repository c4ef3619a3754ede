"""The pass API: everything of `onnxprune_passes` that a program needs, under one name.

from onnxprune.passes import MagnitudePrune, RemoveDeadNeurons, Sparsity, State, chain, load, save

state = chain(MagnitudePrune(Sparsity(0.9)), RemoveDeadNeurons())(State(load("model.onnx")))
save(state.model, "smaller.onnx")
"""

from __future__ import annotations

from onnxprune_passes.channel_groups import ChannelGroup, find_channels
from onnxprune_passes.channels import PruneChannels
from onnxprune_passes.dead_neurons import RemoveDeadNeurons
from onnxprune_passes.edit import edit
from onnxprune_passes.encode import EncodedModel, EncodedTensor, densify, encode_model
from onnxprune_passes.errors import (
    DataError,
    EncodeError,
    ModelError,
    OnnxPruneError,
    PassError,
    SelectionError,
    VerifyError,
)
from onnxprune_passes.fixed import fixed_transform
from onnxprune_passes.fold import FoldBatchNorm, GatherLiveInputs, RemoveNoOps, RemoveUnused
from onnxprune_passes.magnitude import MagnitudePrune
from onnxprune_passes.masks import Masks, apply_masks
from onnxprune_passes.model import Initializers, Model
from onnxprune_passes.neurons.groups import NeuronGroup, find_groups
from onnxprune_passes.pipeline import Change, Pass, Skip, State, chain, repeat, until_stable
from onnxprune_passes.storage import Staged, from_proto, from_text, load, save, stage, to_proto, to_text
from onnxprune_passes.thresholds import NM, Absolute, Quality, Sparsity, Threshold
from onnxprune_passes.values import QuantizeValues, RoundValues, ShareValues
from onnxprune_passes.weights import Weight, WeightUse, find_weights

__all__ = [
    "NM",
    "Absolute",
    "Change",
    "ChannelGroup",
    "DataError",
    "EncodeError",
    "EncodedModel",
    "EncodedTensor",
    "FoldBatchNorm",
    "GatherLiveInputs",
    "Initializers",
    "MagnitudePrune",
    "Masks",
    "Model",
    "ModelError",
    "NeuronGroup",
    "OnnxPruneError",
    "Pass",
    "PassError",
    "PruneChannels",
    "Quality",
    "QuantizeValues",
    "RemoveDeadNeurons",
    "RemoveNoOps",
    "RemoveUnused",
    "RoundValues",
    "SelectionError",
    "ShareValues",
    "Skip",
    "Sparsity",
    "Staged",
    "State",
    "Threshold",
    "VerifyError",
    "Weight",
    "WeightUse",
    "apply_masks",
    "chain",
    "densify",
    "edit",
    "encode_model",
    "find_channels",
    "find_groups",
    "find_weights",
    "fixed_transform",
    "from_proto",
    "from_text",
    "load",
    "repeat",
    "save",
    "stage",
    "to_proto",
    "to_text",
    "until_stable",
]
