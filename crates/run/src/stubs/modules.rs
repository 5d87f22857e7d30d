//! Memory of modules, and where a module comes to its init function.

use alloc::format;
use alloc::vec::Vec;

use super::memory::{vfree, vmalloc_pages};
use super::{Given, SHORT};
use crate::machine::{Answer, Failed, Machine, Platform};
use crate::memory::{PAGE, Protection};
use crate::world::Inits;

/// The lowest address of the module area that has room for `size` bytes and a page behind them, as vmalloc finds it.
pub(super) fn first_hole<C: Platform>(m: &Machine<C>, size: u64, align: u64) -> u64 {
    let up = |address: u64| address.checked_next_multiple_of(align).unwrap_or(u64::MAX);
    let mut start = up(m.space.modules.0);
    for (piece, len) in &m.world.module_pieces {
        if start.saturating_add(size).saturating_add(PAGE) <= *piece {
            break;
        }
        start = up(piece.saturating_add(*len).saturating_add(PAGE));
    }
    start
}

/// Pages of the module area, with one that nobody may touch behind them.
pub(super) fn module_memory<C: Platform>(m: &mut Machine<C>, size: u64, align: u64) -> Result<u64, Failed> {
    if size == 0 {
        // Since v6.10 (execmem_vmalloc) with a line.
        if m.symbols.address("execmem_alloc").is_some() {
            let line = m.string(b"\x013execmem: unable to allocate memory\n")?;
            m.call("_printk", &[line])?;
        }
        return Ok(0);
    }
    let size = size.div_ceil(PAGE).saturating_mul(PAGE);
    let start = first_hole(m, size, align);
    let behind = start.checked_add(size).and_then(|end| end.checked_add(PAGE));
    if behind.is_none_or(|end| end > m.space.modules.1) {
        m.world.doubt(SHORT);
        return Ok(0);
    }
    let Ok(memory) = m.allocate(size, PAGE) else {
        m.world.doubt(SHORT);
        return Ok(0);
    };
    let physical = m.memory.physical(memory).unwrap_or(u64::MAX);
    // Writable until the kernel says what may be done with it.
    if !m.memory.map(start, size, physical, Protection::ALL) {
        return Ok(0);
    }
    insert(&mut m.world.module_pieces, (start, size));
    Ok(start)
}

pub(super) fn insert(pieces: &mut Vec<(u64, u64)>, piece: (u64, u64)) {
    let at = pieces.partition_point(|(other, _)| *other < piece.0);
    pieces.insert(at, piece);
}

/// `(type, size)`: code of modules comes out of blocks, without pages between, where the kernel has such a cache (LAYOUT-55).
pub(super) fn executable_memory<C: Platform>(m: &mut Machine<C>) -> Given {
    /// PMD_SIZE
    const BLOCK: u64 = 2 << 20;
    let (kind, size) = (m.argument(0)? & 0xffff_ffff, m.argument(1)?);
    if C::EXECMEM_IN_VMALLOC.contains(&kind) {
        return Ok(Answer::Value(vmalloc_pages(m, size, Protection::ALL)?));
    }
    // EXECMEM_MODULE_TEXT is 0.
    if kind != 0 || m.symbols.address("execmem_cache").is_none() {
        return Ok(Answer::Value(module_memory(m, size, PAGE)?));
    }
    let size = size.max(1).div_ceil(PAGE).saturating_mul(PAGE);
    let mut found = None;
    for (block, len) in &m.world.code_blocks {
        let (mut start, end) = (*block, block.saturating_add(*len));
        for (piece, len) in m.world.code_pieces.iter().filter(|(piece, _)| (*block..end).contains(piece)) {
            if start.saturating_add(size) <= *piece {
                break;
            }
            start = piece.saturating_add(*len);
        }
        if start.saturating_add(size) <= end {
            found = Some(start);
            break;
        }
    }
    let start = match found {
        Some(start) => start,
        None => {
            let len = size.div_ceil(BLOCK).saturating_mul(BLOCK);
            let block = module_memory(m, len, BLOCK)?;
            if block == 0 {
                return Ok(Answer::Value(0));
            }
            insert(&mut m.world.code_blocks, (block, len));
            block
        }
    };
    m.memory.protect(start, start.wrapping_add(size), Protection::ALL);
    insert(&mut m.world.code_pieces, (start, size));
    Ok(Answer::Value(start))
}

