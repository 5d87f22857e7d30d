//! The checks of one BTF blob: `btf_parse_hdr`, `btf_parse_str_sec`, `btf_check_all_metas`,
//! `btf_check_type_tags` (BTF-2).

use alloc::borrow::Cow;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::ops::Range;

use elf_layout::{Change, Errno, KernelConfig};

use kernel::{BaseBtf, BtfType};

pub(super) const INT: u8 = 1;
const PTR: u8 = 2;
pub(super) const ARRAY: u8 = 3;
pub(super) const STRUCT: u8 = 4;
pub(super) const UNION: u8 = 5;
pub(super) const ENUM: u8 = 6;
pub(super) const FWD: u8 = 7;
pub(super) const TYPEDEF: u8 = 8;
pub(super) const VOLATILE: u8 = 9;
pub(super) const CONST: u8 = 10;
pub(super) const RESTRICT: u8 = 11;
const FUNC: u8 = 12;
pub(super) const FUNC_PROTO: u8 = 13;
pub(super) const VAR: u8 = 14;
pub(super) const DATASEC: u8 = 15;
pub(super) const FLOAT: u8 = 16;
pub(super) const DECL_TAG: u8 = 17;
pub(super) const TYPE_TAG: u8 = 18;
pub(super) const ENUM64: u8 = 19;

const MAGIC: u16 = 0xeb9f;
const VERSION: u8 = 1;
const HEADER: usize = 24;
const MAX_TYPE: u32 = 0x000f_ffff;
const MAX_NAME_OFFSET: u32 = 0x00ff_ffff;
const INFO_MASK: u32 = 0x9f00_ffff;
const INT_MASK: u32 = 0x0fff_ffff;
const KSYM_NAME_LEN: usize = 512;
/// `chain_limit` of `btf_check_type_tags`.
const CHAIN_MAX: u32 = 32;

/// Where the checks end.
pub(super) struct Stop {
    pub errno: Errno,
    pub why: String,
}

/// The three words that every type begins with, and where it stands.
#[derive(Clone, Copy)]
pub(super) struct Type {
    pub name: u32,
    info: u32,
    pub size_or_type: u32,
    /// Have kind and number of records all bits that are free for them ([`Change::WideBtfInfo`])?
    wide: bool,
}

impl Type {
    pub fn kind(self) -> u8 {
        (self.info >> 24) as u8 & if self.wide { 0x7f } else { 0x1f }
    }

    pub fn vlen(self) -> u32 {
        self.info & if self.wide { 0xff_ffff } else { 0xffff }
    }

    pub fn kflag(self) -> bool {
        self.info >> 31 != 0
    }
}

/// The checks of one blob.
pub(super) struct Check<'c> {
    data: &'c [u8],
    pub base: Option<&'c BaseBtf>,
    pub config: &'c KernelConfig,
    strings: &'c [u8],
    /// Number of the type that is looked at.
    pub id: u32,
    pub log: Vec<String>,
}

pub(super) fn stop(errno: Errno, why: impl Into<String>) -> Stop {
    Stop { errno, why: why.into() }
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..at.checked_add(4)?)?;
    Some(u32::from_le_bytes(bytes.try_into().ok()?))
}

/// One word of a record whose bytes are known to be there.
pub(super) fn field(bytes: &[u8], index: usize) -> u32 {
    word(bytes, index.saturating_mul(4)).unwrap_or(0)
}

/// `btf_type_is_modifier`
fn is_modifier(t: BtfType) -> bool {
    matches!(t.kind, TYPEDEF | VOLATILE | CONST | RESTRICT | TYPE_TAG)
}

impl<'c> Check<'c> {
    pub fn new(data: &'c [u8], base: Option<&'c BaseBtf>, config: &'c KernelConfig) -> Self {
        // Split BTF goes on behind its base; type 0 of a base is void.
        let id = base.map_or(1, |b| u32::try_from(b.len()).unwrap_or(u32::MAX));
        Check { data, base, config, strings: &[], id, log: Vec::new() }
    }

    /// All checks in the kernel's order.
    pub fn run(&mut self) -> Result<BaseBtf, Stop> {
        let (types, strings) = self.parse_hdr()?;
        self.parse_str_sec(strings)?;
        let types = self.check_all_metas(types)?;
        self.check_type_tags(&types)?;
        // What is split is no base of anything.
        Ok(if self.base.is_none() { BaseBtf::new(self.strings, types) } else { BaseBtf::default() })
    }

