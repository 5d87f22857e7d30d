"""A distribution's kernel as scripts/fetch-kernels.sh lays it out: image, modules, and who needs whom."""

import glob
import gzip
import lzma
import os
import subprocess

from elf import Elf

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def decompressed(path):
    """The contents of a file that may be compressed as modules are."""
    if path.endswith(".zst"):  # not in the standard library
        return subprocess.run(["zstd", "-dcq", path], check=True, capture_output=True).stdout
    with open(path, "rb") as file:
        data = file.read()
    if path.endswith(".xz"):
        return lzma.decompress(data)
    return gzip.decompress(data) if path.endswith(".gz") else data


def module_name(path):
    return os.path.basename(path).split(".ko")[0].replace("-", "_")


def fetch(kernel, cache):
    """The tree of the newest package of SERIES-FLAVOUR, downloaded if it has to be."""
    os.makedirs(cache, exist_ok=True)
    script = os.path.join(ROOT, "scripts", "fetch-kernels.sh")
    out = subprocess.run([script, "--dir", cache, kernel], check=True, stdout=subprocess.PIPE, text=True).stdout
    return out.split(None, 1)[1].strip()


class KernelTree:
    def __init__(self, root):
        self.root = os.path.abspath(root)
        (self.release,) = os.listdir(os.path.join(root, "lib", "modules"))
        self.image = os.path.join(self.root, "boot", f"vmlinuz-{self.release}")
        if not os.path.exists(self.image):  # where Debian has it since 7.2
            self.image = os.path.join(self.root, "lib", "modules", self.release, "vmlinuz")
        self._files = {}
        self._contents = {}
        for folder, _, names in os.walk(os.path.join(self.root, "lib", "modules", self.release)):
            for name in names:
                if name.endswith((".ko", ".ko.xz", ".ko.gz", ".ko.zst")):
                    self._files[module_name(name)] = os.path.join(folder, name)

    def files(self):
        """The modules' paths."""
        return self._files.values()

    def names(self):
        return self._files.keys()

    def symvers(self):
        """The Module.symvers files of the tree: the packages of headers have them."""
        found = glob.glob(os.path.join(self.root, "usr", "src", "*", "Module.symvers"))
        return found + glob.glob(os.path.join(self.root, "lib", "modules", self.release, "build", "Module.symvers"))

    def add(self, path):
        """Takes in a module that is not part of the package; its name."""
        name = module_name(path)
        self._files[name] = os.path.abspath(path)
        return name

    def module(self, name):
        """A module's bytes, decompressed."""
        if name not in self._contents:
            if name not in self._files:
                raise SystemExit(f"{self.release} has no module {name}")
            self._contents[name] = decompressed(self._files[name])
        return self._contents[name]

    def elf(self, name):
        return Elf(self.module(name))

    def load_order(self, names):
        """Modules with all that they need, each after what it needs.

        `depends=` is what depmod makes modules.dep of; the packages hold no modules.dep.
        """
        order = []

        def visit(name, path):
            name = name.replace("-", "_")
            if name in order or name in path:
                return
            elf = self.elf(name)
            for names in elf.modinfo("depends"):
                for other in filter(None, names.split(",")):
                    visit(other, [*path, name])
            for softdep in elf.modinfo("softdep"):
                for other in softdep.partition("pre:")[2].partition("post:")[0].split():
                    # An algorithm's name is an alias of several modules; the generic one runs on every CPU.
                    for candidate in (other.replace("-", "_"), f"{other}_generic"):
                        if candidate in self._files:
                            visit(candidate, [*path, name])
                            break
            order.append(name)

        for name in names:
            visit(name, [])
        return order
