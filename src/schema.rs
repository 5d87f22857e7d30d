//! The JSON Schemas of what commands print, made from the types that they print.

use schemars::{JsonSchema, Schema, schema_for};

use crate::check::{Unreadable, Verdict};
use crate::document::{Document, Refusal};
use crate::inspect::Inspection;
use crate::kernel_facts::KernelFacts;
#[cfg(feature = "run")]
use crate::run;
use crate::simulate;
#[cfg(feature = "verify")]
use crate::verify::report::VerifyDocument;

/// A line of `check --jsonl`.
#[derive(Debug, JsonSchema)]
#[schemars(untagged)]
#[allow(dead_code, reason = "only its schema is of use")]
#[allow(clippy::large_enum_variant, reason = "there is none")]
enum Checked {
    /// What a kernel makes of a module.
    Verdict(Verdict),
    /// A file that cannot be read.
    Unreadable(Unreadable),
}

/// What `link --json` prints.
#[derive(Debug, JsonSchema)]
#[schemars(untagged)]
#[allow(dead_code, reason = "only its schema is of use")]
#[allow(clippy::large_enum_variant, reason = "there is none")]
enum Linked {
    /// The module, as layout.json has it.
    Document(Document),
    /// The kernel refuses it, or it is no module.
    Refusal(Refusal),
}

/// The commands that print JSON.
pub const COMMANDS: &[&str] = &[
    "check",
    "inspect",
    "kernel",
    "link",
    #[cfg(feature = "run")]
    "run",
    "simulate",
    #[cfg(feature = "trace")]
    "trace",
    #[cfg(feature = "verify")]
    "verify",
];

/// The schema of one document that a command prints: of `check` a line of `--jsonl`, or an element of the array of `--json`; of
/// `trace` a line.
pub fn schema(command: &str) -> Option<Schema> {
    Some(match command {
        "check" => schema_for!(Checked),
        "inspect" => schema_for!(Inspection),
        "kernel" => schema_for!(KernelFacts<'_>),
        "link" => schema_for!(Linked),
        #[cfg(feature = "run")]
        "run" => schema_for!(run::Document),
        "simulate" => schema_for!(simulate::Document<'_>),
        #[cfg(feature = "trace")]
        "trace" => schema_for!(crate::trace::Event),
        #[cfg(feature = "verify")]
        "verify" => schema_for!(VerifyDocument),
        _ => return None,
    })
}
