"""Turns samples into features: chunks, channels, sample rates, spectrograms."""
