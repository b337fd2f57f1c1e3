"""Opens and decodes any recording with exact sample positions."""
