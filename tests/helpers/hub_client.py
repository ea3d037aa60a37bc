"""What tests of the hub do as its user: in processes of their own, as the library reads its variables when imported."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.helpers.hub_server import FakeHub
from tests.helpers.processes import ROOT, user_environment

_FETCH = """
import sys
from cdc_jax.codec.bundle_folder import bundle_folder
from cdc_jax.errors import CdcError
from cdc_jax.io import hub
for name in sys.argv[1:]:
    try:
        print(hub.fetch_file(name) if name.endswith(".pt") else bundle_folder(name))
    except CdcError as error:
        print(f"{type(error).__name__}: {error}")
"""


@dataclass(frozen=True)
class HubClient:
    """Runs commands against a hub, with a cache folder."""

    hub: FakeHub
    home: Path

    def environment(self, **changes: str) -> dict[str, str]:
        fixed = {"HF_ENDPOINT": self.hub.url, "HF_HOME": str(self.home), "HF_HUB_DISABLE_XET": "1"}
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
        return {**inherited, **user_environment(), **fixed, **changes}

    def run(self, *command: object, **changes: str) -> subprocess.CompletedProcess:
        """A Python command line's result; `changes` are variables of its environment."""
        words = [sys.executable, *map(str, command)]
        environment = self.environment(**changes)
        return subprocess.run(words, capture_output=True, text=True, env=environment, cwd=ROOT, timeout=300)

    def cdc(self, *words: object, **changes: str) -> subprocess.CompletedProcess:
        return self.run("-m", "cdc_jax", *words, **changes)

    def fetch(self, *names: str, **changes: str) -> list[str]:
        """For each name of a bundle, or of a file.pt, where it lies or the error; nothing else may be said."""
        finished = self.run("-c", _FETCH, *names, **changes)
        assert (finished.returncode, finished.stderr) == (0, ""), finished.stderr
        return finished.stdout.splitlines()
