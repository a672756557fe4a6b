//! What the fuzzer makes of what the kernel and systemd say of control groups.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use super::stats::{Pressure, Stats, io_lines_of_v1, io_of_v2};
use super::{Stored, StoredPart, dbus, files, layout, owner};

const NAMES: [&str; 10] =
    ["cpu", "cpuacct", "memory", "pids", "io", "blkio", "freezer", "cpuset", "hugetlb", "devices"];

/// A group of both versions: what there is of version 2 counts, the rest is of version 1.
fn group(is_v2: bool) -> Stored {
    let part = |is_v2| StoredPart { path: "/x".into(), is_v2, controllers: NAMES.map(str::to_owned).to_vec() };
    let parts = if is_v2 { vec![part(true)] } else { vec![part(false)] };
    Stored { parts, made: Vec::new(), helpers: 1 }
}

/// Texts of files, each after a line with `== ` and its name: all readings of a group, in numbers that were in the texts.
pub(crate) fn readings(text: &str) {
    let mut texts: Vec<(&str, String)> = Vec::new();
    for line in text.split_inclusive('\n') {
        match (line.strip_prefix("== "), texts.last_mut()) {
            (Some(name), _) => texts.push((name.trim_end(), String::new())),
            (None, Some((_, text))) => text.push_str(line),
            (None, None) => {}
        }
    }
    for is_v2 in [true, false] {
        let texts = texts.iter().map(|(name, text)| (is_v2, (*name).to_owned(), text.clone())).collect();
        let stats: Stats = group(is_v2).stats_of(texts);
        let _ = stats.to_json();
        let said = |number: u64| text.contains(&number.to_string());
        for number in [stats.memory_peak, stats.memory_limit, stats.oom_kills, stats.pids_limited].into_iter().flatten()
        {
            assert!(said(number), "{number} is nowhere");
        }
        assert!(stats.io.iter().flatten().count() <= text.lines().count());
    }
    for (_, text) in &texts {
        values(text);
        let mut of_v1 = Vec::new();
        io_lines_of_v1(&mut of_v1, text, true);
        for all in [&of_v1, &io_of_v2(text)] {
            assert!(all.len() <= text.lines().count());
        }
        let mut devices: Vec<_> = of_v1.iter().map(|io| io.device).collect();
        devices.sort_unstable();
        devices.dedup();
        assert_eq!(devices.len(), of_v1.len(), "a device is there once");
        if let Some(pressure) = Pressure::parse(text) {
            assert!(text.lines().any(|line| line.starts_with("some ")));
            assert!(text.lines().any(|line| line.starts_with("full ")) || pressure.full == Default::default());
        }
    }
}

/// Two ways to find a number after a key agree on each key that is there once.
fn values(text: &str) {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for (key, _) in text.lines().filter_map(|line| line.split_once(' ')) {
        *counts.entry(key).or_default() += 1;
    }
    for key in counts.into_iter().filter(|(_, count)| *count == 1).map(|(key, _)| key).take(32) {
        assert_eq!(files::values_of(text, [key]), [files::value_of(text, key)], "{key:?}");
    }
    let _ = (files::number(text), files::has_word(text, "memory"));
}

/// `cgroup` of a process, and mountinfo after an empty line: groups are below what is mounted.
pub(crate) fn layout(bytes: &[u8]) {
    let cut = bytes.windows(2).position(|pair| pair == b"\n\n").map_or(bytes.len(), |at| at + 1);
    let (members, mounts) = bytes.split_at(cut);
    let layout = layout::of_texts(members, mounts);
    for hierarchy in layout.v2.iter().chain(&layout.v1) {
        let own = hierarchy.own.as_ref();
        assert!(own.is_none_or(|own| own.starts_with(&hierarchy.mount)), "{hierarchy:?}");
        let above = |own: &std::path::PathBuf| {
            let below = own.strip_prefix(&hierarchy.mount).unwrap();
            below.components().any(|part| part.as_os_str() == "..")
        };
        assert!(!own.is_some_and(above), "{hierarchy:?}");
    }
    assert!(layout.v1.iter().all(|hierarchy| !hierarchy.controllers.is_empty()));
}

/// The name of a directory that may be a group of ours: only one that we could have made is.
pub(crate) fn group_name(text: &str) {
    if let Some(again) = owner::name_again(text) {
        assert_eq!(owner::name_again(&again).as_ref(), Some(&again));
        assert!(text.starts_with("zind-") && !text.contains('/'), "{text:?}");
    }
}

/// What comes over a bus.
pub(crate) fn bus(bytes: &[u8]) {
    let mut rest = bytes;
    while let Ok(Some(length)) = dbus::length_of(rest) {
        assert!((16..=dbus::MOST_BYTES).contains(&length));
        let Some(message) = rest.get(..length) else { break };
        if let Some(read) = dbus::parse(message) {
            assert!(read.body.len() + 16 <= length);
            let mut reader = dbus::Reader::new(&read.body);
            while reader.u32().is_some() && reader.string().is_some() {}
        }
        rest = &rest[length..];
    }
    let _ = dbus::parse(bytes);
}
