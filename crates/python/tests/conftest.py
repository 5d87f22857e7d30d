"""The fixture kernel and its modules."""

import os
from pathlib import Path

import pytest

import kmodld

FIXTURES = Path(os.environ["KMODLD_FIXTURES"]) / "6.12-amd64"


def ko(name: str) -> Path:
    return FIXTURES / f"{name}.ko"


@pytest.fixture(scope="session")
def spec() -> Path:
    """A SPEC with what the texts of the fixture kernel do not tell; scripts/python.sh has it made."""
    return Path(os.environ["KMODLD_FIXTURE_SPEC"])


@pytest.fixture
def kernel(spec: Path) -> kmodld.Kernel:
    return kmodld.Kernel(spec)
