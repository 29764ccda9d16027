"""The methods: one module per family, each method the few lines of its mathematics."""

from . import activation, cam, gradient  # importing them registers their methods
from .base import Method, list_methods, register

__all__ = ["Method", "activation", "cam", "gradient", "list_methods", "register"]
