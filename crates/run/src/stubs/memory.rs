//! Memory: kmalloc, vmalloc, caches, pages, per-cpu memory, all out of the machine's own heap.

use alloc::format;

use super::{Given, SHORT, ZERO_SIZE, power};
use crate::machine::{Answer, Failed, Machine, Platform};
use crate::memory::{PAGE, Protection};
use crate::world::{Cache, Event, Kind};

/// Per-cpu memory that a module gets in any case.
const PERCPU_SURE: u64 = 2048;
/// KMALLOC_MAX_SIZE: more is refused, with a warning that stubs do not give.
const KMALLOC_MAX: u64 = 4 << 20;

/// kmalloc: sizes that are powers of two are aligned to themselves, up to a page.
pub(super) fn kmalloc<C: Platform>(m: &mut Machine<C>, size: u64) -> Result<u64, Failed> {
    let align = match size {
        0 => return Ok(ZERO_SIZE),
        _ if size >= PAGE => PAGE,
        _ if size.is_power_of_two() => size.max(16),
        _ => 16,
    };
    if size > KMALLOC_MAX {
        m.world.doubt(SHORT);
    }
    // What asks for more than there is gets nothing, as in a kernel.
    Ok(m.allocate(size, align).unwrap_or(0))
}

/// Memory of whole pages in the vmalloc area. Before there is a process 1 it is on the heap as it is.
pub(super) fn vmalloc<C: Platform>(m: &mut Machine<C>) -> Given {
    let size = m.argument(0)?;
    if !m.world.is_booted {
        return Ok(Answer::Value(kmalloc(m, size)?));
    }
    Ok(Answer::Value(vmalloc_pages(m, size, Protection::DATA)?))
}

/// Whole pages of the vmalloc area, with one that nobody may touch behind them; 0 if there is no room.
pub(super) fn vmalloc_pages<C: Platform>(
    m: &mut Machine<C>,
    size: u64,
    protection: Protection,
) -> Result<u64, Failed> {
    let pages = size.div_ceil(PAGE).saturating_mul(PAGE);
    let start = m.world.vmalloc_area;
    let next = start.checked_add(pages).and_then(|end| end.checked_add(PAGE));
    let next = next.filter(|next| *next <= m.space.vmalloc.1 && pages != 0);
    let room = next.and_then(|next| Some((next, m.allocate(pages, PAGE).ok()?)));
    let Some((next, memory)) = room else {
        m.world.doubt(SHORT);
        return Ok(0);
    };
    let physical = m.memory.physical(memory).unwrap_or(u64::MAX);
    if !m.memory.map(start, pages, physical, protection) {
        return Ok(0);
    }
    m.world.vmalloc_area = next;
    m.world.vmalloc_pieces.push((start, pages, memory));
    Ok(start)
}

/// False if no vmalloc memory begins there.
pub(super) fn vfree<C: Platform>(m: &mut Machine<C>, address: u64) -> bool {
    let pieces = &mut m.world.vmalloc_pieces;
    let Some(at) = pieces.iter().position(|(start, ..)| *start == address) else { return false };
    let (start, size, memory) = pieces.swap_remove(at);
    m.memory.unmap(start, start.wrapping_add(size));
    m.world.heap.free(memory);
    true
}

/// The size of the memory that begins at an address.
pub(super) fn size_at<C: Platform>(m: &Machine<C>, address: u64) -> Option<u64> {
    m.world.heap.size(address).or_else(|| m.world.vmalloc_piece(address).map(|(size, _)| size))
}

pub(super) fn allocate<C: Platform>(m: &mut Machine<C>, number: usize) -> Given {
    let size = m.argument(number)?;
    Ok(Answer::Value(kmalloc(m, size)?))
}

pub(super) fn free<C: Platform>(m: &mut Machine<C>, number: usize) -> Given {
    let address = m.argument(number)?;
    if give_back(m, address) || address <= ZERO_SIZE || !m.world.is_booted {
        return Ok(Answer::Value(0));
    }
    if m.sanitizes() || is_on_heap(m, address) {
        let instruction = m.cpu.return_address(&m.memory)?;
        let by = m.text(instruction);
        let memory = m.freed_wrongly(address);
        let freed = memory
            .as_ref()
            .and_then(|memory| memory.object.as_ref())
            .is_some_and(|object| object.address == address && object.freed.is_some());
        let what = match freed {
            true => format!("free of {address:#x} for the second time"),
            false => format!("free of {address:#x}, which is not allocated"),
        };
        let address = Some(address);
        m.world.event(|| Event { kind: Kind::Free, instruction, by, address, symbol: None, what, memory });
    }
    Ok(Answer::Value(0))
}

