"""What every part speaks of: records, errors, names."""
