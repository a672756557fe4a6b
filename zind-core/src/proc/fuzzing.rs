//! What the fuzzer makes of the files of a process below `/proc`: a container's writes its own name, arguments and environment.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)]

use std::os::unix::ffi::OsStrExt;

use super::membership::{parse_cgroup, parse_id_map};
use super::memory::parse_map;
use super::text::{parse_environ, split_nul};
use super::{Stat, Statm, Status};

/// Any of them.
pub(crate) fn files(bytes: &[u8]) {
    stat(bytes);
    status(bytes);
    let words = split_nul(bytes);
    let length: usize = words.iter().map(|word| word.len() + 1).sum();
    assert!(length == bytes.len() || length == bytes.len() + 1);
    for (name, value) in parse_environ(bytes) {
        assert!(!name.is_empty() && !name.as_bytes()[1..].contains(&b'=') && name.len() + value.len() <= bytes.len());
    }
    for line in bytes.split(|byte| *byte == b'\n') {
        if let Some(map) = parse_map(line) {
            let text = format!("{:x}-{:x} ", map.start, map.end);
            assert!(text.len() < line.len() && map.path.is_none_or(|path| line.ends_with(path.as_os_str().as_bytes())));
        }
        if let Some(map) = parse_id_map(line) {
            let naive: Vec<u64> =
                String::from_utf8_lossy(line).split_whitespace().map(|word| word.parse().unwrap()).collect();
            assert_eq!(naive, [map.container, map.host, map.size].map(u64::from));
        }
        if let Some(group) = parse_cgroup(line) {
            assert!(line.ends_with(group.path.as_os_str().as_bytes()));
            assert!(group.controllers.iter().all(|name| !name.contains([',', ':'])));
        }
    }
    if let Some(statm) = std::str::from_utf8(bytes).ok().and_then(Statm::parse) {
        assert_eq!(statm.numbers().len(), 7);
    }
}

/// Whatever the name of the program is, the fields behind it stay where they are.
fn stat(bytes: &[u8]) {
    if let Some(stat) = Stat::parse(bytes) {
        let behind = &bytes[bytes.iter().rposition(|byte| *byte == b')').unwrap() + 1..];
        let words = std::str::from_utf8(behind).unwrap().split_ascii_whitespace();
        for ((name, value), word) in stat.numbers().into_iter().zip(words.skip(1)) {
            assert_eq!(Ok(value), word.parse(), "{name}");
        }
    }
    let name: Vec<u8> = bytes.iter().copied().filter(|byte| *byte != 0).take(64).collect();
    let numbers: Vec<String> = (4..=52).map(|number: u32| number.to_string()).collect();
    let line = [b"1234 (", &name[..], b") S ", numbers.join(" ").as_bytes(), b"\n"].concat();
    let stat = Stat::parse(&line).unwrap();
    assert_eq!(
        (stat.comm.as_bytes(), stat.pid, stat.ppid, stat.starttime, stat.exit_code),
        (&name[..], 1234, 4, 22, 52)
    );
}

/// A name cannot stand for other fields, as the kernel escapes it.
fn status(bytes: &[u8]) {
    let status = Status::parse(bytes);
    assert!(status.fields().len() <= bytes.len());
    let _ = (status.uids(), status.gids(), status.groups(), status.ns_pids(), status.capabilities(), status.threads());
    let _ = (status.state(), status.ppid(), status.no_new_privs(), status.seccomp());
    let name: Vec<u8> = bytes.iter().copied().filter(|byte| *byte != 0).take(64).collect();
    let escape = |byte: &u8| match byte {
        b'\n' => b"\\n".to_vec(),
        b'\\' => b"\\\\".to_vec(),
        byte => vec![*byte],
    };
    let shown: Vec<u8> = name.iter().flat_map(escape).collect();
    let text = [b"Name:\t", &shown[..], b"\nUmask:\t0022\nState:\tS (sleeping)\nPPid:\t7\nCapEff:\t0000000000000001\n"]
        .concat();
    let status = Status::parse(&text);
    assert_eq!((status.name().as_bytes(), status.ppid(), status.state()), (&name[..], Some(7), Some('S')));
}
