"""The stages of the data's path: thin PTransforms, and the pure functions they call."""

__version__ = "0.1.0"
