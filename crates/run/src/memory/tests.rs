#![allow(clippy::unwrap_used)]

use super::*;

fn memory() -> Memory {
    let mut memory = Memory::new(16 * PAGE);
    assert!(memory.map(0x1000, 4 * PAGE, 0, Protection::DATA));
    assert!(memory.map(0x1_0000, 4 * PAGE, 0, Protection::CODE));
    memory
}

#[test]
fn two_addresses_show_the_same_memory() {
    let mut memory = memory();
    memory.store(0x1ffc, 0x1122_3344_5566_7788_u64.to_le_bytes()).unwrap();
    assert_eq!(memory.load::<8>(0x1_0ffc).unwrap(), 0x1122_3344_5566_7788_u64.to_le_bytes());
    assert_eq!(memory.load::<2>(0x1_0fff).unwrap(), [0x55, 0x44]);
}

#[test]
fn what_is_not_allowed_faults_at_its_first_byte() {
    let mut memory = memory();
    let write = |address, mapped| Err(Fault { address, access: Access::Write, mapped });
    assert_eq!(memory.store(0x1_0000, [1]), write(0x1_0000, true));
    assert_eq!(memory.store(0x4ffe, [1; 8]), write(0x5000, false));
    assert_eq!(memory.load::<2>(0x4ffe).unwrap(), [0, 0], "nothing of it was written");
    assert_eq!(memory.load::<1>(0), Err(Fault { address: 0, access: Access::Read, mapped: false }));
    assert!(memory.load::<8>(u64::MAX - 3).is_err());
    assert!(memory.fetch(0x1000, &mut [0; 16]).is_err());
    assert_eq!(memory.fetch(0x1_3ff8, &mut [0; 16]), Ok(8), "as far as it goes");
}

#[test]
fn protections_cut_regions() {
    let mut memory = memory();
    memory.protect(0x2000, 0x3000, Protection::READ);
    assert!(memory.store(0x1000, [1]).is_ok());
    assert!(memory.store(0x2000, [1]).is_err());
    assert!(memory.store(0x1fff, [1, 2]).is_err());
    assert!(memory.store(0x3000, [1]).is_ok());
    memory.unmap(0x3000, 0x4000);
    assert!(memory.load::<1>(0x3000).is_err());
    assert!(memory.load::<1>(0x4000).is_ok());
    assert!(!memory.map(0x1000, PAGE, 16 * PAGE, Protection::DATA), "there is no such memory");
    assert!(!memory.map(0x1001, PAGE, 0, Protection::DATA), "no page begins there");
}

#[test]
fn snapshots_bring_back_what_was() {
    let mut memory = memory();
    memory.store(0x1000, [1]).unwrap();
    memory.snapshot();
    memory.store(0x1000, [2]).unwrap();
    memory.snapshot();
    memory.store(0x1000, [3]).unwrap();
    memory.store(0x2000, [4]).unwrap();
    memory.unmap(0x3000, 0x4000);
    assert_eq!(memory.pages_since_snapshot(), 2);
    for _ in 0..2 {
        assert!(memory.restore());
        assert_eq!(memory.load::<1>(0x1000).unwrap(), [2]);
        assert_eq!(memory.load::<1>(0x2000).unwrap(), [0]);
        assert!(memory.load::<1>(0x3000).is_ok());
        memory.store(0x1000, [9]).unwrap();
    }
    assert!(memory.commit());
    assert_eq!(memory.load::<1>(0x1000).unwrap(), [9], "what was written stays");
    assert!(memory.restore());
    assert_eq!(memory.load::<1>(0x1000).unwrap(), [1], "until the snapshot below");
    assert!(memory.commit() && !memory.commit());
    assert!(!Memory::new(PAGE).restore());
}

#[test]
fn a_fork_is_independent() {
    let mut memory = memory();
    memory.store(0x1000, [1]).unwrap();
    let mut other = memory.fork();
    other.store(0x1000, [2]).unwrap();
    assert_eq!(memory.load::<1>(0x1000).unwrap(), [1]);
    assert_eq!(other.load::<1>(0x1_0000).unwrap(), [2]);
}

#[test]
fn writes_to_code_are_noticed() {
    let mut memory = memory();
    memory.store(0x1000, [1]).unwrap();
    memory.fetch(0x1_0000, &mut [0; 16]).unwrap();
    assert!(!memory.code_written());
    memory.store(0x2000, [1]).unwrap();
    assert!(!memory.code_written());
    memory.store(0x1000, [1]).unwrap();
    assert!(memory.code_written(), "by another address of the same page");
}

#[test]
fn writes_are_noted_while_somebody_wants_to_know() {
    let (mut memory, mut spare, mut list) = (memory(), Spare::default(), Vec::new());
    memory.store(0x1000, [1; 8]).unwrap();
    memory.note_writes(&mut spare);
    memory.store(0x1000, [2; 8]).unwrap();
    memory.store(0x1008, [2; 2]).unwrap();
    memory.take_noted(&mut list);
    assert_eq!(list, [(0x1000, 8), (0x1008, 2)], "each of them, of one page too");
    assert!(memory.store(0x1_0000, [1]).is_err());
    memory.noted(&mut spare, &mut list);
    assert_eq!(list, [], "one that faults is none");
    memory.store(0x1000, [3; 8]).unwrap();
    memory.note_writes(&mut spare);
    memory.snapshot();
    memory.store(0x2000, [4]).unwrap();
    memory.noted(&mut spare, &mut list);
    assert_eq!(list, [(0x2000, 1)]);
    memory.store(0x1000, [5; 8]).unwrap();
    assert!(memory.restore());
    assert_eq!(
        memory.load::<8>(0x1000).unwrap(),
        [3; 8],
        "the table that was not in use knows of the snapshot"
    );
}

#[test]
fn strings_end_at_zero_or_where_they_are_cut() {
    let mut memory = memory();
    memory.write(0x1ffe, b"abcd").unwrap();
    assert_eq!(memory.cstr(0x1ffe, 100).unwrap(), b"abcd");
    assert_eq!(memory.cstr(0x1ffe, 3).unwrap(), b"abc");
    assert!(memory.cstr(0x4fff, 100).is_ok());
    assert!(memory.cstr(0x5000, 100).is_err());
}
