"""The samples of a run: their barcodes, and the rule that decides which sample a cluster belongs to."""

from typing import Annotated, ClassVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from seqd_client.errors import SeqdError
from seqd_client.runinfo import Lane, Name


class SampleError(SeqdError):
    """Samples are not declared as documented, or do not fit the run."""

    exit_code: ClassVar[int] = 2


class Picard(BaseModel):
    """The rule of Picard's ExtractIlluminaBarcodes and its defaults: the nearest barcode, if it is near enough.

    Mismatches are counted over all index reads together. No-calls are counted separately; they are not mismatches.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    max_mismatches: Annotated[int, Field(ge=0, le=16)] = 1
    min_mismatch_delta: Annotated[int, Field(ge=1, le=16)] = 1
    """The second nearest barcode needs at least this many mismatches more than the nearest."""
    max_no_calls: Annotated[int, Field(ge=0, le=64)] = 2
    minimum_base_quality: Annotated[int, Field(ge=0, le=63)] = 0
    """A base of lower quality is always a mismatch."""


class BclConvert(BaseModel):
    """The rule of bcl-convert and its defaults: mismatches are counted for each index read, no-calls are mismatches.

    Two barcodes are refused if a read could match both of them with the allowed numbers of mismatches.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    index1: Annotated[int, Field(ge=0, le=2)] = 1
    index2: Annotated[int, Field(ge=0, le=2)] = 1

    def __str__(self) -> str:
        return f"BarcodeMismatchesIndex1,{self.index1} and BarcodeMismatchesIndex2,{self.index2}"


Barcode = Annotated[str, Field(pattern=r"^[ACGT]{0,64}$")]


class Sample(BaseModel):
    """One barcode of a sample; a sample may have several."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Name
    barcodes: tuple[Barcode, Barcode]
    """Of the first and the second index read, as the instrument reads them; an empty one is not compared."""
    lane: Lane | None = None
    """None stands for every lane of the run."""
    project: Annotated[str, Field(max_length=200)] = ""

    @property
    def barcode(self) -> str:
        """Both barcodes, joined by ``-``."""
        return "-".join(filter(None, self.barcodes))


class Samples(BaseModel):
    """All samples of a run and the rule that tells them apart."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    samples: tuple[Sample, ...]
    rule: Picard | BclConvert
    source: str
    """Where they are declared, for error messages."""

    @property
    def names(self) -> tuple[str, ...]:
        """The name of each sample once, in the order of their first barcodes."""
        return tuple(dict.fromkeys(sample.name for sample in self.samples))

    def with_mismatches(self, most: int) -> "Samples":
        """The same samples with another number of allowed mismatches.

        The number is for each index read, or with Picard's rule for all index reads together.

        Raises
        ------
        SampleError : the number is higher than the rule's limit.
        """
        rules = {Picard: {"max_mismatches": most}, BclConvert: {"index1": most, "index2": most}}
        try:
            rule = type(self.rule).model_validate(self.rule.model_dump() | rules[type(self.rule)])
        except ValidationError as error:
            raise SampleError(f"samples {self.source}: {most} mismatches: {error.errors()[0]['msg']}") from error
        return self.model_copy(update={"rule": rule})
