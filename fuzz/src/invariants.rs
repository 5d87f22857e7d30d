//! What must hold for every load, whatever the module.

use elf_layout::finding::FINDINGS_MAX;
use elf_layout::{Findings, Layout, LoadInfo, Severity};
use kmodld::Load;
use kmodld::check::{Ending, Verdict};
use kmodld::load::Opened;

/// A kernel's module area is no larger.
pub const REGION_MAX: u64 = 2 << 30;
/// No single text of a finding is longer, in bytes.
const TEXT_MAX: usize = 16 << 10;

/// No finding has more lines of the log: a parameter can make the kernel say a line for each of its characters.
const LINES_MAX: usize = 4096;

/// Findings are bounded, and agree on whether and where the kernel stops.
pub fn findings(said: &Findings) {
    assert!(said.iter().count() <= FINDINGS_MAX, "more than {FINDINGS_MAX} findings are kept");
    let (mut stops, mut refusals) = (0, 0);
    for finding in said.iter() {
        let texts = [finding.explanation.len(), finding.hint.as_ref().map_or(0, String::len)];
        let longest = texts.into_iter().chain(finding.dmesg.iter().map(String::len)).max();
        assert!(longest < Some(TEXT_MAX), "{}: a text of {longest:?} bytes", finding.code);
        assert!(
            finding.dmesg.len() <= LINES_MAX,
            "{}: {} lines in the log",
            finding.code,
            finding.dmesg.len()
        );
        refusals += usize::from(finding.severity.refuses());
        if finding.stops_here {
            stops += 1;
            assert_eq!(
                finding.errno,
                said.errno(),
                "{}: its errno is what the system call returns",
                finding.code
            );
            let crash = finding.severity == Severity::Oops;
            assert!(crash || finding.errno.is_some(), "{}: stops the kernel for no reason", finding.code);
            assert!(finding.severity.refuses(), "{}: only what refuses stops the kernel", finding.code);
        }
    }
    assert_eq!(stops, usize::from(said.refused()), "one finding is where the kernel stops");
    if said.suppressed() == 0 {
        assert_eq!(said.refused(), refusals != 0, "what refuses is the end of a stage");
    }
    assert!(said.refused() || said.errno().is_none(), "an errno without a refusal");
}

/// A file that is no module was refused.
pub fn opened(opened: &Opened<'_>) {
    findings(&opened.said);
    assert!(opened.module.is_some() || opened.said.refused(), "no module, and no reason");
}

/// Every section of what is not refused lies in a region of its generation, every region in memory.
pub fn load(load: &Load<'_>, said: &Findings) {
    for region in load.module.layout.regions() {
        let (size, allocated) = (load.module.layout.sizes.get(region), load.module.layout.allocated(region));
        assert!(size <= allocated, "{}: {size:#x} bytes in {allocated:#x}", region.name());
        assert!(
            allocated <= REGION_MAX + load.module.layout.page_size,
            "{}: {allocated:#x} bytes",
            region.name()
        );
        assert_eq!(
            load.module.memory.region(region).len() as u64,
            allocated,
            "{}: its memory",
            region.name()
        );
        assert!(
            load.module.layout.generation.regions().contains(&region),
            "{}: of another generation",
            region.name()
        );
    }
    sections(&load.module.info, &load.module.layout, said);
    for (index, section) in load.module.info.sechdrs.iter().enumerate() {
        if let Some(place) = load.module.layout.place(index) {
            assert_eq!(load.module.placement.address(place), section.sh_addr, "section {index}: its address");
        }
    }
    let symbols = load.module.info.file.symbols().len();
    assert_eq!(load.module.values.len(), symbols, "a value for each symbol");
    for patch in &load.record.patches {
        let end = u128::from(patch.place.offset) + u128::from(patch.len);
        let size = load.module.layout.allocated(patch.place.region);
        assert!(end <= u128::from(size), "a patch by {} ends at {end:#x} of {size:#x}", patch.step.name());
    }
    for state in &load.record.runtime {
        let end = u128::from(state.place.offset) + u128::from(state.len);
        let size = load.module.layout.allocated(state.place.region);
        assert!(end <= u128::from(size), "run-time state ({}) ends at {end:#x} of {size:#x}", state.what);
    }
}

/// Every section of what is not refused lies in memory, but for one without bytes: a kernel takes that whatever its size, of
/// which it counts 32 bits (LAYOUT-14).
pub fn sections(info: &LoadInfo<'_>, layout: &Layout, said: &Findings) {
    for (index, section) in info.sechdrs.iter().enumerate() {
        let Some(place) = layout.place(index) else { continue };
        let end = u128::from(place.offset) + u128::from(section.sh_size);
        let size = layout.allocated(place.region);
        let inside = end <= u128::from(size);
        assert!(
            inside || said.refused() || !section.has_bytes(),
            "section {index} ends at {end:#x} of {size:#x} in {}",
            place.region.name()
        );
    }
}

/// The word, the errno and the findings of a verdict tell the same.
pub fn verdict(verdict: &Verdict) {
    let stops = verdict.findings.iter().filter(|f| f.stops_here).count();
    match (verdict.verdict, verdict.errno) {
        (Ending::Good, None) => {
            assert_eq!(stops, 0, "it loads, but a finding stops it");
            assert!(verdict.unjudged.is_empty(), "it loads, but something was not judged");
        }
        (Ending::Undecided, None) => {
            assert!(!verdict.unjudged.is_empty(), "undecided for no reason");
            assert!(verdict.dmesg.is_empty(), "what is logged is not known");
            return;
        }
        (Ending::Refused, Some(errno)) => {
            let at = verdict.findings.iter().find(|f| f.stops_here).and_then(|f| f.errno);
            assert_eq!((stops, at), (1, Some(errno)), "what refuses it");
        }
        (Ending::Oops, None) => {
            let at = verdict.findings.iter().find(|f| f.stops_here).map(|f| f.severity);
            assert_eq!((stops, at), (1, Some(Severity::Oops)), "what crashes the kernel");
        }
        other => panic!("no verdict: {other:?}"),
    }
    assert!(verdict.dmesg.len() <= 100 * FINDINGS_MAX, "the kernel's log is endless");
}
