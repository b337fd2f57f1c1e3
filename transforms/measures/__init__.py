"""Measures of whole recordings: level, damage, noise, origin and channels."""
