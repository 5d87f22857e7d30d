//! `.tar.xz`

use std::io::Read;
use std::path::Path;

/// Writes those files of a ustar archive that are `wanted`, by their paths in it, below a folder.
pub fn unpack(pack: &Path, into: &Path, wanted: impl Fn(&str) -> bool) {
    let failed = |e: std::io::Error| -> ! { panic!("{}: {e}", pack.display()) };
    let file = std::fs::File::open(pack).unwrap_or_else(|e| failed(e));
    let mut archive = liblzma::read::XzDecoder::new_multi_decoder(file);
    let mut head = [0; 512];
    loop {
        archive.read_exact(&mut head).unwrap_or_else(|e| failed(e));
        if head[0] == 0 {
            return;
        }
        let (kind, name) = (char::from(head[156]), text(&head[..100]));
        assert!(matches!(kind, '0' | '5'), "{}: {name} is of kind {kind:?}", pack.display());
        let size = usize::from_str_radix(text(&head[124..136]).trim(), 8).unwrap();
        let mut data = vec![0; size.next_multiple_of(512)];
        archive.read_exact(&mut data).unwrap_or_else(|e| failed(e));
        let prefix = text(&head[345..500]);
        let name = if prefix.is_empty() { name } else { format!("{prefix}/{name}") };
        if kind == '0' && wanted(&name) {
            let path = into.join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, &data[..size]).unwrap();
        }
    }
}

fn text(field: &[u8]) -> String {
    let end = field.iter().position(|b| *b == 0).unwrap_or(field.len());
    String::from_utf8(field[..end].to_vec()).unwrap()
}
