"""What Linux's ``load_module`` makes of a kernel module, in user space.

>>> import kmodld
>>> kernel = kmodld.Kernel("/boot/vmlinuz-6.12.0")  # doctest: +SKIP
>>> module = kernel.load("fat.ko")                  # doctest: +SKIP
>>> hex(module.symbol("init_module").address)       # doctest: +SKIP
"""

from ._errors import Error, Incomplete, LoadError, Refused, Undecided
from ._many import check_many
from ._model import Kernel, Module
from ._native import __version__
from ._types import (
    Alarm,
    Difference,
    Finding,
    Import,
    LegalChange,
    Patch,
    Place,
    Region,
    Relocation,
    Section,
    Symbol,
    Unjudged,
    Verdict,
    VerifiedModule,
    VerifyReport,
)

__all__ = [
    "Alarm",
    "Difference",
    "Error",
    "Finding",
    "Import",
    "Incomplete",
    "Kernel",
    "LegalChange",
    "LoadError",
    "Module",
    "Patch",
    "Place",
    "Refused",
    "Region",
    "Relocation",
    "Section",
    "Symbol",
    "Undecided",
    "Unjudged",
    "Verdict",
    "VerifiedModule",
    "VerifyReport",
    "__version__",
    "check_many",
]
