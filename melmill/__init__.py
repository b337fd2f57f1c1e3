"""melmill: audio catalogues into log-mel training data, on Apache Beam."""

__version__ = "0.1.0"
