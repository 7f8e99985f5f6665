"""The bundle: a trained network with everything needed to run it and to know where it came from.

A folder of four files, or of six where the network was quantised::

    model.toml     architecture, quality tables, training provenance, SHA-256 of the others
    network.onnx   FP16 graph: `images` (1, 4, H, W) float16 in normalised units, `positions` (4, n, 2) float32 ->
                   `probabilities` (1, 5, H, W), `superresolved` (1, 4, 2H, 2W), `centres` (n, 4), all float32
    weights.npz    the same weights by parameter name, float16
    golden.npz     a tile and what the network answers, see :mod:`engines.bundles.golden`
    int8.xml       graph of OpenVINO without `positions` and `centres`, most of its convolutions in INT8
    int8.bin       its weights
"""

import hashlib
import shutil
import tomllib
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import tomli_w
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from seqd_client.errors import validation_text

from engines.errors import BundleError
from engines.network.architecture import Architecture

FORMAT = 3
"""Version of the bundle's layout."""

MODEL, NETWORK, WEIGHTS, GOLDEN = "model.toml", "network.onnx", "weights.npz", "golden.npz"
INT8_GRAPH, INT8_WEIGHTS = "int8.xml", "int8.bin"

DEFAULT_BUNDLE = Path(__file__).parent / "default"

_Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class Readout(StrEnum):
    """What the calls are made from: the network's evidence, the joint fit, or both."""

    NETWORK = "network"
    """The network alone: its centres give the template, and its evidence gives the calls."""
    FIT = "fit"
    """The joint fit of all clusters; the network finds the clusters in the template cycles."""
    FUSED = "fused"
    """The joint fit gives the calls; the network's evidence counts more where clusters and noise do not explain the
    image, such as on tissue."""


class QualityTable(BaseModel):
    """Phred score by predictor, a weighted sum of features; see :mod:`calib.calling.scores`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    weights: Annotated[tuple[float, ...], Field(min_length=6, max_length=6)]
    """Weights of the features."""
    edges: tuple[float, ...]
    """Rising lower edges of the bins after the first."""
    scores: tuple[Annotated[int, Field(ge=2, le=50)], ...]
    """Score of each bin; there is one more bin than there are edges."""
    binned: tuple[Literal[2, 12, 24, 40], ...]
    """Score of each bin in binned output."""

    @model_validator(mode="after")
    def _consistent(self) -> "QualityTable":
        if len(self.scores) != len(self.edges) + 1:
            raise ValueError(f"{len(self.scores)} scores for {len(self.edges)} edges, {len(self.edges) + 1} are needed")
        if len(self.binned) != len(self.scores):
            raise ValueError(f"{len(self.binned)} binned scores for {len(self.scores)} scores, as many are needed")
        if list(self.edges) != sorted(self.edges):
            raise ValueError("edges do not rise")
        return self


class Hashes(BaseModel):
    """SHA-256 of the bundle's binary files."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    network: _Sha256
    weights: _Sha256
    golden: _Sha256
    int8_graph: _Sha256 | None = None
    int8_weights: _Sha256 | None = None

    @model_validator(mode="after")
    def _both_int8_files(self) -> "Hashes":
        if (self.int8_graph is None) != (self.int8_weights is None):
            raise ValueError("one of int8_graph and int8_weights is missing")
        return self

    def by_file(self) -> dict[str, str]:
        """Hash of every file that the bundle has beside ``model.toml``, by its name."""
        known = {
            NETWORK: self.network,
            WEIGHTS: self.weights,
            GOLDEN: self.golden,
            INT8_GRAPH: self.int8_graph,
            INT8_WEIGHTS: self.int8_weights,
        }
        return {name: expected for name, expected in known.items() if expected is not None}


