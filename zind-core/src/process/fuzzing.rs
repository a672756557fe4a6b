//! What the fuzzer makes of what goes between library and launcher.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)]

use std::ffi::CString;
use std::os::fd::AsFd;

use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType, send, socketpair};
use zind_init::measured::{READING, READING_SIZE};
use zind_init::plan::{FdMap, List, Str};
use zind_init::report::{REPORT_SIZE, Report, Usage};
use zind_init::step::Step;

use super::launch::{Received, receive};
use super::plan::blank;
use super::planfile::PlanWriter;
use crate::fuzzing::messages;

/// Messages as a launcher sends them, each behind its length.
pub(crate) fn reports(bytes: &[u8]) {
    let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
    for message in messages(bytes) {
        send(&theirs, message, SendFlags::empty()).unwrap();
        match receive(ours.as_fd()) {
            Ok(Received::Report(found)) => {
                assert_eq!(message.len(), REPORT_SIZE);
                assert_eq!(found.report, report(message));
                let step = Step::from_number(found.report.step);
                assert!(step.is_none_or(|step| step as u16 == found.report.step && !step.words().is_empty()));
            }
            Ok(Received::Log(text)) => assert!(message[0] == b'#' && text.len() <= 3 * message.len()),
            Ok(Received::Reading(_)) => assert!(message[0] == READING && message.len() == READING_SIZE),
            Ok(Received::End) => panic!("there is no end"),
            Err(error) => {
                assert!(message[0] != b'#' && message.len() != REPORT_SIZE, "{error}");
            }
        }
    }
    drop(theirs);
    assert!(matches!(receive(ours.as_fd()), Ok(Received::End)));
}

/// By the places in the documentation of [`Report`].
fn report(message: &[u8]) -> Report {
    let number =
        |from: usize, to: usize| message[from..to].iter().rev().fold(0u64, |all, byte| all << 8 | u64::from(*byte));
    Report {
        step: number(0, 2) as u16,
        index: number(2, 4) as u16,
        value: number(4, 8) as u32 as i32,
        usage: Usage { user_us: number(8, 16), system_us: number(16, 24), max_rss: number(24, 32) },
    }
}

/// Something in a plan, and what the launcher has to find there.
enum Put {
    Text(Str, Vec<u8>),
    Numbers(List<u64>, Vec<u64>),
    Bytes(List<u8>, Vec<u8>),
    Fds(List<FdMap>, Vec<(i32, i32)>),
    /// With eight bytes for each, and eight of zeros behind them.
    Texts(List<Str>, Vec<Vec<u8>>),
    Names(List<Str>, Vec<Vec<u8>>),
}

/// Any strings and lists in any order, in a plan as the launcher reads it: by offsets from its beginning.
pub(crate) fn plan(bytes: &[u8]) {
    let mut writer = PlanWriter::new();
    let mut all = Vec::new();
    let mut rest = bytes;
    while let [what, length, more @ ..] = rest {
        let (bytes, more) = more.split_at(usize::from(*length).min(more.len()));
        rest = more;
        let texts: Vec<Vec<u8>> = bytes.split(|byte| *byte == 0).map(<[u8]>::to_vec).collect();
        let strings: Vec<CString> = texts.iter().map(|text| CString::new(text.clone()).unwrap()).collect();
        let numbers: Vec<u64> = bytes.iter().map(|byte| u64::from(*byte) << (byte % 57)).collect();
        all.push(match what % 6 {
            0 => Put::Text(writer.str(&strings[0]), texts[0].clone()),
            1 => Put::Numbers(writer.list(&numbers), numbers),
            2 => Put::Bytes(writer.list(bytes), bytes.to_vec()),
            3 => {
                let pairs: Vec<(i32, i32)> =
                    bytes.chunks_exact(2).map(|pair| (i32::from(pair[0]), -i32::from(pair[1]))).collect();
                let maps: Vec<FdMap> = pairs.iter().map(|(from, to)| FdMap { from: *from, to: *to }).collect();
                Put::Fds(writer.list(&maps), pairs)
            }
            4 => Put::Texts(writer.strings(strings.iter().map(CString::as_c_str)), texts),
            _ => Put::Names(writer.names(strings.iter().map(CString::as_c_str)), texts),
        });
    }
    let file = writer.finish(blank());
    assert!(file.len().is_multiple_of(8));
    let header = size_of::<zind_init::plan::Plan>();
    let mut taken: Vec<(usize, usize)> = vec![(0, header)];
    let mut at = |offset: u32, length: usize| {
        let from = offset as usize;
        taken.push((from, from + length));
        &file[from..from + length]
    };
    for put in &all {
        match put {
            Put::Text(place, text) => assert_eq!(at(place.0, text.len() + 1), [text, &b"\0"[..]].concat()),
            Put::Numbers(list, numbers) => {
                let found = at(list.offset, 8 * numbers.len());
                assert_eq!((words(found), list.offset % 8, list.len as usize), (numbers.clone(), 0, numbers.len()));
            }
            Put::Bytes(list, bytes) => {
                assert_eq!((at(list.offset, bytes.len()), list.len as usize), (&bytes[..], bytes.len()))
            }
            Put::Fds(list, pairs) => {
                let words = at(list.offset, 8 * pairs.len())
                    .chunks_exact(4)
                    .map(|four| i32::from_ne_bytes(four.try_into().unwrap()));
                assert_eq!(
                    words.collect::<Vec<_>>(),
                    pairs.iter().flat_map(|(from, to)| [*from, *to]).collect::<Vec<_>>()
                );
                assert_eq!((list.offset % 8, list.len as usize), (0, pairs.len()));
            }
            Put::Texts(list, texts) => {
                let found = words(at(list.offset, 8 * (texts.len() + 1)));
                assert_eq!((list.offset % 8, list.len as usize, found[texts.len()]), (0, texts.len(), 0));
                for (offset, text) in found.iter().zip(texts) {
                    assert_eq!(at(*offset as u32, text.len() + 1), [text, &b"\0"[..]].concat());
                }
            }
            Put::Names(list, texts) => {
                let found = at(list.offset, 4 * texts.len())
                    .chunks_exact(4)
                    .map(|four| u32::from_ne_bytes(four.try_into().unwrap()));
                for (offset, text) in found.collect::<Vec<_>>().into_iter().zip(texts) {
                    assert_eq!(at(offset, text.len() + 1), [text, &b"\0"[..]].concat());
                }
            }
        }
    }
    // The launcher cuts strings into pieces, and lists into pointers, where they stand.
    taken.retain(|(from, to)| from < to);
    taken.sort_unstable();
    assert!(taken.windows(2).all(|pair| pair[0].1 <= pair[1].0), "two share a place");
}

fn words(bytes: &[u8]) -> Vec<u64> {
    bytes.chunks_exact(8).map(|eight| u64::from_ne_bytes(eight.try_into().unwrap())).collect()
}
