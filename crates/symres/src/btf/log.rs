//! What the BTF verifier logs (BTF-3): each piece of a text becomes a record of its own.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use elf_layout::{Change, Errno};

use super::metas::{
    ARRAY, Check, DATASEC, DECL_TAG, ENUM, ENUM64, FLOAT, FUNC_PROTO, FWD, INT, STRUCT, Stop, Type, UNION,
    VAR, field, stop,
};
use super::shown;

/// `btf_kind_str`
const KINDS: [&str; 20] = [
    "UNKNOWN",
    "INT",
    "PTR",
    "ARRAY",
    "STRUCT",
    "UNION",
    "ENUM",
    "FWD",
    "TYPEDEF",
    "VOLATILE",
    "CONST",
    "RESTRICT",
    "FUNC",
    "FUNC_PROTO",
    "VAR",
    "DATASEC",
    "FLOAT",
    "DECL_TAG",
    "TYPE_TAG",
    "ENUM64",
];

/// A record of the verifier's log is formatted into 1024 bytes.
const LINE_MAX: usize = 1023;

impl Check<'_> {
    /// A record of the log.
    pub(super) fn say(&mut self, text: &str) {
        let mut end = text.len().min(LINE_MAX);
        while !text.is_char_boundary(end) {
            end = end.saturating_sub(1);
        }
        let text = text.get(..end).unwrap_or(text);
        self.log.push(format!("BPF: {}", text.strip_suffix('\n').unwrap_or(text)));
    }

    /// `__btf_name_by_offset`
    pub(super) fn name_by_offset(&self, offset: u32) -> String {
        match self.str_by_offset(offset) {
            _ if offset == 0 => String::from("(anon)"),
            None => String::from("(invalid-name-offset)"),
            Some(name) => {
                let end =
                    name.iter().take(LINE_MAX).position(|b| *b == 0).unwrap_or(name.len().min(LINE_MAX));
                shown(name.get(..end).unwrap_or(name))
            }
        }
    }

    /// Since v6.3 (9cb61e50bf6b) mismatches that are permitted are logged in part only.
    pub(super) fn is_quiet(&self) -> bool {
        self.base.is_some() && self.config.allow_btf_mismatch && self.config.has(Change::BtfMismatchToldOnce)
    }

    pub(super) fn why(&self, t: Type, text: &str) -> Stop {
        let kind = KINDS.get(usize::from(t.kind())).copied().unwrap_or("?");
        stop(Errno::EINVAL, format!("type {} ({kind} {}): {text}", self.id, self.name_by_offset(t.name)))
    }

    /// `__btf_verifier_log_type`; every piece becomes a record of its own.
    pub(super) fn log_type(&mut self, t: Type, details: &[String], text: &str) -> Stop {
        if !self.is_quiet() {
            let kind = KINDS.get(usize::from(t.kind())).copied().unwrap_or("?");
            let blank = if details.is_empty() { "" } else { " " };
            let line = format!("[{}] {kind} {}{blank}", self.id, self.name_by_offset(t.name));
            self.say(&line);
            details.iter().for_each(|d| self.say(d));
            [" ", text, "\n"].into_iter().for_each(|piece| self.say(piece));
        }
        self.why(t, text)
    }

    /// `btf_verifier_log_member`
    pub(super) fn log_member(&mut self, t: Type, member: &[u8], text: &str) -> Stop {
        let (name, type_id, offset) = (field(member, 0), field(member, 1), field(member, 2));
        let name = self.name_by_offset(name);
        if !self.is_quiet() {
            let line = if t.kflag() {
                let (size, bits) = (offset >> 24, offset & 0xff_ffff);
                format!("\t{name} type_id={type_id} bitfield_size={size} bits_offset={bits}")
            } else {
                format!("\t{name} type_id={type_id} bits_offset={offset}")
            };
            [line.as_str(), " ", text, "\n"].into_iter().for_each(|piece| self.say(piece));
        }
        self.why(t, &format!("member {name}: {text}"))
    }

    /// `btf_verifier_log_vsi`
    pub(super) fn log_vsi(&mut self, t: Type, vsi: &[u8], text: &str) -> Stop {
        let line = format!("\t type_id={} offset={} size={}", field(vsi, 0), field(vsi, 1), field(vsi, 2));
        [line.as_str(), " ", text, "\n"].into_iter().for_each(|piece| self.say(piece));
        self.why(t, text)
    }

    /// `log_details` of the type's kind.
    pub(super) fn details(&self, t: Type, meta: &[u8]) -> Vec<String> {
        if self.is_quiet() {
            return Vec::new();
        }
        let one = |text: String| alloc::vec![text];
        match t.kind() {
            INT => {
                let data = field(meta, 0);
                let encoding = match data >> 24 & 0xf {
                    0 => "(none)",
                    1 => "SIGNED",
                    2 => "CHAR",
                    4 => "BOOL",
                    _ => "UNKN",
                };
                one(format!(
                    "size={} bits_offset={} nr_bits={} encoding={encoding}",
                    t.size_or_type,
                    data >> 16 & 0xff,
                    data & 0xff
                ))
            }
            ARRAY => one(format!(
                "type_id={} index_type_id={} nr_elems={}",
                field(meta, 0),
                field(meta, 1),
                field(meta, 2)
            )),
            STRUCT | UNION | ENUM | ENUM64 | DATASEC => {
                one(format!("size={} vlen={}", t.size_or_type, t.vlen()))
            }
            FWD => one(String::from(if t.kflag() { "union" } else { "struct" })),
            FUNC_PROTO => self.prototype(t, meta),
            VAR => one(format!("type_id={} linkage={}", t.size_or_type, field(meta, 0))),
            FLOAT => one(format!("size={}", t.size_or_type)),
            DECL_TAG => {
                one(format!("type={} component_idx={}", t.size_or_type, field(meta, 0).cast_signed()))
            }
            _ => one(format!("type_id={}", t.size_or_type)),
        }
    }

    /// `btf_func_proto_log`
    pub(super) fn prototype(&self, t: Type, meta: &[u8]) -> Vec<String> {
        let mut out = alloc::vec![format!("return={} args=(", t.size_or_type)];
        let args: Vec<(u32, u32)> = meta.chunks_exact(8).map(|a| (field(a, 0), field(a, 1))).collect();
        let count = args.len();
        for (i, (name, type_id)) in args.into_iter().enumerate() {
            let comma = if i == 0 { "" } else { ", " };
            let last = i.saturating_add(1) == count;
            out.push(match type_id {
                0 if last => format!("{comma}vararg"),
                _ => format!("{comma}{type_id} {}", self.name_by_offset(name)),
            });
        }
        if count == 0 {
            out.push(String::from("void"));
        }
        out.push(String::from(")"));
        out
    }
}
