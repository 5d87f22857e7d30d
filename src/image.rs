//! The memory of one module: anonymous mapped memory that is zero until it is
//! written, one mapping for all regions.

use std::any::Any;
use std::io;
use std::ops::Range;
use std::slice::ChunksMut;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use elf_layout::bytes::align_up;
use elf_layout::{Layout, Memory, Module, PerRegion, Region};
use memmap2::MmapMut;

/// Memory up to this size in bytes serves one file after the other. What is larger goes with its file: what a file claims
/// without having it is zero by itself only once.
pub(crate) const KEPT_MAX: usize = 32 << 20;

/// Memory for `len` bytes: the spare one if it is large enough and not too large, else mapped; and whether it is fresh,
/// so that it is zero. Memory that was too small makes room for all that is kept: the system has to zero what it hands
/// out anew.
pub(crate) fn map_again(spare: Option<MmapMut>, len: usize) -> io::Result<(MmapMut, bool)> {
    let had = spare.is_some();
    if let Some(map) = spare.filter(|map| (len..=KEPT_MAX).contains(&map.len())) {
        return Ok((map, false));
    }
    // Without large pages: those that lie idle until a large module comes may be cold again by then.
    let map = if had && len <= KEPT_MAX { MmapMut::map_anon(KEPT_MAX)? } else { map_anon(len)? };
    Ok((map, true))
}

/// Fresh memory, zero until it is written; at least one byte.
fn map_anon(len: usize) -> io::Result<MmapMut> {
    // A large page of x86_64, and of AArch64 with pages of 4 KiB.
    const LARGE: usize = 2 << 20;
    let whole = if len < LARGE { len.max(1) } else { len.checked_next_multiple_of(LARGE).unwrap_or(len) };
    let map = MmapMut::map_anon(whole)?;
    // Where the system has them, large pages spare most of the page faults: of reading a file of 19 MB they are half.
    #[cfg(target_os = "linux")]
    if len >= LARGE {
        let _ = map.advise(memmap2::Advice::HugePage);
    }
    Ok(map)
}

/// Memory for an image, that of one which is no longer needed for example.
#[derive(Debug)]
pub struct Spare {
    map: MmapMut,
    is_zero: bool,
}

impl Spare {
    /// Memory as large as any that is used again. Nothing of it is there yet.
    pub(crate) fn fresh() -> Option<Self> {
        // Of small pages: where large ones are cold, each takes milliseconds.
        Some(Spare { map: MmapMut::map_anon(KEPT_MAX).ok()?, is_zero: true })
    }
}

impl From<Image> for Spare {
    fn from(image: Image) -> Self {
        Spare { map: image.map, is_zero: false }
    }
}

/// Memory whose pages are faulted in before it is needed, so that filling it causes no page faults. Idle threads share
/// that work.
#[derive(Debug)]
pub struct Touching<'m> {
    pieces: Mutex<ChunksMut<'m, u8>>,
    /// How many pieces are wanted.
    left: AtomicUsize,
}

impl<'m> Touching<'m> {
    /// Bytes of a piece.
    const PIECE: usize = 128 << 10;

    pub(crate) fn new(spare: Option<&'m mut Spare>) -> Self {
        let memory = spare.map(|spare| &mut *spare.map).unwrap_or_default();
        Touching { pieces: Mutex::new(memory.chunks_mut(Self::PIECE)), left: AtomicUsize::new(0) }
    }

    /// So many bytes will be needed. Of more than there are none will be.
    pub fn want(&self, len: usize) {
        let len = Some(len).filter(|len| *len <= KEPT_MAX).unwrap_or(0);
        self.left.store(len.div_ceil(Self::PIECE), Ordering::Relaxed);
    }