/// Memory is free from now on. False if nothing begins there that is in use.
pub(super) fn give_back<C: Platform>(m: &mut Machine<C>, address: u64) -> bool {
    if size_at(m, address).is_none() {
        return false;
    }
    m.frees(address);
    m.world.heap.free(address) || vfree(m, address)
}

pub(super) fn is_on_heap<C: Platform>(m: &Machine<C>, address: u64) -> bool {
    address >= m.space.direct && address.wrapping_sub(m.space.direct) < m.memory.size()
}

pub(super) fn reallocate<C: Platform>(m: &mut Machine<C>) -> Given {
    let (old, size) = (m.argument(0)?, m.argument(1)?);
    let had = size_at(m, old).unwrap_or(0);
    if size == 0 {
        give_back(m, old);
        return Ok(Answer::Value(ZERO_SIZE));
    }
    if size <= had {
        return Ok(Answer::Value(old));
    }
    let new = kmalloc(m, size)?;
    if new != 0 {
        let bytes = m.memory.bytes(old, usize::try_from(had).unwrap_or(0));
        if had != 0 {
            m.memory.write(new, &bytes?)?;
        }
        give_back(m, old);
    }
    Ok(Answer::Value(new))
}

pub(super) fn size_of<C: Platform>(m: &mut Machine<C>) -> Given {
    let address = m.argument(0)?;
    Ok(Answer::Value(size_at(m, address).unwrap_or(0)))
}

/// A `struct kmem_cache` of which only the sizes are set.
pub(super) fn new_cache<C: Platform>(m: &mut Machine<C>, size: u64, align: u64, constructor: u64) -> Given {
    let size = size & 0xffff_ffff;
    let cache = m.allocate(1024, 64)?;
    for member in ["kmem_cache.size", "kmem_cache.object_size"] {
        let at = cache.wrapping_add(m.offset(member)?);
        m.memory.write(at, &(size as u32).to_le_bytes())?;
    }
    m.world
        .caches
        .insert(cache, Cache { size, align: power((align & 0xffff_ffff).clamp(64, PAGE)), constructor });
    Ok(Answer::Value(cache))
}

/// `(name, object_size, struct kmem_cache_args *, flags)`
pub(super) fn create_cache_by_args<C: Platform>(m: &mut Machine<C>) -> Given {
    let (size, args) = (m.argument(1)?, m.argument(2)?);
    let (mut align, mut constructor) = (0, 0);
    if args != 0 {
        align = m.memory.u32(args.wrapping_add(m.offset("kmem_cache_args.align")?))?.into();
        constructor = m.memory.u64(args.wrapping_add(m.offset("kmem_cache_args.ctor")?))?;
    }
    new_cache(m, size, align, constructor)
}

/// `(name, size, align, flags, ..., ctor)`
pub(super) fn create_cache<C: Platform>(m: &mut Machine<C>, constructor: usize) -> Given {
    let (size, align, constructor) = (m.argument(1)?, m.argument(2)?, m.argument(constructor)?);
    new_cache(m, size, align, constructor)
}

pub(super) fn object_of<C: Platform>(m: &mut Machine<C>, cache: u64) -> Result<u64, Failed> {
    let known = m.world.caches.get(&cache).copied();
    let cache = known.ok_or_else(|| Failed::Because(format!("{cache:#x} is no kmem_cache")))?;
    let object = m.allocate(cache.size, cache.align)?;
    if cache.constructor != 0 {
        m.call_at(cache.constructor, &[object])?;
    }
    Ok(object)
}

pub(super) fn cache_allocate<C: Platform>(m: &mut Machine<C>) -> Given {
    let cache = m.argument(0)?;
    Ok(Answer::Value(object_of(m, cache)?))
}

/// `(cache, size, void **)`
pub(super) fn cache_free_bulk<C: Platform>(m: &mut Machine<C>) -> Given {
    let (count, list) = (m.argument(1)?, m.argument(2)?);
    for number in 0..count {
        let object = m.memory.u64(list.wrapping_add(number.wrapping_mul(8)))?;
        give_back(m, object);
    }
    Ok(Answer::Value(0))
}

/// `(cache, flags, size, void **)`
pub(super) fn cache_allocate_bulk<C: Platform>(m: &mut Machine<C>) -> Given {
    let (cache, count, list) = (m.argument(0)?, m.argument(2)?, m.argument(3)?);
    for number in 0..count {
        let object = object_of(m, cache)?;
        m.memory.write(list.wrapping_add(number.wrapping_mul(8)), &object.to_le_bytes())?;
    }
    Ok(Answer::Value(count))
}

