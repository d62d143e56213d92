"""The packages; all else is in pyproject.toml. The recipes lie beside the package here, and within it in a wheel."""

from setuptools import find_packages, setup


setup(
    packages=[*find_packages(include=["hf_colearn*"]), "hf_colearn.recipes"],
    package_dir={"hf_colearn.recipes": "recipes"},
)