    /// Touches the wanted pieces that no other thread has taken.
    pub fn touch(&self) {
        /// The smallest page there is.
        const PAGE: usize = 4096;
        let take =
            || self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
        while take().is_ok() {
            let piece = self.pieces.lock().unwrap_or_else(PoisonError::into_inner).next();
            // Not by MADV_POPULATE_WRITE: threads that map other memory would wait for it.
            piece.into_iter().flatten().step_by(PAGE).for_each(|byte| *byte = 0);
        }
    }
}

/// Regions as bytes. Each is as large as the kernel allocates it (LAYOUT-40).
#[derive(Debug)]
pub struct Image {
    map: MmapMut,
    /// Byte range of each region in the mapping.
    ranges: PerRegion<(usize, usize)>,
}

impl Image {
    /// Zeroed memory for all regions of a layout.
    pub fn new(layout: &Layout) -> io::Result<Self> {
        Image::reusing(None, layout)
    }

    /// As [`Image::new`], in memory that is there already, if it is large enough: memory that the system has to hand out
    /// anew costs more than zeroing what is there.
    pub fn reusing(spare: Option<Spare>, layout: &Layout) -> io::Result<Self> {
        let mut ranges = PerRegion::default();
        let mut end = 0usize;
        for region in layout.regions() {
            let size = usize::try_from(layout.allocated(region)).map_err(|_| io::ErrorKind::OutOfMemory)?;
            let start = end;
            end = end.checked_add(size).ok_or(io::ErrorKind::OutOfMemory)?;
            *ranges.get_mut(region) = (start, end);
        }
        // An empty mapping is not allowed.
        let len = align_up(end.max(1) as u64, layout.page_size) as usize;
        let (spare, is_zero) = spare.map(|spare| (spare.map, spare.is_zero)).unzip();
        let (mut map, is_fresh) = map_again(spare, len)?;
        if !is_fresh && is_zero == Some(false) {
            map.get_mut(..len).unwrap_or_default().fill(0);
        }
        Ok(Image { map, ranges })
    }

    fn range(&self, region: Region) -> Range<usize> {
        let (start, end) = self.ranges.get(region);
        start..end
    }
}

impl Memory for Image {
    fn region(&self, region: Region) -> &[u8] {
        self.map.get(self.range(region)).unwrap_or(&[])
    }

    fn region_mut(&mut self, region: Region) -> &mut [u8] {
        let range = self.range(region);
        self.map.get_mut(range).unwrap_or(&mut [])
    }

    fn regions_mut(&mut self) -> Vec<(Region, &mut [u8])> {
        let ranges = Region::ALL.map(|region| (self.range(region), region));
        let mut ranges: Vec<_> = ranges.into_iter().filter(|(range, _)| !range.is_empty()).collect();
        ranges.sort_by_key(|(range, _)| range.start);
        let (mut rest, mut at) = (&mut *self.map, 0usize);
        let mut regions = Vec::with_capacity(ranges.len());
        for (range, region) in ranges {
            let Some((_, from)) = rest.split_at_mut_checked(range.start.saturating_sub(at)) else { break };
            let Some((bytes, after)) = from.split_at_mut_checked(range.len()) else { break };
            regions.push((region, bytes));
            (rest, at) = (after, range.end);
        }
        regions
    }
}

/// Memory that one load leaves to the next, for loading many modules one after the other.
#[derive(Debug, Default)]
pub struct Workspace {
    spare: Option<Spare>,
}

impl Workspace {
    /// Takes the memory of a module that is no longer needed.
    pub fn recycle(&mut self, module: Module<'_>) {
        let memory: Box<dyn Any> = module.memory;
        self.spare = memory.downcast::<Image>().ok().map(|image| Spare::from(*image));
    }

    /// With memory for a first load, none of it there yet.
    pub fn fresh() -> Self {
        Workspace { spare: Spare::fresh() }
    }

    /// The memory that is there, if there is any.
    pub(crate) fn take(&mut self) -> Option<Spare> {
        self.spare.take()
    }

    /// Lets threads bring that memory in.
    pub fn touching(&mut self) -> Touching<'_> {
        Touching::new(self.spare.as_mut())
    }
}
