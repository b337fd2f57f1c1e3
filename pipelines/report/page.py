"""The page of a report: one HTML file without scripts, within a budget of bytes."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from typing import Any

import jinja2
from markupsafe import Markup

import melmill
from melmill.pipelines.explore import texts
from melmill.pipelines.report.axes import hz_ticks, second_ticks
from melmill.pipelines.report.contents import Contents
from melmill.pipelines.report.examples import Example, by_rank, make_examples
from melmill.pipelines.report.excerpts import BRIGHTEST_DBFS, DARKEST_DBFS, SOUND_RATE_HZ
from melmill.transforms.core.errors import ConfigError
from melmill.transforms.measures.registry import MEASURES
from melmill.transforms.store.filesystems import StorageOptions

#: Room for numbers that are known only at the end.
_MARGIN_BYTES = 4096


@dataclass(slots=True)
class Shown:
    """The examples that a page shows.

    Attributes
    ----------
    html
        Examples by measure.
    is_cut
        Whether the budget left out examples.
    picture_bytes, sound_bytes
        Size of all pictures and sounds.
    """

    html: dict[str, list[Markup]] = field(default_factory=dict)
    is_cut: bool = False
    picture_bytes: int = 0
    sound_bytes: int = 0


def render_report(
    contents: Contents,
    budget_bytes: int,
    source_options: StorageOptions = (),
    workers: int = 2,
    progress: Callable[[int], None] = lambda number: None,
) -> str:
    """Return the page of a report, at most as large as the budget in UTF-8.

    Examples are added until the next does not fit: the worst of each defect first.

    Parameters
    ----------
    contents
        What the report says.
    budget_bytes
        Largest size.
    source_options
        fsspec options for the recordings' own store.
    workers
        Number of decoder processes.
    progress
        Function that is called with the number of examples that are made.

    Raises
    ------
    ConfigError
        The page does not fit even without examples.
    """
    shown, empty = Shown(), _render(contents, Shown(), budget_bytes)
    left = budget_bytes - _size(empty) - _MARGIN_BYTES
    if left < 0:
        raise ConfigError(
            f"--max-size: the page needs {(_size(empty) + _MARGIN_BYTES) / 1e6:.2f} MB without "
            f"pictures and sound, and {budget_bytes / 1e6:g} MB are allowed; allow more, or list "
            "less with --top"
        )
    with closing(make_examples(contents, source_options, workers)) as examples:
        for number, example in enumerate(examples, 1):
            html = _render_example(example)
            left -= _size(html)
            if left < 0:
                shown.is_cut = True
                break
            _add(shown, example, html)
            progress(number)
    return _render(contents, shown, budget_bytes)


def _add(shown: Shown, example: Example, html: str) -> None:
    # The template has escaped all texts.
    shown.html.setdefault(example.defect.rule.measure, []).append(Markup(html))
    if example.excerpt is not None:
        shown.picture_bytes += len(example.excerpt.png)
        shown.sound_bytes += len(example.excerpt.mp3)


def _render(contents: Contents, shown: Shown, budget_bytes: int) -> str:
    return (
        _templates()
        .get_template("report.html")
        .render(
            contents=contents,
            reported=contents.reported,
            opened=contents.reported.opened,
            shown=shown,
            wanted=len(by_rank(contents.defects)),
            budget_bytes=budget_bytes,
            style=_style(),
            dbfs=(DARKEST_DBFS, BRIGHTEST_DBFS),
            sound_rate_hz=SOUND_RATE_HZ,
            measures=MEASURES,
            melmill_version=melmill.__version__,
        )
    )


def _render_example(example: Example) -> str:
    values: Mapping[str, Any] = {"example": example, "excerpt": example.excerpt}
    return _templates().get_template("example.html").render(values)


def _size(html: str) -> int:
    return len(html.encode())


def _data_uri(data: bytes, media_type: str) -> str:
    return f"data:{media_type};base64,{base64.b64encode(data).decode()}"


def _style() -> Markup:
    """Return the style of the explorer's pages, and that of a report."""
    names = ("explore", "assets", "style.css"), ("report", "pages", "report.css")
    root = files("melmill.pipelines")
    sheets = (root.joinpath(*name).read_text(encoding="utf-8") for name in names)
    return Markup("\n".join(sheets))


@cache
def _templates() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(str(files("melmill.pipelines.report") / "pages")),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    for name in texts.FILTERS:
        environment.filters[name] = getattr(texts, name)
    environment.filters["data_uri"] = _data_uri
    environment.filters["hz_ticks"] = hz_ticks
    environment.filters["second_ticks"] = second_ticks
    return environment
