"""The tool: methods, the gradient engine, trainer, evaluation, exports, command line."""

__version__ = "0.1.0"
