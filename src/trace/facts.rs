//! What the steps of a load look at.

use elf_layout::bytes::printed;

use super::event::Fact;
use super::story::{Story, fact};
use super::symbols;
use crate::document::{crc, text};
use crate::watch::Point;

impl Story<'_, '_> {
    pub(super) fn signature(&self) -> Vec<Fact> {
        let module = self.opened.signature.module.len();
        let mut facts = vec![fact("module_bytes", module.to_string())];
        match &self.opened.unsigned {
            None => facts.push(fact("signed", "yes")),
            Some(unsigned) => facts.push(fact("unsigned_why", unsigned.why.clone())),
        }
        facts
    }

    pub(super) fn elf(&self) -> Vec<Fact> {
        let Some(file) = self.file() else { return Vec::new() };
        let index = file.index();
        let mut facts = vec![
            fact("section_headers", format!("{} at {:#x}", file.sections().len(), file.e_shoff())),
            fact("section_names", format!("section {}", file.e_shstrndx())),
        ];
        let named = [
            ("index_mod", index.module),
            ("index_info", index.info),
            ("index_sym", index.sym),
            ("index_str", index.str),
            ("index_vers", index.vers),
            ("index_vers_ext_crc", index.vers_ext_crc),
            ("index_pcpu", index.pcpu),
        ];
        let section = |at: usize| format!("{at} {}", printed(file.section_name(at)));
        facts.extend(named.into_iter().filter(|(_, at)| *at != 0).map(|(name, at)| fact(name, section(at))));
        facts.push(fact("name", file.name_text()));
        facts
    }

    pub(super) fn blacklist(&self) -> Vec<Fact> {
        let Some(file) = self.file() else { return Vec::new() };
        let list: Vec<String> = self.kernel.boot.module_blacklist.iter().map(|name| text(name)).collect();
        vec![fact("name", file.info_name_text()), fact("module_blacklist", list.join(","))]
    }

    pub(super) fn versions(&self) -> Vec<Fact> {
        let Some(file) = self.file() else { return Vec::new() };
        let modinfo = file.modinfo();
        let mut facts = Vec::new();
        if let Some((_, export)) = self.kernel.find_symbol(b"module_layout", true, file.name()) {
            facts.extend(export.crc.map(|value| fact("module_layout_kernel", crc(value))));
        }
        let expected = symbols::expected_crcs(file);
        let of_layout = expected.get(&b"module_layout"[..]);
        facts.extend(of_layout.map(|crc| fact("module_layout_module", symbols::wide_crc(*crc))));
        if let Some(vermagic) = &self.kernel.vermagic {
            facts.push(fact("vermagic_kernel", text(vermagic).trim_end()));
        }
        for (name, tag) in [("vermagic_module", "vermagic"), ("license", "license"), ("intree", "intree")] {
            facts.extend(modinfo.get(tag).map(|value| fact(name, text(value).trim_end())));
        }
        facts
    }

    pub(super) fn frob(&self) -> Vec<Fact> {
        let Some(file) = self.file() else { return Vec::new() };
        let slots = self.recorder.slots.iter();
        let counted = slots.map(|(section, count)| {
            fact("slots_counted", format!("{}: {count}", printed(file.section_name(*section))))
        });
        counted.collect()
    }

    pub(super) fn unformed(&self) -> Vec<Fact> {
        let mut facts = Vec::new();
        if let Some(taints) = self.recorder.taints.get(&Point::Unformed) {
            let letters = taints.module_letters();
            facts.push(fact("taints", if letters.is_empty() { String::from("none") } else { letters }));
        }
        if let Some(load) = self.load {
            let pcpu = load.module.info.file.index().pcpu;
            let size = load.module.info.sechdrs.get(pcpu).filter(|_| pcpu != 0).map_or(0, |s| s.sh_size);
            if size != 0 {
                let at = load.module.placement.percpu;
                let at = at.map_or(String::from("not known"), |at| format!("{at:#x}"));
                facts.push(fact("percpu", format!("{size} bytes at {at}")));
            }
        }
        facts
    }
}
