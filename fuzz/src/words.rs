//! Words of the texts that are read, for inputs that look like them.

/// Strings of `.modinfo` that a loader looks at.
pub const MODINFO: &[&str] = &[
    "license=GPL",
    "license=Proprietary",
    "license=",
    "name=",
    "name=hello",
    "name=lkdtm",
    "name=ndiswrapper",
    "vermagic=",
    "vermagic=6.12.117+deb12-amd64 SMP preempt mod_unload modversions ",
    "vermagic=6.12.117+deb12-arm64 SMP preempt mod_unload modversions aarch64",
    "vermagic=5.10.0-1-amd64 SMP ",
    "vermagic=6.14.0 SMP preempt mod_unload modversions ",
    "vermagic=7.3.0 SMP preempt mod_unload ",
    "import_ns=",
    "import_ns=KMODLD_FIXTURES",
    "depends=exporter",
    "retpoline=Y",
    "intree=Y",
    "staging=Y",
    "livepatch=Y",
    "test=Y",
    "parm=value:a parameter",
    "parmtype=value:int",
    "version=1",
    "srcversion=0",
];

/// Pieces of a parameter string.
pub const PARAMETERS: &[&str] = &[
    "=",
    "\"",
    " ",
    ",",
    "-",
    "0x",
    "0",
    "-1",
    "18446744073709551615",
    "4294967296",
    "y",
    "N",
    "on",
    "1,2,3",
    "dyndbg=\"+p\"",
    "dyndbg=",
    "async_probe",
    "async_probe=0",
    "--",
    "\t",
    "\u{a0}",
    "params.",
    "'",
];

/// Pieces of a symbol table.
pub const SYMBOLS: &[&str] = &[
    "ffffffff81000000",
    "0000000000000000",
    "ffffffffffffffff",
    " T ",
    " t ",
    " A ",
    " ? ",
    "\t[",
    "]",
    "_text",
    "_stext",
    "__per_cpu_start",
    "__per_cpu_end",
    "[bpf]",
    "__builtin__ftrace",
    "module_layout",
    "\n",
    "0",
    "_end",
];

/// Pieces of a Module.symvers.
pub const SYMVERS: &[&str] = &[
    "0x",
    "0x00000000",
    "\tvmlinux\t",
    "EXPORT_SYMBOL",
    "EXPORT_SYMBOL_GPL",
    "\t",
    "\n",
    "_",
    "module_layout",
    "CRYPTO",
];

/// Pieces of a `.config`.
pub const CONFIG: &[&str] = &[
    "# Linux/x86 6.12.117 Kernel Configuration",
    "# Linux/arm64 6.1.176 Kernel Configuration",
    "CONFIG_",
    "=y",
    "=n",
    "=",
    "\"",
    "CONFIG_BUILD_SALT=\"6.12\"",
    "CONFIG_ARM64_64K_PAGES=y",
    "CONFIG_MODVERSIONS=y",
    "\n",
    "module_blacklist=hello,",
    "module.sig_enforce",
    "mitigations=off",
    "nokaslr",
    "99999999",
];

/// Pieces of a JSON document.
pub const JSON: &[&str] = &[
    "[",
    "]",
    "{",
    "}",
    "\"addr\"",
    "\"bytes\"",
    ":",
    ",",
    "\"0xffffffff81000000\"",
    "\"\"",
    "null",
    "\\u0000",
    "1e99",
];

/// Pieces of a SPEC.
pub const SPEC: &[&str] = &[
    "release 6\n6.12.0\n",
    "machine 2\n62\n",
    "machine 3\n183\n",
    "page-size 4\n4096\n",
    "page-size 1\n0\n",
    "struct-module-size 4\n1280\n",
    "memory 21\n0xffffffff81000000 00\n\n",
    "types 14\nmodule.init 0 8\n",
    "kallsyms ",
    "exports ",
    "symvers ",
    "config ",
    "certificate-0001 ",
    " ",
    "\n",
    "-",
    "0x",
];

/// Pieces of the lines of `check --jsonl`.
pub const VERDICTS: &[&str] = &[
    "{", "}", "[", "]", ",", ":", "null", "true", "\"", "-1", "0", "1e400", "\"schema\":2", "\"verdict\":\"loads\"",
    "\"verdict\":\"refused\"", "\"verdict\":\"oops\"", "\"verdict\":\"undecided\"", "\"verdict\":\"unreadable\"",
    "\"errno\":\"ENOEXEC\"", "\"errno\":null", "\"error\":\"\"", "\"code\":\"VER-6\"", "\"dmesg\":[]", "\"findings\":[]",
    "\"unjudged\":[]", "\"with\":[\"a\"]", "\"coverage\":\"exact\"", "\"severity\":\"note\"", "\\ud800", "\\u0000",
];

/// What `explain` may be asked.
pub const QUESTIONS: &[&str] = &[
    "VER-6", "ver6", "SYM-5b", "RELOC-GEN-4", "FIN-9", "VAL", "ENOEXEC", "-8", "8", "disagrees about version of symbol",
    "Unknown symbol", "(err -2)", "[  123.456789]", "kernel:", "module", "is blacklisted", "-", ".", "\u{fffd}",
];
