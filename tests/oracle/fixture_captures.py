#!/usr/bin/env python3
"""Captures the modules of fixtures/ on the kernels they were built for, small enough to be part of the repository.

    fixture_captures.py [--kmodld BIN] [--cache DIR] [--refresh] [SET...]

makes fixtures/captures/SET.tar.xz of every SET below, or of those named. What the file holds is said in
fixtures/captures/README.md. --refresh boots nothing: it makes anew what is derived in the packs there are, kernel.spec
(after kmodld has learned to keep more of an image), the symbols of padding before functions, and the list of run-time state.
"""

import argparse
import io
import json
import os
import re
import signal
import struct
import subprocess
import sys
import tarfile
import tempfile
import zlib

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import capture
from compare import Set, read
from elf import Elf
from kernel_tree import ROOT, KernelTree, fetch
from machine import MACHINES
from runtime_state import holes

# Refused by the kernel (that is what they are for), or the same module again.
NOT_LOADED = {"ns_forgot", "proprietary_gpl", "hello_signed"}
PARAMS = {
    "params": "a_byte=7 a_short=-3 an_int=0x12345 a_long=-9 a_ullong=1234567890123 a_bool=n an_invbool=n a_latch=y "
    "a_string=set-at-load int_array=5,-6,7 ushort_array=1,2 bool_array=n,y zero_int=42 zero_array=1,2,3 "
    "zero_string=no-longer outer_name=77",
}


class Boot:
    """How the kernel of a fixture folder is booted."""

    def __init__(self, folder, cpu="", append="nokaslr"):
        self.folder, self.cpu, self.append = folder, cpu, append


SETS = {
    "6.1-amd64": Boot("6.1-amd64"),
    "6.12-amd64": Boot("6.12-amd64"),
    "6.12-amd64-stuff": Boot("6.12-amd64", "Skylake-Client-v1", "nokaslr spectre_v2=retpoline retbleed=stuff"),
    "6.12-amd64-lfence": Boot("6.12-amd64", "max", "spectre_v2=retpoline,lfence"),
    "7.3-amd64": Boot("7.3-amd64"),
    "6.1-arm64": Boot("6.1-arm64"),
    "6.1-arm64-kaslr-a53": Boot("6.1-arm64", "cortex-a53,midr=0x410fd033", "kaslr"),
    "6.12-arm64": Boot("6.12-arm64"),
    "6.12-arm64-kaslr-a53": Boot("6.12-arm64", "cortex-a53,midr=0x410fd033", "kaslr"),
    "6.12-arm64-max": Boot("6.12-arm64", "max"),
    "7.3-arm64": Boot("7.3-arm64"),
}

# What finalisation looks up by name, apart from what modules import.
KEPT = re.compile(
    r"_text|_stext|_etext|_sinittext|_einittext|_end|_edata|__bss_st\w*|__init_begin|__init_end|__entry_tramp_text_start"
    r"|__per_cpu_(start|end|load)|__fentry__|ftrace_(\w*caller|nop_ops|call|stub)|\w*return_thunk\w*"
    r"|__x86_indirect_(jump_|call_)?thunk_\w*|srso_\w*|retbleed_\w*|\w*its_\w*thunk\w*"
    r"|pv_ops|\w*nop_func|BUG_func|paravirt_BUG|_paravirt_\w*"
    r"|__static_call_return\w*|__(start|stop)_static_call_\w+|boot_cpu_data|cpu_caps_\w+|alt_cb_patch_nops"
    r"|system_cpucaps|cpu_hwcaps|arm64_\w*caps\w*|trace_nop_print|uniproc_patched|noreplace_smp|cfi_mode|static_call_initialized"
    r"|callthunks_initialized|skl_call_thunk_\w+|pcpu_hot|relocate_kernel|process_srcu|delayed_work_timer_fn|nr_cpu_ids|module_layout"
    r"|ftrace_disabled|trace_event_\w*reg|perf_trace_\w+"
)


# What objtool names the padding before a function, with the function's name behind it.
PADDING = "__pfx_"


def kallsyms_lines(text):
    """(address, name, whether a module's) and the line."""
    for line in text.splitlines():
        fields = line.split()
        yield int(fields[0], 16), fields[2].decode(), len(fields) > 3, line


