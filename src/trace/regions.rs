//! The memory of a module, as events show it.

use elf_layout::{Layout, Placement};

use super::event::{Address, Memory, Region};

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
