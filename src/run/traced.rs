//! What a module's code did, as documents have it and as lines.

use kernel_image::Btf;
use reloc::Architecture;
use run::system::Running;
use run::watch::{Entry, Seen};
use serde::Serialize;

use super::prototypes::{Types, Value};
use crate::disassembly;

/// Arguments that are shown where nothing is known of them.
const UNKNOWN: &str = "?";

/// An argument or a result.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[non_exhaustive]
pub struct ValueEntry {
    /// The name of the parameter; empty for results, and where the types have none.
    pub name: String,
    /// Its type as C spells it.
    #[serde(rename = "type")]
    pub of: String,
    /// The number in the register, in hex.
    pub value: String,
    /// As its type says: a number, an enumerator, a string, a symbol.
    pub text: String,
}

/// What a module's code did, in order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum TraceEntry {
    /// A call between the module and the rest.
    Call {
        /// In how many calls it is.
        depth: usize,
        /// How many messages of this action were printed before.
        after: usize,
        /// `in`: a function of the module is called; `out`: the module calls.
        direction: &'static str,
        /// The function.
        function: String,
        /// Its address, in hex.
        address: String,
        /// Where it is called.
        site: String,
        /// Null where the types say nothing of the function.
        arguments: Option<Vec<ValueEntry>>,
        /// Do others follow, of which nothing is known?
        variadic: bool,
        /// Is it a jump, so that the calling function is over?
        tail: bool,
    },
    /// A call is over.
    Return {
        /// In how many calls the call was.
        depth: usize,
        /// How many messages of this action were printed before.
        after: usize,
        /// `in`: a function of the module returns; `out`: what the module has called.
        direction: &'static str,
        /// The function.
        function: String,
        /// What it returns; null for void, and where the types say nothing of it.
        result: Option<ValueEntry>,
    },
    /// Instructions that were executed one after the other.
    Block {
        /// In how many calls it is.
        depth: usize,
        /// How many messages of this action were printed before.
        after: usize,
        /// Its address, in hex.
        address: String,
        /// Bytes.
        size: u64,
        /// Where it is.
        place: String,
    },
    /// An instruction.
    Instruction {
        /// In how many calls it is.
        depth: usize,
        /// How many messages of this action were printed before.
        after: usize,
        /// Its address, in hex.
        address: String,
        /// Where it is.
        place: String,
        /// Its bytes, in hex.
        bytes: String,
        /// As assemblers write it.
        text: String,
    },
}

fn value(value: Value) -> ValueEntry {
    let Value { name, of, number, text } = value;
    ValueEntry { name, of, value: format!("{number:#x}"), text }
}

/// What was seen, with the types of the image. `told` messages were printed before this action.
pub(super) fn entries(
    kernel: &dyn Running,
    types: &Types,
    arch: Option<&'static dyn Architecture>,
    seen: &[Entry],
    told: usize,
) -> Vec<TraceEntry> {
    let btf = types.asked();
    seen.iter().map(|entry| of(kernel, (types, btf.as_ref()), arch, entry, told)).collect()
}

