//! Do the pieces of a description belong together: machine, slide, CRCs.

use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use elf_layout::config::version_comment;
use elf_layout::machine::machine_name;
use elf_layout::{KernelVersion, Machine};
use memchr::memmem;

use super::KernelDescriptionBuilder;
use crate::error::Error;
use crate::exports::Exports;
use crate::kallsyms::KernelSymbols;
use crate::known::Fact;

impl KernelDescriptionBuilder {
    /// The machine that all pieces agree on; `None` if none of them names one.
    pub(super) fn machine(&mut self, known: &[&'static Machine]) -> Result<Option<&'static Machine>, Error> {
        let of_config = self.config_text.as_deref().map(|text| machine_of_config(text, known));
        let of_config = of_config.transpose()?.flatten();
        let of_symbols = |symbols: Option<&KernelSymbols>| {
            symbols.map(|symbols| machine_of_symbols(symbols, known)).transpose().map(Option::flatten)
        };
        let of_live = of_symbols(self.live_symbols.as_ref())?;
        let told = self.machine_told(known)?;
        let machines =
            [("the kernel image", told), ("the configuration", of_config), ("the symbol table", of_live)];
        let mut told_by = machines.iter().filter_map(|(what, machine)| Some((what, (*machine)?)));
        if let Some((first, machine)) = told_by.next()
            && let Some((other, another)) = told_by.find(|(_, m)| *m != machine)
        {
            let (is, differs) = (machine.name, another.name);
            return Err(Error::TwoKernels(format!("{first} is of {is}, {other} of {differs}")));
        }
        if told.is_some() {
            return Ok(told);
        }
        let (machine, told_by) = match of_config {
            Some(_) => (of_config, Fact::Config),
            None if self.live_symbols.is_some() => (of_live, Fact::Symbols),
            None => (of_symbols(self.symbols.as_ref())?, Fact::Symbols),
        };
        // By the same file or option that gave the text.
        if let Some(by) = self.known.get(&told_by).filter(|_| machine.is_some()).cloned() {
            self.known.insert(Fact::Machine, by);
        }
        Ok(machine)
    }

    /// What follows the release in the vermagic string of a kernel of this configuration (VER-20; include/linux/vermagic.h).
    /// `None` if the configuration is not known, or the layout of structures is random.
    pub(super) fn vermagic_words(&self, machine: Option<&Machine>) -> Option<String> {
        let text = self.config_text.as_deref()?;
        let has = |options: &[&str]| options.iter().any(|option| is_set(text, option) == Some(true));
        if has(&["CONFIG_RANDSTRUCT", "CONFIG_GCC_PLUGIN_RANDSTRUCT"]) {
            return None;
        }
        let words = [
            ("SMP ", has(&["CONFIG_SMP"])),
            // CONFIG_PREEMPT before v5.15.
            ("preempt ", has(&["CONFIG_PREEMPT_BUILD", "CONFIG_PREEMPT"])),
            ("preempt_rt ", has(&["CONFIG_PREEMPT_RT"]) && !has(&["CONFIG_PREEMPT_BUILD"])),
            ("mod_unload ", has(&["CONFIG_MODULE_UNLOAD"])),
            ("modversions ", has(&["CONFIG_MODVERSIONS"])),
        ];
        let words = words.iter().filter(|(_, is_set)| *is_set).map(|(word, _)| *word);
        Some([" "].into_iter().chain(words).chain([machine?.vermagic_word]).collect())
    }

    /// Are the pieces of one kernel, as far as they tell?
    pub(super) fn is_one_kernel(&mut self) -> Result<(), Error> {
        self.exports.iter_mut().for_each(Exports::make_index);
        self.config_is_of_the_release()?;
        self.config_is_of_the_vermagic()?;
        self.symvers_is_of_the_kernel()
    }

    /// Is the configuration of this release? Its head names the version, and CONFIG_BUILD_SALT of distributions the release.
    fn config_is_of_the_release(&self) -> Result<(), Error> {
        if self.config_is_own {
            return Ok(());
        }
        let (Some(release), Some(text)) = (&self.release, &self.config_text) else { return Ok(()) };
        let two = |of: &str| {
            Err(Error::TwoKernels(format!("the configuration is of {of}, the release is {release}")))
        };
        let salt = option_of(text, "CONFIG_BUILD_SALT").map(|salt| salt.trim_matches('"'));
        // Only what looks like a release is one.
        if let Some(salt) = salt.filter(|salt| salt.contains('-') && KernelVersion::parse(salt).is_some()) {
            return if salt == release { Ok(()) } else { two(salt) };
        }
        let head = text.split(|b| *b == b'\n').take(8).find_map(version_comment);
        let (Some(head), Some(own)) = (head, KernelVersion::parse(release)) else { return Ok(()) };
        if own.may_name(head) { Ok(()) } else { two(&head.to_string()) }
    }

    /// Do the options that vermagic shows agree with the configuration?
    fn config_is_of_the_vermagic(&self) -> Result<(), Error> {
        let (Some(vermagic), Some(text)) = (&self.vermagic, &self.config_text) else { return Ok(()) };
        let words = [
            ("SMP", "CONFIG_SMP"),
            ("mod_unload", "CONFIG_MODULE_UNLOAD"),
            ("modversions", "CONFIG_MODVERSIONS"),
        ];
        for (word, option) in words {
            let shown = vermagic.split(' ').any(|w| w == word);
            let Some(set) = is_set(text, option) else { continue };
            if shown != set {
                let state = |on| if on { "set" } else { "not set" };
                return Err(Error::TwoKernels(format!(
                    "{option} is {} in the configuration, and {} by the kernel's vermagic",
                    state(set),
                    state(shown)
                )));
            }
        }
        Ok(())
    }

    /// Is Module.symvers of this kernel? In the symbol table of the same kernel is all that it exports; a table of text alone
    /// has no data. The CRCs are those of the image.
    fn symvers_is_of_the_kernel(&self) -> Result<(), Error> {
        let Some(symvers) = &self.symvers else { return Ok(()) };
        let tables = [&self.live_symbols, &self.symbols];
        let table = tables.into_iter().flatten().find(|table| table.has_local_data());
        if table.is_none() && self.exports.is_none() {
            return Ok(());
        }
        let (mut all, mut missing) = (0usize, 0usize);
        let (mut both, mut differ) = (0usize, 0usize);
        let own = symvers.exporters().filter(|e| e.module().is_none());
        for export in own.flat_map(|e| symvers.exports().part(e.positions)) {
            let of_image = self.exports.as_ref().and_then(|exports| exports.find(export.name));
            // What an image exports is among its symbols: a search in the smaller table says so sooner.
            let is_there = |table: &KernelSymbols| {
                (of_image.is_some() && self.live_symbols.is_none())
                    || table.named(export.name).any(|symbol| symbol.module.is_none())
            };
            all = all.saturating_add(1);
            missing = missing.saturating_add(usize::from(table.is_some_and(|table| !is_there(table))));
            let crc = |crc: Option<u32>| crc.filter(|crc| *crc != 0);
            if let (Some(found), Some(told)) = (of_image.and_then(|e| crc(e.crc)), crc(export.crc)) {
                both = both.saturating_add(1);
                differ = differ.saturating_add(usize::from(found != told));
            }
        }
        // A few may be: that of a neighbouring build.
        if missing > all / 100 {
            return Err(Error::TwoKernels(format!(
                "{missing} of {all} exports of Module.symvers are not in the symbol table"
            )));
        }
        // A few may: a Module.symvers of a neighbouring build still tells which module exports what.
        if differ > both / 2 {
            return Err(Error::TwoKernels(format!(
                "{differ} of {both} exports have other CRCs in Module.symvers than in the kernel image"
            )));
        }
        Ok(())
    }

    /// How far the kernel runs from its link addresses (KSYM-30); the exports of its image move so far.
    pub(super) fn slide(&mut self) -> Result<u64, Error> {
        let (Some(link), Some(live)) = (&self.symbols, &self.live_symbols) else { return Ok(0) };
        let slide = slide(link, live)?;
        if let Some(by) = self.known.get(&Fact::Symbols).cloned() {
            self.known.insert(Fact::Slide, by);
        }
        if let Some(all) = &mut self.exports {
            all.set_addresses(0..all.len(), |e| e.address.map(|a| slid(a, slide)));
        }
        Ok(slide)
    }
}

/// What stands behind `CONFIG_NAME=` in a configuration.
fn option_of<'t>(text: &'t [u8], name: &str) -> Option<&'t str> {
    let value = line_behind(text, &format!("{name}="))?;
    core::str::from_utf8(value.trim_ascii()).ok()
}

