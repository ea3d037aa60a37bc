"""Counts and logs the unusable images of a run, and raises an error if there are too many."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping

from cdc_jax.data.crops import Report
from cdc_jax.errors import CdcError

COUNTERS = ("read", "corrupt", "small", "upscaled")
_LOG = logging.getLogger("cdc_jax.data")
_NAMED_SMALL = 10  # number of small images that the log names, since there may be very many


class Tally:
    """Counts the records behind the crops that were returned.

    It raises CdcError once more than `max_corrupt_fraction` of the source's records are known to be corrupt. Each
    record counts once. The fraction is relative to all records, not to those read so far, which are few at first.

    Args:
      records: number of records of the source.
      max_corrupt_fraction: from 0 to 1.
      crop: side of the crops in pixels, for messages.
      counters: values to continue counting from, by the names in `COUNTERS`.
      corrupt: records that are already known to be corrupt.

    Attributes:
      counters: the counts by the names in `COUNTERS`.
    """

    def __init__(
        self,
        records: int,
        max_corrupt_fraction: float,
        crop: int,
        counters: Mapping[str, int],
        corrupt: Iterable[int] = (),
    ):
        self.counters = {name: int(counters.get(name, 0)) for name in COUNTERS}
        self._records = records
        self._max_corrupt_fraction = max_corrupt_fraction
        self._crop = crop
        self._corrupt: dict[int, str] = {int(record): f"record {record}" for record in corrupt}
        self._small: set[str] = set()

    def add(self, reports: Iterable[Report]) -> None:
        """Counts the crops of a batch.

        Raises:
          CdcError: too many images are corrupt, or no usable one was found for a crop.
        """
        for report in reports:
            self.counters["read"] += report.read
            self.counters["corrupt"] += len(report.corrupt)
            self.counters["small"] += len(report.small)
            self.counters["upscaled"] += report.upscaled
            for record, message in report.corrupt:
                if record not in self._corrupt:
                    self._corrupt[record] = message
                    _LOG.warning("Skipped a corrupt image: %s", message)
            self._check()
            for name in report.small:
                self._log_small(name, "skipped")
            if report.upscaled:
                self._log_small(report.name, "scaled up")
            if not report.name:
                raise CdcError(self._nothing_usable(report))

    def corrupt(self) -> list[int]:
        """The records that are known to be corrupt."""
        return sorted(self._corrupt)

    def add_corrupt(self, records: Iterable[int]) -> None:
        """Adds records that other processes found corrupt. Raises CdcError if there are too many."""
        for record in records:
            self._corrupt.setdefault(int(record), f"record {record}")
        self._check()

    def _check(self) -> None:
        if len(self._corrupt) > self._max_corrupt_fraction * self._records:
            raise CdcError(
                f"More than {self._max_corrupt_fraction:.2%} of the {self._records} training images are corrupt, "
                f"among them {self._examples()}; repair or remove them, or raise data.max_corrupt_fraction."
            )

    def _log_small(self, name: str, what: str) -> None:
        if name in self._small or len(self._small) >= _NAMED_SMALL:
            return
        self._small.add(name)
        more = "; more of them are counted, not named" if len(self._small) == _NAMED_SMALL else ""
        _LOG.warning("%s: Smaller than the crops of %d pixels, %s%s.", name, self._crop, what, more)

    def _nothing_usable(self, report: Report) -> str:
        advice = "use smaller crops (data.crop) or data.small_images=upscale" if report.small else "repair them"
        return (
            f"{report.read} records in a row cannot be trained on: {len(report.corrupt)} are corrupt, "
            f"{len(report.small)} smaller than data.crop ({self._crop}); {advice}."
        )

    def _examples(self) -> str:
        return " and ".join(message.removesuffix(".") for message in list(self._corrupt.values())[-3:])
