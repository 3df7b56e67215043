"""What can go wrong, each also a stdlib error, each saying what to do next."""

from __future__ import annotations


class SelfEditError(Exception):
    """Base of every error that selfedit raises on purpose; the command prints it without a traceback."""


class SettingsError(SelfEditError, ValueError):
    """A setting is missing, unknown or out of range."""


class TaskFileError(SelfEditError, ValueError):
    """A file of tasks, or a logged round, can't be read; the message names file, line and field."""


class ModelError(SelfEditError, ValueError):
    """A model directory or hub id can't be used (no tokenizer, pickled weights only, not a causal LM)."""


class UpdateError(SelfEditError, ValueError):
    """An update can't be trained on; the message names the member and the field."""


class OutOfMemoryError(SelfEditError, MemoryError):
    """Not even one member fits into the memory of its device."""


class GraderError(SelfEditError, RuntimeError):
    """Answers can't be graded: a judge that can't be reached, or a reward function that fails on all of them."""


class RunError(SelfEditError, RuntimeError):
    """A run directory is in use, of other settings, or damaged."""


class DiskError(SelfEditError, OSError):
    """The run's disk is full or can't be written; what was committed is kept."""


class PluginError(SelfEditError, ImportError):
    """A plug-in can't be found or used; the message names the package that brings it."""
