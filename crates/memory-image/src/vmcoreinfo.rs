//! VMCOREINFO: what a kernel leaves for who reads its dump (Documentation/admin-guide/kdump/vmcoreinfo.rst).

use alloc::string::String;

/// The text of the note, lines of `NAME=VALUE`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VmcoreInfo(String);

impl VmcoreInfo {
    /// The text of a note, up to the first NUL.
    pub fn new(text: &[u8]) -> Self {
        let end = text.iter().position(|b| *b == 0).unwrap_or(text.len());
        VmcoreInfo(String::from_utf8_lossy(text.get(..end).unwrap_or_default()).into_owned())
    }

    /// The text.
    pub fn text(&self) -> &str {
        &self.0
    }

    /// The value of a line, such as that of `OSRELEASE`.
    pub fn value(&self, name: &str) -> Option<&str> {
        self.0.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='))
    }

    /// `OSRELEASE`: the kernel's release.
    pub fn release(&self) -> Option<&str> {
        self.value("OSRELEASE")
    }

    /// `BUILD-ID`, in hexadecimal digits.
    pub fn build_id(&self) -> Option<&str> {
        self.value("BUILD-ID")
    }

    /// `SYMBOL(name)`: the address where the kernel runs.
    pub fn symbol(&self, name: &str) -> Option<u64> {
        self.hex(&alloc::format!("SYMBOL({name})"))
    }

    /// `NUMBER(name)`, decimal, or hexadecimal with 0x.
    pub fn number(&self, name: &str) -> Option<i64> {
        let text = self.value(&alloc::format!("NUMBER({name})"))?;
        match text.strip_prefix("0x") {
            Some(hex) => u64::from_str_radix(hex, 16).ok().map(u64::cast_signed),
            None => text.parse().ok(),
        }
    }

    /// `KERNELOFFSET`: how far the kernel runs from where it is linked.
    pub fn kernel_offset(&self) -> Option<u64> {
        self.hex("KERNELOFFSET")
    }

    fn hex(&self, name: &str) -> Option<u64> {
        let text = self.value(name)?;
        u64::from_str_radix(text.strip_prefix("0x").unwrap_or(text), 16).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_found() {
        let text = b"OSRELEASE=6.12.1\nPAGESIZE=4096\nSYMBOL(swapper_pg_dir)=ffffffff82e2c000\nKERNELOFFSET=1c000000\n\
            NUMBER(phys_base)=-442499072\nNUMBER(kimage_voffset)=0xffff7fff40000000\n\0junk=1\n";
        let info = VmcoreInfo::new(text);
        assert_eq!(info.release(), Some("6.12.1"));
        assert_eq!(info.symbol("swapper_pg_dir"), Some(0xffff_ffff_82e2_c000));
        assert_eq!(info.kernel_offset(), Some(0x1c00_0000));
        assert_eq!(info.number("phys_base"), Some(-442_499_072));
        assert_eq!(info.number("kimage_voffset"), Some(0xffff_7fff_4000_0000_u64.cast_signed()));
        assert_eq!((info.value("junk"), info.symbol("x")), (None, None));
    }
}
