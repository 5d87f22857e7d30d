"""Binary Ninja: imports of a linked module become external symbols. Checked for syntax only.

In its console: `import binja_kmodld; binja_kmodld.name_imports(bv)`.
"""

from binaryninja import Symbol, SymbolType


def name_imports(bv):
    """Every function over which a section `.import.OWNER.text` lies."""
    for name, section in bv.sections.items():
        if not name.startswith(".import."):
            continue
        for symbol in bv.get_symbols(section.start, section.end - section.start):
            kind = SymbolType.ExternalSymbol
            bv.define_user_symbol(Symbol(kind, symbol.address, symbol.name))