    fn refuse<T>(&mut self, text: &str) -> Result<T, Stop> {
        self.say(text);
        Err(stop(Errno::EINVAL, text.to_string()))
    }

    /// `btf_parse_hdr`, `btf_check_sec_info`: bounds of types and strings in the blob.
    fn parse_hdr(&mut self) -> Result<(Range<usize>, Range<usize>), Stop> {
        let size = u32::try_from(self.data.len()).unwrap_or(u32::MAX);
        let Some(hdr_len) = word(self.data, 4) else { return self.refuse("hdr_len not found") };
        if size < hdr_len {
            return self.refuse("btf_header not found");
        }
        let whole = self.data.get(..hdr_len as usize).unwrap_or(self.data);
        if whole.iter().skip(HEADER).any(|b| *b != 0) {
            self.say("Unsupported btf_header");
            return Err(stop(Errno::E2BIG, "Unsupported btf_header"));
        }
        // A short header is one whose other fields are 0.
        let mut header = [0u8; HEADER];
        header.iter_mut().zip(whole).for_each(|(to, from)| *to = *from);
        let [magic_low, magic_high, version, flags, ..] = header;
        if u16::from_le_bytes([magic_low, magic_high]) != MAGIC {
            return self.refuse("Invalid magic");
        }
        for (wrong, text) in [(version != VERSION, "Unsupported version"), (flags != 0, "Unsupported flags")]
        {
            if wrong {
                self.say(text);
                return Err(stop(Errno::ENOTSUPP, text));
            }
        }
        let hdr_len = field(&header, 1);
        if self.base.is_none() && size == hdr_len {
            return self.refuse("No data");
        }
        let (types, strings) =
            ((field(&header, 2), field(&header, 3)), (field(&header, 4), field(&header, 5)));
        self.check_sec_info(size.saturating_sub(hdr_len), types, strings)?;
        let placed = |(off, len): (u32, u32)| {
            let start = (hdr_len as usize).saturating_add(off as usize);
            start..start.saturating_add(len as usize)
        };
        Ok((placed(types), placed(strings)))
    }

    /// No gap, no overlap, nothing else.
    fn check_sec_info(&mut self, expected: u32, types: (u32, u32), strings: (u32, u32)) -> Result<(), Stop> {
        let mut sections = [types, strings];
        // The kernel compares differences of unsigned numbers as signed ones.
        let before = |x: (u32, u32), y: (u32, u32)| match x.0.wrapping_sub(y.0).cast_signed() {
            0 => x.1.wrapping_sub(y.1).cast_signed(),
            apart => apart,
        };
        if before(types, strings) > 0 {
            sections.reverse();
        }
        let mut total = 0u32;
        for (off, len) in sections {
            if expected < off {
                return self.refuse("Invalid section offset");
            }
            if total < off {
                return self.refuse("Unsupported section found");
            }
            if total > off {
                return self.refuse("Section overlap found");
            }
            if expected.saturating_sub(total) < len {
                return self.refuse("Total section length too long");
            }
            total = total.saturating_add(len);
        }
        if expected != total { self.refuse("Unsupported section found") } else { Ok(()) }
    }

    /// `btf_parse_str_sec`
    fn parse_str_sec(&mut self, part: Range<usize>) -> Result<(), Stop> {
        if part.end != self.data.len() {
            return self.refuse("String section is not at the end");
        }
        self.strings = self.data.get(part).unwrap_or(&[]);
        let (split, len) = (self.base.is_some(), self.strings.len());
        if split && len == 0 {
            return Ok(());
        }
        let too_long = len.saturating_sub(1) > MAX_NAME_OFFSET as usize;
        let ends = self.strings.last() == Some(&0);
        let begins = split || self.strings.first() == Some(&0);
        if len == 0 || too_long || !ends || !begins {
            return self.refuse("Invalid string section");
        }
        Ok(())
    }

    /// `btf_check_all_metas`: each type by itself.
    fn check_all_metas(&mut self, part: Range<usize>) -> Result<Vec<BtfType>, Stop> {
        let mut rest = self.data.get(part).unwrap_or(&[]);
        let mut types = Vec::with_capacity(rest.len() / 16);
        while !rest.is_empty() {
            let (one, used) = self.check_meta(rest)?;
            types.push(BtfType { kind: one.kind(), size_or_type: one.size_or_type });
            rest = rest.get(used..).unwrap_or(&[]);
            self.id = self.id.saturating_add(1);
        }
        Ok(types)
    }

