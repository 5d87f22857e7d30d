//! Tables of sections, and the memory map.

use kmodld::trace::event::{Memory, Section, Sections};
use kmodld::trace::words::with;

use super::super::report::one_line;
use super::Teller;
use super::lines::{cut, hex, left, mark, or_dash};

/// Columns of the bar of a region.
const BAR: u64 = 32;

impl Teller<'_> {
    /// The headers, as far as the step has changed them.
    pub(super) fn section_headers(&mut self, sections: &Sections) {
        let old = std::mem::replace(&mut self.sections, sections.sections.clone());
        let before = |index: usize| old.iter().find(|section| section.index == index);
        let rows = || sections.sections.iter();
        match self.step {
            "elf" => {
                self.line(self.words.get("story.heads.elf"));
                for s in rows() {
                    self.line(format!(
                        "{:>3} {:<9} {:<5} {:>9} {:>10} {:>6}  {}",
                        s.index,
                        cut(&s.kind, 9),
                        s.flags,
                        format!("{:#x}", s.offset),
                        s.size,
                        s.align,
                        one_line(&s.name)
                    ));
                }
            }
            "rewrite" => {
                self.line(self.words.get("story.heads.rewrite"));
                for s in rows() {
                    let was = before(s.index).map_or("", |old| old.flags.as_str());
                    let flags = match was == s.flags {
                        true => s.flags.clone(),
                        false => format!("{was} -> {}", or_dash(&s.flags)),
                    };
                    self.line(format!("{:>3} {:<14} {flags:<13} {}", s.index, s.addr, one_line(&s.name)));
                }
            }
            "layout" => {
                self.line(self.words.get("story.heads.layout"));
                for s in rows().filter(|s| s.region.is_some()) {
                    let (region, offset) = (s.region.unwrap_or("-"), s.region_offset.unwrap_or(0));
                    let offset = format!("{offset:#x}");
                    self.line(format!(
                        "{:>3} {region:<14} {offset:>10} {:>10}  {}",
                        s.index,
                        s.size,
                        one_line(&s.name)
                    ));
                }
            }
            "move" => {
                let zeros = self.words.get("story.zeros").to_owned();
                let place = |s: &Section| {
                    s.region.map(|region| format!("{region}+{:#x}", s.region_offset.unwrap_or(0)))
                };
                let width = rows().filter_map(place).map(|place| place.len()).max().unwrap_or(0);
                let head = [("story.heads.move", 0), ("ui.region", width.saturating_add(2)), ("ui.name", 0)];
                let head = head.map(|(key, width)| left(self.words.get(key), width));
                self.line(head.concat());
                for s in rows() {
                    let Some(place) = place(s) else { continue };
                    let from =
                        if s.kind == "NOBITS" { zeros.clone() } else { format!("hdr+{:#x}", s.offset) };
                    self.line(format!(
                        "{:>3} {} {}  {place:<width$}  {}",
                        s.index,
                        left(&from, 14),
                        s.addr,
                        one_line(&s.name)
                    ));
                }
            }
            _ => {
                let mut same = true;
                for s in rows() {
                    let Some(old) = before(s.index).filter(|old| *old != s) else { continue };
                    same = false;
                    let change = |key, old: &str, new: &str| {
                        (old != new).then(|| {
                            self.words.fill(key, &[with("old", &or_dash(old)), with("new", &or_dash(new))])
                        })
                    };
                    let number = |n: u64| n.to_string();
                    let what: Vec<String> = [
                        change("story.flags", &old.flags, &s.flags),
                        change("story.type", &old.kind, &s.kind),
                        change("story.size", &number(old.size), &number(s.size)),
                        change("story.alignment", &number(old.align), &number(s.align)),
                    ]
                    .into_iter()
                    .flatten()
                    .collect();
                    self.line(format!("{:>3} {}: {}", s.index, one_line(&s.name), what.join(", ")));
                }
                if same {
                    self.line(self.words.get("story.no_change"));
                }
            }
        }
    }

    /// The memory map: each region with a bar of what it uses of its pages, and its sections.
    pub(super) fn memory(&mut self, memory: &Memory) {
        self.blank();
        for region in &memory.regions {
            let base = region.base.map_or(String::from("                  "), |base| hex(base.0));
            let used = region.size.saturating_mul(BAR).checked_div(region.allocated).unwrap_or(0).min(BAR);
            let used = if region.size == 0 { 0 } else { used.max(1) };
            let bar = format!("{}{}", mark('#', used), mark('.', BAR.saturating_sub(used)));
            let init = if region.init { " init" } else { "" };
            self.line(format!("{base} +{bar}+ {} {}{init}", region.name, region.permissions));
            // Where they go is told by the table; the map follows when there are addresses.
            let is_placed = |_: &&Section| region.base.is_some();
            let here = self
                .sections
                .iter()
                .filter(is_placed)
                .filter(|s| s.region == Some(region.name))
                .collect::<Vec<_>>();
            let mut here: Vec<(u64, String)> = here
                .iter()
                .map(|s| (s.region_offset.unwrap_or(0), format!("{} {}", one_line(&s.name), s.size)))
                .collect();
            here.sort();
            for (offset, text) in here {
                let offset = format!("+{offset:#x}");
                self.line(format!("{offset:>18} | {text}"));
            }
            let text =
                self.say("story.used", &[with("size", &region.size), with("allocated", &region.allocated)]);
            self.line(format!("{:>18} +{}+ {text}", "", mark('-', BAR)));
        }
    }
}