class Trim:
    """Which of the kernel's symbols stay."""

    def __init__(self, folder):
        self.names, self.addresses = set(), set()
        self.linked = b""  # the kallsyms that were trimmed last
        with open(os.path.join(folder, "Module.symvers"), encoding="utf-8") as file:
            self.add_names(line.split("\t")[1] for line in file)

    def add_names(self, names):
        for name in names:
            self.names |= {name, f"__ksymtab_{name}"}
            if name.startswith("__SCT__"):
                self.names.add(f"__SCK__{name[7:]}")

    def add(self, elf, meta):
        """What a module imports, and the keys it uses with what they call."""
        self.add_names(s.name for s in elf.symbols() if s.shndx == 0 and s.name)
        for key, state in {**meta["jump_keys"], **meta["static_call_keys"]}.items():
            self.addresses |= {int(key, 16), *struct.unpack("<2Q", bytes.fromhex(state))} - {0}

    def keeps(self, name, address=None):
        # The padding before a function goes with it.
        name = name.removeprefix(PADDING)
        return name in self.names or address in self.addresses or KEPT.fullmatch(name) is not None

    def kallsyms(self, text):
        kept = [line for at, name, of_module, line in kallsyms_lines(text) if of_module or self.keeps(name, at)]
        self.linked = b"".join(line + b"\n" for line in kept)
        return self.linked

    def exports(self, text):
        return b"".join(line + b"\n" for line in text.splitlines() if self.keeps(line.split(b"\t")[2].decode()))

    def spec(self, spec):
        """A SPEC with fewer symbols and no BTF (docs/spec-file.md); whatever else it holds stays as it is."""
        records = {}
        for name, value in spec_records(spec):
            if name == "kallsyms-table":
                records["kallsyms"] = self.kallsyms(kallsyms_text(value))
            elif name == "exports-table":
                records["exports"] = self.exports(exports_text(value))
            elif name != "btf-table":  # megabytes; what patching needs of it are the types
                records[name] = value
        return spec_file(records)


def spec_records(spec):
    """Names and bytes of the records of a SPEC."""
    head, end, body = spec.partition(re.search(rb"^end [0-9a-f]{8}\n", spec, re.MULTILINE)[0])
    for line in head.decode().splitlines()[1:]:
        name, length, stored, _ = line.split(" ")
        value, body = body[: int(stored)], body[int(stored) :]
        if stored != length:
            value = subprocess.run(["zstd", "-dcq"], input=value, check=True, capture_output=True).stdout
        yield name, value


def spec_file(records):
    """A SPEC of packed records."""
    head, body = b"kmodld kernel spec 2\n", b""
    for name, value in records.items():
        packed = subprocess.run(["zstd", "-cq", "-19"], input=value, check=True, capture_output=True).stdout
        stored = packed if len(packed) < len(value) else value
        head += b"%s %d %d %08x\n" % (name.encode(), len(value), len(stored), zlib.crc32(stored))
        body += stored
    return head + b"end %08x\n" % zlib.crc32(head) + body


def parts(record, count):
    """The parts of a record that is a table."""
    lengths = struct.unpack_from(f"<{count}Q", record)
    at = 8 * count
    for length in lengths:
        yield record[at : at + length]
        at += length


def kallsyms_text(table):
    entries, names, _ = parts(table, 3)
    text = lambda at, length: names[at : at + length]
    symbols = struct.iter_unpack("<QIHHc", entries)
    return b"".join(b"%016x %s %s\n" % (address, kind, text(at, length)) for address, at, length, _, kind in symbols)


def exports_text(table):
    entries, names, _ = parts(table, 3)
    lines = []
    for at, length, space, crc, flags, address in struct.iter_unpack("<IIIIIQ", entries):
        crc = b"0x%08x" % crc if flags & 2 else b"-"
        kind = b"EXPORT_SYMBOL_GPL" if flags & 4 else b"EXPORT_SYMBOL"
        end = at + length
        lines.append(b"\t".join([b"0x%x" % address if flags & 1 else b"-", crc, names[at:end], kind, names[end : end + space]]) + b"\n")
    return b"".join(lines)


def with_padding(captured, linked):
    """A kallsyms of a running kernel with the symbols of padding that the linked one has."""
    address = lambda text: next(at for at, name, _, _ in kallsyms_lines(text) if name == "_stext")
    slide = address(captured) - address(linked)
    old = [s for s in kallsyms_lines(captured) if s[2] or not s[1].startswith(PADDING)]
    new = [(at + slide, *s, b"%016x%s" % (at + slide, line[16:])) for at, *s, line in kallsyms_lines(linked) if s[0].startswith(PADDING)]
    of_kernel = sorted((s for s in old + new if not s[2]), key=lambda s: s[0])
    return b"".join(line + b"\n" for *_, line in of_kernel + [s for s in old if s[2]])


def tree_of(release, folder, cache):
    """The tree of just this release."""
    path = os.path.join(cache, release)
    if not os.path.isdir(path):
        path = fetch(folder, cache)
    if os.path.basename(path) != release:
        raise SystemExit(f"{folder} was built for {release}, and the archive has {os.path.basename(path)}: run fixtures/build.sh")
    return KernelTree(path)


