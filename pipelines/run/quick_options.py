"""Beam's options with cached views."""

from __future__ import annotations

from typing import Any

from apache_beam.options.pipeline_options import PipelineOptions


class QuickOptions(PipelineOptions):
    """Options that cache their views.

    Beam asks for a view a thousand times while it builds a pipeline, and creates a parser for each
    view.
    """

    def view_as(self, cls: type[Any]) -> Any:
        """Return the view of a class, which shares its values with these options."""
        views = self.__dict__.setdefault("_views", {})
        if cls not in views:
            views[cls] = super().view_as(cls)
        return views[cls]