    /// `btf_check_type_tags`: chains of modifiers lead somewhere, and type tags come first.
    fn check_type_tags(&mut self, own: &[BtfType]) -> Result<(), Stop> {
        let start = self.base.map_or(1, BaseBtf::len);
        let of_base = |id| self.base.map_or(Some(BtfType::VOID), |base| base.get(id));
        let by_id = |id: u32| {
            let id = id as usize;
            if id < start { of_base(id) } else { own.get(id.saturating_sub(start)).copied() }
        };
        let first = u32::try_from(start).unwrap_or(u32::MAX);
        let mut good = first.saturating_sub(1);
        for (i, one) in (first..).zip(own) {
            let mut t = *one;
            if !is_modifier(t) {
                continue;
            }
            let (mut current, mut in_tags) = (i, t.kind == TYPE_TAG);
            let mut chain = CHAIN_MAX;
            while is_modifier(t) {
                let Some(left) = chain.checked_sub(1) else {
                    let text = "Max chain length or cycle detected";
                    self.say(text);
                    return Err(stop(Errno::ELOOP, format!("type {i}: {text}")));
                };
                chain = left;
                if t.kind != TYPE_TAG {
                    in_tags = false;
                } else if !in_tags {
                    return self.refuse("Type tags don't precede modifiers");
                }
                if current <= good {
                    break;
                }
                current = t.size_or_type;
                t = by_id(current).ok_or_else(|| {
                    stop(Errno::EINVAL, format!("type {i} refers to type {current}, which does not exist"))
                })?;
            }
            good = i;
        }
        Ok(())
    }