pub(super) fn free_module_memory<C: Platform>(m: &mut Machine<C>) -> Given {
    let address = m.argument(0)?;
    if vfree(m, address) {
        return Ok(Answer::Value(0));
    }
    m.world.code_pieces.retain(|(start, _)| *start != address);
    if m.world.code_blocks.iter().any(|(start, _)| *start == address) {
        return Ok(Answer::Value(0));
    }
    if let Some(at) = m.world.module_pieces.iter().position(|(start, _)| *start == address) {
        let (start, size) = m.world.module_pieces.remove(at);
        m.memory.unmap(start, start.wrapping_add(size));
    }
    Ok(Answer::Value(0))
}

/// Is an address in the module area?
pub(super) fn in_module_area<C: Platform>(m: &Machine<C>, address: u64) -> bool {
    (m.space.modules.0..m.space.modules.1).contains(&address)
}

/// `(address, pages)`: pages of the module area may be written, or executed, as `new` says; the other permission stays.
pub(super) fn protect<C: Platform>(m: &mut Machine<C>, new: Protection, changes_write: bool) -> Given {
    let (start, pages) = (m.argument(0)?, m.argument(1)? & 0x7fff_ffff);
    if in_module_area(m, start) {
        for page in 0..pages.min(1 << 18) {
            let at = start.wrapping_add(page.wrapping_mul(PAGE));
            if let Some(old) = m.memory.protection(at) {
                let both = if changes_write {
                    Protection { write: new.write, ..old }
                } else {
                    Protection { execute: new.execute, ..old }
                };
                if both != old {
                    m.memory.protect(at, at.wrapping_add(PAGE), both);
                }
            }
        }
    }
    Ok(Answer::Value(0))
}

pub(super) fn protect_as<C: Platform>(m: &mut Machine<C>, protection: Protection) -> Given {
    let (start, pages) = (m.argument(0)?, m.argument(1)? & 0x7fff_ffff);
    if in_module_area(m, start) {
        m.memory.protect(start, start.wrapping_add(pages.wrapping_mul(PAGE)), protection);
    }
    Ok(Answer::Value(0))
}

pub(super) fn arrive<C: Platform>(m: &mut Machine<C>) -> Given {
    m.world.is_booted = true;
    Ok(Answer::Leave)
}

pub(super) fn panics<C: Platform>(m: &mut Machine<C>) -> Given {
    let text = m.memory.cstr(m.argument(0)?, 200)?;
    Err(Failed::Crash(format!("Kernel panic: {}", alloc::string::String::from_utf8_lossy(&text).trim_end())))
}

/// What `do_init_module` is asked to load.
pub(super) fn comes<C: Platform>(m: &mut Machine<C>) -> Given {
    let module = m.argument(0)?;
    m.world.coming = Some(module);
    m.module_comes(module);
    // Without an init function this is where it would be called.
    let init = m.offset("module.init").and_then(|at| Ok(m.memory.u64(module.wrapping_add(at))?));
    if m.world.inits == Inits::End && matches!(init, Ok(0)) {
        m.world.has_left = true;
        return Ok(Answer::Leave);
    }
    Ok(Answer::Pass)
}

/// `load_module` is over: here init functions are called.
pub(super) fn before_init<C: Platform>(m: &mut Machine<C>) -> Given {
    Ok(match m.world.inits {
        Inits::Run => Answer::Pass,
        Inits::Succeed => Answer::Value(0),
        Inits::End => {
            m.world.has_left = true;
            Answer::Leave
        }
    })
}