def write_pack(out, name, files):
    """What is alike lies together: stage by stage, then region by region, of one module after the other."""
    order = sorted(files, key=lambda f: (f.split("/")[0], os.path.basename(f), f))
    with tarfile.open(os.path.join(out, f"{name}.tar.xz"), "w:xz", preset=9, format=tarfile.USTAR_FORMAT) as pack:
        for file in order:
            entry = tarfile.TarInfo(f"{name}/{file}")
            entry.size = len(files[file])
            pack.addfile(entry, io.BytesIO(files[file]))


def read_pack(out, name):
    with tarfile.open(os.path.join(out, f"{name}.tar.xz")) as pack:
        return {entry.name.partition("/")[2]: pack.extractfile(entry).read() for entry in pack}


def spec_of(kmodld, tree, trim):
    """A SPEC of the kernel's image with the symbols that stay."""
    with tempfile.TemporaryDirectory(prefix="oracle") as scratch:
        path = os.path.join(scratch, "spec")
        subprocess.run([kmodld, "kernel", tree.image, "-o", path], check=True, stdout=subprocess.DEVNULL)
        return trim.spec(read(path))


def captured_files(name, boot, tree, folder):
    """Captures a set: its files as they are packed, and whether every module was captured."""
    files = sorted(f for f in os.listdir(folder) if f.endswith(".ko") and f[:-3] not in NOT_LOADED)
    modules = [tree.add(os.path.join(folder, f)) for f in files]
    machine = MACHINES[tree.elf(modules[0]).machine]
    options = capture.Options(boot.cpu or machine.cpu, 1, 1024, boot.append, 600, PARAMS)
    with tempfile.TemporaryDirectory(prefix="oracle") as scratch:
        path = os.path.join(scratch, name)
        complete = capture.capture(tree, modules, path, options)
        captured = Set(path, tree.image, scratch)
        packed = {"set.json": read(os.path.join(path, "set.json"))}
        trim = Trim(folder)
        for module, meta in captured.metas.items():
            elf = captured.elf(module)
            trim.add(elf, meta)
            packed[f"{module}/meta.json"] = json.dumps(meta).encode()
            for file in (f"{s}/{r['name']}.bin" for s in meta["stages"] for r in meta["regions"]):
                packed[f"{module}/{file}"] = read(os.path.join(path, module, file))
        packed["kallsyms.txt"] = trim.kallsyms(read(os.path.join(path, "kallsyms.txt")))
    return packed, complete


def make(name, boot, arguments):
    """Makes one pack; true if every module was captured."""
    folder = os.path.join(ROOT, "fixtures", boot.folder)
    with open(os.path.join(folder, "release"), encoding="utf-8") as file:
        tree = tree_of(file.read().strip(), boot.folder, arguments.cache)
    if arguments.refresh:
        files, complete = read_pack(arguments.out, name), True
    else:
        files, complete = captured_files(name, boot, tree, folder)
    for file in (f for f in files if f.endswith("/meta.json")):
        meta = json.loads(files[file])
        elf = Elf(read(os.path.join(folder, f"{meta['module']}.ko")))
        meta["not_compared"] = {
            stage: [[hole.start, hole.size, hole.why] for hole in holes(stage, elf, meta, json.loads(files["set.json"]))]
            for stage in meta["stages"]
        }
        files[file] = json.dumps(meta).encode()
    trim = Trim(folder)
    of_kernel = (symbol for _, symbol, of_module, _ in kallsyms_lines(files["kallsyms.txt"]) if not of_module)
    trim.names |= {symbol for symbol in of_kernel if not symbol.startswith(PADDING)}
    files["kernel.spec"] = spec_of(arguments.kmodld, tree, trim)
    if arguments.refresh:
        files["kallsyms.txt"] = with_padding(files["kallsyms.txt"], trim.linked)
    write_pack(arguments.out, name, files)
    return complete


def main():
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the guest is ended
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    target = os.environ.get("CARGO_TARGET_DIR", os.path.join(ROOT, "target"))
    parser.add_argument("--kmodld", default=os.path.join(target, "release", "kmodld"))
    parser.add_argument("--cache", default=os.environ.get("KMODLD_KERNELS", os.path.join(ROOT, "target", "kernels")))
    parser.add_argument("--refresh", action="store_true")
    parser.add_argument("--out", default=os.path.join(ROOT, "fixtures", "captures"))
    parser.add_argument("set", nargs="*", metavar="SET")
    arguments = parser.parse_args()
    os.makedirs(arguments.out, exist_ok=True)
    good = True
    for name in arguments.set or SETS:
        good = make(name, SETS[name], arguments) and good
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
