//! What the fuzzer makes of mountinfo.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)]

use super::mount_line;
use crate::proc::unescape_path;

/// Fields are those of the kernel; its escapes come back.
pub(crate) fn mountinfo(bytes: &[u8]) {
    use std::os::unix::ffi::OsStrExt;
    for line in bytes.split(|byte| *byte == b'\n') {
        if let Some(read) = mount_line(line) {
            let words: Vec<&[u8]> = line.split(|byte| *byte == b' ').collect();
            assert!(words.len() >= 10 && read.point.as_os_str().len() <= words[4].len());
            assert!(read.root.as_os_str().len() <= words[3].len() && read.id.to_string().len() <= words[0].len());
        }
        // As the kernel writes a path.
        let escape = |byte: &u8| match byte {
            b' ' | b'\t' | b'\n' | b'\\' => format!("\\{byte:03o}").into_bytes(),
            byte => vec![*byte],
        };
        let shown: Vec<u8> = line.iter().flat_map(escape).collect();
        assert_eq!(unescape_path(&shown).as_os_str().as_bytes(), line);
        let whole =
            [b"36 35 98:0 / ", &shown[..], b" rw,noatime master:1 - ext3 /dev/root rw,errors=continue"].concat();
        assert_eq!(mount_line(&whole).unwrap().point.as_os_str().as_bytes(), line);
    }
}
