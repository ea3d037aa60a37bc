"""What hostile and damaged input costs: CPU time, memory and message of the `cdc` command for each case.

  python benchmarks/hostile_input.py

The cases are those of the table in docs/security.md. Memory is the peak of the process. Importing JAX is a part of
both; the first row of each command, for honest input, shows how large. Linux only.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
import zlib
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

MIB = 1 << 20
SECONDS = 120


class Case(NamedTuple):
    """A command line.

    Attributes:
      title: what is wrong with its input.
      words: of `cdc`.
      limit_mib: limit on the address space in MiB, or 0.
    """

    title: str
    words: str
    limit_mib: int = 0


CASES = (
    Case("an honest bundle", "compress a.png -o new.cdc --force --model honest"),
    Case("an honest bundle", "decompress a.cdc -o new.png --force --model honest"),
    Case("an honest bundle", "verify a.cdc --model honest"),
    Case("a shared tuple, nested 60 times, as key", "import-torch hashed.pt out"),
    Case("a shared list, nested 60 times, as storage key", "import-torch printed.pt out"),
    Case("NaN in a weight of the encoder", "compress a.png -o new.cdc --force --model encoder-nan"),
    Case("1e38 in a weight of the encoder", "compress a.png -o new.cdc --force --model encoder-large"),
    Case("NaN in a weight of the decoder", "decompress a.cdc -o new.png --force --model decoder-nan"),
    Case("config.json of 200,000 [", "verify a.cdc --model nested"),
    Case("config.json is a pipe", "verify a.cdc --model pipe"),
    Case("config.json is a link to /dev/zero", "verify a.cdc --model device"),
    Case("config.json of 300 MB", "verify a.cdc --model huge"),
    Case("a zstd chunk of 256 KiB that expands to 8 GiB", "verify a.cdc --model bomb"),
    Case('"width": true', "verify a.cdc --model true"),
    Case("18 bytes that declare 16384×16384 pixels", "decompress short.cdc -o new.png --force --model honest"),
    *(
        Case(f"ulimit -v of {mebibytes} MiB", f"{words} --model honest", mebibytes)
        for mebibytes in (1000, 1500, 1600, 1800)
        for words in ("compress a.png -o new.cdc --force", "decompress a.cdc -o new.png --force", "verify a.cdc")
    ),
)


def make_inputs() -> None:
    """Writes the input of all cases into the working directory."""
    import json
    import shutil

    import numpy as np

    import cdc_jax
    from cdc_jax.codec.bundle import save_bundle
    from cdc_jax.io.images import write_image
    from cdc_jax.models.config import ModelConfig
    from cdc_jax.models.initialization import initial_weights
    from tests.helpers import hostile_bundles as hostile
    from tests.helpers import torch_files as torch

    config = ModelConfig(width=4, decode_steps=2)
    save_bundle("honest", config, initial_weights(config, 1, latent_gain=8.0), provenance="random weights")
    image = np.random.default_rng(0).integers(0, 256, (256, 384, 3), np.uint8)
    write_image("a.png", image)
    Path("a.cdc").write_bytes(cdc_jax.load_codec("honest").compress(image))

    def bundle(name: str) -> Path:
        return Path(shutil.copytree("honest", name))

    def nested(start: bytes, step: bytes) -> bytes:
        return start + b"".join(step % (i, i, i + 1) for i in range(60))

    key = torch.tuple_of(nested(b")q\0", b"h%ch%c\x86q%c"), b"h\x3c")
    torch.write_zip(Path("hashed.pt"), torch.mapping({key: torch.number(1)}))
    shared = nested(b"]q\0", b"](h%ch%ceq%c")
    torch.write_zip(Path("printed.pt"), torch.tuple_of(shared, torch.storage(b"h\x3c", "<f4", 1)))
    for name, weight, value in (
        ("encoder-nan", "compressor.encoder.blocks.0.block1.conv.kernel", np.nan),
        ("encoder-large", "compressor.encoder.blocks.0.block1.conv.kernel", 1e38),
        ("decoder-nan", "unet.final_conv.kernel", np.nan),
    ):
        hostile.spoil_weight(bundle(name).absolute(), weight, value)
    (bundle("nested") / "config.json").write_text("[" * 200_000)
    for kind in ("pipe", "device"):
        hostile.replace_by(kind, bundle(kind) / "config.json")
    with open(bundle("huge") / "config.json", "a") as file:
        file.write(" " * 300_000_000)
    hostile.write_chunk(bundle("bomb"), "unet.final_conv.kernel", hostile.zstd_bomb(8 << 30))
    hostile.edit_model(bundle("true"), width=True)
    fingerprint = bytes.fromhex(json.loads(Path("honest/config.json").read_text())["fingerprint"])
    body = b"\xc3DC\x01" + fingerprint + b"\x80\x80\x01" * 2
    Path("short.cdc").write_bytes(body + zlib.crc32(body).to_bytes(4, "big"))


def run(case: Case) -> tuple[str, float, float]:
    """How the command ends, its CPU time in seconds and its peak memory in MiB."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
        if case.limit_mib:
            resource.setrlimit(resource.RLIMIT_AS, (case.limit_mib * MIB,) * 2)

    command = [sys.executable, "-m", "cdc_jax", *case.words.split()]
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=errors, preexec_fn=limit)
        _, status, usage = os.wait4(process.pid, 0)
        errors.seek(0)
        lines = errors.read().splitlines()
    last = lines[-1].removeprefix("cdc: ") if lines else ""
    ending = f"exit {os.waitstatus_to_exitcode(status)}, {len(lines)} lines: {last}"
    return ending, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def main() -> None:
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        subprocess.run([sys.executable, __file__, "--make"], check=True)  # so that this process stays small
        print("| input | command | CPU seconds | MiB | end |\n|---|---|---|---|---|")
        for case in CASES:
            ending, seconds, mebibytes = run(case)
            command = case.words.split()[0]
            print(f"| {case.title} | {command} | {seconds:.2f} | {mebibytes:.0f} | {ending} |", flush=True)


if __name__ == "__main__":
    make_inputs() if sys.argv[1:] == ["--make"] else main()
