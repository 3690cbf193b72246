"""Exported files of a run folder and how long they take."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path
from typing import Any

from bignas_tf.report.fields import Fields, ReportError, read_csv, read_json


@dataclasses.dataclass(frozen=True)
class Timing:
    """One row of benchmark.csv. `conditions` are the columns about the machine."""

    file: str
    median_ms: float
    p95_ms: float
    threads: int
    file_bytes: int | None
    sha256: str | None
    conditions: dict[str, str]


@dataclasses.dataclass(frozen=True)
class ExportedFile:
    """A TFLite file and how far its outputs are from the Keras model's.

    Attributes:
        name: of the file.
        child: its name, as the JSON tells, else the file's without the quantization.
        quantization: such as `int8`.
        bytes: int.
        images: how many images the comparison used.
        scale: the largest absolute output of the Keras model.
        max_difference: in units of the outputs.
        agreement: share of images with the same top class.
        sha256: hash of its content.
        genotype: of the child, where it is recorded.
        plain: whether it is the child itself: float32, neither finetuned nor preprocessing inside.
    """

    name: str
    child: str
    quantization: str
    bytes: int
    images: int
    scale: float
    max_difference: float
    agreement: float
    sha256: str
    genotype: dict[str, Any] | None
    plain: bool


def read_exported(path: Path) -> ExportedFile:
    """Reads the JSON beside a TFLite file.

    Raises:
        ReportError: if it is missing, damaged, or describes another file.
    """
    sidecar = path.with_suffix(".json")
    if not sidecar.is_file():
        raise ReportError(f"{path} has no {sidecar.name} beside it; convert it again")
    fields = Fields(read_json(sidecar), sidecar)
    if fields.text("sha256") != hashlib.sha256(path.read_bytes()).hexdigest():
        raise ReportError(f"{sidecar} describes another file than {path.name}; convert it again")
    quantization = fields.text("quantization")
    own = f"_{quantization}"
    verification = fields.object("verification")
    inside = "preprocessing" in fields and fields.text("preprocessing") == "inside"
    return ExportedFile(
        name=path.name,
        child=fields.text("child") if "child" in fields else path.stem.removesuffix(own),
        quantization=quantization,
        bytes=fields.integer("bytes"),
        images=verification.integer("images", 1),
        scale=verification.number("scale", 0),
        max_difference=verification.number("max_difference", 0),
        agreement=verification.share("agreement"),
        sha256=fields.text("sha256"),
        genotype=fields.object("genotype").plain() if "genotype" in fields else None,
        plain=quantization == "float32" and "finetuning" not in fields and not inside,
    )


def read_timings(path: Path) -> list[Timing]:
    """Reads what `bignas_tf.deploy.latency.write_csv` wrote; nothing if there is no file.

    Raises:
        ReportError: if it is damaged.
    """
    return [_timing(row) for row in read_csv(path)]


def _timing(fields: Fields) -> Timing:
    about = ("cpu", "cores", "load_1min", "system", "ai_edge_litert", "delegate", "date")
    return Timing(
        file=Path(fields.text("path")).name,
        median_ms=fields.written("median_ms", 0),
        p95_ms=fields.written("p95_ms", 0),
        threads=int(fields.written("threads", 0)),
        file_bytes=int(fields.written("file_bytes", 0)) if "file_bytes" in fields else None,
        sha256=(fields.text("sha256") or None) if "sha256" in fields else None,
        conditions={key: fields.text(key) for key in about if key in fields},
    )
