"""Catalogues: recordings that are listed, and recordings that are left out."""
