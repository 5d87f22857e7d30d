"""Boots a kernel, loads modules, and writes down what is in memory at the points where load_module() is stopped."""

import json
import os
import shutil
import struct
import subprocess
import sys
import tempfile
import time
from bisect import bisect_right
from dataclasses import dataclass

from btf import Btf
from elf import SHDR, SHF_ALLOC, Elf
from guest import Guest, GuestError
from initramfs import archive
from machine import MACHINES

# Since v6.4 a module has these regions (enum mod_mem_type), before that two layouts.
MOD_MEM_TYPES = ["text", "data", "rodata", "ro_after_init", "init_text", "init_data", "init_rodata"]
MODULE_LAYOUTS = ["core", "init"]
# What of the kernel's structures finds run-time state (runtime_state.py).
STRUCTURES = [
    "module",
    "module_memory",
    "module_layout",
    "trace_event",
    "trace_event_call",
    "trace_event_class",
    "static_call_key",
    "srcu_struct",
    "ddebug_class_map",
]
# What is waited for, in seconds.
BOOT, LOAD = 240, 180


@dataclass
class Options:
    """How the guest is made."""

    cpu: str
    smp: int
    memory: int
    append: str
    limit: int
    params: dict


class RunningKernel:
    """Symbols, structures and memory of the kernel that was booted."""

    def __init__(self, tree, guest, kallsyms, btf):
        self.tree, self.guest, self.btf = tree, guest, btf
        self.module = btf.struct("module")
        self._symbols = {}
        for line in kallsyms.splitlines():
            address, _, name = line.split()[:3]
            self._symbols.setdefault(name.decode(), int(address, 16))
            # Link time optimisation renames what is static.
            self._symbols.setdefault(name.decode().split(".llvm.")[0], int(address, 16))
        self._addresses = sorted(set(self._symbols.values()))

    def symbol(self, name):
        """Address of the first symbol of a name, or None."""
        return self._symbols.get(name)

    def pointers(self, address, count):
        return [p for (p,) in struct.iter_unpack("<Q", self.guest.memory(address, 8 * count))]

    def symbol_size(self, address, most):
        """Bytes up to the next symbol, but so many at most."""
        following = bisect_right(self._addresses, address)
        return min(most, self._addresses[following] - address) if following < len(self._addresses) else most

    def field(self, module, name):
        """A number out of a struct module."""
        member = self.module[name]
        return int.from_bytes(self.guest.memory(module + member.offset, member.size), "little")

    def structures(self):
        """Sizes of structures, and where their members lie."""
        found = {}
        for name in filter(self.btf.has, STRUCTURES):
            members = {n: [m.offset, m.size] for n, m in self.btf.struct(name).items()}
            found[name] = {"size": self.btf.struct_size(name), "members": members}
        return found

    def regions(self, module):
        """Name, address and size of the regions of a module that are not empty."""
        if "mem" in self.module:
            layout, size = self.btf.struct("module_memory"), self.btf.struct_size("module_memory")
            start = self.module["mem"].offset
            places = [(name, start + i * size) for i, name in enumerate(MOD_MEM_TYPES)]
        else:
            layout = self.btf.struct("module_layout")
            places = [(name, self.module[f"{name}_layout"].offset) for name in MODULE_LAYOUTS]
        regions = []
        for name, offset in places:
            base, size = (
                int.from_bytes(self.guest.memory(module + offset + m.offset, m.size), "little")
                for m in (layout["base"], layout["size"])
            )
            if size:
                regions.append({"name": name, "base": base, "size": size})
        return regions


