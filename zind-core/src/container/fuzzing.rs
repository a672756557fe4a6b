//! What the fuzzer makes of the files of a container, those of its monitor, its log and its journal.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)]

use std::fs::{self, File};
use std::io::BufReader;
use std::path::Path;

use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType, send, socketpair};
use serde_json::Value;
use zind_init::monitor::{EVENT_SIZE, MOST_BYTES, NUMBER};

use super::journal::{Entry, read_from};
use super::logs;
use super::monitor::Connection;
use super::state::{Ended, Phase, Record, Running};
use crate::fuzzing::messages;

/// `state`, `running` and `exit`.
pub(crate) fn state(bytes: &[u8]) {
    // What was measured of the isolation is kept as it is; fractions may lose their last digit.
    let plain = |mut record: Record| {
        record.run.iter_mut().for_each(|run| run.isolation = Value::Null);
        record
    };
    if let Ok(record) = Record::parse(bytes) {
        assert_eq!(Record::parse(&record.encode()).map(plain), Ok(plain(record.clone())));
        if let Some(run) = &record.run {
            assert!(run.group.iter().flat_map(|group| &group.parts).all(|part| part.path.is_absolute()));
        }
    }
    if let Some((_, running)) = Running::parse(bytes) {
        assert!(running.pid > 0 || running.pid == 0 && running.waiting.is_some());
    }
    if let Some(ended) = Ended::parse(bytes) {
        let length: usize = ended.texts.iter().map(|(_, name, text)| name.len() + text.len()).sum();
        // What is no UTF-8 becomes three bytes for one.
        assert!(length <= 3 * bytes.len() && ended.texts.len() <= 256);
        let record = Record::parse(RECORD.as_bytes()).unwrap();
        let _ = ended.stats(&record).to_json();
        let phase = Phase::Ended(Some(Box::new(ended)));
        assert!(super::life::exit_of(&record, &phase).is_some());
    }
}

/// Of a container with a group, for what it left behind.
const RECORD: &str = r#"{"zind-container":1,"id":"0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef","name":"a","labels":{},
"created_ns":1,"restart":"no","log":{"size":1,"files":1},"terminal":null,"stdin_open":false,"auto_remove":false,"detached":true,"stop_signal":15,
"image":null,"command":["sh"],"run":{"number":1,"boot_id":"b","began_ns":5,"group":{"parts":[{"path":"/x","v2":true,
"controllers":["cpu","memory","pids","io"]},{"path":"/y","v2":false,"controllers":["cpuacct","blkio"]}],"made":[],"helpers":1},
"init":true,"has_users":false,"uid_map":[],"gid_map":[],"user":null,"overlay":null,"isolation":{}}}"#;

/// Answers of a monitor, each behind its length.
pub(crate) fn replies(bytes: &[u8]) {
    let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
    let connection = Connection::of(ours);
    for message in messages(bytes) {
        send(&theirs, message, SendFlags::empty()).unwrap();
        match connection.reply().unwrap() {
            Some((errno, value, fd)) => {
                assert!(fd.is_none() && message.starts_with(&[errno.to_ne_bytes(), value.to_ne_bytes()].concat()));
            }
            None => assert!(message.len() < 8),
        }
    }
    drop(theirs);
    assert!(connection.reply().unwrap().is_none());
}

/// The records of a journal: each by itself is what it was written as, and a reader that begins in the middle finds the same.
pub(crate) fn journal(path: &Path, bytes: &[u8]) {
    let entries: Vec<Entry> = bytes.chunks_exact(EVENT_SIZE).filter_map(Entry::parse).collect();
    for entry in &entries {
        assert_eq!(Entry::parse(&entry.encode()).as_ref(), Some(entry));
        let _ = entry.exit();
    }
    fs::write(path, bytes).unwrap();
    let file = File::open(path).unwrap();
    let is_good = bytes.get(..EVENT_SIZE).and_then(Entry::parse).is_some();
    assert_eq!(read_from(&file, 0), if is_good { entries.clone() } else { Vec::new() });
    let _ = super::journal::last_number(&file);
    let in_order = entries.windows(2).all(|pair| pair[0].number.checked_add(1) == Some(pair[1].number));
    let is_whole = is_good && in_order && entries.len() == bytes.len() / EVENT_SIZE;
    if let Some(middle) = entries.get(entries.len() / 2).filter(|_| is_whole) {
        assert_eq!(read_from(&file, middle.number), entries[entries.len() / 2..]);
    }
    fs::remove_file(path).unwrap();
}

/// A log, as the library reads it: as much of it as [`logs::measure`] says, and each record where the one before it ends.
pub(crate) fn log(path: &Path, bytes: &[u8]) {
    fs::write(path, bytes).unwrap();
    let file = File::open(path).unwrap();
    let measured = logs::measure(&file).unwrap();
    let mut reader = BufReader::with_capacity(64, file);
    let (mut at, mut count) = (0, 0);
    let mut first = None;
    while let Some((_, stream, text)) = logs::one(&mut reader, &mut at).unwrap() {
        assert!(text.len() <= MOST_BYTES && (1..=NUMBER).contains(&stream));
        let end = usize::try_from(at).unwrap();
        assert_eq!(&bytes[end - text.len()..end], text, "record {count}");
        first.get_or_insert((stream, text));
        count += 1;
    }
    match measured {
        Some(logs::Measured { number, length, .. }) => {
            assert_eq!(length, at);
            let (stream, text) = first.unwrap();
            assert_eq!((stream, text.first_chunk()), (NUMBER, Some(&number.to_ne_bytes())));
            assert!(matches!(text.len(), 8 | 16));
        }
        None => assert!(first.is_none_or(|(stream, text)| {
            stream != NUMBER || !matches!(text.len(), 8 | 16) || text.starts_with(&[0xff; 8])
        })),
    }
    fs::remove_file(path).unwrap();
}
