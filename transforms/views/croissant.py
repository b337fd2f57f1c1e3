"""Croissant metadata of a Parquet view, which search engines for datasets read.

The format comes from MLCommons
(https://docs.mlcommons.org/croissant/docs/croissant-spec-1.1.html). No library from MLCommons is
needed to write it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict
from typing import Any

from melmill.transforms.rows.schema import RowSchema
from melmill.transforms.snapshot.provenance import MOST_LISTED, Provenance

Json = dict[str, Any]

_TYPES = {
    "string": "sc:Text",
    "int32": "sc:Integer",
    "int64": "sc:Integer",
    "float": "sc:Float",
    "double": "sc:Float",
    "bool": "sc:Boolean",
    "float32": "sc:Float",
    "int16": "sc:Integer",
    "flac": "sc:AudioObject",
}


#: Identifier of the record set of licences, sources and attributions; no split can have it.
_PROVENANCE = "split-provenance"
_ABOUT_PROVENANCE = (
    f"Licences, sources and attributions of each split, at most {MOST_LISTED} of each: those of "
    "the most recordings. All are in the columns of the rows."
)


def croissant(
    name: str,
    version: str,
    description: str,
    splits: Iterable[str],
    schema: RowSchema,
    provenance: Provenance,
) -> Json:
    """Return the content of ``croissant.json``: one record set for each split.

    Another record set lists the licences, sources and attributions of each split, and
    ``license`` the licences of the whole view, if there are columns that say so.

    Parameters
    ----------
    name
        Name of the view.
    version
        Version, as ``x.y.z``.
    description
        Description for people.
    splits
        Names of the splits; a split's files are ``data/SPLIT-*.parquet``.
    schema
        Columns of the rows.
    provenance
        Where the recordings come from.
    """
    names = list(splits)
    return {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "name": name,
        "version": version,
        "description": description,
        "conformsTo": "http://mlcommons.org/croissant/1.1",
        **({"license": list(provenance.licenses)} if provenance.licenses else {}),
        "distribution": [_file_set(split) for split in names],
        "recordSet": [
            *(_record_set(split, schema) for split in names),
            *([_provenance(provenance)] if provenance.origins else []),
        ],
    }


def _provenance(provenance: Provenance) -> Json:
    """Return the record set of licences, sources and attributions, which holds its records."""
    records = [asdict(origin) for origin in provenance.origins]
    types = {
        name: "int64" if isinstance(value, int) else "string" for name, value in records[0].items()
    }
    return {
        "@type": "cr:RecordSet",
        "@id": _PROVENANCE,
        "name": _PROVENANCE,
        "description": _ABOUT_PROVENANCE,
        "field": [
            {
                "@type": "cr:Field",
                "@id": f"{_PROVENANCE}/{name}",
                "name": name,
                "dataType": _TYPES[kind],
            }
            for name, kind in types.items()
        ],
        "data": [
            {f"{_PROVENANCE}/{name}": value for name, value in record.items()} for record in records
        ],
    }


def _file_set(split: str) -> Json:
    return {
        "@type": "cr:FileSet",
        "@id": f"{split}-files",
        "name": f"{split}-files",
        "encodingFormat": "application/x-parquet",
        "includes": f"data/{split}-*.parquet",
    }


def _record_set(split: str, schema: RowSchema) -> Json:
    return {
        "@type": "cr:RecordSet",
        "@id": split,
        "name": split,
        "key": [{"@id": f"{split}/{column}"} for column in _key(schema)],
        "field": list(_fields(split, schema)),
    }


def _key(schema: RowSchema) -> list[str]:
    optional = {"channel": schema.per_channel, "variant": schema.with_variants}
    return [
        "recording_id",
        "chunk_index",
        *(name for name, is_there in optional.items() if is_there),
    ]


def _fields(split: str, schema: RowSchema) -> Iterator[Json]:
    for column, kind in schema.columns().items():
        yield _field(split, column, kind, "-1" if kind.startswith("list<") else None)
    for feature in schema.features:
        if feature.flac_rate_hz:
            yield _field(split, feature.name, "flac", None)
            continue
        shape = ",".join(map(str, feature.shape)) or None
        yield _field(split, feature.name, feature.dtype, shape)


def _field(split: str, column: str, kind: str, shape: str | None) -> Json:
    array: Json = {"isArray": True, "arrayShape": shape} if shape else {}
    return {
        "@type": "cr:Field",
        "@id": f"{split}/{column}",
        "name": column,
        "dataType": _TYPES[kind.removeprefix("list<").removesuffix(">")],
        **array,
        "source": {"fileSet": {"@id": f"{split}-files"}, "extract": {"column": column}},
    }


_JSON = {name: {"@id": f"cr:{name}", "@type": "@json"} for name in ("data", "examples")}
_OWN = """
    arrayShape citeAs column containedIn equivalentProperty extract field fileObject fileProperty
    fileSet format includes isArray isLiveDataset jsonPath key md5 parentField path recordSet
    references regex repeated replace samplingRate separator source subField transform
"""

#: Context that starts every document of version 1.1, even if some of it is not used.
_CONTEXT: Json = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "sc": "https://schema.org/",
    "cr": "http://mlcommons.org/croissant/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "dct": "http://purl.org/dc/terms/",
    "conformsTo": "dct:conformsTo",
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "description": {"@container": "@language"},
    "name": {"@container": "@language"},
    **_JSON,
    **{name: f"cr:{name}" for name in _OWN.split()},
}
