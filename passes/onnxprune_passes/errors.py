"""Every error onnxprune raises on purpose.

    OnnxPruneError
    ├── ModelError       the file or graph cannot be read, written or understood
    ├── SelectionError   a name, glob or option selects nothing, or selects twice
    ├── PassError        a pass failed; says which, and which ran before it
    ├── EncodeError      a tensor cannot be stored, or a stored one cannot be decoded, as asked
    ├── VerifyError      two models that should agree do not, or could not be compared
    └── DataError        the data handed in does not fit the model

A message is one line: what, where, found, expected, how to fix.
"""

from __future__ import annotations


class OnnxPruneError(Exception):
    """Base of every error that onnxprune raises on purpose."""


class ModelError(OnnxPruneError):
    """The file or graph cannot be read, written or understood."""


class SelectionError(OnnxPruneError):
    """A name, glob or option selects nothing, or contradicts another."""


class PassError(OnnxPruneError):
    """A pass failed; the message names it and those that ran before it."""


class EncodeError(OnnxPruneError):
    """A tensor cannot be stored, or a stored one cannot be decoded, as asked."""


class VerifyError(OnnxPruneError):
    """Two models that should agree do not, or they could not be compared."""


class DataError(OnnxPruneError):
    """The data handed in does not fit the model."""