class Capture:
    """One boot. What is captured goes to a folder, in the format that README.md describes."""

    # Where load_module() is stopped, in this order, and the stage that its memory then shows. Only the next places have
    # a breakpoint: QEMU runs a page of code that holds one instruction by instruction.
    STOPS = {
        "apply_relocate_add": None,
        "sort_extable": "relocated",
        "module_finalize": "kallsyms",
        "do_init_module": "final",
    }
    FIRST = ("apply_relocate_add", "sort_extable")
    NEXT = {"sort_extable": ("module_finalize",), "module_finalize": ("do_init_module",)}

    def __init__(self, tree, modules, out, options):
        self.tree, self.out, self.options = tree, out, options
        self.order = tree.load_order(modules)
        self.machine = MACHINES[tree.elf(self.order[0]).machine]
        self.exports, self.loads, self.captured = {}, [], []
        self.kernel = self.state = None
        self.armed = {}

    def run(self):
        """Boots and captures; True if every module loaded and was captured."""
        init = self.machine.init()
        symbols = {s.name: s.value for s in Elf(init).symbols()}
        self.hook, self.message = symbols["hook"], symbols["message"]
        with tempfile.TemporaryDirectory(prefix="oracle") as folder:
            initrd = os.path.join(folder, "initrd")
            with open(initrd, "wb") as file:
                file.write(archive(init, self.files()))
            self.guest = Guest(self.machine, self.tree.image, initrd, folder, self.options)
            os.makedirs(self.out)
            try:
                self.guest.breakpoint(self.hook)
                self.follow()
            except GuestError as error:
                print(f"{error}\n{self.guest.last_words()}", file=sys.stderr)
            finally:
                self.guest.close()
                if os.path.exists(os.path.join(folder, "console")):
                    shutil.copy(os.path.join(folder, "console"), self.out)
        self.write_set()
        return bool(self.loads) and self.captured == self.order

    def files(self):
        """What the guest finds in its initramfs."""
        plan = [
            "export /sys/kernel/btf/vmlinux btf",
            "export /proc/kallsyms kallsyms",
            "export /proc/cpuinfo cpuinfo",
            "folder /sys/devices/system/cpu/vulnerabilities vulnerabilities",
        ]
        files = {}
        for name in self.order:
            plan.append(f"load /m/{name}.ko {self.options.params.get(name, '')}".rstrip())
            files[f"m/{name}.ko"] = self.tree.module(name)
        plan.append("export /proc/kallsyms kallsyms.txt")
        return {"plan": "".join(line + "\n" for line in plan).encode(), **files}

    def follow(self):
        """Goes from stop to stop until the guest is done."""
        while True:
            registers = self.guest.resume(LOAD if self.kernel else BOOT)
            at = registers["pc"]
            if at == self.hook:
                what, _, rest = self.guest.memory(self.message, 512).split(b"\0")[0].decode().partition(" ")
                if what == "done":
                    return
                data, length = (registers[r] for r in self.machine.arguments[:2])
                getattr(self, f"on_{what}")(rest, data, length)
                self.guest.step_over(self.hook)
            elif at in self.armed:
                self.stop(self.armed[at], [registers[r] for r in self.machine.arguments])

    def on_export(self, name, data, length):
        self.exports[name] = self.guest.memory(data, length)
        if name == "kallsyms":
            btf = Btf(self.exports.pop("btf"))
            self.kernel = RunningKernel(self.tree, self.guest, self.exports.pop("kallsyms"), btf)

    def on_loading(self, path, _data, _length):
        self.name = os.path.basename(path).removesuffix(".ko")
        self.module, self.stages = None, {}
        self.arm(self.FIRST)

    def on_loaded(self, text, _data, _length):
        result = int(text.split()[1])
        self.arm(())
        self.loads.append({"name": self.name, "result": result})
        if result:
            print(f"{self.name}: init_module gave {result}", file=sys.stderr)

    def arm(self, names):
        """Has breakpoints on these functions and no others."""
        for address in self.armed:
            self.guest.breakpoint(address, False)
        self.armed = {self.kernel.symbol(n): n for n in names if self.kernel.symbol(n) is not None}
        for address in self.armed:
            self.guest.breakpoint(address)

    def stop(self, at, arguments):
        """load_module() has come to one of the functions."""
        if at == "apply_relocate_add":  # (sechdrs, strtab, symindex, relsec, module)
            self.module = arguments[4]
            self.arm(["sort_extable"])
            return
        if at == "module_finalize":  # (hdr, sechdrs, module)
            self.module = arguments[2]
            self.state = self.state or self.machine.kernel_state(self.kernel)
            elf = self.tree.elf(self.name)
            self.sections = elf.with_headers(self.guest.memory(arguments[1], elf.shnum * SHDR.size))
        if self.module is not None:
            self.save(self.STOPS[at])
        if at == "module_finalize":
            self.keys = {"jump_keys": {}, "static_call_keys": {}}
        if at != "sort_extable":
            self.read_keys(self.STOPS[at])
        if at == "do_init_module":  # (module)
            self.write_meta()
        self.arm(self.NEXT.get(at, ()))

    def folder(self, *parts):
        path = os.path.join(self.out, self.name, *parts)
        os.makedirs(path, exist_ok=True)
        return path

    def save(self, stage):
        """Writes the memory of the module at a stage."""
        self.regions = self.kernel.regions(self.module)
        self.stages[stage] = {r["name"]: self.guest.memory(r["base"], r["size"]) for r in self.regions}
        for name, data in self.stages[stage].items():
            with open(os.path.join(self.folder(stage), f"{name}.bin"), "wb") as file:
                file.write(data)

    def placed(self):
        """The sections that are in memory, with their region."""
        for section in self.sections:
            for region in self.regions:
                offset = section.addr - region["base"]
                inside = 0 <= offset and offset + section.size <= region["size"]
                if section.flags & SHF_ALLOC and inside:
                    yield section, region, offset
                    break

    def read_keys(self, stage):
        """First 16 bytes of the keys of others that the module's jump labels and static calls use.

        They are read before the kernel enters the module there, where that is possible: a static call may name its
        trampoline until then.
        """
        tables = {"__jump_table": ("jump_keys", 16, 8, "<q"), ".static_call_sites": ("static_call_keys", 8, 4, "<i")}
        for section, region, offset in self.placed():
            if section.name not in tables:
                continue
            kind, entry, field, form = tables[section.name]
            memory = self.stages[stage][region["name"]]
            for at in range(field, section.size - entry + field + 1, entry):
                (relative,) = struct.unpack_from(form, memory, offset + at)
                key = section.addr + at + relative & (1 << 64) - 4  # flags in the two low bits
                own = any(r["base"] <= key < r["base"] + r["size"] for r in self.regions)
                if not own and hex(key) not in self.keys[kind]:
                    self.keys[kind][hex(key)] = self.guest.memory(key, 16).hex()

    def srcu_structs(self):
        """Addresses of the module's own srcu_structs."""
        found = []
        for section, region, offset in self.placed():
            if section.name == "___srcu_struct_ptrs":
                table = self.stages["final"][region["name"]][offset : offset + section.size]
                found += [f"{pointer:#018x}" for (pointer,) in struct.iter_unpack("<Q", table)]
        return found

    def write_meta(self):
        meta = {
            "module": self.name,
            "params": self.options.params.get(self.name, ""),
            "loaded_before": [load["name"] for load in self.loads if load["result"] == 0],
            "struct_module": f"{self.module:#018x}",
            "percpu": {
                "addr": f"{self.kernel.field(self.module, 'percpu'):#018x}",
                "size": self.kernel.field(self.module, "percpu_size"),
            },
            "regions": [{**r, "base": f"{r['base']:#018x}"} for r in self.regions],
            "sections": [
                {
                    "index": s.index,
                    "name": s.name,
                    "addr": f"{s.addr:#018x}",
                    "size": s.size,
                    "entsize": f"{s.entsize:#018x}",
                }
                for s, _, _ in self.placed()
            ],
            "stages": sorted(self.stages),
            "srcu_structs": self.srcu_structs(),
            **self.keys,
            **self.machine.of_module(self.kernel, self.module),
        }
        write_json(os.path.join(self.folder(), "meta.json"), meta)
        with open(os.path.join(self.folder(), "module.ko"), "wb") as file:
            file.write(self.tree.module(self.name))
        self.captured.append(self.name)
        print(f"{self.name}: {sum(r['size'] for r in self.regions)} bytes", file=sys.stderr)

    def write_set(self):
        """What is true for the whole boot."""
        version = subprocess.run([self.machine.qemu, "--version"], capture_output=True, text=True, check=True)
        facts = {
            "kernel": self.tree.release,
            "arch": self.machine.name,
            "cpu": self.options.cpu,
            "cmdline": self.guest.cmdline,
            "smp": self.options.smp,
            "qemu": version.stdout.splitlines()[0],
            "loads": self.loads,
        }
        if self.state:
            facts["kernel_state"] = self.state
        if self.kernel:
            facts["structures"] = self.kernel.structures()
        write_json(os.path.join(self.out, "set.json"), facts)
        for name, data in self.exports.items():
            with open(os.path.join(self.out, name), "wb") as file:
                file.write(data)


def write_json(path, value):
    with open(path, "w", encoding="utf-8") as file:
        json.dump(value, file, indent=1)
        file.write("\n")


def capture(tree, modules, out, options):
    """Makes the set `out`, which is replaced when all is done; True if every module was captured."""
    partial = f"{out}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    started = time.monotonic()
    job = Capture(tree, modules, partial, options)
    complete = job.run()
    shutil.rmtree(out, ignore_errors=True)
    os.rename(partial, out)
    count, seconds = len(job.captured), time.monotonic() - started
    print(f"{os.path.basename(out)}: {count} of {len(job.order)} modules captured in {seconds:.0f} s")
    return complete
