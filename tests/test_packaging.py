"""Packaging: setup.py and the package agree, and no file names a particular machine."""

import ast
import os
import re
import runpy
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

pytest.importorskip("setuptools", reason="setup.py is read through setuptools: pip install '.[test]'")
from setuptools import find_packages  # noqa: E402

ROOT = Path(__file__).resolve().parents[1]
SETUP = runpy.run_path(str(ROOT / "setup.py"), run_name="setup_constants")
MODULES = sorted((ROOT / "cdc_jax").rglob("*.py"))
CONFIGS = sorted(path for path in (ROOT / "configs").glob("*.py") if path.name != "__init__.py")
MAX_MODULE_LINES = 300

# The modules that open and write files, which must be importable with the base installation alone.
CODEC_SIDE = ["__init__", "__main__", "cli", "codec.codec", "io.cdc_file", "io.images", "codec.bundle", "errors"]

# Import names that differ from the name of the distribution.
DISTRIBUTION_OF = {
    "PIL": "pillow",
    "absl": "absl-py",
    "huggingface_hub": "huggingface-hub",
    "ml_collections": "ml-collections",
    "pillow_heif": "pillow-heif",
    "orbax": "orbax-checkpoint",
    "pillow_jxl": "pillow-jxl-plugin",
    "skimage": "scikit-image",
    "tensorflow_datasets": "tensorflow-datasets",
}


def distribution_names(requirements):
    """The bare, normalized names of requirement strings such as 'jax[tpu]>=0.10'."""
    return {re.match(r"[\w.-]+", item).group(0).lower().replace("_", "-") for item in requirements}


def module_name(path):
    """'cdc_jax.models' for cdc_jax/models/__init__.py, 'cdc_jax.codec.codec' for cdc_jax/codec/codec.py."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULE_PATHS = {module_name(path): path for path in MODULES}


def nodes_run_at_import(tree):
    """The nodes of a module that run when it is imported: outside of function bodies and type checkers' blocks."""
    pending = list(tree.body)
    while pending:
        node = pending.pop()
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            continue
        yield node
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            pending.extend(ast.iter_child_nodes(node))


