"""Opens and decodes any recording, sample for sample."""
