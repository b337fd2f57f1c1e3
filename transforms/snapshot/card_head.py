"""The head of a dataset card, which Hugging Face reads: title, size, licence, tags, files, shapes.

https://huggingface.co/docs/hub/datasets-cards describes its keys.
"""

from __future__ import annotations

import json
import re
from typing import Any

import yaml

from melmill.transforms.core.feature_columns import FeatureColumn
from melmill.transforms.core.naming import split_chain
from melmill.transforms.features.measures_spec import MeasuresSpec
from melmill.transforms.rows.schema import RowSchema
from melmill.transforms.snapshot.delta import Snapshot
from melmill.transforms.snapshot.provenance import provenance
from melmill.transforms.snapshot.totals import Totals

#: File names, relative to the dataset, by split.
FileLists = dict[str, list[str]]

_HF_TYPES = {"double": "float64", "float": "float32"}

#: Hugging Face's categories of sizes: the first number of rows that is too many for each.
_SIZES = {
    "n<1K": 1_000,
    "1K<n<10K": 10_000,
    "10K<n<100K": 100_000,
    "100K<n<1M": 1_000_000,
    "1M<n<10M": 10_000_000,
    "10M<n<100M": 100_000_000,
    "100M<n<1B": 1_000_000_000,
    "1B<n<10B": 10_000_000_000,
    "10B<n<100B": 100_000_000_000,
    "100B<n<1T": 1_000_000_000_000,
}

#: Licences that Hugging Face knows; all others are "other".
_HF_LICENSES = """
    afl-3.0 agpl-3.0 apache-2.0 artistic-2.0 bsd bsd-2-clause bsd-3-clause bsd-3-clause-clear
    bsl-1.0 c-uda cc cc-by-2.0 cc-by-2.5 cc-by-3.0 cc-by-4.0 cc-by-nc-2.0 cc-by-nc-3.0
    cc-by-nc-4.0 cc-by-nc-nd-3.0 cc-by-nc-nd-4.0 cc-by-nc-sa-2.0 cc-by-nc-sa-3.0
    cc-by-nc-sa-4.0 cc-by-nd-4.0 cc-by-sa-3.0 cc-by-sa-4.0 cc0-1.0 cdla-permissive-1.0
    cdla-permissive-2.0 cdla-sharing-1.0 ecl-2.0 epl-1.0 epl-2.0 etalab-2.0 eupl-1.1 eupl-1.2
    gfdl gpl gpl-2.0 gpl-3.0 isc lgpl lgpl-2.1 lgpl-3.0 mit mpl-2.0 ms-pl ncsa odbl odc-by
    ofl-1.1 osl-3.0 pddl postgresql unlicense wtfpl zlib
"""

#: Tags of each kind of feature.
_TAGS = {
    "mel": ("mel-spectrogram",),
    "stft": ("spectrogram",),
    "mfcc": ("mfcc",),
    "pcen": ("mel-spectrogram", "pcen"),
    "waveform": ("waveform",),
}


def card_head(files: FileLists, snapshot: Snapshot, totals: Totals, schema: RowSchema) -> str:
    """Return the head of a card: YAML between lines of dashes."""
    data_files = [{"split": split, "path": names} for split, names in files.items()]
    kinds = [entry["kind"] for entry in feature_entries(snapshot).values()]
    tags = ["audio", *(tag for kind in kinds for tag in _TAGS.get(kind, ())), "melmill"]
    head = {
        "pretty_name": title(snapshot, is_short=True),
        **_license(provenance(totals).licenses),
        "size_categories": [size_category(totals.rows)],
        "tags": list(dict.fromkeys(tags)),
        "configs": [{"config_name": "default", "data_files": data_files}],
        "dataset_info": {"config_name": "default", "features": _hf_features(schema)},
    }
    text = yaml.safe_dump(head, sort_keys=False, width=1000, allow_unicode=True)
    return f"---\n{text}---\n\n"


def size_category(rows: int) -> str:
    """Return Hugging Face's category of a number of rows.

    >>> size_category(0), size_category(999), size_category(1_000), size_category(10**12)
    ('n<1K', 'n<1K', '1K<n<10K', 'n>1T')
    """
    return next((name for name, most in _SIZES.items() if rows < most), "n>1T")


def _license(names: tuple[str, ...]) -> dict[str, Any]:
    """Return the keys about licences; none if the licence of a recording is not known.

    >>> _license(()), _license(("CC-BY-4.0",)), _license(("CC0-1.0", "ODbL-1.0", "Ours"))
    ({}, {'license': 'cc-by-4.0'}, {'license': ['cc0-1.0', 'odbl', 'other']})
    >>> _license(("Our own terms",))
    {'license': 'other', 'license_name': 'our-own-terms'}
    """
    known = sorted({_hf_license(name) for name in names})
    if known != ["other"] or len(names) > 1:
        return {"license": known[0] if len(known) == 1 else known} if known else {}
    (name,) = names
    words = "-".join(re.findall(r"\w+", name.lower()))
    own_name = {"license_name": words} if words else {}
    link = {"license_link": name} if re.fullmatch(r"https?://\S+", name) else {}
    return {"license": "other", **own_name, **link}


def _hf_license(name: str) -> str:
    folded = name.lower()
    names = (folded, folded.removesuffix("-1.0"))
    return next((known for known in names if known in _HF_LICENSES.split()), "other")


def title(snapshot: Snapshot, *, is_short: bool = False) -> str:
    """Return a line that says what the rows are, with the catalogue or only its last part."""
    only_mel = all(entry["kind"] == "mel" for entry in feature_entries(snapshot).values())
    catalogue = snapshot.catalogue
    if is_short:
        catalogue = split_chain(catalogue)[0].rstrip("/").rpartition("/")[2]
    return f"{'Log-mel spectrograms' if only_mel else 'Features'} of {catalogue}"


def feature_entries(snapshot: Snapshot) -> dict[str, dict[str, Any]]:
    """Return the settings of each feature, by column; see :meth:`FeatureSpec.canonical`.

    The settings of a measure have its name in ``measure``.
    """
    features = json.loads(snapshot.features).get("features", [{"name": "mel", "kind": "mel"}])
    entries: dict[str, dict[str, Any]] = {}
    for feature in features:
        if feature["kind"] == "measures":
            columns = MeasuresSpec(tuple(feature["measures"])).columns(feature["name"])
            entries |= {name: {**feature, "measure": columns[name]} for name in columns}
        else:
            entries[feature["name"]] = feature
    return entries


def _hf_features(schema: RowSchema) -> list[dict[str, Any]]:
    columns = [_hf_feature(name, kind) for name, kind in schema.columns().items()]
    return [*columns, *map(_hf_array, schema.features)]


def _hf_array(column: FeatureColumn) -> dict[str, Any]:
    if column.flac_rate_hz:
        return {"name": column.name, "dtype": "binary"}
    if column.is_number:
        return {"name": column.name, "dtype": column.dtype}
    if len(column.shape) == 1:
        return {"name": column.name, "list": column.dtype}
    array = {"shape": list(column.shape), "dtype": column.dtype}
    return {"name": column.name, "dtype": {f"array{len(column.shape)}_d": array}}


def _hf_feature(name: str, kind: str) -> dict[str, Any]:
    if kind.startswith("list<"):
        return {"name": name, "list": _HF_TYPES.get(kind[5:-1], kind[5:-1])}
    return {"name": name, "dtype": _HF_TYPES.get(kind, kind)}
