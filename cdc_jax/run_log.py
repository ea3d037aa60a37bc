"""What a training run writes down: `metrics.jsonl`, one JSON object per line, each with its step."""

from __future__ import annotations

import json
from pathlib import Path


class RunLog:
    """The log of the run in `workdir`."""

    def __init__(self, workdir: str | Path):
        self._path = Path(workdir) / "metrics.jsonl"
        self._latest: dict[str, float] = {}

    def drop_after(self, step: int) -> None:
        """Forgets what an interrupted run wrote after the checkpoint it resumes from."""
        kept = [line for line in self.read() if line["step"] <= step]
        self._path.write_text("".join(json.dumps(line) + "\n" for line in kept))

    def write(self, step: int, values: dict[str, float]) -> None:
        """Appends one line."""
        self._latest.update(values)
        with self._path.open("a") as file:
            file.write(json.dumps({"step": step, **values}) + "\n")

    def read(self) -> list[dict]:
        """All lines. One that an interruption cut short is left out."""
        lines = []
        for line in self._path.read_text().splitlines() if self._path.exists() else []:
            try:
                lines.append(json.loads(line))
            except ValueError:
                continue
        return lines

    def summary(self) -> dict[str, str]:
        """The latest values that a person wants to watch."""
        names = {"loss": "loss", "bpp": "bpp", "held_out_psnr_db_1": "PSNR"}
        return {short: f"{self._latest[name]:.3g}" for name, short in names.items() if name in self._latest}
