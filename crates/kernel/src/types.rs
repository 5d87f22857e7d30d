//! Sizes and member offsets of kernel structs: what later stages need of a BTF, kept apart from it.

use alloc::borrow::ToOwned;
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;

use kernel_image::Btf;

/// Where a member lies in a struct of the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    /// Bytes from the start of the struct.
    pub offset: u64,
    /// Bytes.
    pub size: u64,
}

/// Names of structs, each with paths of members in it (dots between the names).
pub type StructPaths = [(&'static str, &'static [&'static str])];

/// Members of kernel structs, and sizes of the structs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Types {
    members: BTreeMap<String, Member>,
    sizes: BTreeMap<String, u64>,
}

impl Types {
    /// Looks these up in a BTF. What it does not have is left out.
    pub fn of(btf: &Btf<'_>, wanted: &StructPaths) -> Self {
        let mut types = Types::default();
        for (of, paths) in wanted {
            let Some(id) = btf.find_struct(of) else { continue };
            types.sizes.extend(btf.size_of(id).map(|size| ((*of).to_owned(), size)));
            for path in *paths {
                let member = btf.member_of(id, path).map(|m| Member { offset: m.offset, size: m.size });
                types.members.extend(member.map(|member| (format!("{of}.{path}"), member)));
            }
        }
        types
    }

    /// A member of a struct, dots between the names of `path`.
    pub fn member(&self, of: &str, path: &str) -> Option<Member> {
        self.members.get(&format!("{of}.{path}")).copied()
    }

    /// `sizeof` a struct, in bytes.
    pub fn struct_size(&self, of: &str) -> Option<u64> {
        self.sizes.get(of).copied()
    }

    /// Is nothing known?
    pub fn is_empty(&self) -> bool {
        self.members.is_empty() && self.sizes.is_empty()
    }

    /// A line for each: the struct, or struct and member with a dot between them; offset and size in bytes.
    pub fn to_text(&self) -> String {
        let sizes = self.sizes.iter().map(|(name, size)| format!("{name} 0 {size}\n"));
        let members = self.members.iter().map(|(name, m)| format!("{name} {} {}\n", m.offset, m.size));
        sizes.chain(members).collect()
    }

    /// Reads what [`Types::to_text`] wrote; lines of another form are skipped.
    pub fn parse(text: &str) -> Self {
        let mut types = Types::default();
        for line in text.lines() {
            let mut words = line.split(' ');
            let (Some(name), Some(offset), Some(size)) = (words.next(), words.next(), words.next()) else {
                continue;
            };
            let (Ok(offset), Ok(size)) = (offset.parse(), size.parse()) else { continue };
            if name.contains('.') {
                types.members.insert(name.to_owned(), Member { offset, size });
            } else {
                types.sizes.insert(name.to_owned(), size);
            }
        }
        types
    }
}
