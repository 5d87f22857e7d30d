//! The HDR view: the copy of the section headers that the loader edits
//! (`struct load_info`), its first rewrite and the flag edits before layout.

use alloc::format;
use alloc::vec;
use alloc::vec::Vec;
use core::ops::Range;

use crate::bytes::{align_up, printed};
use crate::changes::Change;
use crate::config::KernelConfig;
use crate::elf::{Rela, SHDR_SIZE, SHF_ALLOC, SHF_EXECINSTR, SHF_RO_AFTER_INIT, SHF_WRITE, SHT_NULL, Shdr};
use crate::finding::{Errno, Finding, Findings, Severity};
use crate::module_file::ModuleFile;
use crate::region::PerRegion;
use crate::setting::Setting;

/// `struct load_info`: the file, and the section headers as the loader has edited them so far.
///
/// `sh_addr` is 0 until `move_module`. The kernel's first rewrite sets it to
/// the place in the temporary copy (LAYOUT-1); that copy is freed after the
/// load and its address never known, so it counts as 0 here and the symbols
/// of sections that are not moved stay relative to their section (LAYOUT-43).
#[derive(Clone, Debug)]
pub struct LoadInfo<'d> {
    /// The module.
    pub file: &'d ModuleFile<'d>,
    /// The kernel's version and configuration.
    pub config: &'d KernelConfig,
    /// The edited section headers.
    pub sechdrs: Vec<Shdr>,
    /// Bytes that the `struct module` of the file says each region has: what the layout begins with (LAYOUT-23). Only a kernel whose
    /// types are known tells where they are.
    pub begun: PerRegion<u64>,
    /// RELA tables that the architecture has reordered in the temporary copy (PLT-14).
    reordered: Vec<Option<Vec<Rela>>>,
}

impl<'d> LoadInfo<'d> {
    /// `rewrite_section_headers`: on-disk addresses are dropped (LAYOUT-1), and
    /// tables that are only read during the load are not moved (LAYOUT-2).
    pub fn rewrite_section_headers(file: &'d ModuleFile<'d>, config: &'d KernelConfig) -> Self {
        let mut sechdrs = file.sections().to_vec();
        for s in &mut sechdrs {
            s.sh_addr = 0;
        }
        let index = file.index();
        for unmoved in [index.vers, index.info, index.vers_ext_crc, index.vers_ext_name] {
            clear_flag(&mut sechdrs, unmoved, SHF_ALLOC);
        }
        let reordered = vec![None; sechdrs.len()];
        LoadInfo { file, config, sechdrs, begun: PerRegion::default(), reordered }
    }

    /// `module_enforce_rwx_sections` (LAYOUT-4).
    pub fn module_enforce_rwx_sections(&self, said: &mut Findings) {
        if !self.config.strict_module_rwx {
            return;
        }
        let both = SHF_EXECINSTR | SHF_WRITE;
        said.stage_at_first(|said| {
            for (i, _) in self.sechdrs.iter().enumerate().filter(|(_, s)| s.sh_flags & both == both) {
                let (module, name) = (self.file.name_text(), printed(self.file.section_name(i)));
                let line = format!("{module}: section {name} (index {i}) has invalid WRITE|EXEC flags");
                let why = format!("section {name} is both writable and executable");
                said.push(
                    Finding::error("LAYOUT-4", Errno::ENOEXEC, why)
                        .says(line)
                        .about(self.file.section_subject(i)),
                );
            }
        });
    }

    /// The flag edits between the checks and the layout (LAYOUT-5, LAYOUT-6, LAYOUT-8).
    pub fn edit_flags(&mut self) {
        clear_flag(&mut self.sechdrs, self.file.index().pcpu, SHF_ALLOC);
        // Since v6.16 (60b57b9cb002) every section of these names, and static call sites with
        // inline static calls; before that the first ALLOC one of each name.
        if self.config.has(Change::RoAfterInitByName) {
            let static_calls = self.file.machine().is_some_and(|m| m.inline_static_calls);
            for (i, s) in self.sechdrs.iter_mut().enumerate().skip(1) {
                let name = self.file.section_name(i);
                if name == b".data..ro_after_init"
                    || name == b"__jump_table"
                    || (static_calls && name == b".static_call_sites")
                {
                    s.sh_flags |= SHF_RO_AFTER_INIT;
                }
            }
        } else {
            for name in [".data..ro_after_init", "__jump_table"] {
                let found = self.find_sec(name);
                if let Some(s) = self.sechdrs.get_mut(found).filter(|_| found != 0) {
                    s.sh_flags |= SHF_RO_AFTER_INIT;
                }
            }
        }
    }

