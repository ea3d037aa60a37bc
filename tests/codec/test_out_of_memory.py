"""Too little memory: one line with the need, before it is asked for; never "corrupt"."""

import math
import subprocess
import sys

import numpy as np
import pytest

from cdc_jax.cli import main
from cdc_jax.codec import memory
from cdc_jax.codec.bundle import load_bundle
from cdc_jax.codec.image_decoder import decode_settings
from cdc_jax.codec.tiling import default_tile
from cdc_jax.errors import ConfigError, OutOfMemoryError
from cdc_jax.io.images import write_image
from cdc_jax.models.config import ModelConfig
from cdc_jax.runtime import free_memory
from tests.helpers.processes import user_environment

IMAGE = np.zeros((64, 128, 3), np.uint8)
MIB = 1 << 20
LIMITS = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits the address space")


@pytest.fixture
def no_room(monkeypatch):
    """A process that has nothing yet, and may have 10 MiB."""
    for module in (free_memory, memory):
        monkeypatch.setattr(module, "free_address_bytes", lambda: 10 * MIB)
        monkeypatch.setattr(module, "used_bytes", lambda: 0)


@pytest.fixture
def files(random_codec, tmp_path):
    write_image(tmp_path / "a.png", IMAGE)
    (tmp_path / "a.cdc").write_bytes(random_codec.compress(IMAGE))
    return tmp_path


def test_estimates_grow_with_image_and_model():
    small, large = ModelConfig(width=4), ModelConfig(width=8)

    def decoding_bytes(height, width, config):
        return memory.decoding_bytes(height, width, default_tile(height, width), config)

    for estimate in (memory.encoding_bytes, memory.reading_bytes, decoding_bytes):
        assert estimate(64, 64, small) < estimate(64, 128, small) < estimate(1024, 1024, small)
        assert estimate(64, 64, small) < estimate(64, 64, large)
        assert estimate(6016, 4032, large) < 64 * estimate(64, 64, large)  # tiles


def test_compressing_reading_and_decoding(random_codec, files, no_room):
    data = (files / "a.cdc").read_bytes()
    with pytest.raises(OutOfMemoryError, match=r"^Compressing 128x64 pixels takes about \d+ MiB, and"):
        random_codec.compress(IMAGE)
    with pytest.raises(OutOfMemoryError, match="^Reading a file of 128x64 pixels takes about"):
        random_codec.read_symbols(data)


@pytest.mark.parametrize("tile", [None, 192])
def test_decoding(random_codec, request, tile):
    large = random_codec.decode_symbols(random_codec.compress(np.zeros((256, 256, 3), np.uint8)))
    request.getfixturevalue("no_room")
    settings = decode_settings(random_codec.config, 1, 0, None, 0)
    with pytest.raises(OutOfMemoryError, match="^Decoding 256x256 pixels takes about"):
        random_codec.decoder.decode(large, settings, tile)


def test_a_healthy_bundle_is_not_called_corrupt(random_bundle, no_room):
    with pytest.raises(OutOfMemoryError, match="weights takes about"):
        load_bundle(random_bundle)


@pytest.mark.parametrize(
    ("part", "failure"),
    [
        ("cdc_jax.codec.bundle_weights._load_orbax", RuntimeError("RESOURCE_EXHAUSTED: Out of memory")),
        ("cdc_jax.codec.bundle_weights._load_orbax", MemoryError("std::bad_alloc")),
        ("cdc_jax.codec.bundle_weights.check_orbax", MemoryError("std::bad_alloc")),
        ("cdc_jax.entropy.stored_npz.read_limited", MemoryError()),
    ],
)
def test_running_out_of_memory_while_loading(random_bundle, monkeypatch, part, failure, files, capsys):
    def fail(*_):
        raise failure

    monkeypatch.setattr(part, fail)
    assert main(["verify", str(files / "a.cdc"), "--model", str(random_bundle)]) == 1
    [line] = capsys.readouterr().err.splitlines()
    assert "not enough memory" in line and "corrupt" not in line and "ulimit -v" in line


@pytest.mark.parametrize("command", ["compress", "decompress", "verify"])
def test_max_memory(command, random_bundle, files, capsys):
    source = files / ("a.png" if command == "compress" else "a.cdc")
    output = [] if command == "verify" else ["-o", str(files / ("new.cdc" if command == "compress" else "new.png"))]
    words = [command, str(source), *output, "--model", str(random_bundle)]
    assert main([*words, "--max-memory=100M"]) == 2
    [line] = capsys.readouterr().err.splitlines()
    needed_mib = int(line.split(" needs at least ")[1].split()[0])
    assert line.endswith("MiB with this model.") and 100 < needed_mib < 2000
    assert main([*words, f"--max-memory={needed_mib}M"]) == 0


def test_the_need_of_a_target(random_bundle, files, capsys):
    """--min-psnr decodes, which takes more."""
    words = ["compress", str(files / "a.png"), "-o", str(files / "new.cdc"), "--model", str(random_bundle)]
    needs = []
    for target in ([], ["--min-psnr=1"]):
        assert main([*words, *target, "--max-memory=100M"]) == 2
        needs.append(int(capsys.readouterr().err.split(" needs at least ")[1].split()[0]))
    assert needs[0] < needs[1]


def test_a_size_that_fits(random_codec):
    config = random_codec.config
    with pytest.raises(ConfigError, match="needs at least"):
        memory.check_limit(100, 64, 64, memory.reading_bytes(64, 64, config))
    memory.check_limit(math.inf, 64, 64, memory.reading_bytes(64, 64, config))


def run_limited(folder, mebibytes: int, bundle: str, model: list[str]) -> list[int]:
    """Exit codes of three commands under a limit. Each succeeds, or says in one line that memory is short."""
    codes = []
    for words in (
        ["compress", "a.png", "-o", "new.cdc"],
        ["decompress", f"{bundle}.cdc", "-o", "new.png"],
        ["verify", f"{bundle}.cdc"],
    ):
        command = [sys.executable, "-m", "cdc_jax", *words, *model]
        limited = ["bash", "-c", f'ulimit -v {mebibytes * 1024}; exec "$@"', "bash", *command]
        done = subprocess.run(limited, env=user_environment(), cwd=folder, capture_output=True, text=True, timeout=300)
        lines = done.stderr.splitlines()
        assert done.returncode in (0, 1) and len(lines) <= 1, done.stderr
        assert done.returncode == 0 or "(ulimit -v)" in lines[0]
        for name in ("new.cdc", "new.png"):
            (folder / name).unlink(missing_ok=True)
        codes.append(done.returncode)
    return codes


@pytest.mark.slow
@LIMITS
@pytest.mark.parametrize("mebibytes", [300, 600, 1000, 1450, 1500, 1550, 1600, 1800, 2200])
def test_commands_under_a_limit(random_bundle, files, mebibytes):
    run_limited(files, mebibytes, "a", ["--model", str(random_bundle)])


@pytest.mark.slow
@LIMITS
@pytest.mark.parametrize("mebibytes", [1500, 2048, 3072, 4096])
def test_the_shipped_model_under_a_limit(files, mebibytes):
    from cdc_jax import load_codec

    (files / "shipped.cdc").write_bytes(load_codec().compress(IMAGE))
    codes = run_limited(files, mebibytes, "shipped", [])
    assert codes == [0, 0, 0] or mebibytes < 3000
