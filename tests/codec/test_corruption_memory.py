"""Corrupt files take no more memory than a valid file of the largest allowed image."""

import os

import pytest

import cdc_jax
from tests.helpers.corruption import MAX_PIXELS, valid_files
from tests.helpers.machines import DEFAULT

_MEMORY_SCRIPT = """
import pathlib, re, sys
import numpy as np
from cdc_jax.io import cdc_file
from cdc_jax.entropy.coder import EntropyCoder
from cdc_jax.entropy.coding_model import CodingModel
from cdc_jax.errors import BitstreamError
from tests.helpers.corruption import MAX_PIXELS, declared, mutated, sealed

model = CodingModel.load(sys.argv[1])
coder = EntropyCoder(model)
files = [path.read_bytes() for path in sorted(pathlib.Path(sys.argv[2]).iterdir())]

def read(data):
    header = cdc_file.unpack(data, max_pixels=MAX_PIXELS)
    shape = -(-header.height // 64), -(-header.width // 64), model.channels
    return coder.decode(header.stream, shape, header.level)

def peak_bytes():
    # Not from getrusage, whose peak includes the parent process's.
    return int(re.search(r"VmHWM:\\s+(\\d+) kB", pathlib.Path("/proc/self/status").read_text()).group(1)) * 1024

# The valid file: the largest image that the limit allows, with every eighth symbol of y escaped.
rng = np.random.default_rng(0)
z = rng.integers(-3, 4, (16, 16, model.channels)).astype(np.int32)
level = 9536 if model.format_version > 1 else None

def drawn(step):
    y = np.rint(rng.normal(size=step.scale_index.shape) * model.scales[step.scale_index]).astype(np.int32)
    y.reshape(-1)[::8] = 1_000_000
    return y

coded = model.latents.code(z, level or 0, drawn)
y, index = coded.symbols, coded.scale_index
data = cdc_file.pack(model.fingerprint, 1024, 1024, coder.encode(z, y, index), level=level)
pathlib.Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
before = peak_bytes()
assert np.array_equal(read(data).y, y)
honest = peak_bytes()
tried = 0
for i in range(int(sys.argv[3])):
    sides = [b"\\x80\\x08", b"\\x40", b"\\xff\\x07"]
    noise = rng.bytes(int(rng.integers(0, 3000)))
    corrupt = sealed(mutated(rng, files[i % len(files)], files))
    attacks = [corrupt, declared(model, *rng.choice(sides, 2).tolist(), noise)]
    for attack in (attacks if i % 50 == 0 else attacks[:1]):
        tried += 1
        try:
            read(attack)
        except BitstreamError:
            pass
print(before, honest, peak_bytes(), tried)
"""


@pytest.mark.parametrize("kind", ["random_bundle", "compact_bundle"])
@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="needs Linux' measure of memory")
def test_memory_is_that_of_a_valid_file(request, kind, tmp_path):
    """Compares the peak memory of corrupt files with that of a valid file of the largest allowed size."""
    bundle = request.getfixturevalue(kind)
    for i, data in enumerate(valid_files(cdc_jax.load_codec(bundle, max_pixels=MAX_PIXELS))):
        (tmp_path / f"{i}.cdc").write_bytes(data)
    output = DEFAULT.run("-c", _MEMORY_SCRIPT, bundle / "coding.npz", tmp_path, "1000")
    before, honest, most, tried = map(int, output.split())
    assert before < honest and tried >= 1000
    assert most - honest < honest - before
