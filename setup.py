"""melmill: audio catalogues into log-mel training data, on Apache Beam."""

import os
import re
from pathlib import Path

from setuptools import find_packages, setup

_VERSION = re.compile(r'^__version__ = "(.+)"$', re.MULTILINE)

#: Address of the public repository, for the links on PyPI. There is none yet: whoever makes a
#: release sets it (CONTRIBUTING.md, "Make a release").
REPOSITORY = os.environ.get("MELMILL_REPOSITORY", "").rstrip("/")

#: Pages of the repository, as GitHub names them.
PAGES = {
    "Source": "",
    "Documentation": "/blob/HEAD/docs/index.md",
    "Changelog": "/blob/HEAD/CHANGELOG.md",
    "Issues": "/issues",
}

_LINK = re.compile(r"(!?)(\[[^\]]*\])\((?!https?:|#)([^)]+)\)")


def read_description() -> str:
    """Return the README. Its links to files lead to the repository, if that has an address."""
    text = Path("README.md").read_text(encoding="utf-8")
    if not REPOSITORY:
        return text
    return _LINK.sub(
        lambda link: (
            f"{link[1]}{link[2]}({REPOSITORY}/{'raw' if link[1] else 'blob'}/HEAD/{link[3]})"
        ),
        text,
    )


#: Installed as ``melmill.pipelines`` and ``melmill.transforms``.
FOLDERS = ["pipelines", "pipelines.*", "transforms", "transforms.*"]

#: What every worker needs.
CORE = [
    "apache-beam>=2.77,<3",
    "librosa>=0.11",
    "numpy>=2.0",
    "scipy>=1.13",
    "pyarrow>=21",
    "fsspec>=2025.3",
    "soundfile>=0.14",
    "soxr>=1.0",
    "av>=18,<19",
    "google-crc32c>=1.7",
    "protobuf>=4.25",
    "annotated-types>=0.7",
    "pydantic>=2.12",
    # Evaluates the expression of a recipe's select.
    "simpleeval>=1.0.3",
    "tenacity>=9",
    # Digests of samples; xxHash costs a thousandth of what decoding does.
    "xxhash>=3.5",
    # Of the launcher; small enough to be everywhere.
    "deltalake>=1.6.6,<2",
    "prometheus-client>=0.20",
    "psutil>=6",
    "PyYAML>=6",
    "rich>=13",
    "typer>=0.16",
]

#: To hear and see recordings (``melmill.pipelines.notebook``).
NOTEBOOK = ["ipython", "matplotlib>=3.9"]

#: To write and to read ArrayRecord, the format of grain.
ARRAY_RECORD = "array_record>=0.8"

#: To see and hear a dataset in a browser (``melmill explore``): a server, tables, plots, pictures.
EXPLORE = [
    "starlette>=0.46",
    "uvicorn>=0.34",
    "jinja2>=3.1",
    "plotly>=6",
    "duckdb>=1.4",
    "pillow>=11",
]

#: Plays a recording (``melmill play``); its wheels need no other library.
PLAY = "miniaudio>=1.61"

#: Computes the features of the kind ``model`` from ONNX files.
ONNX = "onnxruntime>=1.22"

#: What datasets are read with, all of them together; each reads without the others.
S3, GCS, AZURE = "s3fs>=2025.3", "gcsfs>=2025.3", "adlfs>=2024.12"

#: Submits jobs, and reads what they say; workers come with it.
DATAFLOW = "apache-beam[gcp]>=2.77,<3"

#: Builds the site of docs/.
DOCS = ["furo", "myst-parser>=4", "numpydoc>=1.8", "sphinx>=8"]

LOADERS = [
    ARRAY_RECORD,
    "datasets",
    "duckdb",
    "grain",
    "jax",
    "mlcroissant",
    "polars",
    "tensorflow-cpu",
    "tensorflow-datasets",
    "webdataset",
]

DEV = [
    *(S3, GCS, AZURE),
    DATAFLOW,
    # Builds the wheel, and runs the command from it.
    *("build", "pipx>=1.7"),
    # Ships the schema of the Compose Specification.
    "check-jsonschema>=0.39",
    # What schedules in deploy/schedule are held against.
    *("cronsim>=2.8", "google-cloud-scheduler>=2.21", "kubernetes-validate>=1.37"),
    "hypothesis",
    # Requests to the web application in tests, and a real browser.
    *("httpx", "playwright>=1.50"),
    "jsonschema",
    # Kaldi's own features, for the recipes of models that take them.
    "kaldi-native-fbank>=1.22",
    # The example notebooks.
    *("ipykernel", "nbclient", "nbformat", "transformers"),
    "mypy>=2",
    # Models for the tests are made with onnx.
    *("onnx>=1.19", ONNX),
    "pandas",
    "pre-commit",
    "pytest",
    "pytest-xdist",
    "ruff",
    "types-psutil",
    "types-PyYAML",
]

setup(
    name="melmill",
    version=_VERSION.findall(Path("melmill/__init__.py").read_text(encoding="utf-8"))[0],
    description="Turns large audio catalogues into log-mel training data, on Apache Beam.",
    long_description=read_description(),
    long_description_content_type="text/markdown",
    author="The melmill developers",
    project_urls={name: REPOSITORY + page for name, page in PAGES.items() if REPOSITORY},
    keywords=[
        *("audio", "music", "speech", "mel spectrogram", "log-mel", "feature extraction"),
        *("machine learning", "dataset", "parquet", "tfrecord", "delta lake", "apache beam"),
        *("flink", "dataflow", "librosa"),
    ],
    license_expression="Apache-2.0",
    license_files=["LICENSE"],
    python_requires=">=3.11",
    packages=[
        *("melmill", "melmill.configs"),
        *(f"melmill.{name}" for name in find_packages(include=FOLDERS)),
    ],
    package_dir={f"melmill.{name}": name for name in ("configs", "pipelines", "transforms")},
    package_data={
        "melmill": ["py.typed"],
        "melmill.configs": ["*.yaml", "runners/*.yaml", "profiles/*.yaml"],
        "melmill.pipelines.explore": ["pages/*", "assets/*"],
        "melmill.pipelines.report": ["pages/*"],
    },
    install_requires=CORE,
    extras_require={
        "s3": [S3],
        "gcs": [GCS],
        "azure": [AZURE],
        "dataflow": [DATAFLOW],
        "arrayrecord": [ARRAY_RECORD],
        "notebook": NOTEBOOK,
        "explore": EXPLORE,
        "play": [PLAY],
        "onnx": [ONNX],
        "loaders": LOADERS,
        "docs": DOCS,
        "dev": [*DEV, *DOCS, *EXPLORE, *LOADERS, *NOTEBOOK, PLAY],
    },
    entry_points={"console_scripts": ["melmill = melmill.__main__:main"]},
    classifiers=[
        "Development Status :: 4 - Beta",
        "Environment :: Console",
        "Intended Audience :: Developers",
        "Intended Audience :: Science/Research",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3 :: Only",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Multimedia :: Sound/Audio :: Analysis",
        "Topic :: Multimedia :: Sound/Audio :: Speech",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Typing :: Typed",
    ],
)
