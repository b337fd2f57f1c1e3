"""The URIs of a view that others may read: relative to a folder, so that no local path is shown."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from melmill.transforms.catalogue.left_out import canonical_uri
from melmill.transforms.core.errors import DatasetError
from melmill.transforms.core.naming import number_of, split_chain
from melmill.transforms.core.records import WITH_ROWS
from melmill.transforms.features.model_spec import is_python
from melmill.transforms.index.tables import read_batches
from melmill.transforms.rows.schema import RowBatch
from melmill.transforms.store.archives import split_member
from melmill.transforms.store.folders import Store

#: Keys of the section ``catalogue`` that name files and folders of the user.
_PRIVATE = ("root", "exclude", "publish_root")
#: Keys of features and variants that name files of the user.
_FILES = ("model", "noise", "rir")


def published_uri(uri: str, root: str) -> str:
    """Return a URI relative to a folder; ``""`` if it is not below the folder.

    Names stay as they are: nothing is encoded or decoded. An absolute path as the name of a member
    is shortened to its last part.

    Examples
    --------
    >>> published_uri("/data/songs/./a b%20#1.wav", "/data/")
    'songs/a b%20#1.wav'
    >>> published_uri("s3a://bucket/x/a.tar#b/1.wav", "s3://bucket/x")
    'a.tar#b/1.wav'
    >>> published_uri("/data/a.parquet#/home/alice/1.wav", "/data")
    'a.parquet#1.wav'
    >>> published_uri("/data/../home/a.wav", "/data"), published_uri("/database/a.wav", "/data")
    ('', '')
    """
    member = split_member(uri)
    archive, name = member or (uri, "")
    path, chained = split_chain(canonical_uri(archive))
    folder, root_chained = split_chain(canonical_uri(root))
    folder = f"{folder.rstrip('/')}/"
    if chained != root_chained or not path.startswith(folder):
        return ""
    if re.match(r"/|\\|[A-Za-z]:", name):  # a Parquet file may hold paths of another machine
        name = re.split(r"[/\\]", name)[-1]
    return path.removeprefix(folder) + (f"#{name}" if member else "")


def published_catalogue(uri: str, root: str) -> str:
    """Return the name of a catalogue without the folders above `root`.

    >>> published_catalogue("/data/songs.csv", "/data"), published_catalogue("/home/a.csv", "/data")
    ('songs.csv', 'a.csv')
    """
    return published_uri(uri, root) or split_chain(uri)[0].rstrip("/").rpartition("/")[2]


def published_recipe(recipe: dict[str, Any], root: str) -> dict[str, Any]:
    """Return a recipe without folders of this machine: its files, and those of models and variants.

    >>> published_recipe({"catalogue": {"root": "/a", "exclude": "/no.txt", "separator": ";"}}, "/")
    {'catalogue': {'separator': ';'}}
    >>> published_recipe({"variants": [{"noise": "/home/alice/rain", "snr_db": [5, 9]}]}, "/data")
    {'variants': [{'noise': 'rain', 'snr_db': [5, 9]}], 'catalogue': {}}
    """
    shown = {key: v for key, v in recipe.get("catalogue", {}).items() if key not in _PRIVATE}
    lists = {
        section: [_published_entry(entry, root) for entry in recipe[section]]
        for section in ("features", "variants")
        if recipe.get(section)
    }
    return {**recipe, "catalogue": shown, **lists}


def _published_entry(entry: dict[str, Any], root: str) -> dict[str, Any]:
    return {
        key: published_catalogue(value, root) if key in _FILES and not is_python(value) else value
        for key, value in entry.items()
    }


def published_rows(batches: Iterator[RowBatch], root: str) -> Iterator[RowBatch]:
    """Yield rows with their URIs relative to `root`; ``""`` changes nothing.

    Raises
    ------
    DatasetError
        A URI is not below `root`.
    """
    for batch in batches:
        if root:
            uris = [str(uri) for uri in batch.columns["uri"]]
            published = {uri: published_uri(uri, root) for uri in dict.fromkeys(uris)}
            if hidden := [uri for uri, relative in published.items() if not relative]:
                raise DatasetError(f"{hidden[0]!r} is not below catalogue.publish_root {root}")
            uri_column = [published[uri] for uri in uris]
            batch = replace(batch, columns={**batch.columns, "uri": uri_column})
        yield batch


def require_below(store: Store, index: str, root: str) -> None:
    """Raise ``DatasetError`` if a recording with rows is not below `root`."""
    number, example = 0, ""
    for batch in read_batches(store, index, "recordings", ["uri", "status"]):
        columns = (batch.column(name).to_pylist() for name in ("uri", "status"))
        for uri, status in zip(*columns, strict=True):
            if status in WITH_ROWS and not published_uri(uri, root):
                number, example = number + 1, example or uri
    if number:
        raise DatasetError(
            f"catalogue.publish_root: {root}: {number_of(number, 'recording')} of {store.root} "
            f"with rows are not below this folder, such as {example!r}; nothing was written. Set a "
            "folder that is above all recordings: melmill refresh CATALOGUE "
            f"{store.root} --set catalogue.publish_root=FOLDER (null: URIs stay as they are)"
        )
