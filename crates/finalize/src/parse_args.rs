//! `parse_args`: the parameters of a load are put into the module's variables (spec 07).
//!
//! A value that is wrong does not end it: every token is looked at, and the last error counts
//! (PARAM-19). What good tokens have written stays.

mod log;
mod names;
mod set;
pub mod tokens;

use alloc::borrow::Cow;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use elf_layout::bytes::{cstr, printed};
use elf_layout::finding::FINDINGS_MAX;
use elf_layout::params::{ParamTable, field};
use elf_layout::{Errno, Finding, Findings, Layout, LoadInfo, Memory, Module, SectionPlace, Severity};

use reloc::PatchBytes;

use crate::kstrto::kstrtobool;
use log::printk;
use names::Names;
use set::{Fail, Setter, Setting};
use tokens::{Token, next_arg, skip_spaces};

/// KERNEL_PARAM_FL_UNSAFE
const UNSAFE: u8 = 1;
/// KERNEL_PARAM_FL_HWPARAM
const HWPARAM: u8 = 2;

/// What of the running kernel steers the parameters.
#[derive(Clone, Copy, Debug)]
pub struct ParamEnv<'a> {
    /// CONFIG_DYNAMIC_DEBUG (PARAM-31, PARAM-33).
    pub dynamic_debug: bool,
    /// Lockdown forbids hardware parameters (PARAM-18): the name of the process that loads, which
    /// the log tells.
    pub lockdown: Option<&'a str>,
}

impl Default for ParamEnv<'_> {
    /// A distribution kernel without lockdown.
    fn default() -> Self {
        ParamEnv { dynamic_debug: true, lockdown: None }
    }
}

/// Bytes that a parameter wrote.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Written {
    /// Number of its record in `__param`.
    pub record: u64,
    /// Where.
    pub place: SectionPlace,
    /// How many.
    pub len: u64,
    /// What stood there, and what stands there now.
    pub bytes: PatchBytes,
}

/// A charp that was set: its 8 bytes are the address of a copy that the kernel allocated. In the
/// memory here they are as before.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RuntimePointer {
    /// Number of the parameter's record in `__param`.
    pub record: u64,
    /// Where the pointer stands.
    pub place: SectionPlace,
    /// The string, without its NUL.
    pub value: Vec<u8>,
}

/// A `dyndbg` query, which changes descriptors and jump labels of the module (PARAM-31).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DyndbgQuery {
    /// The module that it is for, if not the one that is loaded.
    pub module: Option<Vec<u8>>,
    /// The queries.
    pub query: Vec<u8>,
}

/// What `parse_args` did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ParamOutcome {
    /// Some parameter was refused: the module is not loaded.
    pub refused: bool,
    /// What was written, in order; a parameter given twice is there twice (PARAM-23).
    pub written: Vec<Written>,
    /// Pointers whose value only the running kernel knows, in order.
    pub pointers: Vec<RuntimePointer>,
    /// Records that were set by code which was not run (PARAM-1).
    pub not_run: Vec<u64>,
    /// `async_probe`: `module.async_probe_requested` is set to that (PARAM-30).
    pub async_probe: Option<bool>,
    /// Queries for dynamic debug.
    pub dyndbg: Vec<DyndbgQuery>,
    /// The kernel, not the module, got taint U (PARAM-18).
    pub taints_user: bool,
}

/// `parse_args` as load_module calls it, with `mod->args` in `args` (up to its first NUL).
pub fn parse_args(
    module: &mut Module<'_>,
    args: &[u8],
    env: &ParamEnv<'_>,
    said: &mut Findings,
) -> ParamOutcome {
    let Module { info, layout, memory, .. } = module;
    let (info, memory) = (&*info, &mut **memory);
    let mut rest = skip_spaces(cstr(args, 0).unwrap_or(&[]));
    if rest.is_empty() {
        return ParamOutcome::default();
    }
    let table = ParamTable::new(info.file, info.find_sec("__param"));
    let names = Names::new(info.file, &table);
    said.stage(|said| {
        let outcome = ParamOutcome::default();
        let mut parser = Parser { info, layout, memory, table: &table, env, outcome, said: Said::new(said) };
        while !rest.is_empty() {
            let (token, next) = next_arg(rest);
            rest = next;
            if token.val.is_none() && token.param == b"--" {
                parser.dashes(rest);
                break;
            }
            let known = names.find(token.param);
            let crashed = match known {
                Some((record, name)) => parser.parse_one(token, record, name).is_err(),
                None => {
                    parser.unknown(token);
                    false
                }
            };
            if crashed {
                break;
            }
        }
        let Parser { mut outcome, said, .. } = parser;
        outcome.refused = said.end();
        outcome
    })
}