fn of(
    kernel: &dyn Running,
    (types, btf): (&Types, Option<&Btf<'_>>),
    arch: Option<&'static dyn Architecture>,
    entry: &Entry,
    told: usize,
) -> TraceEntry {
    let (depth, after) = (entry.depth, entry.told.saturating_sub(told));
    let direction = |into: bool| if into { "in" } else { "out" };
    match &entry.seen {
        Seen::Call { into, function, name, site, arguments, texts, tail } => {
            let typed = btf.map(|btf| types.call(btf, kernel, (name, *function), arguments, texts));
            let typed = typed.unwrap_or_default();
            TraceEntry::Call {
                depth,
                after,
                direction: direction(*into),
                function: name.clone(),
                address: format!("{function:#x}"),
                site: site.clone(),
                arguments: typed.arguments.map(|all| all.into_iter().map(value).collect()),
                variadic: typed.is_variadic,
                tail: *tail,
            }
        }
        Seen::Return { into, function, name, value: number, text } => {
            let result =
                btf.and_then(|btf| types.result(btf, kernel, (name, *function), *number, text.clone()));
            TraceEntry::Return {
                depth,
                after,
                direction: direction(*into),
                function: name.clone(),
                result: result.filter(|result| result.of != "void").map(value),
            }
        }
        Seen::Block(start, size) => TraceEntry::Block {
            depth,
            after,
            address: format!("{start:#x}"),
            size: *size,
            place: entry.place.clone(),
        },
        Seen::Instruction(address, bytes) => TraceEntry::Instruction {
            depth,
            after,
            address: format!("{address:#x}"),
            place: entry.place.clone(),
            bytes: bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(" "),
            text: arch.map(|arch| disassembly::text(arch, bytes, *address)).unwrap_or_default(),
        },
    }
}

impl TraceEntry {
    /// In how many calls it is, and how many messages of this action were printed before.
    pub fn place(&self) -> (usize, usize) {
        match self {
            TraceEntry::Call { depth, after, .. }
            | TraceEntry::Return { depth, after, .. }
            | TraceEntry::Block { depth, after, .. }
            | TraceEntry::Instruction { depth, after, .. } => (*depth, *after),
        }
    }
}

/// Entries as lines, indented by the calls that they are in: what a call returns stands behind it, or after what happened in it.
pub fn lines(entries: &[TraceEntry]) -> Vec<(usize, String)> {
    let (mut out, mut rest) = (Vec::new(), entries.iter().peekable());
    while let Some(entry) = rest.next() {
        let (depth, after) = entry.place();
        let text = match entry {
            TraceEntry::Call { function, arguments, variadic, direction, site, tail, .. } => {
                let mut text = call(function, arguments.as_deref(), *variadic);
                let over = rest.next_if(|next| {
                    matches!(next, TraceEntry::Return { depth: other, direction: way, after: told, .. }
                        if *other == depth && way == direction && *told == after)
                });
                match over {
                    Some(TraceEntry::Return { result: Some(result), .. }) => {
                        text.push_str(&format!(" = {}", result.text));
                    }
                    _ if *tail => text.push_str(" (jump)"),
                    _ => {}
                }
                if *direction == "in" {
                    text.push_str(&format!(" from {site}"));
                }
                text
            }
            TraceEntry::Return { function, result: Some(result), .. } => {
                format!("{function} = {}", result.text)
            }
            TraceEntry::Return { function, .. } => format!("{function} returns"),
            TraceEntry::Block { place, size, .. } => format!("{place}: {size} bytes"),
            TraceEntry::Instruction { place, text, .. } => format!("{place}: {text}"),
        };
        out.push((after, format!("{}{text}", "  ".repeat(depth.min(40)))));
    }
    out
}

fn call(function: &str, arguments: Option<&[ValueEntry]>, variadic: bool) -> String {
    let Some(arguments) = arguments else { return format!("{function}({UNKNOWN})") };
    let mut all: Vec<String> = arguments
        .iter()
        .map(|one| if one.name.is_empty() { one.text.clone() } else { format!("{}: {}", one.name, one.text) })
        .collect();
    if variadic {
        all.push("...".into());
    }
    format!("{function}({})", all.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn called(depth: usize, function: &str, direction: &'static str) -> TraceEntry {
        TraceEntry::Call {
            depth,
            after: 0,
            direction,
            function: function.into(),
            address: "0x1".into(),
            site: "s".into(),
            arguments: Some(vec![ValueEntry {
                name: "fmt".into(),
                of: "const char *".into(),
                value: "0x5".into(),
                text: "\"x\"".into(),
            }]),
            variadic: true,
            tail: false,
        }
    }

    fn returned(depth: usize, function: &str, direction: &'static str) -> TraceEntry {
        let result =
            ValueEntry { name: String::new(), of: "int".into(), value: "0x7".into(), text: "7".into() };
        TraceEntry::Return { depth, after: 0, direction, function: function.into(), result: Some(result) }
    }

    #[test]
    fn results_stand_behind_calls_or_after_what_happened_in_them() {
        let all =
            [called(0, "f", "in"), called(1, "g", "out"), returned(1, "g", "out"), returned(0, "f", "in")];
        let lines: Vec<String> = lines(&all).into_iter().map(|(_, line)| line).collect();
        assert_eq!(lines, ["f(fmt: \"x\", ...) from s", "  g(fmt: \"x\", ...) = 7", "f = 7"]);
        assert_eq!(call("f", None, false), "f(?)");
    }
}