    /// VAL-26: up to 6.3 the name of a section that is not in memory is not checked, but read by `module_finalize`; since then
    /// only that of a section of no type, as the first one is. Those that were read before are left out.
    pub fn section_names_in_reach(&self, said: &mut Findings) {
        let before = self.searched_for_btf();
        self.names_in_reach(|index| !before.contains(&index), said);
    }

    /// VAL-26 for `find_module_sections`, which looks for BTF in all sections.
    pub fn section_names_up_to_btf(&self, said: &mut Findings) {
        let searched = self.searched_for_btf();
        self.names_in_reach(|index| searched.contains(&index), said);
    }

    /// The sections that `find_any_sec` compares with `.BTF`, and since v6.11 with `.BTF.base`: up to the first one of that name.
    fn searched_for_btf(&self) -> Range<usize> {
        if self.config.known(Setting::BtfModules) != Some(true) {
            return 1..1;
        }
        let last = if self.config.has(Change::OwnBtfBase) { ".BTF.base" } else { ".BTF" };
        match self.file.find_any_sec(last) {
            0 => 1..self.file.sections().len(),
            found => 1..found,
        }
    }

    fn names_in_reach(&self, reads: impl Fn(usize) -> bool, said: &mut Findings) {
        let are_checked = self.config.has(Change::ElfValidityCacheCopy);
        let file = self.file;
        let table = file.sections().get(file.e_shstrndx()).map_or(0, |s| s.sh_offset);
        let end = align_up(file.bytes().len() as u64, self.config.page_size);
        said.stage_at_first(|said| {
            let sections = file.sections().iter().enumerate().filter(|(i, _)| reads(*i));
            for (i, s) in sections.filter(|(_, s)| !are_checked || s.sh_type == SHT_NULL) {
                if table.saturating_add(s.sh_name.into()) >= end {
                    let why = format!(
                        "the name of section {i}, at {:#x} of the section name table, lies far behind the file: the kernel crashes",
                        s.sh_name
                    );
                    let finding = Finding::note("VAL-26", Severity::Oops, why);
                    said.push(finding.about(file.section_subject(i)));
                }
            }
        });
    }

    /// `find_sec`: the first section of that name that is SHF_ALLOC by the loader's flags, else 0 (OV-4).
    pub fn find_sec(&self, name: &str) -> usize {
        let mut sections = self.sechdrs.iter().enumerate().skip(1);
        sections
            .find(|(i, s)| s.sh_flags & SHF_ALLOC != 0 && self.file.is_named(*i, name))
            .map_or(0, |(i, _)| i)
    }

    /// Bytes of a section that is walked as a table. One without bytes in the file may claim gigabytes, all zero: no more
    /// of it is looked at than the file has bytes.
    pub fn table_size(&self, index: usize) -> u64 {
        self.sechdrs.get(index).map_or(0, |s| s.sh_size.min(self.file.bytes().len() as u64))
    }

    /// Does the section stay only until init has run (`module_init_layout_section`, LAYOUT-10)?
    pub fn is_init_section(&self, index: usize) -> bool {
        let name = self.file.section_name(index);
        name.starts_with(b".init") || (!self.config.module_unload && name.starts_with(b".exit"))
    }

    /// Where the file has its section headers. By the time when sections are moved the kernel has changed them in its copy (LAYOUT-1).
    pub fn section_headers(&self) -> Range<u64> {
        let start = self.file.e_shoff();
        start..start.saturating_add(SHDR_SIZE.saturating_mul(self.sechdrs.len() as u64))
    }

    /// Do they belong to the bytes of a section?
    pub fn has_section_headers(&self, section: &Shdr) -> bool {
        let (headers, end) = (self.section_headers(), section.sh_offset.saturating_add(section.sh_size));
        section.has_bytes() && section.sh_offset < headers.end && headers.start < end
    }

    /// The reordered RELA table of section `index`, if the architecture has reordered it.
    pub fn reordered(&self, index: usize) -> Option<&[Rela]> {
        self.reordered.get(index)?.as_deref()
    }

    /// Replaces the RELA table of section `index` by a reordered one (PLT-14).
    pub fn set_reordered(&mut self, index: usize, table: Vec<Rela>) {
        if let Some(slot) = self.reordered.get_mut(index) {
            *slot = Some(table);
        }
    }
}

fn clear_flag(sechdrs: &mut [Shdr], index: usize, flag: u64) {
    if let Some(s) = sechdrs.get_mut(index) {
        s.sh_flags &= !flag;
    }
}
