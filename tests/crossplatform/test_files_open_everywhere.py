"""Files written on one machine are read on all others: the same symbols, means and scale indices, every time.

Encoders and decoders are processes with settings that change floating-point results. Encoders may write different
files, since their networks compute in floats. Every decoder reads exactly the symbols that the encoder wrote.
"""

import shutil
from pathlib import Path

import numpy as np
import pytest

from cdc_jax.entropy.coding_model import CodingModel
from cdc_jax.io import cdc_file
from tests.crossplatform.conftest import MACHINES, NEEDS_JAX, in_parallel, machine, run_worker
from tests.crossplatform.images import NUM_IMAGES
from tests.crossplatform.worker import QUALITIES

QUICK_ENCODERS = ("default", "all changed")
READERS = tuple(name for name in MACHINES if name not in NEEDS_JAX)


def _require(*names: str) -> list[str]:
    """The machines of these names that are available."""
    found = []
    for name in names:
        try:
            machine(name)
            found.append(name)
        except pytest.skip.Exception:
            pass
    return found


class Written:
    """The files of several encoders: their folders, and for each file the digests of its contents."""

    def __init__(self, encoders, bundles: Path, archive: Path, out: Path, every: int):
        self.bundles = bundles
        self.folders = [out / str(i) for i in range(len(encoders))]
        arguments = [(name, folder) for name, folder in zip(encoders, self.folders, strict=True)]
        reports = in_parallel(lambda job: run_worker(job[0], "encode", bundles, archive, every, job[1]), arguments)
        self.machines = {name: report["machine"] for name, report in zip(encoders, reports, strict=True)}
        self.digests = {file: digest for report in reports for file, digest in report["files"].items()}

    def check_read(self, name: str, task: str) -> dict:
        """Reads every file on a machine; returns what the machine told about itself."""
        report = run_worker(name, task, self.bundles, *self.folders)
        assert report["files"].keys() == self.digests.keys()
        different = [
            f"{file}: {array}"
            for file, arrays in self.digests.items()
            for array, digest in arrays.items()
            if report["files"][file][array] != digest
        ]
        assert not different, f"on {name}, {len(different)} arrays differ, such as {different[0]}"
        return report["machine"]


@pytest.fixture(scope="module")
def written(bundles, image_archive, tmp_path_factory) -> Written:
    """Every image once per encoder; each bundle codes a sixth of them."""
    return Written(_require(*QUICK_ENCODERS), bundles, image_archive, tmp_path_factory.mktemp("quick"), 6)


@pytest.fixture(scope="module")
def default_facts(written) -> dict:
    """The report of the default machine, with JAX, about itself."""
    return written.machines["default"]


def test_the_cases_are_enough(written, bundles):
    assert len(written.digests) >= len(written.machines) * NUM_IMAGES
    assert len({file.rsplit("/", 1)[1] for file in written.digests}) == NUM_IMAGES >= 200
    bits, formats = {}, {}
    for bundle in bundles.iterdir():
        model = CodingModel.load(bundle / "coding.npz")
        layers = model.hyper_decoder.layers
        bits[bundle.name] = [layers[0].input_bits, *(layer.output_bits for layer in layers)]
        formats[bundle.name] = model.format_version
    assert min(bits["coarse"]) < 8 and min(bits["saturated"]) < min(bits["coarse"]) and len(bits) == 6
    assert min(bits["every_rate"]) >= 15 and min(bits["every_rate_coarse"]) < 12
    assert sorted(name for name, version in formats.items() if version == 2) == ["every_rate", "every_rate_coarse"]


def test_the_cases_have_every_quality(written):
    levels = {cdc_file.unpack(Path(file).read_bytes()).level for file in written.digests if "every_rate" in file}
    assert levels == {round(256 * quality) for quality in QUALITIES}


def test_encoders_differ(written):
    """The encoders' settings reach the arithmetic: with another XLA the float latents differ, so some files do."""
    if len(written.folders) < 2:
        pytest.skip("there is one encoder on this machine")
    files = [
        {file.relative_to(folder): file.read_bytes() for file in folder.rglob("*.cdc")} for folder in written.folders
    ]
    assert files[0].keys() == files[1].keys()
    assert any(files[0][name] != files[1][name] for name in files[0])


@pytest.mark.parametrize("name", READERS)
def test_read_by_the_entropy_coder(written, default_facts, name):
    facts = written.check_read(name, "read")
    if name.startswith("NumPy without"):
        assert facts["np.exp"] != default_facts["np.exp"]
    if name == "another Python":
        assert (facts["python"], facts["numpy"]) != (default_facts["python"], default_facts["numpy"])
    assert facts["shuffled"] == (name in ("another order of summation", "all changed"))


_QUICKLY_OPENED = ("all changed", "another Python")


@pytest.mark.parametrize(
    "name", [name if name in _QUICKLY_OPENED else pytest.param(name, marks=pytest.mark.slow) for name in MACHINES]
)
def test_read_by_the_codec(written, default_facts, name):
    facts = written.check_read(name, "open")
    expected = {
        "two devices": {"devices": 2},
        "eight devices": {"devices": 8},
        "x64": {"x64": True},
        "bfloat16 products": {"precision": "bfloat16"},
        "all changed": {"devices": 8, "x64": True, "precision": "bfloat16"},
    }.get(name, {})
    assert {fact: facts[fact] for fact in expected} == expected
    if name.startswith("XLA up to"):
        assert facts["jax.exp"] != default_facts["jax.exp"]


@pytest.fixture(params=[1, 2])
def bundles_of_a_format(request, bundles, tmp_path) -> Path:
    """A folder of the bundles of format 1, or of those of format 2."""
    folder = tmp_path / f"format_{request.param}"
    for bundle in bundles.iterdir():
        if CodingModel.load(bundle / "coding.npz").format_version == request.param:
            shutil.copytree(bundle, folder / bundle.name)
    return folder


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_every_encoder_with_every_decoder(bundles_of_a_format, image_archive, tmp_path, capsys):
    """All images on every machine, each with half of the bundles, and each of these files on every machine."""
    encoders = _require(*MACHINES)
    everything = Written(encoders, bundles_of_a_format, image_archive, tmp_path / "files", 2)
    jobs = [(name, "read") for name in _require(*READERS)] + [(name, "open") for name in encoders]
    in_parallel(lambda job: everything.check_read(*job), jobs)
    symbols = len(jobs) * len(encoders) * _count_symbols(image_archive, bundles_of_a_format, 2)
    with capsys.disabled():
        print(
            f"\n{bundles_of_a_format.name}: {len(encoders)} encoders, {len(jobs)} decoders, "
            f"{len(everything.digests)} files, read {len(jobs) * len(everything.digests)} times, "
            f"{symbols / 1e6:.0f} million symbols"
        )


def _count_symbols(archive: Path, bundles: Path, every: int) -> int:
    """The symbols of the images that each bundle codes: z's channels plus 16 times y's, per 64×64 pixels."""
    with np.load(archive) as arrays:
        shapes = [arrays[name].shape for name in arrays.files]
    cells = [-(-height // 64) * -(-width // 64) for height, width, _ in shapes]
    total = 0
    for number, bundle in enumerate(sorted(bundles.iterdir())):
        model = CodingModel.load(bundle / "coding.npz")
        total += sum(cells[number % every :: every]) * (model.channels + 16 * model.latent_channels)
    return total
