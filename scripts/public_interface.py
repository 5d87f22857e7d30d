#!/usr/bin/env python3
"""The public interface of the library crates, from the JSON of rustdoc: scripts/public-interface.sh makes that and calls this.

    public_interface.py rules DIR                 what CONTRIBUTING.md asks of the interface holds
    public_interface.py compare OLD DIR BREAKING  what is gone or another in DIR; a failure unless BREAKING is 1
"""

import json
import pathlib
import sys

OURS = {"elf_layout", "finalize", "kernel", "kernel_image", "kmodld", "memory_image", "module_signature", "reloc", "run", "symres"}
STANDARD = {"alloc", "core", "std"}
# Types of other crates that signatures may have. `bytes` is the type for parts of a file that is shared; what is behind the feature
# `schema` is of that crate; documents are values of serde.
ALLOWED = {"bytes::bytes::Bytes", "schemars::schema::Schema", "schemars::generate::SchemaGenerator", "serde_json::value::Value",
           "serde_core::ser::Serializer"}
# The machine of `run` is built for speed, and its tables are of the fastest kind.
ALLOWED_IN = {"run": {"foldhash::fast::FixedState", "hashbrown::map::HashMap"}}
CLOSED = pathlib.Path(__file__).with_name("public_interface.closed")
# What has children of its own is told by them.
PARENTS = {"module", "use", "impl"}


class Crate:
    """All public items of a crate that can be named from outside: path -> (kind, signature, item)."""

    def __init__(self, path):
        document = json.loads(path.read_text())
        self.name = path.stem
        self.index, self.paths = document["index"], document["paths"]
        self.external = {int(number): crate["name"] for number, crate in document["external_crates"].items()}
        self.items, self.seen = {}, set()
        self.root = self.index[str(document["root"])]
        self.walk(document["root"], "", True)

    def walk(self, number, prefix, is_child):
        """An item and those in it. Those of enums and traits are as public as these are."""
        item = self.index.get(str(number))
        if item is None or item["crate_id"] != 0 or (number, prefix) in self.seen:
            return
        if item["visibility"] != "public" and not (is_child and item["visibility"] == "default"):
            return
        self.seen.add((number, prefix))
        (kind, inner), = item["inner"].items()
        if kind == "use":
            target = self.index.get(str(inner["id"]))
            if target and target["crate_id"] == 0:
                self.walk(inner["id"], prefix, False)
            return
        path = f"{prefix}::{item['name']}".removeprefix("::") if item["name"] else prefix
        if kind not in PARENTS:
            self.items[path] = (kind, self.signature(kind, inner, item), item)
        children, is_child = [], False
        if kind == "module":
            children = inner["items"]
        elif kind == "struct":
            plain = inner["kind"].get("plain") if isinstance(inner["kind"], dict) else None
            children = plain["fields"] if plain else []
        elif kind in ("enum", "trait"):
            children, is_child = inner["variants" if kind == "enum" else "items"], True
        for child in children:
            self.walk(child, path, is_child)
        for implemented in inner.get("impls", []) if isinstance(inner, dict) else []:
            block = self.index[str(implemented)]["inner"]["impl"]
            if block["trait"] is None:
                for child in block["items"]:
                    self.walk(child, path, False)

    def is_open(self, item):
        """May it get more fields or variants?"""
        return any("non_exhaustive" in json.dumps(attribute) for attribute in item["attrs"])

    def all_fields_public(self, item):
        shape = item["inner"]["struct"]["kind"]
        plain = shape.get("plain") if isinstance(shape, dict) else None
        return bool(plain and plain["fields"] and not plain["has_stripped_fields"])

    def signature(self, kind, inner, item):
        """What callers are written against, as text."""
        if kind in ("function", "assoc_const", "assoc_type", "constant", "static", "struct_field", "type_alias"):
            return json.dumps(self.plain(inner), sort_keys=True)
        if kind == "struct":
            return "open" if self.is_open(item) or not self.all_fields_public(item) else "closed"
        if kind == "variant":
            return json.dumps(inner["kind"] if isinstance(inner["kind"], str) else sorted(inner["kind"]))
        return "open" if self.is_open(item) else "closed"

    def plain(self, value):
        """Without what is only of this run of rustdoc."""
        if isinstance(value, list):
            return [self.plain(each) for each in value]
        if not isinstance(value, dict):
            return value
        if "id" in value and "path" in value:
            known = self.paths.get(str(value["id"]))
            path = "::".join(known["path"]) if known else value["path"]
            return {"path": path, "args": self.plain(value.get("args"))}
        return {name: self.plain(each) for name, each in value.items() if name not in ("id", "impls", "span")}

    def foreign(self, item):
        """The types of other crates that a signature has."""
        def numbers(value):
            if isinstance(value, dict):
                for name in ("resolved_path", "trait"):
                    if isinstance(value.get(name), dict) and "id" in value[name]:
                        yield value[name]["id"]
                for each in value.values():
                    yield from numbers(each)
            elif isinstance(value, list):
                for each in value:
                    yield from numbers(each)

        for number in numbers(item["inner"]):
            known = self.paths.get(str(number))
            if known and known["crate_id"] != 0 and self.external[known["crate_id"]] not in OURS | STANDARD:
                yield "::".join(known["path"])


