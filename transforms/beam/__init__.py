"""Helpers with Beam that several steps share."""
