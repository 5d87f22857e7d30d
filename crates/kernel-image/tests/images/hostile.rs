//! Cut and damaged images: anything may come out but a panic, and nothing may take long.

use super::{Plan, Tables, build, containers, open};
use kernel_image::KallsymsLayout;

/// Asks everything that can be asked.
fn ask_everything(file: &[u8]) {
    let Ok(image) = open(file, 1 << 22) else { return };
    if let Ok(kallsyms) = image.kallsyms() {
        assert_eq!(kallsyms.iter().count(), kallsyms.len());
    }
    let _ = image.exports().map(|exports| exports.iter().count());
    if let Ok(btf) = image.btf() {
        for name in ["outer", "inner", "module"] {
            let _ = (btf.struct_size(name), btf.member(name, "in"), btf.member(name, "z.y"));
        }
        let _ = btf.enum_value("e", "TWO");
    }
    let _ = (image.vermagic(), image.page_size(), image.config());
    let _ = image.certificates();
    for at in [0, image.base().unwrap_or(0), u64::MAX - 3, u64::MAX] {
        let _ = (image.read(at, 8), image.read_u64(at), image.read_relocated(at, 100), image.read_cstr(at));
    }
}

fn plans() -> [Plan; 5] {
    [
        Plan::new(true, KallsymsLayout::NamesFirst),
        Plan { exports: Tables::Flags, ..Plan::new(true, KallsymsLayout::PlaceRelative) },
        Plan { labels: true, exports: Tables::RelCrcs, ..Plan::new(true, KallsymsLayout::OldAbsolute) },
        Plan { sections: true, ..Plan::new(false, KallsymsLayout::Old) },
        Plan { labels: true, ..Plan::new(false, KallsymsLayout::NamesFirst) },
    ]
}

/// xorshift64*.
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % n
    }
}

#[test]
fn cut_anywhere() {
    for plan in plans() {
        let bytes = build(&plan).bytes;
        for keep in (0..bytes.len()).step_by(97).chain(bytes.len() - 200..bytes.len()) {
            ask_everything(&bytes[..keep]);
        }
    }
}

#[test]
fn damaged_anywhere() {
    let mut random = Random(0x5eed);
    for plan in plans() {
        let good = build(&plan).bytes;
        for round in 0..400 {
            let mut bytes = good.clone();
            for _ in 0..1 + round % 20 {
                let at = random.below(bytes.len());
                match random.below(4) {
                    0 => bytes[at] ^= 1 << random.below(8),
                    1 => bytes[at] = [0, 0xff, 0x7f, 0x80][random.below(4)],
                    2 => {
                        let to = (at + random.below(64)).min(bytes.len());
                        bytes[at..to].fill([0, 0xff][random.below(2)]);
                    }
                    _ => {
                        let (from, len) = (random.below(bytes.len()), random.below(256));
                        let len = len.min(bytes.len() - from.max(at));
                        bytes.copy_within(from..from + len, at);
                    }
                }
            }
            ask_everything(&bytes);
        }
    }
}

#[test]
fn damaged_headers() {
    let mut random = Random(0xfeed);
    let good = build(&plans()[3]).bytes;
    let boxed = containers::bzimage(&containers::gzip(&good), good.len());
    let table = good.len() - 9 * 64;
    for round in 0..2000 {
        let (mut bytes, from, len) = match round % 3 {
            0 => (good.clone(), 0, 120),
            1 => (good.clone(), table, 9 * 64),
            _ => (boxed.clone(), 0x1f0, 0x70),
        };
        for _ in 0..1 + round % 3 {
            bytes[from + random.below(len)] = random.below(256) as u8;
        }
        ask_everything(&bytes);
    }
}

#[test]
fn noise_behind_every_magic() {
    let mut random = Random(0xbad);
    let magics: [&[u8]; 11] = [
        b"\x7fELF\x02\x01",
        b"MZ\0\0zimg\x40\0\0\0\0\x10\0\0",
        b"\x1f\x8b\x08\0",
        b"BZh9",
        b"\x5d\0\0\x80\0\xff\xff\xff\xff\xff\xff\xff\xff",
        b"\xfd7zXZ\0\0\x04",
        b"\x89LZO\0\r\n\x1a\n\x10\x30",
        b"\x02!L\x18\0\x01\0\0",
        b"\x04\x22M\x18\x64\x40",
        b"\x28\xb5\x2f\xfd\x04",
        b"",
    ];
    for round in 0..600usize {
        let magic = magics[round % magics.len()];
        let mut bytes: Vec<u8> = magic.to_vec();
        bytes.extend((0..random.below(8192)).map(|_| random.below(256) as u8));
        if magic.is_empty() && bytes.len() > 64 {
            bytes[0x38..0x3c].copy_from_slice(b"ARMd");
        }
        ask_everything(&bytes);
    }
}

/// Structures made to send a search round in circles.
#[test]
fn endless_lookalikes() {
    let header = |mut bytes: Vec<u8>| {
        bytes[..64].fill(0);
        bytes[0x38..0x3c].copy_from_slice(b"ARMd");
        bytes
    };
    let repeat = |pattern: &[u8]| header(pattern.iter().copied().cycle().take(4 << 20).collect());
    let digits = b"0\x001\x002\x003\x004\x005\x006\x007\x008\x009\0";
    let mut rela = Vec::new();
    for word in [0xffff_8000_8000_0000u64, 0x403, 0] {
        rela.extend_from_slice(&word.to_le_bytes());
    }
    for pattern in [
        &[0][..],
        &[0xff],
        digits,
        b"kfree\0",
        b"module_layout\0",
        b"Linux version 6 (\n",
        b"6 ",
        &[0, 0, 0, 0, 0, 4, 0, 0],
        &0x403u64.to_le_bytes(),
        &rela,
        b"\x9f\xeb\x01\0\x18\0\0\0",
        b"0\x82\x01\x000\x82\x00\x80\xa0\x03\x02\x01\x02\x02",
    ] {
        ask_everything(&repeat(pattern));
    }
    // A good token table behind endless markers that fit no names.
    let built = build(&Plan::new(true, KallsymsLayout::NamesFirst));
    let tokens = memchr::memmem::rfind(&built.bytes, b"function_\0_of_\0").unwrap();
    let mut bytes = repeat(&[0, 0, 0, 0, 0, 4, 0, 0]);
    bytes.extend_from_slice(&built.bytes[tokens..]);
    ask_everything(&bytes);
}

/// The seeds of the fuzz targets `kernel`, `image` and `btf`, so that they need not build kernels.
#[test]
#[ignore = "writes files: KMODLD_SEEDS names the folder fuzz/seeds"]
fn write_seeds() {
    let folder = std::path::PathBuf::from(std::env::var_os("KMODLD_SEEDS").unwrap());
    for (n, plan) in plans().iter().enumerate() {
        let packed = containers::gzip(&build(plan).bytes);
        std::fs::write(folder.join(format!("images/{n}.gz")), packed).unwrap();
    }
    // A container need not hold more than what tells that it is a kernel.
    let small = &build(&plans()[0]).bytes[..6000];
    for (name, file) in containers::of_every_kind(small) {
        std::fs::write(folder.join("containers").join(name), file).unwrap();
    }
    std::fs::write(folder.join("btf"), super::facts::btf_blob()).unwrap();
}
