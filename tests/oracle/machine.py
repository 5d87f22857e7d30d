"""What differs between the architectures: QEMU, registers, and the state of the kernel that patching depends on."""

import os
import struct
import subprocess
import tempfile
from dataclasses import dataclass

HERE = os.path.dirname(os.path.abspath(__file__))
CFLAGS = (
    "-O1 -Wall -Wextra -Werror -ffreestanding -fno-stack-protector -fno-tree-loop-distribute-patterns "
    "-static -nostdlib -fno-pie -no-pie"
).split()


@dataclass(frozen=True)
class End:
    """The symbol that ends a table."""

    symbol: str


class Machine:
    """An architecture. `arguments` are the registers of a function's arguments; `ram` is the physical address of QEMU's memory."""

    ram = 0

    def init(self):
        """The guest's init, compiled."""
        with tempfile.TemporaryDirectory() as folder:
            out = os.path.join(folder, "init")
            for compiler in self.compilers:
                try:
                    subprocess.run([compiler, *CFLAGS, "-o", out, os.path.join(HERE, "init.c")], check=True)
                except FileNotFoundError:
                    continue
                with open(out, "rb") as file:
                    return file.read()
        raise SystemExit(f"no compiler for {self.name}: apt-get install {self.compiler_package}")

    def leave(self, guest, registers, result):
        """At the first instruction of a function: returns from it with a result, without running it."""
        raise NotImplementedError

    def kernel_state(self, kernel):
        """{symbol: its address and bytes} of what finalisation reads of the running kernel."""
        state = {}
        for symbol, what in self.state.items():
            address = kernel.symbol(symbol)
            if address is None or isinstance(what, str) and not kernel.btf.has(what):
                continue
            if isinstance(what, End):
                end = kernel.symbol(what.symbol)
                size = end - address if end else 0
            else:
                size = kernel.btf.struct_size(what) if isinstance(what, str) else what
            state[symbol] = {"addr": address, "bytes": kernel.guest.memory(address, size).hex()}
        return state

    def of_module(self, kernel, module):
        """Facts about one module for its meta.json."""
        return {}

    def capabilities(self, kernel):
        """The bitmap of the CPUs' capabilities as it lies in memory, in hex: what --cpu-caps takes."""
        raise NotImplementedError


class X86_64(Machine):
    name = "x86_64"
    elf_machine, kernel_arch = 62, "x86"
    qemu, qemu_package = "qemu-system-x86_64", "qemu-system-x86"
    compilers, compiler_package = ("x86_64-linux-gnu-gcc", "gcc"), "gcc-x86-64-linux-gnu"
    # no_timer_check: on a busy host the timer interrupt can come too late for the kernel's test of it, which panics.
    board, boot, cpu = "pc", "console=ttyS0 no_timer_check", "max"
    breakpoint_kind = 1
    registers = "rax rbx rcx rdx rsi rdi rbp rsp r8 r9 r10 r11 r12 r13 r14 r15 pc".split()
    arguments = "rdi rsi rdx rcx r8 r9".split()
    # The structure of a symbol, how many bytes it has, or the symbol after it.
    state = {
        "boot_cpu_data": "cpuinfo_x86",
        "pv_ops": "paravirt_patch_template",
        "x86_return_thunk": 8,
        "cfi_mode": 4,
        "cfi_seed": 4,
        "cfi_paranoid": 1,
        "cfi_bhi": 1,
        "uniproc_patched": 1,
        "noreplace_smp": 4,
        "static_call_initialized": 4,
        "callthunks_initialized": 1,
        "ftrace_disabled": 4,
        "__start_static_call_tramp_key": End("__stop_static_call_tramp_key"),
    }

    def leave(self, guest, registers, result):
        stack = registers["rsp"]
        guest.set_register("rax", result & (1 << 64) - 1)
        guest.set_register("rsp", stack + 8)
        guest.set_register("pc", int.from_bytes(guest.read(stack, 8), "little"))

    def of_module(self, kernel, module):
        """Where the pages are that hold the module's own thunks (ITS mitigation)."""
        if "its_page_array" not in kernel.module or not (count := kernel.field(module, "its_num_pages")):
            return {}
        pages = kernel.pointers(kernel.field(module, "its_page_array"), count)
        return {"its_pages": [f"{page:#018x}" for page in pages]}

    def kernel_state(self, kernel):
        state = super().kernel_state(kernel)
        words = kernel.btf.struct("cpuinfo_x86")["x86_capability"]
        return {**state, "x86_capability_offset": [words.offset, words.size]}

    def capabilities(self, kernel):
        words = kernel.btf.struct("cpuinfo_x86")["x86_capability"]
        return kernel.guest.memory(kernel.symbol("boot_cpu_data") + words.offset, words.size).hex()


