//! A machine as bytes. What stands in for functions is not among them: that is this program's.

use alloc::sync::Arc;
use alloc::vec::Vec;

use super::{Cause, Machine, Offsets, Platform, Space, Stopped};
use crate::boot::{MEMORY, Report, Step};
use crate::kept::{Kept, Reader, kept, kept_variants};
use crate::memory::Memory;
use crate::stubs;
use crate::symbols::Symbols;
use crate::world::World;

kept_variants!(Cause { Kernel, Machine, Budget });
kept!(Step { name, result, instructions });
kept!(Report { steps, missing });
kept!(Stopped { reason, address, symbol, stack, cause });

impl<C: Platform> Machine<C> {
    /// Adds its bytes, without those of its snapshots and of what watches it.
    pub(crate) fn keep(&self, out: &mut Vec<u8>) {
        self.space.keep(out);
        self.offsets.keep(out);
        self.symbols.keep(out);
        self.world.keep(out);
        self.cpu.registers().keep(out);
        self.memory.keep_whole(out);
    }

    /// Takes up a machine. `None` if the bytes are not those of one.
    pub(crate) fn take_up(from: &mut Reader) -> Option<Self> {
        let space = Space::take_up(from)?;
        let (offsets, symbols) = (Offsets::take_up(from)?, Symbols::take_up(from)?);
        let world = World::take_up(from)?;
        let registers = C::Registers::take_up(from)?;
        let memory = Memory::take_up(from, MEMORY)?;
        let mut machine = Machine::of(memory, Arc::new(symbols), space, Arc::new(offsets), world);
        machine.add_stubs(&stubs::rows());
        machine.add_stubs(&C::rows());
        machine.cpu.set_registers(&registers);
        Some(machine)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]

    use super::*;
    use crate::cpu::Cpu;
    use crate::memory::{PAGE, Protection};
    use crate::processor::take_up;
    use crate::system::{Running, System};
    use crate::world::Message;
    use crate::x86_64::{Gpr, X86};

    const DATA: u64 = 0xffff_8880_0000_0000;

    /// A system that was not booted, with something in everything.
    fn system() -> (System<X86>, Report) {
        let mut memory = Memory::new(MEMORY);
        assert!(memory.map(DATA, 16 * PAGE, 32 * PAGE, Protection::DATA));
        for (page, value) in [(0, 1u64), (3, 2), (9, 3)] {
            for at in (0..PAGE).step_by(8) {
                let word = (at ^ value).wrapping_mul(if page == 9 { 0x9e37_79b9_7f4a_7c15 } else { 1 });
                memory.write(DATA + page * PAGE + at, &word.to_le_bytes()).unwrap();
            }
        }
        let space = Space {
            image: (DATA, DATA + PAGE, 0),
            direct: DATA,
            pages: DATA,
            page_struct: 64,
            modules: (1, 2),
            vmalloc: (3, 4),
            unknown: [(5, 6), (7, 8)],
            user: (9, 10),
            returns: DATA - PAGE,
        };
        let mut world = World { heap: crate::heap::Heap::new(DATA, DATA + 16 * PAGE), ..World::default() };
        world.log.push(Message { level: 3, time: 9, text: b"said".to_vec(), ended: true });
        world.doubt("nothing");
        let symbols = Symbols::new([(DATA, &b"one"[..]), (DATA + 9, b"two")].into_iter());
        let offsets = [("a.b".into(), 8u64)].into_iter().collect();
        let mut machine = Machine::<X86>::new(memory, symbols, space, offsets, world).unwrap();
        machine.cpu.set_gpr(Gpr(3), 77);
        let result = Err(machine.stopped("why".into(), Cause::Machine));
        let steps = alloc::vec![Step { name: "step".into(), result, instructions: 5 }];
        (System::new(machine, 1).unwrap(), Report { steps, missing: alloc::vec!["none".into()] })
    }

    #[test]
    fn a_machine_comes_back_as_it_was() {
        let (system, report) = system();
        let bytes = system.keep(&report);
        let (taken, of_boot) = take_up(bytes.clone().into(), 1).unwrap();
        assert_eq!(taken.keep(&of_boot), bytes, "from pages that are packed");
        assert_eq!(taken.fork().keep(&of_boot), bytes);
        let mut reader = Reader::new(bytes.into());
        assert_eq!(u16::take_up(&mut reader), Some(62));
        let of_boot = Report::take_up(&mut reader).unwrap();
        assert_eq!(of_boot.failed().count(), 1);
        let mut other = System::<X86>::take_up(&mut reader, 1).unwrap();
        let (machine, was) = (&mut other.machine, &system.machine);
        assert_eq!((machine.cpu.gpr(Gpr(3)), machine.cpu.sp()), (77, 0));
        assert_eq!(machine.symbols.text(DATA + 10), "two+0x1");
        assert_eq!((machine.offset("a.b").unwrap(), machine.world.log == was.world.log), (8, true));
        // Read where they lie, then by way of the look-aside table, then written.
        for at in (0..16 * PAGE).step_by(8) {
            let before = was.memory.u64(DATA + at).unwrap();
            assert_eq!(machine.memory.u64(DATA + at), Ok(before));
            assert_eq!(machine.memory.load(DATA + at), Ok(before.to_le_bytes()));
        }
        machine.memory.snapshot();
        machine.memory.store(DATA + 9 * PAGE, [0; 8]).unwrap();
        machine.memory.restore();
        assert_eq!(machine.memory.u64(DATA + 9 * PAGE), was.memory.u64(DATA + 9 * PAGE));
        assert_eq!(machine.allocate(8, 8).unwrap(), system.machine.fork().allocate(8, 8).unwrap());
    }

    #[test]
    fn bytes_that_are_none_harm_nobody() {
        let (system, report) = system();
        let bytes = system.keep(&report);
        for len in 0..bytes.len() {
            assert!(take_up(bytes[..len].to_vec().into(), 1).is_none(), "cut off at {len}");
        }
        let mut random = 1u64;
        for at in 0..bytes.len() {
            random = random.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(at as u64);
            let mut other = bytes.clone();
            other[at] ^= 1 << (random >> 61);
            if let Some((mut taken, report)) = take_up(other.into(), 1) {
                let _ =
                    (taken.read_memory(DATA + 9 * PAGE, 4096), taken.call("two", &[]), taken.keep(&report));
            }
        }
    }
}