class Model(BaseModel):
    """The content of ``model.toml``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: int
    name: Annotated[str, Field(min_length=1, max_length=100)]
    architecture: Architecture
    quality: dict[Readout, QualityTable]
    """Table of every readout that the bundle can be used with."""
    training: dict[str, Any]
    """Settings, data, software and final losses of the training; for people, not read by code."""
    hashes: Hashes


@dataclass(frozen=True)
class Bundle:
    """A verified bundle."""

    folder: Path
    model: Model

    @cached_property
    def hash(self) -> str:
        """SHA-256 of ``model.toml``, which itself holds the hashes of the other files."""
        return file_hash(self.folder / MODEL)

    def quality(self, readout: Readout) -> QualityTable:
        """The table of a readout; raises :class:`BundleError` where there is none."""
        if readout not in self.model.quality:
            there = ", ".join(self.model.quality) or "none"
            raise BundleError(
                f"bundle {self.folder}: no quality table for readout {readout}, there is {there}; "
                "`seqd calib quality` fits them"
            )
        return self.model.quality[readout]

    @property
    def network(self) -> Path:
        """Path of the ONNX graph."""
        return self.folder / NETWORK

    @property
    def quantised(self) -> Path:
        """Path of the INT8 graph; raises :class:`BundleError` where there is none."""
        if self.model.hashes.int8_graph is None:
            raise BundleError(f"bundle {self.folder}: no network in INT8; `seqd calib quantise` makes one")
        return self.folder / INT8_GRAPH

    @property
    def golden(self) -> Path:
        """Path of the golden tile."""
        return self.folder / GOLDEN


def read_weights(folder: Path) -> dict[str, NDArray[np.float32]]:
    """Weights of a bundle by parameter name, stored in FP16."""
    with np.load(folder / WEIGHTS) as arrays:
        return {name: arrays[name].astype(np.float32) for name in arrays.files}


def store_quality(bundle: Bundle, tables: dict[Readout, QualityTable]) -> None:
    """Replace the quality tables of a bundle in its folder; its hash changes."""
    model = bundle.model.model_copy(update={"quality": tables})
    write_model(bundle.folder, model)


def store_quantised(bundle: Bundle, graph: Path, weights: Path) -> None:
    """Put an INT8 graph of OpenVINO into a bundle's folder, or replace it; the bundle's hash changes."""
    hashes = bundle.model.hashes.model_copy(update={"int8_graph": None, "int8_weights": None})
    # Until both files are complete, the bundle is valid without them.
    write_model(bundle.folder, bundle.model.model_copy(update={"hashes": hashes}))
    shutil.copyfile(graph, bundle.folder / INT8_GRAPH)
    shutil.copyfile(weights, bundle.folder / INT8_WEIGHTS)
    hashes = hashes.model_copy(update={"int8_graph": file_hash(graph), "int8_weights": file_hash(weights)})
    write_model(bundle.folder, bundle.model.model_copy(update={"hashes": hashes}))


def write_model(folder: Path, model: Model) -> None:
    """Write ``model.toml``; after an interruption the old file is still complete."""
    fresh = folder / f".{MODEL}.tmp"
    fresh.write_text(tomli_w.dumps(model.model_dump(mode="json", exclude_none=True)), "utf-8")
    fresh.replace(folder / MODEL)


def file_hash(path: Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def load_bundle(folder: Path = DEFAULT_BUNDLE) -> Bundle:
    """Read a bundle and check its files against their hashes.

    Raises
    ------
    BundleError : a file is missing or altered, or ``model.toml`` is not of this format.
    """
    path = folder / MODEL
    try:
        stored = tomllib.loads(path.read_text("utf-8"))
        if stored.get("format") != FORMAT:
            raise BundleError(f"bundle {folder}: format {stored.get('format')}, this seqd reads format {FORMAT}")
        model = Model.model_validate(stored)
    except OSError as error:
        raise BundleError(f"bundle {folder}: cannot read {MODEL}: {error.strerror}") from error
    except ValidationError as error:
        raise BundleError(f"bundle {folder}: {MODEL} is not valid: {validation_text(error)}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BundleError(f"bundle {folder}: {MODEL} is not valid: {error}") from error
    for name, expected in model.hashes.by_file().items():
        try:
            found = file_hash(folder / name)
        except OSError as error:
            raise BundleError(f"bundle {folder}: cannot read {name}: {error.strerror}") from error
        if found != expected:
            raise BundleError(f"bundle {folder}: {name} has SHA-256 {found[:12]}…, {MODEL} says {expected[:12]}…")
    return Bundle(folder, model)