def imported_names(path, *, at_import_only):
    """Absolute dotted names that a module imports. 'from a import b' gives 'a.b', whether or not it is a module."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    name = module_name(path)
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    for node in nodes_run_at_import(tree) if at_import_only else ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            source = ".".join([*base, *([node.module] if node.module else [])])
            yield from (f"{source}.{alias.name}" for alias in node.names)


def third_party(names):
    """The distributions of dotted import names, without the standard library and this package."""
    tops = {name.split(".")[0] for name in names} - set(sys.stdlib_module_names) - {"cdc_jax"}
    return {DISTRIBUTION_OF.get(top, top).lower() for top in tops}


def import_closure(start):
    """All modules of the package that importing `start` runs, including parents, but not imports inside functions."""
    seen, pending = set(), [name for name in start if name in MODULE_PATHS]
    while pending:
        name = pending.pop()
        if name in seen:
            continue
        seen.add(name)
        for imported in imported_names(MODULE_PATHS[name], at_import_only=True):
            parts = imported.split(".")
            prefixes = (".".join(parts[: end + 1]) for end in range(len(parts)))
            pending.extend(prefix for prefix in prefixes if prefix in MODULE_PATHS)
    return seen


def repository_files():
    """All files that git tracks or would track."""
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("this tree is not a git checkout, so its own files cannot be distinguished from others")
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listing = subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout.decode()
    return [ROOT / name for name in listing.split("\0") if name and (ROOT / name).is_file()]


def test_setup_finds_every_package():
    folders = {
        module_name(path) if path.name == "__init__.py" else module_name(path).rpartition(".")[0] for path in MODULES
    }
    packages = set(find_packages(str(ROOT), include=["cdc_jax", "cdc_jax.*"]))
    assert packages == folders, "a folder with modules lacks its __init__.py"


def test_every_other_file_of_the_package_is_installed():
    for path in repository_files():
        if not path.is_relative_to(ROOT / "cdc_jax") or path.suffix == ".py":
            continue
        folders = {name: ROOT.joinpath(*name.split(".")) for name in SETUP["PACKAGE_DATA"]}
        installed = [
            path in folders[name].glob(pattern)
            for name, patterns in SETUP["PACKAGE_DATA"].items()
            for pattern in patterns
        ]
        assert any(installed), f"{path.relative_to(ROOT)} is in no list of setup.py"


def test_the_version_is_the_same_everywhere():
    import cdc_jax

    version = SETUP["read_version"]()
    assert re.fullmatch(r"\d+\.\d+\.\d+(\.dev\d+)?", version)
    assert cdc_jax.__version__ == version
    headings = re.findall(r"^## \[(.+?)\]", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert headings[0] in ("Unreleased", version)
    try:
        installed = metadata.version("cdc_jax")
    except metadata.PackageNotFoundError:
        return  # run from the source tree alone
    assert installed == version


def test_the_console_script_exists():
    for script in SETUP["CONSOLE_SCRIPTS"]:
        module, _, function = script.partition("=")[2].strip().partition(":")
        tree = ast.parse(MODULE_PATHS[module].read_text(encoding="utf-8"))
        assert function in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def test_every_import_is_a_declared_requirement():
    declared = distribution_names([*SETUP["BASE"], *(item for extra in SETUP["EXTRAS"].values() for item in extra)])
    for path in MODULES:
        undeclared = third_party(imported_names(path, at_import_only=False)) - declared
        assert not undeclared, f"{path.name} imports {sorted(undeclared)}, which setup.py does not name"


def test_opening_files_needs_the_base_installation_only():
    start = {"cdc_jax" if name == "__init__" else f"cdc_jax.{name}" for name in CODEC_SIDE}
    base = distribution_names(SETUP["BASE"])
    for name in import_closure(start):
        extra = third_party(imported_names(MODULE_PATHS[name], at_import_only=True)) - base
        assert not extra, f"{name} imports {sorted(extra)} when it is loaded, which `pip install .` does not bring"


def test_extras_named_in_hints_exist():
    hints = {}
    for path in [*MODULES, *CONFIGS, *ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), ROOT / "pyproject.toml"]:
        for group in re.findall(r"pip install (?:-e )?['\"]?\.\[([\w, -]+)\]", path.read_text(encoding="utf-8")):
            hints.update({extra.strip(): path.name for extra in group.split(",")})
    unknown = {extra: where for extra, where in hints.items() if extra not in SETUP["EXTRAS"]}
    assert hints and not unknown


def test_hints_do_not_name_the_package_index():
    """The package is installed from a clone: a hint `pip install cdc_jax[...]` would not work."""
    for path in [*MODULES, *CONFIGS, *ROOT.glob("*.md")]:
        assert not re.search(r"pip install (-U )?['\"]?cdc[-_]jax", path.read_text(encoding="utf-8")), path.name


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.name)
def test_each_config_names_its_command(config):
    docstring = ast.get_docstring(ast.parse(config.read_text(encoding="utf-8"))) or ""
    assert "python -m cdc_jax.main" in docstring
    assert f"--config=configs/{config.name}" in docstring


@pytest.mark.parametrize("module", MODULES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_modules_stay_small(module):
    lines = len(module.read_text(encoding="utf-8").splitlines())
    assert lines <= MAX_MODULE_LINES, f"{lines} lines: split it, one idea to a module"


def test_no_file_names_a_machine_or_a_registry():
    # Assembled from parts, so that this file does not contain the words it looks for.
    folders = "|".join(["wo" + "rk", "ro" + "ot", "ho" + r"me/[a-z]", "Use" + r"rs/[A-Za-z]", "opt/py" + "pi"])
    hosts = "|".join([r"pypi\.o" + "rg", r"pythonhos" + r"ted\.org", r"npm" + r"js\.", r"deb\.deb" + r"ian\.org"])
    pattern = re.compile(rf"(?<![\w.~$}})\]>-])/({folders})\b|({hosts})".encode())
    assert pattern.search(b"see /wo" + b"rk/x") and not pattern.search(b"a net" + b"work/b/wo" + b"rkdir")
    for path in repository_files():
        match = pattern.search(path.read_bytes())
        assert match is None, f"{path.relative_to(ROOT)} names {match.group(0)!r}"


class TestMakefile:
    """The interpreter is found by running it."""

    @pytest.fixture(autouse=True)
    def needs_make(self):
        if shutil.which("make") is None:
            pytest.skip("make is not installed")

    @staticmethod
    def make(*arguments, path=None):
        environment = {**os.environ, "LC_ALL": "C", **({"PATH": path} if path else {})}
        for name in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS", "PYTHON"):
            environment.pop(name, None)  # this may itself run under make
        command = [shutil.which("make"), *arguments]
        return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)

    @staticmethod
    def fake_python(folder, name, body):
        executable = folder / name
        executable.write_text(f"#!/bin/sh\n{body}\n")
        executable.chmod(0o755)
        return executable

    def test_help_lists_every_target(self):
        targets = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), flags=re.MULTILINE).group(1).split()
        shown = self.make("help").stdout
        assert {line.split()[1] for line in shown.splitlines()} == set(targets)
        assert str(ROOT) not in shown

    def test_skips_an_interpreter_that_does_not_run(self, tmp_path):
        tools = tmp_path / "bin"
        tools.mkdir()
        for name in ("sh", "touch"):
            (tools / name).symlink_to(shutil.which(name))
        self.fake_python(tools, "python3.13", "exit 127")
        self.fake_python(tools, "python3.12", 'case "$1" in -c) exit 1;; esac; exit 99')
        # Imitates a working interpreter: passes the check, and "python -m venv --clear DIR" creates the folder.
        self.fake_python(tools, "python3.11", f'case "$1" in -c) exit 0;; esac; {shutil.which("mkdir")} -p "$4"')
        venv = tmp_path / "venv"
        result = self.make(f"VENV={venv}", f"{venv}/.created", path=str(tools))
        assert result.returncode == 0, result.stderr
        assert (venv / ".created").exists()

    def test_an_unusable_interpreter_is_refused_by_name(self, tmp_path):
        bad = self.fake_python(tmp_path, "python-old", "exit 1")
        venv = tmp_path / "venv"
        result = self.make(f"VENV={venv}", f"{venv}/.created", f"PYTHON={bad}")
        assert result.returncode != 0 and "is not a working Python 3.11" in result.stderr
        assert not venv.exists()

    def test_the_demo_ends_with_how_to_call_the_command(self, tmp_path):
        (tmp_path / "venv" / "bin").mkdir(parents=True)
        self.fake_python(tmp_path / "venv" / "bin", "python", "exit 0")
        for stamp in (".created", ".installed-demo"):
            (tmp_path / "venv" / stamp).touch()
        result = self.make("demo", f"VENV={tmp_path / 'venv'}", "WORKDIR=runs/other")
        assert result.returncode == 0, result.stderr
        assert f"{tmp_path / 'venv'}/bin/cdc compress PHOTO --model runs/other/bundle" in result.stdout