/// The kernel would crash.
struct Crashed;

struct Parser<'r, 'd> {
    info: &'r LoadInfo<'d>,
    layout: &'r Layout,
    memory: &'r mut dyn Memory,
    table: &'r ParamTable<'d>,
    env: &'r ParamEnv<'r>,
    outcome: ParamOutcome,
    said: Said<'r>,
}

impl<'d> Parser<'_, 'd> {
    fn warn(&mut self, code: &'static str, why: impl Into<Cow<'static, str>>, parts: &[&[u8]]) {
        let mut finding = Finding::note(code, Severity::Warning, why);
        finding.dmesg = printk(self.info.config.changes(), parts);
        self.said.push(finding);
    }

    /// `parse_one` for a parameter that the module has.
    fn parse_one(&mut self, token: Token<'_>, record: u64, name: &'d [u8]) -> Result<(), Crashed> {
        let table = self.table;
        let at = |field| (table.section(), table.at(record, field));
        let setting = self.setting(record, name);
        let operations = setting.operations(at(field::OPS));
        let arg = setting.variable(at(field::ARG));
        let flags = self.flags(record);
        if token.val.is_none() && operations.noarg == Some(false) {
            self.refuse(token, operations.set, Errno::EINVAL, "PARAM-17", Vec::new());
            return Ok(());
        }
        if flags & HWPARAM != 0
            && let Some(comm) = self.env.lockdown
        {
            let line = format!(
                "Lockdown: {comm}: unsafe module parameters is restricted; see man kernel_lockdown.7"
            );
            self.refuse(token, operations.set, Errno::EPERM, "PARAM-18", alloc::vec![line]);
            return Ok(());
        }
        if flags & UNSAFE != 0 {
            self.outcome.taints_user = true;
            let why = format!("parameter {} is marked as dangerous", printed(name));
            self.warn("PARAM-18", why, &[b"Setting dangerous option ", name, b" - tainting kernel"]);
        }

        let mut setting = self.setting(record, name);
        let done = setting.set(operations.set, token.val, arg);
        let Setting { lines, left_of_value, elsewhere, code, .. } = setting;
        if code {
            self.outcome.not_run.push(record);
            let why = format!(
                "parameter {} is set by code that is not run here: whether it takes `{}', and what it \
                 writes, is not known",
                printed(name),
                printed(token.val.unwrap_or(&[])),
            );
            self.said.push(Finding::note("PARAM-1", Severity::Note, why));
        }
        if elsewhere {
            let why = format!(
                "the variable of parameter {} is not in the module's own memory: what is written to it \
                 shows in no region",
                printed(name)
            );
            self.said.push(Finding::note("PARAM-1", Severity::Note, why));
        }
        match done {
            Ok(()) => Ok(()),
            Err(Fail::Refused(refusal, code)) => {
                // PARAM-40: the list was cut up in place, only its first element is left of it.
                let val = token.val.map(|v| left_of_value.and_then(|len| v.get(..len)).unwrap_or(v));
                self.refuse(Token { val, ..token }, operations.set, refusal, code, lines);
                Ok(())
            }
            Err(Fail::Crash(why)) => {
                let why = format!("setting parameter {} crashes the kernel: {why}", printed(name));
                self.said.push(Finding::note("PARAM-1", Severity::Oops, why));
                Err(Crashed)
            }
        }
    }

    fn setting(&mut self, record: u64, name: &'d [u8]) -> Setting<'_, 'd> {
        Setting {
            layout: self.layout,
            memory: &mut *self.memory,
            table: self.table,
            changes: self.info.config.changes(),
            record,
            name,
            lines: Vec::new(),
            left_of_value: None,
            elsewhere: false,
            code: false,
            outcome: &mut self.outcome,
        }
    }

    fn flags(&self, record: u64) -> u8 {
        let place = self.layout.place(self.table.section());
        let flags = place.and_then(|place| {
            let offset = place.offset.checked_add(self.table.at(record, field::FLAGS))?;
            self.memory.at(SectionPlace { offset, ..place }, 1)?.first().copied()
        });
        flags.unwrap_or(0)
    }

    /// An error of a token, after what its `set` printed itself (PARAM-20).
    fn refuse(
        &mut self,
        token: Token<'_>,
        set: Setter,
        refusal: Errno,
        code: &'static str,
        mut lines: Vec<String>,
    ) {
        let module = self.info.file.name();
        let val = token.val.unwrap_or(&[]);
        let quoted: &[u8] = match refusal {
            Errno::ENOSPC => b"' too large for parameter `",
            _ => b"' invalid for parameter `",
        };
        lines.extend(printk(self.info.config.changes(), &[module, b": `", val, quoted, token.param, b"'"]));
        let (param, val) = (printed(token.param), printed(val));
        let why = match refusal {
            _ if code == "PARAM-17" => format!("parameter {param} needs a value: {}", set.takes()),
            Errno::EPERM => format!("lockdown forbids to set parameter {param}"),
            Errno::EROFS => format!("parameter {param} can't be switched off any more"),
            Errno::ERANGE => {
                format!("`{val}' is out of range for parameter {param}, which takes {}", set.takes())
            }
            _ => {
                format!("`{val}' is nothing for parameter {param}, which takes {}", set.takes())
            }
        };
        let mut finding = Finding::error(code, refusal, why);
        finding.dmesg = lines;
        self.said.push(finding);
    }

    /// `unknown_module_param_cb`: nothing of it is an error (PARAM-21).
    fn unknown(&mut self, token: Token<'_>) {
        let Token { mut param, val } = token;
        if param == b"async_probe" {
            // PARAM-30
            let value = val.and_then(|v| kstrtobool(v, self.info.config.changes()).ok());
            self.outcome.async_probe = Some(value.unwrap_or(true));
            return;
        }
        if self.env.dynamic_debug {
            // PARAM-31: the name is cut at its first dot, also for the message below.
            let (module, name) = match param.iter().position(|c| *c == b'.') {
                Some(dot) => (param.get(..dot), param.get(dot.saturating_add(1)..).unwrap_or(&[])),
                None => (None, param),
            };
            if name == b"dyndbg" {
                self.dyndbg(module, val);
                return;
            }
            param = module.unwrap_or(param);
        } else if param == b"dyndbg" {
            let why = "dyndbg is ignored: the kernel is built without CONFIG_DYNAMIC_DEBUG";
            let line = b"dyndbg param is supported only in CONFIG_DYNAMIC_DEBUG builds";
            self.warn("PARAM-33", why, &[line]);
            return;
        }
        let why = format!("the module has no parameter {}", printed(token.param));
        let module = self.info.file.name();
        self.warn("PARAM-32", why, &[module, b": unknown parameter '", param, b"' ignored"]);
    }

    fn dyndbg(&mut self, module: Option<&[u8]>, val: Option<&[u8]>) {
        let query = val.unwrap_or(b"+p");
        let why = format!(
            "dyndbg query `{}' is not run here: what it switches on, and what the kernel says of it, is not known",
            printed(query)
        );
        self.said.push(Finding::note("PARAM-31", Severity::Note, why));
        let module = module.map(<[u8]>::to_vec);
        self.outcome.dyndbg.push(DyndbgQuery { module, query: query.to_vec() });
    }

    /// What follows `--` (PARAM-14).
    fn dashes(&mut self, rest: &[u8]) {
        // An earlier error is returned in its place.
        if self.said.last_error.is_none() {
            let why = "what follows -- is for the init process, and a module has none";
            let module = self.info.file.name();
            self.warn("PARAM-14", why, &[module, b": parameters '", rest, b"' after `--' ignored"]);
        }
    }
}

