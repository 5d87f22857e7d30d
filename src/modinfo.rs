//! What `modinfo` of kmod prints, field by field.

use std::collections::HashMap;

use crate::inspect::Inspection;

/// Bytes of a signature that stand on one line.
const BYTES_A_LINE: usize = 20;

/// A parameter as `.modinfo` tells of it, in two strings that need not both be there.
#[derive(Debug)]
struct Parameter<'i> {
    name: &'i str,
    description: Option<&'i str>,
    kind: Option<&'i str>,
}

/// The values of one field. `filename` is the whole path; `parm` joins descriptions and types.
pub fn field(inspection: &Inspection, filename: &str, name: &str) -> Vec<String> {
    match name {
        "filename" => vec![filename.to_owned()],
        // A list that grows at its front.
        "parm" => parameters(inspection).iter().rev().map(|p| with_kind(p, true)).collect(),
        _ => {
            let of_file =
                inspection.modinfo.iter().filter(|(tag, _)| tag == name).map(|(_, value)| value.clone());
            let of_signature = signature(inspection).filter(|(tag, _)| *tag == name).map(|(_, value)| value);
            of_file.chain(of_signature).collect()
        }
    }
}

/// All fields as `modinfo -0` prints them: each ended by NUL, `filename` and `parm` with a colon and blanks, others with `=`.
pub fn ended_by_nul(inspection: &Inspection, filename: &str) -> String {
    let mut out = format!("filename:       {filename}\0");
    for (tag, value) in &inspection.modinfo {
        if !matches!(tag.as_str(), "parm" | "parmtype") {
            out.push_str(&format!("{tag}={value}\0"));
        }
    }
    for (tag, value) in signature(inspection) {
        out.push_str(&format!("{tag}={value}\0"));
    }
    for parameter in parameters(inspection).iter().rev() {
        out.push_str(&format!("parm:           {}\0", with_kind(parameter, false)));
    }
    out
}

/// `a_byte:an unsigned number (byte)`. Asked for the field alone, modinfo keeps the parentheses around a type that has no
/// description before it.
fn with_kind(p: &Parameter<'_>, alone: bool) -> String {
    match (p.description, p.kind) {
        (Some(description), Some(kind)) => format!("{}:{description} ({kind})", p.name),
        (None, Some(kind)) if alone => format!("{}: ({kind})", p.name),
        (one, other) => format!("{}:{}", p.name, one.or(other).unwrap_or_default()),
    }
}

/// The parameters in the order in which they are named first.
fn parameters(inspection: &Inspection) -> Vec<Parameter<'_>> {
    let mut found: Vec<Parameter<'_>> = Vec::new();
    let mut index: HashMap<&str, usize> = HashMap::new();
    for (tag, value) in &inspection.modinfo {
        if !matches!(tag.as_str(), "parm" | "parmtype") {
            continue;
        }
        let Some((name, text)) = value.split_once(':') else { continue };
        let at = *index.entry(name).or_insert(found.len());
        if at == found.len() {
            found.push(Parameter { name, description: None, kind: None });
        }
        if let Some(p) = found.get_mut(at) {
            let slot = if tag == "parm" { &mut p.description } else { &mut p.kind };
            *slot = Some(text);
        }
    }
    found
}

/// The fields that are read from the signature.
fn signature(inspection: &Inspection) -> impl Iterator<Item = (&'static str, String)> {
    let fields = inspection.signature.as_ref().map(|s| {
        let or_empty = |field: &Option<String>| field.clone().unwrap_or_default();
        [
            ("sig_id", s.sig_id.to_owned()),
            ("signer", or_empty(&s.signer)),
            ("sig_key", or_empty(&s.sig_key)),
            ("sig_hashalgo", or_empty(&s.sig_hashalgo)),
            ("signature", in_lines(&or_empty(&s.signature))),
        ]
    });
    fields.into_iter().flatten()
}

/// Hex pairs with 20 of them on a line.
fn in_lines(pairs: &str) -> String {
    let pairs: Vec<&str> = pairs.split(':').collect();
    let lines: Vec<String> = pairs.chunks(BYTES_A_LINE).map(|line| line.join(":")).collect();
    lines.join(":\n\t\t")
}
