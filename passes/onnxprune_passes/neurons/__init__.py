"""Neurons as integer ids that flow through the graph: who is coupled with whom, who is dead, and how to take them out.

Every neuron (a slice of a weight along the axis of its outputs) gets an id; each op's rule says what the op does to
the ids of the values it reads. Ops that work on each coordinate unite the ids of their operands, ops that lay entries
out anew lay the ids out with them, weights read ids on one side and make new ones on the other, and what mixes
neurons pins them.

    bodies     the nodes of the main graph and of the bodies in it, under full names
    views      stored tensors as values show them: turned, merged, cast
    graph      these nodes, shapes, constants, readers
    slices     all-zero slices of tensors, and tensors cut, in chunks
    flow       what a value carries: ids, and where it is a known constant
    records    what the walk notes down: pins, ties, weights that read neurons, weights that make them
    trace      the walk, which knows no op
    rule       what a rule is;  rules/  one file for each family of ops
    classes    united ids
    decide     which neurons may go, and what is in the way of the others
    cut        take them out;  rewire  new constants;  fold  constants into biases
    sums       neurons that a sum needs even when their weights are zero
    coupled    groups of channels that lie along the same axes;  choose  which of them are weakest
    groups     the same as something to read;  aside  dead neurons of weights that the walk does not reach

A neuron goes when each weight that may read it either has nothing but zeros for it (output-dead), or sees it as a
constant that folds exactly into its bias (input-dead), and nothing pins it.
"""

from .groups import NeuronGroup, find_groups

__all__ = ["NeuronGroup", "find_groups"]