/// Findings in the kernel's order. The one that decides must be the last.
struct Said<'r> {
    said: &'r mut Findings,
    /// Errno of the last error.
    last_error: Option<Option<Errno>>,
    /// Something was said after it.
    more: bool,
    /// Findings beyond what is kept, but counted.
    lost: u64,
}

impl<'r> Said<'r> {
    fn new(said: &'r mut Findings) -> Self {
        Said { said, last_error: None, more: false, lost: 0 }
    }

    fn push(&mut self, finding: Finding) {
        let errno = finding.severity.refuses().then_some(finding.errno);
        // One place is kept for the end.
        let kept = self.said.kept() < FINDINGS_MAX.saturating_sub(1);
        self.more = errno.is_none() || !kept;
        self.last_error = errno.or(self.last_error);
        if kept {
            self.said.push(finding);
        } else {
            self.lost = self.lost.saturating_add(1);
        }
    }

    /// The end of the stage. Was a parameter refused?
    fn end(self) -> bool {
        if let Some(errno) = self.last_error.filter(|_| self.more) {
            let why = "the last error of a parameter is what the kernel returns";
            let mut end = Finding::error("PARAM-22", Errno::EINVAL, why);
            end.errno = errno;
            self.said.push(end);
        }
        for _ in 0..self.lost {
            self.said.push(Finding::note("PARAM-19", Severity::Note, "one more"));
        }
        self.last_error.is_some()
    }
}

#[cfg(test)]
mod tests;
