# Imports of a linked module become external functions.
# @category Linux
# Checked for syntax only; for Ghidra's Python (PyGhidra or Jython).
"""Run it on a file of `kmodld link` that Ghidra has imported and analysed."""

from ghidra.program.model.symbol import SourceType


def main():
    program = getCurrentProgram()  # noqa: F821, Ghidra gives it
    memory, functions = program.getMemory(), program.getFunctionManager()
    for symbol in program.getSymbolTable().getAllSymbols(True):
        block = memory.getBlock(symbol.getAddress())
        name = "" if block is None else block.getName()
        if not (name.startswith(".import.") and name.endswith(".text")):
            continue
        owner = name[len(".import.") : -len(".text")]
        if functions.getFunctionAt(symbol.getAddress()) is None:
            createFunction(symbol.getAddress(), symbol.getName())  # noqa: F821
        stub = functions.getFunctionAt(symbol.getAddress())
        if stub is not None:
            place = program.getExternalManager().addExtFunction(owner, symbol.getName(), None, SourceType.IMPORTED)
            stub.setThunkedFunction(place.getFunction())


main()
