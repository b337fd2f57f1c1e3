"""From samples to features: chunks, channels, rates, spectrograms."""