/// `(gfp, order, ...)`: a `struct page` with one reference and no mapping.
pub(super) fn allocate_pages<C: Platform>(m: &mut Machine<C>) -> Given {
    let order = m.argument(1)? & 0x1f;
    let size = PAGE.checked_shl(order as u32).unwrap_or(u64::MAX);
    let Ok(address) = m.allocate(size, size) else { return Ok(Answer::Value(0)) };
    let page = page_of(m, address);
    let (count, mapped) = (m.offset("page._refcount")?, m.offset("page._mapcount")?);
    m.memory.write(page.wrapping_add(count), &1u32.to_le_bytes())?;
    m.memory.write(page.wrapping_add(mapped), &u32::MAX.to_le_bytes())?;
    Ok(Answer::Value(page))
}

/// The `struct page` of an address.
pub(super) fn page_of<C: Platform>(m: &Machine<C>, address: u64) -> u64 {
    let frame = m.memory.physical(address).unwrap_or(0) / PAGE;
    m.space.pages.wrapping_add(frame.wrapping_mul(m.space.page_struct))
}

/// `(page, ...)`: one reference fewer; without any, the memory counts as free.
pub(super) fn free_page<C: Platform>(m: &mut Machine<C>) -> Given {
    let page = m.argument(0)?;
    let count = m.memory.u32(page.wrapping_add(m.offset("page._refcount")?))?;
    if count <= 1 {
        let number = page.wrapping_sub(m.space.pages).checked_div(m.space.page_struct).unwrap_or(0);
        give_back(m, m.space.direct.wrapping_add(number.wrapping_mul(PAGE)));
    }
    Ok(Answer::Value(0))
}

/// `(size, align, reserved, ...)`
pub(super) fn allocate_percpu<C: Platform>(m: &mut Machine<C>) -> Given {
    let (size, wanted, reserved) = (m.argument(0)?, m.argument(1)?, m.argument(2)? & 1 != 0);
    // What the kernel keeps for modules has 8 KiB, and is laid out by code that is not executed.
    if reserved && (size > PERCPU_SURE || !(1..=PAGE).contains(&wanted) || !wanted.is_power_of_two()) {
        m.world.doubt("per-cpu memory of modules has no end here, and any alignment");
    }
    let align = power(wanted.max(8));
    let (next, end) = m.world.percpu;
    let start = next.wrapping_add(align.wrapping_sub(1)) & !align.wrapping_sub(1);
    match start.checked_add(size).filter(|next| *next <= end) {
        Some(next) => {
            m.world.percpu.0 = next;
            Ok(Answer::Value(start))
        }
        // PCPU memory is short: NULL.
        None => Ok(Answer::Value(0)),
    }
}

/// A `struct vm_struct` with the pages of the piece of memory at an address.
pub(super) fn find_vm_area<C: Platform>(m: &mut Machine<C>) -> Given {
    /// VM_ALLOC
    const VM_ALLOC: u64 = 2;
    let address = m.argument(0)?;
    let piece = m.world.module_pieces.iter().find(|(start, _)| *start == address).map(|(_, size)| *size);
    let Some(size) = size_at(m, address).or(piece) else { return Ok(Answer::Value(0)) };
    let count = size.div_ceil(PAGE);
    let pages = m.allocate(count.saturating_mul(8), 64)?;
    for number in 0..count {
        let page = page_of(m, address.wrapping_add(number.wrapping_mul(PAGE)));
        m.memory.write(pages.wrapping_add(number.wrapping_mul(8)), &page.to_le_bytes())?;
    }
    let area = m.allocate(128, 64)?;
    for (member, value) in [
        ("vm_struct.addr", address),
        ("vm_struct.size", count.wrapping_mul(PAGE)),
        ("vm_struct.pages", pages),
    ] {
        let at = area.wrapping_add(m.offset(member)?);
        m.memory.write(at, &value.to_le_bytes())?;
    }
    for (member, value) in [("vm_struct.flags", VM_ALLOC), ("vm_struct.nr_pages", count)] {
        let at = area.wrapping_add(m.offset(member)?);
        m.memory.write(at, &(value as u32).to_le_bytes())?;
    }
    Ok(Answer::Value(area))
}

/// The `struct vmap_area` of the vmalloc memory around an address.
pub(super) fn find_vmap_area<C: Platform>(m: &mut Machine<C>) -> Given {
    let address = m.argument(0)?;
    let around = |(start, size, _): &&(u64, u64, u64)| address.wrapping_sub(*start) < *size;
    let Some((start, size, _)) = m.world.vmalloc_pieces.iter().find(around).copied() else {
        return Ok(Answer::Value(0));
    };
    let area = m.allocate(128, 64)?;
    for (member, value) in [("vmap_area.va_start", start), ("vmap_area.va_end", start.wrapping_add(size))] {
        let at = area.wrapping_add(m.offset(member)?);
        m.memory.write(at, &value.to_le_bytes())?;
    }
    Ok(Answer::Value(area))
}