/// Is an option set? `None` if an extract of a configuration does not mention it.
fn is_set(text: &[u8], name: &str) -> Option<bool> {
    let is_unset =
        || line_behind(text, &format!("# {name} is not set")).is_some_and(|r| r.trim_ascii().is_empty());
    option_of(text, name).map(|value| value == "y").or_else(|| is_unset().then_some(false))
}

/// The rest of the first line that begins so.
fn line_behind<'t>(text: &'t [u8], begin: &str) -> Option<&'t [u8]> {
    let is_first = |at: &usize| at.checked_sub(1).is_none_or(|before| text.get(before) == Some(&b'\n'));
    let at = memmem::find_iter(text, begin).find(is_first)?;
    text.get(at.checked_add(begin.len())?..)?.split(|b| *b == b'\n').next()
}

fn unknown(what: &'static str, machine: String, known: &[&'static Machine]) -> Error {
    let known: Vec<&str> = known.iter().map(|machine| machine.name).collect();
    Error::UnknownMachine { what, machine, known: known.join(", ") }
}

/// The machine of an `e_machine`.
pub(super) fn machine_of_number(number: u64, known: &[&'static Machine]) -> Result<&'static Machine, Error> {
    let found = u16::try_from(number).ok().and_then(|number| Machine::find(known, number));
    let name = || match u16::try_from(number) {
        Ok(number) => machine_name(number, known),
        Err(_) => format!("machine {number:#x}"),
    };
    found.ok_or_else(|| unknown("a kernel", name(), known))
}

/// The machine that the first lines of a `.config` name (`# Linux/ARCH 6.1.176 Kernel Configuration`); `None`
/// if they name none.
fn machine_of_config(config: &[u8], known: &[&'static Machine]) -> Result<Option<&'static Machine>, Error> {
    let head = String::from_utf8_lossy(config.get(..512.min(config.len())).unwrap_or_default()).into_owned();
    let named = known.iter().find(|machine| head.contains(&format!("# Linux/{} ", machine.source_arch)));
    if let Some(machine) = named {
        return Ok(Some(machine));
    }
    let other = head.lines().find_map(|line| {
        let (arch, rest) = line.strip_prefix("# Linux/")?.split_once(' ')?;
        rest.ends_with(" Kernel Configuration").then(|| arch.to_owned())
    });
    other.map_or(Ok(None), |arch| Err(unknown("a configuration", arch, known)))
}

/// The machine by where the kernel's first function lies; `None` if it lies in the lower half of the address space,
/// which tells nothing.
fn machine_of_symbols(
    symbols: &KernelSymbols,
    known: &[&'static Machine],
) -> Result<Option<&'static Machine>, Error> {
    let text = symbols.iter().find(|s| matches!(s.kind, b'T' | b't') && s.module.is_none());
    let Some(text) = text.map(|s| s.address) else { return Ok(None) };
    let upper_half = u32::try_from(text >> 32).unwrap_or(u32::MAX);
    match known.iter().find(|machine| machine.text_addresses.contains(&upper_half)) {
        Some(machine) => Ok(Some(machine)),
        None if text >> 63 == 1 => {
            Err(unknown("a symbol table", format!("a machine with kernel code at {text:#x}"), known))
        }
        None => Ok(None),
    }
}

/// Only addresses of the upper half move with the kernel; per-cpu offsets and constants do not (KSYM-31).
fn slid(address: u64, slide: u64) -> u64 {
    if address >> 63 == 1 { address.wrapping_add(slide) } else { address }
}

/// How far the running kernel lies from its link addresses (KSYM-30). Every symbol that both have
/// once must lie that far, else they are two kernels.
fn slide(link: &KernelSymbols, live: &KernelSymbols) -> Result<u64, Error> {
    let mut slide = None;
    let (mut compared, mut elsewhere) = (0u64, 0u64);
    let text = link.iter().filter(|s| matches!(s.kind, b'T' | b't') && s.address >> 63 == 1);
    for symbol in text {
        let once = link.unique(symbol.name).is_some();
        let Some(here) = live.unique(symbol.name).filter(|s| once && s.module.is_none()) else { continue };
        let distance = here.address.wrapping_sub(symbol.address);
        compared = compared.saturating_add(1);
        if *slide.get_or_insert(distance) != distance {
            elsewhere = elsewhere.saturating_add(1);
        }
    }
    match slide {
        None => Err(Error::TwoKernels("no symbol of the kernel image is in this symbol table".to_string())),
        Some(_) if elsewhere != 0 => {
            let what = "of the functions that the kernel image and this symbol table have in common do not lie equally far apart";
            Err(Error::TwoKernels(format!("{elsewhere} of {compared} {what}")))
        }
        Some(slide) => Ok(slide),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn symbols(text: &str) -> KernelSymbols {
        KernelSymbols::parse(text.as_bytes()).unwrap()
    }

    #[test]
    fn options_stand_at_the_beginning_of_a_line() {
        let text = b"CONFIG_A=y\n# CONFIG_A=n\n# CONFIG_B is not set\r\nXCONFIG_C=y\nCONFIG_C=m\n# CONFIG_D is not set at all\nCONFIG_E=\"x y\" ";
        let all = ["CONFIG_A", "CONFIG_B", "CONFIG_C", "CONFIG_D", "CONFIG_E"];
        assert_eq!(
            all.map(|name| is_set(text, name)),
            [Some(true), Some(false), Some(false), None, Some(false)]
        );
        assert_eq!(option_of(text, "CONFIG_E"), Some("\"x y\""));
        assert_eq!((is_set(b"", "CONFIG_A"), is_set(b"CONFIG_A", "CONFIG_A")), (None, None));
    }

    #[test]
    fn ksym_30_slide_and_two_kernels() {
        let link = symbols(
            "0000000000001000 A percpu\nffffffff81000000 T _text\nffffffff81000100 t f\nffffffff81000200 T g\n",
        );
        let live = symbols(
            "0000000000001000 A percpu\nffffffff9a000000 T _text\nffffffff9a000100 t f\nffffffff9a000200 T g\n",
        );
        assert_eq!(slide(&link, &live), Ok(0x1900_0000), "KSYM-30");
        assert_eq!(slid(0x1000, 0x1900_0000), 0x1000, "KSYM-31: per-cpu offsets stay");
        let other = symbols("ffffffff9a000000 T _text\nffffffff9a000110 t f\nffffffff9a000200 T g\n");
        assert!(slide(&link, &other).unwrap_err().to_string().contains("1 of 3"), "a mismatch is detected");
        assert!(slide(&link, &symbols("ffffffff9a000000 T nothing\n")).is_err());
    }
}