    /// `btf_str_by_offset`: what stands from there to the end of its string section.
    pub fn str_by_offset(&self, offset: u32) -> Option<&'c [u8]> {
        let base: &[u8] = self.base.map_or(&[], BaseBtf::strings);
        let offset = offset as usize;
        let from = if offset < base.len() {
            base.get(offset..)
        } else {
            self.strings.get(offset.saturating_sub(base.len())..)
        };
        from.filter(|s| !s.is_empty())
    }

    /// `btf_name_offset_valid`
    fn name_offset_valid(&self, offset: u32) -> bool {
        offset <= MAX_NAME_OFFSET && self.str_by_offset(offset).is_some()
    }

    /// The bytes of a name whose length is in bounds: NUL within KSYM_NAME_LEN.
    fn bounded(&self, offset: u32) -> Option<&'c [u8]> {
        let name = self.str_by_offset(offset)?;
        let end = name.iter().take(KSYM_NAME_LEN.saturating_add(1)).position(|b| *b == 0)?;
        name.get(..end)
    }

    /// `btf_name_valid_identifier`
    fn is_identifier(&self, offset: u32) -> bool {
        let Some([first, rest @ ..]) = self.bounded(offset) else { return false };
        let ok = |c: u8| is_alpha(c) || c == b'_' || c == b'.';
        ok(*first) && rest.iter().all(|c| ok(*c) || c.is_ascii_digit())
    }

    /// `btf_name_valid_section`: since v6.12 (bb6705c3f93b) all that can be printed.
    fn is_section_name(&self, offset: u32) -> bool {
        if !self.config.has(Change::BtfSectionNames) {
            return self.is_identifier(offset);
        }
        self.bounded(offset).is_some_and(|name| !name.is_empty() && name.iter().all(|c| is_print(*c)))
    }

    /// `btf_check_meta`: one type, and how many bytes it takes.
    fn check_meta(&mut self, bytes: &'c [u8]) -> Result<(Type, usize), Stop> {
        let id = self.id;
        let Some(rest) = bytes.get(12..) else {
            return self.refuse(&format!("[{id}] meta_left:{} meta_needed:12", bytes.len()));
        };
        let wide = self.config.has(Change::WideBtfInfo);
        let t = Type { name: field(bytes, 0), info: field(bytes, 1), size_or_type: field(bytes, 2), wide };
        if !wide && t.info & !INFO_MASK != 0 {
            return self.refuse(&format!("[{id}] Invalid btf_info:{:x}", t.info));
        }
        if t.kind() == 0 || t.kind() > ENUM64 {
            return self.refuse(&format!("[{id}] Invalid kind:{}", t.kind()));
        }
        if !self.name_offset_valid(t.name) {
            return self.refuse(&format!("[{id}] Invalid name_offset:{}", t.name));
        }
        let each = match t.kind() {
            STRUCT | UNION | DATASEC | ENUM64 => 12,
            ENUM | FUNC_PROTO => 8,
            _ => 0,
        };
        let needed = match t.kind() {
            INT | VAR | DECL_TAG => 4,
            ARRAY => 12,
            _ => (t.vlen() as usize).saturating_mul(each),
        };
        let Some(meta) = rest.get(..needed) else {
            let text = format!("meta_left:{} meta_needed:{needed}", rest.len());
            return Err(self.log_type(t, &[], &text));
        };
        if let Err(bad) = self.kind_meta(t, meta) {
            return Err(match bad {
                Bad::Type(text) => {
                    let details = self.details(t, meta);
                    self.log_type(t, &details, text)
                }
                Bad::Basic(text) => self.log_type(t, &[], &text),
                Bad::Encoding => {
                    let details = self.details(t, meta);
                    Stop { errno: Errno::ENOTSUPP, ..self.log_type(t, &details, "Unsupported encoding") }
                }
                Bad::Member(member, text) => self.log_member(t, member, &text),
                Bad::Vsi(vsi, text) => self.log_vsi(t, vsi, text),
                Bad::Plain(text) => {
                    self.say(&text);
                    self.why(t, text.trim_start())
                }
            });
        }
        Ok((t, needed.saturating_add(12)))
    }

    /// `check_meta` of the type's kind.
    fn kind_meta<'m>(&self, t: Type, meta: &'m [u8]) -> Result<(), Bad<'m>> {
        let named = t.name != 0 && self.is_identifier(t.name);
        let no_vlen = || bad_if(t.vlen() != 0, "vlen != 0");
        let no_kflag = || bad_if(t.kflag(), "Invalid btf_info kind_flag");
        let wrong_id = |id: u32| id == 0 || id > MAX_TYPE;
        match t.kind() {
            INT => {
                no_vlen()?;
                no_kflag()?;
                int_meta(t, field(meta, 0))
            }
            PTR | TYPEDEF | VOLATILE | CONST | RESTRICT | TYPE_TAG => {
                no_vlen()?;
                no_kflag()?;
                bad_if(t.size_or_type > MAX_TYPE, "Invalid type_id")?;
                let fine = match t.kind() {
                    TYPEDEF => named,
                    TYPE_TAG => self.str_by_offset(t.name).and_then(<[u8]>::first).is_some_and(|c| *c != 0),
                    _ => t.name == 0,
                };
                bad_if(!fine, "Invalid name")
            }
            FWD => {
                no_vlen()?;
                bad_if(t.size_or_type != 0, "type != 0")?;
                bad_if(!named, "Invalid name")
            }
            ARRAY => {
                bad_if(t.name != 0, "Invalid name")?;
                no_vlen()?;
                no_kflag()?;
                bad_if(t.size_or_type != 0, "size != 0")?;
                bad_if(wrong_id(field(meta, 0)), "Invalid elem")?;
                bad_if(wrong_id(field(meta, 1)), "Invalid index")
            }
            STRUCT | UNION => {
                bad_if(t.name != 0 && !named, "Invalid name")?;
                self.members(t, meta)
            }
            ENUM | ENUM64 => {
                bad_if(t.size_or_type > 8 || !t.size_or_type.is_power_of_two(), "Unexpected size")?;
                bad_if(t.name != 0 && !named, "Invalid name")?;
                let each = if t.kind() == ENUM { 8 } else { 12 };
                for name in meta.chunks_exact(each).map(|entry| field(entry, 0)) {
                    if !self.name_offset_valid(name) {
                        return Err(Bad::Plain(format!("\tInvalid name_offset:{name}")));
                    }
                    bad_if(name == 0 || !self.is_identifier(name), "Invalid name")?;
                }
                Ok(())
            }
            FUNC_PROTO => {
                bad_if(t.name != 0, "Invalid name")?;
                no_kflag()
            }
            FUNC => {
                bad_if(!named, "Invalid name")?;
                bad_if(t.vlen() > 1, "Invalid func linkage")?;
                no_kflag()
            }
            VAR => {
                no_vlen()?;
                no_kflag()?;
                bad_if(!named, "Invalid name")?;
                bad_if(wrong_id(t.size_or_type), "Invalid type_id")?;
                bad_if(field(meta, 0) > 1, "Linkage not supported")
            }
            DATASEC => self.datasec(t, meta),
            FLOAT => {
                no_vlen()?;
                no_kflag()?;
                bad_if(!matches!(t.size_or_type, 2 | 4 | 8 | 12 | 16), "Invalid type_size")
            }
            _ => {
                let value = self.str_by_offset(t.name).and_then(<[u8]>::first).is_some_and(|c| *c != 0);
                bad_if(!value, "Invalid value")?;
                no_vlen()?;
                no_kflag()?;
                bad_if(field(meta, 0).cast_signed() < -1, "Invalid component_idx")
            }
        }
    }

    /// `btf_struct_check_meta`
    fn members<'m>(&self, t: Type, meta: &'m [u8]) -> Result<(), Bad<'m>> {
        let mut last = 0;
        for member in meta.chunks_exact(12) {
            let bad = |wrong: bool, text| {
                if wrong { Err(Bad::Member(member, Cow::Borrowed(text))) } else { Ok(()) }
            };
            let (name, type_id, offset) = (field(member, 0), field(member, 1), field(member, 2));
            if !self.name_offset_valid(name) {
                return Err(Bad::Member(member, format!("Invalid member name_offset:{name}").into()));
            }
            bad(name != 0 && !self.is_identifier(name), "Invalid name")?;
            bad(type_id == 0 || type_id > MAX_TYPE, "Invalid type_id")?;
            let offset = if t.kflag() { offset & 0xff_ffff } else { offset };
            bad(t.kind() == UNION && offset != 0, "Invalid member bits_offset")?;
            bad(last > offset, "Invalid member bits_offset")?;
            bad(offset.div_ceil(8) > t.size_or_type, "Member bits_offset exceeds its struct size")?;
            last = offset;
        }
        Ok(())
    }

    /// `btf_datasec_check_meta`
    fn datasec<'m>(&self, t: Type, meta: &'m [u8]) -> Result<(), Bad<'m>> {
        let size = u64::from(t.size_or_type);
        bad_if(size == 0, "size == 0")?;
        bad_if(t.kflag(), "Invalid btf_info kind_flag")?;
        bad_if(t.name == 0 || !self.is_section_name(t.name), "Invalid name")?;
        let (mut end, mut sum) = (0u64, 0u64);
        for vsi in meta.chunks_exact(12) {
            let bad = |wrong: bool, text| if wrong { Err(Bad::Vsi(vsi, text)) } else { Ok(()) };
            let (type_id, offset, len) = (field(vsi, 0), u64::from(field(vsi, 1)), u64::from(field(vsi, 2)));
            bad(type_id == 0 || type_id > MAX_TYPE, "Invalid type_id")?;
            bad(offset < end || offset >= size, "Invalid offset")?;
            bad(len == 0 || len > size, "Invalid size")?;
            // The kernel adds two 32-bit numbers before it widens them.
            end = u64::from(field(vsi, 1).wrapping_add(field(vsi, 2)));
            bad(end > size, "Invalid offset+size")?;
            sum = sum.saturating_add(len);
        }
        bad_if(size < sum, "Invalid btf_info size")
    }
}

