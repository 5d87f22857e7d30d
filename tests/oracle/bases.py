"""The modules that mutants are made of: the fixtures, and the smallest modules of a kernel that show what modules can hold."""

import os
import shutil
import struct
from dataclasses import dataclass, field

from elf import Elf
from kernel_tree import ROOT, decompressed, module_name
from module_file import RELA, SHT_RELA, SPECIAL_NAMES, File

SIGNATURE = b"~Module signature appended~\n"
LARGEST = 96 << 10
# Looked through, from the smallest on.
CANDIDATES = 2500


@dataclass
class Base:
    name: str
    data: bytes
    needs: list = field(default_factory=list)  # names and bytes of what has to be loaded before, in this order


def unsigned(data):
    """A module without the signature appended to it."""
    if not data.endswith(SIGNATURE):
        return data
    (length,) = struct.unpack(">I", data[-len(SIGNATURE) - 4 : -len(SIGNATURE)])
    return data[: -len(SIGNATURE) - 12 - length]


def features(data):
    """What a module shows: the special sections that it has, and its relocation types."""
    f = File(data)
    shown = {n for n, h in zip(f.names, f.headers) if n in SPECIAL_NAMES and h[5]}
    for header in f.headers:
        if header[1] == SHT_RELA:
            shown |= {f.get(header[4] + at + 8, 4) for at in range(0, header[5], RELA)}
    return shown


def of_tree(tree, covered):
    """The smallest module for each feature that is not covered yet and that is found among the small ones."""
    found = []
    for path in sorted(tree.files(), key=lambda p: (os.path.getsize(p), p))[:CANDIDATES]:
        data = unsigned(decompressed(path))
        if len(data) > LARGEST:
            continue
        new = features(data) - covered
        if new:
            covered |= new
            name = module_name(path)
            needs = [(n, tree.module(n)) for n in tree.load_order([name])[:-1]]
            if len(needs) <= 2:
                found.append(Base(name, data, needs))
    return found


class Adapter:
    """Makes a module that was built for one kernel one of another with the same structures: vermagic and CRCs."""

    def __init__(self, tree):
        path = min(tree.files(), key=os.path.getsize)
        sample = Elf(unsigned(decompressed(path)))
        self.vermagic = sample.modinfo("vermagic")[0]
        self.size_of_module = sample.section(".gnu.linkonce.this_module").size
        self.crcs = {}
        for path in tree.symvers():
            with open(path, encoding="ascii") as file:
                for line in file:
                    crc, name = line.split("\t")[:2]
                    self.crcs[name] = int(crc, 16)

    def adapt(self, data):
        """The module's new bytes, or None: it is too different, or needs what this kernel has not."""
        f = File(data)
        if f.headers[f.find(".gnu.linkonce.this_module")][5] != self.size_of_module:
            return None
        texts = f.content(f.find(".modinfo")).split(b"\0")
        new = [b"vermagic=" + self.vermagic.encode() if t.startswith(b"vermagic=") else t for t in texts]
        f.set_content(f.find(".modinfo"), b"\0".join(new))
        own = {t for t in texts if t.startswith(b"depends=") and t != b"depends="}
        versions = f.find("__versions")
        if versions is not None:
            at, size = f.headers[versions][4:6]
            for record in range(at, at + size, 64):
                name = f.data[record + 8 : record + 64].split(b"\0")[0].decode()
                if name in self.crcs:
                    f.put(record, 8, self.crcs[name])
                elif not own:
                    return None
        return bytes(f.data)


def of_fixtures(tree, arch):
    """The fixtures built for this kernel's series and architecture, or failing that for the next one's."""
    folder = os.path.join(ROOT, "fixtures", f"{'.'.join(tree.release.split('.')[:2])}-{arch}")
    if not os.path.isdir(folder):
        return []
    with open(os.path.join(folder, "release"), encoding="ascii") as file:
        adapter = None if file.read().strip() == tree.release else Adapter(tree)
    made = {}
    for file in sorted(os.listdir(folder)):
        if not file.endswith(".ko") or file == "hello_signed.ko":
            continue
        with open(os.path.join(folder, file), "rb") as opened:
            data = opened.read()
        if adapter:
            data = adapter.adapt(data)
        if data:
            made[module_name(file)] = data
    bases = []
    for name, data in made.items():
        needs = [n for d in Elf(data).modinfo("depends") for n in d.split(",") if n]
        # What it should have asked for is there all the same: the refusal is for another reason.
        needs += ["ns_exporter"] if name == "ns_forgot" and not needs else []
        if all(n in made for n in needs):
            bases.append(Base(name, data, [(n, made[n]) for n in needs]))
    return bases


def bases(tree, arch):
    """By name, in a fixed order."""
    fixtures = of_fixtures(tree, arch)
    covered = {".text", ".data", ".bss", ".modinfo", ".symtab", ".strtab"}
    real = of_tree(tree, covered)
    return {b.name: b for b in sorted([*real, *fixtures], key=lambda b: b.name)}


def kept(folder, tree, arch):
    """The bases as a campaign found them first: it may go on when the fixtures are others."""
    if not os.path.isdir(folder):
        partial = f"{folder}.partial"
        shutil.rmtree(partial, ignore_errors=True)
        for base in bases(tree, arch).values():
            place = os.path.join(partial, base.name)
            os.makedirs(place)
            for name, data in [(f"{base.name}.ko", base.data)] + [(f"{i} {n}", d) for i, (n, d) in enumerate(base.needs)]:
                with open(os.path.join(place, name), "wb") as file:
                    file.write(data)
        os.rename(partial, folder)
    found = {}
    for name in sorted(os.listdir(folder)):
        files = {}
        for file in sorted(os.listdir(os.path.join(folder, name))):
            with open(os.path.join(folder, name, file), "rb") as opened:
                files[file] = opened.read()
        data = files.pop(f"{name}.ko")
        found[name] = Base(name, data, [(file.split(" ", 1)[1], needed) for file, needed in files.items()])
    return found