def crates(folder):
    return [Crate(path) for path in sorted(pathlib.Path(folder).glob("*.json"))]


def rules(folder):
    wrong = []
    closed = {line.split()[0] for line in CLOSED.read_text().splitlines() if line and not line.startswith("#")}
    found = set()
    for crate in crates(folder):
        if "```" not in (crate.root["docs"] or ""):
            wrong.append(f"{crate.name}: its first page has no example")
        for path, (kind, signature, item) in crate.items.items():
            if not item["docs"] and kind not in ("variant", "struct_field", "assoc_type"):
                wrong.append(f"{path}: not documented")
            for foreign in set(crate.foreign(item)) - ALLOWED - ALLOWED_IN.get(crate.name, set()):
                wrong.append(f"{path}: has {foreign}, a type of another crate")
            if kind == "struct" and signature == "closed":
                name = f"{crate.name}::{item['name']}"
                found.add(name)
                if name not in closed:
                    wrong.append(f"{path}: a new field would break who uses it: #[non_exhaustive], or a line in {CLOSED.name}")
        print(f"{crate.name}: {len(crate.items)} items")
    wrong += [f"{name} is in {CLOSED.name}, but no such struct" for name in sorted(closed - found)]
    return wrong


def compare(old, new):
    """What breaks who is written against the old interface."""
    then = {crate.name: crate for crate in crates(old)}
    for now in crates(new):
        before = then.pop(now.name, None)
        if before is None:
            continue
        for path, (kind, signature, _) in sorted(before.items.items()):
            if path not in now.items:
                yield f"gone: {path}"
            elif now.items[path][:2] != (kind, signature) and not (signature == "open" and kind == now.items[path][0]):
                yield f"another: {path}"
        for path in sorted(now.items.keys() - before.items.keys()):
            parent, _, _ = path.rpartition("::")
            kind, _, item = now.items[path]
            is_needed = kind == "function" and not item["inner"]["function"].get("has_body", True)
            in_closed = before.items.get(parent, ("", ""))[1] == "closed" and kind in ("variant", "struct_field")
            if in_closed or (is_needed and before.items.get(parent, ("",))[0] == "trait"):
                yield f"new in what could not grow: {path}"
            else:
                print(f"new: {path}")
    yield from (f"gone: crate {name}" for name in then)


def main():
    match sys.argv[1:]:
        case ["rules", folder]:
            wrong = rules(folder)
        case ["compare", old, new, breaking]:
            wrong = list(compare(old, new))
            if breaking == "1":
                print("\n".join(wrong))
                wrong = []
        case _:
            sys.exit(__doc__)
    if wrong:
        print(*wrong, sep="\n", file=sys.stderr)
        sys.exit(f"{len(wrong)} things are wrong")


if __name__ == "__main__":
    main()
