"""What the verdict oracle relies on: mutants come again, differ, and reach every kind of place."""

import os
import sys
import unittest
from collections import Counter

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from judge import WARNED, lines
from kernel_tree import ROOT
from module_file import File
from mutate import mutant
from verdicts import classify


def fixtures(folder):
    bases = {}
    for name in ("exporter", "params", "patching"):
        with open(os.path.join(ROOT, "fixtures", folder, f"{name}.ko"), "rb") as file:
            bases[name] = file.read()
    return bases


class Mutants(unittest.TestCase):
    def test_the_same_number_is_the_same_mutant(self):
        bases = fixtures("6.12-amd64")
        for index in range(50):
            self.assertEqual(mutant(7, index, bases), mutant(7, index, bases))
            self.assertNotEqual(mutant(7, index, bases), mutant(8, index, bases))

    def test_every_mutant_is_changed_and_every_kind_is_reached(self):
        for folder in ("6.1-amd64", "6.12-arm64"):
            bases = fixtures(folder)
            kinds, places = Counter(), set()
            for index in range(3000):
                base, made = mutant(1, index, bases)
                self.assertNotEqual(made.data, bases[base], made.name)
                kinds[made.kind] += 1
                places.add((made.kind, made.place))
            self.assertEqual(len(kinds), 11)
            self.assertGreater(min(kinds.values()), 100)
            for place in (".altinstructions", "__jump_table", "__param", "__ksymtab", "__versions", "__bug_table"):
                self.assertIn(("record", place), places)

    def test_a_section_can_be_added_and_grow(self):
        data = fixtures("6.12-amd64")["exporter"]
        file = File(data)
        file.add_section(".new", 1, 2, b"contents")
        again = File(bytes(file.data))
        self.assertEqual(again.names[:-1], File(data).names)
        self.assertEqual(again.content(again.find(".new")), b"contents")
        modinfo = again.find(".modinfo")
        again.set_content(modinfo, again.content(modinfo) + b"more=1\0")
        self.assertTrue(File(bytes(again.data)).content(modinfo).endswith(b"more=1\0"))


class Logs(unittest.TestCase):
    def test_reports_are_left_out_and_their_messages_are_not(self):
        text = (
            "<4>[    1.0] m: before\n<4>[    1.0] ------------[ cut here ]------------\n<4>[    1.0] missing thunk\n"
            "<4>[    1.0] WARNING: CPU: 0 PID: 1 at x.c:1\n<4>[    1.0] RIP: 0010:f+0x1/0x2\n<4>[    1.0] ---[ end trace 0 ]---\n"
            "<4>[    1.0] sysfs: cannot create\n<4>[    1.0] CPU: 0 UID: 0 PID: 1 Comm: init\n<4>[    1.0] Call Trace:\n<4>[    1.0]  <TASK>\n"
            "<4>[    1.0]  f+0x1/0x2\n<4>[    1.0]  </TASK>\n<3>[    1.0] m: after\n"
        )
        self.assertEqual(lines(text), ["m: before", WARNED + "missing thunk", "sysfs: cannot create", "m: after"])

    def test_classes(self):
        def side(verdict, *log, end="refused"):
            return {"verdict": verdict, "end": end, "log": list(log)}

        loads = side("loads", "m: x", end="init")
        self.assertEqual(classify(loads, side("loads", "m: x")), "same")
        self.assertEqual(classify(loads, side("loads", "m: y")), "log only")
        self.assertEqual(classify(loads, side("ENOEXEC")), "false no")
        self.assertEqual(classify(side("ENOEXEC"), side("loads")), "false yes")
        self.assertEqual(classify(side("ENOEXEC"), side("EINVAL")), "other errno")
        self.assertEqual(classify(side("ENOEXEC"), side("undecided")), "undecided")
        oops = side("oops", "m: x", "BUG: unable to handle page fault", end="oops")
        self.assertEqual(classify(oops, side("oops", "m: x")), "same")
        self.assertEqual(classify(side("ENOEXEC", "loc 0000000012345678, val 1"), side("ENOEXEC", "loc 00000000ffffffff, val 1")), "same")
        self.assertEqual(classify(side("ENOEXEC", "type 1"), side("ENOEXEC", "type 2")), "log only")


if __name__ == "__main__":
    unittest.main()
