"""Made-up songs, for the demo and the example notebooks."""
