"""Catalogues: what is listed, and what is left out."""