class Aarch64(Machine):
    name = "aarch64"
    elf_machine, kernel_arch = 183, "arm64"
    qemu, qemu_package = "qemu-system-aarch64", "qemu-system-arm"
    compilers, compiler_package = ("aarch64-linux-gnu-gcc",), "gcc-aarch64-linux-gnu"
    board, boot, cpu = "virt", "console=ttyAMA0", "cortex-a72"
    ram = 1 << 30
    breakpoint_kind = 4
    registers = [f"x{i}" for i in range(31)] + ["sp", "pc"]
    arguments = [f"x{i}" for i in range(8)]
    state = {}

    def leave(self, guest, registers, result):
        guest.set_register("x0", result & (1 << 64) - 1)
        guest.set_register("pc", registers["x30"])

    def kernel_state(self, kernel):
        """Nothing but the capabilities, and they are with each module."""
        return {}

    def of_module(self, kernel, module):
        plts = kernel.btf.members(kernel.module["arch"].type)
        fields = kernel.btf.struct("mod_plt_sec")
        arch = {}
        for plt, member in plts.items():
            if plt not in ("core", "init"):
                continue
            raw = kernel.guest.memory(module + kernel.module["arch"].offset + member.offset, member.size)
            number = {n: int.from_bytes(raw[f.offset : f.offset + f.size], "little") for n, f in fields.items()}
            arch[plt] = number
        taints = kernel.field(module, "taints")
        return {"arch": arch, "cpucaps": self.capabilities(kernel), "taints": taints}

    def capabilities(self, kernel):
        """It is system_cpucaps since v6.4, cpu_hwcaps before."""
        for symbol in ("system_cpucaps", "cpu_hwcaps"):
            address = kernel.symbol(symbol)
            if address is not None:
                return kernel.guest.memory(address, kernel.symbol_size(address, 16)).hex()
            address = exported(kernel, symbol)
            if address is not None:
                return kernel.guest.memory(address, 16).hex()
        raise SystemExit("this kernel tells nothing of its CPU capabilities")


def exported(kernel, symbol):
    """Address of an exported symbol that kallsyms does not hold (CONFIG_KALLSYMS_ALL=n), out of the plain Image.

    An entry of __ksymtab points to the name and to the symbol, both relative to the pointer's own place.
    """
    with open(kernel.tree.image, "rb") as file:
        image = file.read()
    text = kernel.symbol("_text") or kernel.symbol("_stext") & ~0x1FFFFF
    name = image.find(b"\0" + symbol.encode() + b"\0") + 1
    while name:
        for at in range(max(0, name - (1 << 24)) & ~3, min(len(image) - 4, name), 4):
            if struct.unpack_from("<i", image, at)[0] == name - at:
                return text + at - 4 + struct.unpack_from("<i", image, at - 4)[0]
        name = image.find(b"\0" + symbol.encode() + b"\0", name) + 1
    return None


MACHINES = {m.elf_machine: m for m in (X86_64(), Aarch64())}
