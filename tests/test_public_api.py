"""The names that `cdc_jax` and `cdc_jax.metrics` export, and the time and modules that importing them takes."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import cdc_jax
import cdc_jax.metrics
from cdc_jax.errors import BitstreamError, ModelMismatchError
from cdc_jax.io import cdc_file
from cdc_jax.io.chunks import Chunk
from tests.helpers.processes import user_environment

ROOT = Path(__file__).resolve().parents[1]
API = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")


def run_python(code: str) -> str:
    command = [sys.executable, "-c", code]
    return subprocess.run(command, env=user_environment(), cwd=ROOT, capture_output=True, text=True, check=True).stdout


def test_importing_the_package_loads_no_array_library():
    code = "import sys, cdc_jax, cdc_jax.codec, cdc_jax.metrics; cdc_jax.read_header; print(*sys.modules)"
    loaded = set(run_python(code).split())
    assert "cdc_jax.io.header" in loaded
    assert not loaded & {"jax", "numpy", "flax", "PIL"}


def test_importing_the_package_is_fast():
    """Measures CPU time, which other processes disturb less."""
    code = "import time; start = time.process_time(); import cdc_jax; print(time.process_time() - start)"
    assert min(float(run_python(code)) for _ in range(3)) < 0.1


@pytest.mark.parametrize("module", [cdc_jax, cdc_jax.metrics], ids=lambda module: module.__name__)
def test_every_public_name_exists(module):
    assert set(module.__all__) <= set(dir(module))
    for name in module.__all__:
        assert getattr(module, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        module.nothing  # noqa: B018


@pytest.mark.parametrize("module", [cdc_jax, cdc_jax.metrics], ids=lambda module: module.__name__)
def test_type_checkers_see_the_same_names(module):
    """The imports under TYPE_CHECKING and the lazy ones give the same objects."""
    tree = ast.parse(Path(module.__file__).read_text(encoding="utf-8"))
    [block] = [node for node in tree.body if isinstance(node, ast.If)]
    declared = {}
    for statement in block.body:
        for alias in statement.names:
            declared[alias.asname or alias.name] = (statement.module, alias.name)
    lazy = set(module.__all__) - {name for name in vars(cdc_jax.errors) if name.endswith("Error")}
    assert set(declared) == lazy - {"Interrupted", "__version__"}
    for name, (source, attribute) in declared.items():
        assert getattr(module, name) is getattr(sys.modules[source], attribute)


@pytest.mark.parametrize("module", [cdc_jax, cdc_jax.metrics], ids=lambda module: module.__name__)
def test_the_documentation_lists_every_public_name(module):
    documented = set(re.findall(r"^\| `(\w+)[`(]", API, flags=re.MULTILINE))
    assert set(module.__all__) <= documented


def test_the_documentation_lists_every_method_of_a_codec():
    methods = {name for name in vars(cdc_jax.Codec) if not name.startswith("_")}
    assert methods <= set(re.findall(r"^\| `codec\.(\w+)", API, flags=re.MULTILINE))


def test_the_documentation_lists_nothing_else():
    known = {*cdc_jax.__all__, *cdc_jax.metrics.__all__}
    assert set(re.findall(r"^\| `(\w+)[`(]", API, flags=re.MULTILINE)) == known
    attributes = set(re.findall(r"^\| `codec\.(\w+)", API, flags=re.MULTILINE))
    instance_attributes = {"config", "max_pixels", "compute_type", "weights_sha256"}
    instance_attributes |= {"params", "coding", "coder", "decoder"}
    assert attributes == {name for name in vars(cdc_jax.Codec) if not name.startswith("_")} | instance_attributes


WITHOUT_OPTAX = """
import sys
import flax.nnx  # which may import optax itself
sys.modules["optax"] = None  # importing it raises ModuleNotFoundError, as in an installation without the extra
"""


def test_without_an_extra_the_error_names_the_command_to_install_it():
    code = "import cdc_jax\ncdc_jax.export_bundle\ntry: cdc_jax.train\nexcept cdc_jax.CdcError as error: print(error)"
    assert run_python(WITHOUT_OPTAX + code) == "cdc_jax.train needs the package optax: pip install '.[train]'.\n"


def test_headers_of_both_formats(tmp_path):
    data = cdc_file.pack(b"abcd", 5, 7, b"stream")
    header = cdc_jax.read_header(data)
    assert (header.width, header.height, header.num_bytes, header.format_version) == (7, 5, len(data), 1)
    assert (header.fingerprint, header.quality, header.chunks) == (b"abcd", None, {})
    assert header.bpp == 8 * len(data) / 35

    data = cdc_file.pack(b"abcd", 5, 7, b"stream", level=round(37.25 * 256), chunks=(Chunk(b"text", b"caption"),))
    path = tmp_path / "a.cdc"
    path.write_bytes(data)
    for source in (path, str(path), data):
        header = cdc_jax.read_header(source)
        assert (header.format_version, header.quality, header.chunks) == (2, 37.25, {"text": 7})


def test_headers_that_cannot_be_read(tmp_path):
    path = tmp_path / "a.cdc"
    with pytest.raises(BitstreamError, match="a.cdc: Cannot be read: No such file"):
        cdc_jax.read_header(path)
    path.write_bytes(cdc_file.pack(b"abcd", 5, 7, b"stream")[:-1])
    with pytest.raises(BitstreamError, match="a.cdc: The file's checksum"):
        cdc_jax.read_header(path)
    with pytest.raises(BitstreamError, match="^The file is empty"):
        cdc_jax.read_header(b"")


def test_verify(compact_bundle, compact_codec, random_bundle, tmp_path):
    data = compact_codec.compress(np.zeros((8, 8, 3), np.uint8))
    path = tmp_path / "a.cdc"
    path.write_bytes(data)
    for source in (path, data):
        verified = cdc_jax.verify(source, compact_bundle)
        assert (verified.header.width, verified.header.fingerprint) == (8, compact_codec.fingerprint)
    with pytest.raises(ModelMismatchError):
        cdc_jax.verify(data, random_bundle)
    with pytest.raises(BitstreamError, match="b.cdc: Cannot be read"):
        cdc_jax.verify(tmp_path / "b.cdc", compact_bundle)
