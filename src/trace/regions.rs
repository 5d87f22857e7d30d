//! The memory of a module, as events show it.

use elf_layout::{Layout, Module, Placement};

use super::event::{Address, Memory, ProtectedPart, Region};

/// The regions of a layout.
pub fn memory(layout: &Layout, placement: Option<&Placement>) -> Memory {
    let region = |region: elf_layout::Region| {
        let may = region.permissions();
        let letter = |has: bool, letter| if has { letter } else { '-' };
        Region {
            name: region.name(),
            base: placement.map(|placement| Address(placement.bases.get(region))),
            size: layout.sizes.get(region),
            allocated: layout.allocated(region),
            permissions: ['r', letter(may.write, 'w'), letter(may.execute, 'x')].iter().collect(),
            init: region.is_init(),
        }
    };
    Memory { regions: layout.regions().map(region).collect() }
}

/// What may be done with the memory of a module: from `complete_formation` on, or, `after_init`, what changes when init is over.
/// Nothing if this kernel protects no modules.
pub fn protected(module: &Module<'_>, after_init: bool) -> Vec<ProtectedPart> {
    let layout = &module.layout;
    let mut parts = Vec::new();
    if !module.info.config.strict_module_rwx {
        return parts;
    }
    for region in layout.regions() {
        let allocated = layout.allocated(region);
        // Up to 6.3 an area has all of them, one behind the other (LAYOUT-16).
        let [core, init] = layout.marks;
        let ends = match region {
            elf_layout::Region::Core => [core.text_size, core.ro_size, core.ro_after_init_size, allocated],
            elf_layout::Region::Init => [init.text_size, init.ro_size, init.ro_after_init_size, allocated],
            elf_layout::Region::RoAfterInit => [0, 0, allocated, allocated],
            region if region.permissions().execute => [allocated; 4],
            region if region.permissions().write => [0, 0, 0, allocated],
            _ => [0, allocated, allocated, allocated],
        };
        let filled = if after_init { "r--" } else { "rw-" };
        let mut from = 0;
        for (n, (end, permissions)) in ends.into_iter().zip(["r-x", "r--", filled, "rw-"]).enumerate() {
            if end > from && (n == 2 || !after_init) {
                let addr = Address(module.placement.bases.get(region).wrapping_add(from));
                let size = end.saturating_sub(from);
                parts.push(ProtectedPart { region: region.name(), addr, size, permissions });
            }
            from = end.max(from);
        }
    }
    parts
}