/// What is wrong with a type, by how the kernel logs it.
enum Bad<'m> {
    Type(&'static str),
    Basic(String),
    Encoding,
    Member(&'m [u8], Cow<'static, str>),
    Vsi(&'m [u8], &'static str),
    Plain(String),
}

fn bad_if<'m>(wrong: bool, text: &'static str) -> Result<(), Bad<'m>> {
    if wrong { Err(Bad::Type(text)) } else { Ok(()) }
}

/// `btf_int_check_meta`
fn int_meta<'m>(t: Type, data: u32) -> Result<(), Bad<'m>> {
    if data & !INT_MASK != 0 {
        return Err(Bad::Basic(format!("Invalid int_data:{data:x}")));
    }
    let bits = (data & 0xff).saturating_add(data >> 16 & 0xff);
    bad_if(bits > 128, "nr_bits exceeds 128")?;
    bad_if(bits.div_ceil(8) > t.size_or_type, "nr_bits exceeds type_size")?;
    if matches!(data >> 24 & 0xf, 0 | 1 | 2 | 4) { Ok(()) } else { Err(Bad::Encoding) }
}

/// The kernel's `isalpha`, which knows Latin-1.
fn is_alpha(c: u8) -> bool {
    c.is_ascii_alphabetic() || (c >= 0xc0 && c != 0xd7 && c != 0xf7)
}

/// The kernel's `isprint`.
fn is_print(c: u8) -> bool {
    matches!(c, 0x20..=0x7e | 0xa0..)
}
