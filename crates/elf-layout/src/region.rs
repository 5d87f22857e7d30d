//! The regions of a module's memory.

/// How a module's memory is divided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Generation {
    /// Up to 6.3: one core and one init area.
    CoreInit,
    /// From 6.4: one area per `enum mod_mem_type`.
    ModMemType,
}

impl Generation {
    /// The regions in the order in which they are allocated (LAYOUT-40, LAYOUT-50).
    pub const fn regions(self) -> &'static [Region] {
        match self {
            Generation::CoreInit => &[Region::Core, Region::Init],
            Generation::ModMemType => &[
                Region::Text,
                Region::Data,
                Region::Rodata,
                Region::RoAfterInit,
                Region::InitText,
                Region::InitData,
                Region::InitRodata,
            ],
        }
    }
}

/// One area of a module's memory: `enum mod_mem_type` from 6.4, `core_layout`
/// and `init_layout` before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Region {
    /// MOD_TEXT
    Text,
    /// MOD_DATA
    Data,
    /// MOD_RODATA
    Rodata,
    /// MOD_RO_AFTER_INIT
    RoAfterInit,
    /// MOD_INIT_TEXT
    InitText,
    /// MOD_INIT_DATA
    InitData,
    /// MOD_INIT_RODATA
    InitRodata,
    /// core_layout (up to 6.3)
    Core,
    /// init_layout (up to 6.3)
    Init,
}

/// How many regions there are over all generations.
pub const REGIONS: usize = 9;

impl Region {
    /// All regions, in the order of their numbers.
    pub const ALL: [Region; REGIONS] = [
        Region::Text,
        Region::Data,
        Region::Rodata,
        Region::RoAfterInit,
        Region::InitText,
        Region::InitData,
        Region::InitRodata,
        Region::Core,
        Region::Init,
    ];

    /// Its name in options, file names and JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Region::Text => "text",
            Region::Data => "data",
            Region::Rodata => "rodata",
            Region::RoAfterInit => "ro_after_init",
            Region::InitText => "init_text",
            Region::InitData => "init_data",
            Region::InitRodata => "init_rodata",
            Region::Core => "core",
            Region::Init => "init",
        }
    }

    /// The region of that name.
    pub fn from_name(name: &str) -> Option<Region> {
        Region::ALL.into_iter().find(|r| r.name() == name)
    }

    /// Is it freed after init has run?
    pub const fn is_init(self) -> bool {
        matches!(self, Region::InitText | Region::InitData | Region::InitRodata | Region::Init)
    }

    /// Holds machine code.
    pub const fn is_executable(self) -> bool {
        matches!(self, Region::Text | Region::InitText | Region::Core | Region::Init)
    }
}

/// One value per region.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PerRegion<T>([T; REGIONS]);

impl<T: Copy + Default> PerRegion<T> {
    /// The value of a region.
    pub fn get(&self, region: Region) -> T {
        self.0.get(region as usize).copied().unwrap_or_default()
    }

    /// The value of a region, to be changed.
    pub fn get_mut(&mut self, region: Region) -> &mut T {
        let [a, b, c, d, e, f, g, h, i] = &mut self.0;
        match region {
            Region::Text => a,
            Region::Data => b,
            Region::Rodata => c,
            Region::RoAfterInit => d,
            Region::InitText => e,
            Region::InitData => f,
            Region::InitRodata => g,
            Region::Core => h,
            Region::Init => i,
        }
    }
}
