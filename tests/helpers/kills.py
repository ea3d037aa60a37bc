"""Commands that are killed at random moments of their work."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from tests.helpers.processes import user_environment

# Imports everything once, and forks for each command: a process that is still importing has nothing to lose.
_SERVER = """
import json, os, sys, warnings
import jax
import cdc_jax.codec.codec, cdc_jax.codec.import_torch, cdc_jax.training.export, cdc_jax.training.loop
from cdc_jax import cli, main

warnings.filterwarnings("ignore", "os.fork")
for line in sys.stdin:
    program, *words = json.loads(line)
    child = os.fork()
    if child == 0:
        os.setpgid(0, 0)
        os.dup2(os.open(os.devnull, os.O_RDWR), 1)
        os.dup2(os.open("errors", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
        try:
            code = cli.main(words) if program == "cdc" else main.main([program, *words])
            sys.stderr.flush()
        except BaseException:
            sys.excepthook(*sys.exc_info())
            code = 99
        os._exit(code)
    print(child, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


class Killer:
    """Runs the command lines of two programs, "cdc" and "train", and kills them. Use it in a `with` block.

    Args:
      folder: the working directory of the commands.
      seed: of the random moments.

    Attributes:
      killed, finished: how many commands were killed, and how many were done before.
    """

    def __init__(self, folder: Path, seed: int = 0):
        self.folder = folder
        self.random = np.random.default_rng(seed)
        self.killed = self.finished = 0
        self._running: int | None = None

    def __enter__(self) -> Killer:
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        self._server = subprocess.Popen(
            [sys.executable, "-c", _SERVER], env=user_environment(), cwd=self.folder, start_new_session=True, **pipes
        )
        return self

    def __exit__(self, *_) -> None:
        if self._running is not None:  # a test has failed
            _kill(self._running)
        self._server.kill()
        self._server.communicate()

    def start(self, *words: str) -> int:
        """Starts a command, and returns its process; `wait` or `kill` must follow."""
        print(json.dumps(words), file=self._server.stdin, flush=True)
        self._running = int(self._server.stdout.readline())
        return self._running

    def wait(self) -> int:
        """The exit code of the command."""
        code = int(self._server.stdout.readline())
        self._running = None
        return code

    def seconds_of(self, *words: str, begun: Callable[[], object] | None = None) -> float:
        """How long the command works, from when `begun` is true; it must succeed."""
        process, start = self.start(*words), time.perf_counter()
        if begun is not None:
            _wait(process, begun)
            start = time.perf_counter()
        assert self.wait() == 0, (self.folder / "errors").read_text()
        return time.perf_counter() - start

    def kill(self, process: int) -> None:
        """Kills a command, with its children; it must have worked or succeeded until now."""
        _kill(process)
        code = self.wait()
        assert code in (0, -signal.SIGKILL), (self.folder / "errors").read_text()
        self.killed += code != 0
        self.finished += code == 0

    def kill_within(self, seconds: float, *words: str, begun: Callable[[], object] | None = None) -> None:
        """Starts a command and kills it at a random moment of the first seconds after `begun` is true."""
        process = self.start(*words)
        if begun is not None:
            _wait(process, begun)
        time.sleep(self.random.uniform(0, seconds))
        self.kill(process)


def _kill(process: int) -> None:
    for kill in (os.kill, os.killpg):
        with contextlib.suppress(ProcessLookupError):
            kill(process, signal.SIGKILL)


def _wait(process: int, begun: Callable[[], object]) -> None:
    """Waits until `begun` is true, or the process has ended."""
    with contextlib.suppress(ProcessLookupError):
        while not begun():
            os.kill(process, 0)
            time.sleep(0.002)
