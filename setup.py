"""Packaging of gmmhet: a Scipion plugin whose engine also runs from the command line, without Scipion."""
import os
import re

from setuptools import find_packages, setup

HERE = os.path.dirname(os.path.abspath(__file__))


def read(*names):
    """Text of a file beside this one."""
    with open(os.path.join(HERE, *names), encoding="utf-8") as f:
        return f.read()


VERSION = re.search(r'^__version__ = "([^"]+)"', read("gmmhet", "__init__.py"), re.MULTILINE).group(1)

# What Scipion needs to list the protocols, draw their forms and open their viewers. Naming scipion-em here
# makes pip honour Scipion's own pins (numpy, scipy, matplotlib) whenever it installs gmmhet.
SCIPION_SIDE = ["scipion-pyworkflow>=3.11.2", "scipion-em>=3.11", "numpy", "mrcfile>=1.4"]

# What the engine needs, where this Python can have it. Scipion often lives on Python 3.8, for which
# TensorFlow has long stopped: there the engine runs in an environment of its own (GMMHET_ENV_ACTIVATION).
ENGINE = ["tensorflow>=2.18", "scipy", "scikit-learn", "umap-learn>=0.5.6", "gemmi>=0.6", "pandas", "h5py",
          "tqdm", "numba",
          "matplotlib", "threadpoolctl"]
ENGINE_PYTHON = "python_version >= '3.10'"

setup(
    name="scipion-em-gmmhet",
    version=VERSION,
    description="Heterogeneity of cryo-EM particles as Gaussian mixtures: an engine on TensorFlow, and a "
                "Scipion plugin",
    long_description=read("README.md"),
    long_description_content_type="text/markdown",
    license="GPL-3.0-or-later",
    keywords="cryo-em cryoem image-processing heterogeneity gaussian-mixture scipion",
    classifiers=[
        "Development Status :: 4 - Beta",
        "Intended Audience :: Science/Research",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3",
        "Topic :: Scientific/Engineering :: Bio-Informatics",
    ],
    packages=find_packages(include=["gmmhet", "gmmhet.*"]),
    package_data={"gmmhet": ["protocols.conf", "logo.png", "templates/*"]},
    include_package_data=True,
    python_requires=">=3.8",
    install_requires=SCIPION_SIDE + ["%s; %s" % (package, ENGINE_PYTHON) for package in ENGINE],
    extras_require={
        "gpu": ["tensorflow[and-cuda]>=2.18; " + ENGINE_PYTHON],
        "dev": ["scipion-app", "scipion-em-relion", "pytest", "pytest-timeout", "hypothesis",
                *(package + "; " + ENGINE_PYTHON
                  for package in ("pytest-xdist", "starfile", "ruff", "mypy"))],
    },
    entry_points={
        "pyworkflow.plugin": ["gmmhet = gmmhet"],
        "console_scripts": ["gmmhet = gmmhet.engine.cli:main"],
    },
)
