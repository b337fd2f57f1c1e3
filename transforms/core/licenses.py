"""Where recordings come from: the columns that say it, and the identifiers of licences."""

from __future__ import annotations

import re
from collections.abc import Iterable

#: Names of columns that say where recordings come from, in any case. The first that exists counts.
PROVENANCE_COLUMNS = {
    "license": ("license", "licence"),
    "source": ("source",),
    "attribution": ("attribution",),
}

_CREATIVE_COMMONS = re.compile(
    r"https?://(?:www\.)?creativecommons\.org/(licenses|publicdomain)/([a-z0-9+-]+)/([0-9.]+)"
    r"(?:/([a-z]{2,3}))?(?:/(?:deed|legalcode)[^/]*)?/*(?:[?#].*)?",
    re.IGNORECASE,
)
_PUBLIC_DOMAIN = {"zero": "CC0", "mark": "CC-PDM"}
#: Creative Commons has one version of CC0.
_SHORT_NAMES = {"CC0": "CC0-1.0"}


def provenance_columns(names: Iterable[str]) -> dict[str, str]:
    """Return the columns that say where recordings come from, by their meaning.

    >>> provenance_columns(["genre", "Licence", "source"])
    {'license': 'Licence', 'source': 'source'}
    """
    known = {name.casefold(): name for name in names}
    columns = {
        meaning: next((known[name] for name in spellings if name in known), "")
        for meaning, spellings in PROVENANCE_COLUMNS.items()
    }
    return {meaning: name for meaning, name in columns.items() if name}


def license_id(text: str) -> str:
    """Return the SPDX identifier that a text of Creative Commons stands for, else the text.

    Case, spaces and underscores of names of Creative Commons do not matter.

    Examples
    --------
    >>> license_id("https://creativecommons.org/licenses/by/4.0/"), license_id("cc by 4.0")
    ('CC-BY-4.0', 'CC-BY-4.0')
    >>> license_id("http://creativecommons.org/publicdomain/zero/1.0/"), license_id("CC0")
    ('CC0-1.0', 'CC0-1.0')
    >>> license_id(" Apache-2.0"), license_id("All rights reserved")
    ('Apache-2.0', 'All rights reserved')
    """
    text = " ".join(text.split())
    if url := _CREATIVE_COMMONS.fullmatch(text):
        kind, name, version, country = url.groups()
        first = _PUBLIC_DOMAIN.get(name.lower(), f"CC-{name}" if kind == "licenses" else name)
        return "-".join(filter(None, (first, version, country))).upper()
    if re.match(r"cc(0|[\s_-]|$)", text, re.IGNORECASE):
        name = re.sub(r"[\s_]+", "-", text).upper()
        return _SHORT_NAMES.get(name, name)
    return text


def license_ids(value: object) -> list[str]:
    """Return the identifiers of the licences in a cell, which may be empty or a list.

    >>> license_ids(("CC BY 4.0", None, "MIT")), license_ids(" "), license_ids(None)
    (['CC-BY-4.0', 'MIT'], [], [])
    """
    values = value if isinstance(value, list | tuple) else [value]
    names = (license_id(str(text)) for text in values if text is not None)
    return [name for name in names if name]
