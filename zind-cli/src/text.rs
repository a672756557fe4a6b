//! Sizes, durations and dates as people read and write them.
#![forbid(unsafe_code)]

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::failure::{Failure, Result};

/// `1.5GB`: three digits, decimal units, as `docker images` has them.
pub fn size(bytes: u64) -> String {
    scaled(bytes as f64, 1000.0, &["B", "kB", "MB", "GB", "TB", "PB", "EB"])
}

/// `1.5GiB`: of memory.
pub fn binary_size(bytes: u64) -> String {
    scaled(bytes as f64, 1024.0, &["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"])
}

fn scaled(mut value: f64, base: f64, units: &[&str]) -> String {
    let mut unit = 0;
    // 999.6 would be shown as 1000.
    while value >= base - 0.5 && unit + 1 < units.len() {
        value /= base;
        unit += 1;
    }
    let places = if unit == 0 || value >= 99.95 {
        0
    } else if value >= 9.995 {
        1
    } else {
        2
    };
    let text = format!("{value:.places$}");
    let text = if places > 0 { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    format!("{text}{}", units[unit])
}

/// `3 hours`: one number, the largest unit that fits twice or so.
pub fn duration(time: Duration) -> String {
    let seconds = time.as_secs();
    let (count, unit) = match seconds {
        0 => return "less than a second".to_owned(),
        1..=119 => (seconds, "second"),
        120..=7199 => (seconds / 60, "minute"),
        7200..=172_799 => (seconds / 3600, "hour"),
        172_800..=1_209_599 => (seconds / 86_400, "day"),
        1_209_600..=5_270_399 => (seconds / 604_800, "week"),
        5_270_400..=63_071_999 => (seconds / 2_635_200, "month"),
        _ => (seconds / 31_536_000, "year"),
    };
    format!("{count} {unit}{}", if count == 1 { "" } else { "s" })
}

/// `3 hours ago`, of an RFC 3339 date; the text itself if it is none.
pub fn ago(date: &str, now: SystemTime) -> String {
    let Some(then) = unix_time(date) else { return date.chars().filter(|char| !char.is_control()).collect() };
    let now = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs() as i64;
    format!("{} ago", duration(Duration::from_secs((now - then).max(0) as u64)))
}

/// Seconds since 1970 of an RFC 3339 date, without fractions.
pub fn unix_time(date: &str) -> Option<i64> {
    let bytes = date.as_bytes();
    let number = |from: usize, to: usize| -> Option<i64> {
        let digits = date.get(from..to)?;
        if digits.bytes().all(|byte| byte.is_ascii_digit()) { digits.parse().ok() } else { None }
    };
    let marks = [(4, b'-'), (7, b'-'), (13, b':'), (16, b':')];
    if bytes.len() < 20 || marks.iter().any(|(at, mark)| bytes[*at] != *mark) || !b"Tt ".contains(&bytes[10]) {
        return None;
    }
    let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
    let (hour, minute, second) = (number(11, 13)?, number(14, 16)?, number(17, 19)?);
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let zone = date[19..].trim_start_matches(|char: char| char == '.' || char.is_ascii_digit());
    let offset = match zone.as_bytes() {
        [b'Z' | b'z'] => 0,
        [sign @ (b'+' | b'-'), rest @ ..] if rest.len() == 5 && rest[2] == b':' => {
            let at = date.len() - 5;
            let seconds = number(at, at + 2)? * 3600 + number(at + 3, at + 5)? * 60;
            if *sign == b'+' { seconds } else { -seconds }
        }
        _ => return None,
    };
    Some(days(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second - offset)
}

/// The date in the form of RFC 3339: `2026-11-25T12:00:00Z`.
pub fn rfc3339(time: SystemTime) -> String {
    let seconds = time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs() as i64;
    let (day, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    // The year is at most one too far at first, the month then at most one.
    let mut year = 1970 + day / 365;
    while days(year, 1, 1) > day {
        year -= 1;
    }
    let month = (1..=12).rev().find(|month| days(year, *month, 1) <= day).unwrap_or(1);
    let day = day - days(year, month, 1) + 1;
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// Days from 1970 to a date of the Gregorian calendar.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    // March is the first month here, so that the day that comes and goes is the last of the year.
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

/// `"10"`, `"1.5"`: seconds; `"10s"`, `"1m30s"`, `"2h"`, `"500ms"`: as Go writes durations.
pub fn parse_duration(option: &str, text: &str) -> Result<Duration> {
    let bad = || {
        Failure::new(format!("{option}: {text:?} is no time"))
            .hint("write seconds, or \"500ms\", \"10s\", \"1m30s\", \"2h\"")
    };
    if let Ok(seconds) = text.parse::<f64>() {
        return Duration::try_from_secs_f64(seconds).map_err(|_| bad());
    }
    let mut rest = text;
    let mut all = Duration::ZERO;
    while !rest.is_empty() {
        let digits = rest.find(|char: char| !char.is_ascii_digit() && char != '.').ok_or_else(bad)?;
        let count: f64 = rest[..digits].parse().map_err(|_| bad())?;
        rest = &rest[digits..];
        let unit = rest.find(|char: char| char.is_ascii_digit() || char == '.').unwrap_or(rest.len());
        let seconds = match &rest[..unit] {
            "ns" => 1e-9,
            "us" | "µs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return Err(bad()),
        };
        let part = Duration::try_from_secs_f64(count * seconds).map_err(|_| bad())?;
        all = all.checked_add(part).ok_or_else(bad)?;
        rest = &rest[unit..];
    }
    if text.is_empty() { Err(bad()) } else { Ok(all) }
}

/// A signal by name or number.
pub fn parse_signal(option: &str, text: &str) -> Result<i32> {
    zind_core::parse_signal(text)
        .map_err(|_| Failure::new(format!("{option}: {text:?} is no signal")).hint("write \"TERM\", \"SIGTERM\" or 15"))
}

/// Foreign text that a terminal may show.
pub fn printable(text: &str) -> String {
    text.chars().map(|char| if char.is_control() { '?' } else { char }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_three_digits() {
        let cases = [
            (0, "0B"),
            (999, "999B"),
            (1000, "1kB"),
            (1234, "1.23kB"),
            (12_345, "12.3kB"),
            (123_456, "123kB"),
            (999_999, "1MB"),
            (1_500_000_000, "1.5GB"),
            (u64::MAX, "18.4EB"),
        ];
        for (bytes, text) in cases {
            assert_eq!(size(bytes), text);
        }
        assert_eq!(binary_size(256 << 20), "256MiB");
        assert_eq!(binary_size(3 << 29), "1.5GiB");
    }

    #[test]
    fn dates_are_told_by_age() {
        let at = |seconds| UNIX_EPOCH + Duration::from_secs(seconds);
        assert_eq!(unix_time("1970-01-01T00:00:00Z"), Some(0));
        assert_eq!(unix_time("2026-11-25T12:00:00Z"), Some(1_795_608_000));
        assert_eq!(unix_time("2026-11-25T13:30:00.123456789+01:30"), Some(1_795_608_000));
        assert_eq!(unix_time("2024-02-29T00:00:00Z"), Some(1_709_164_800));
        for bad in
            ["", "yesterday", "2026-13-01T00:00:00Z", "2026-11-25", "2026-11-25T12:00:00", "２026-11-25T12:00:00Z"]
        {
            assert_eq!(unix_time(bad), None, "{bad}");
        }
        for date in ["1970-01-01T00:00:00Z", "2024-02-29T23:59:59Z", "2026-12-31T12:00:01Z", "2100-03-01T00:00:00Z"] {
            assert_eq!(rfc3339(at(unix_time(date).unwrap() as u64)), date);
        }
        assert_eq!(ago("1970-01-01T00:00:00Z", at(7200)), "2 hours ago");
        assert_eq!(ago("1970-01-01T00:00:00Z", at(1)), "1 second ago");
        assert_eq!(ago("1970-01-01T00:00:10Z", at(1)), "less than a second ago");
        assert_eq!(ago("once\x1b", at(1)), "once");
    }

    #[test]
    fn durations_are_seconds_or_go() {
        let read = |text| parse_duration("--timeout", text).ok();
        assert_eq!(read("10"), Some(Duration::from_secs(10)));
        assert_eq!(read("1.5"), Some(Duration::from_millis(1500)));
        assert_eq!(read("1m30s"), Some(Duration::from_secs(90)));
        assert_eq!(read("500ms"), Some(Duration::from_millis(500)));
        for bad in ["", "s", "5x", "-1", "1m30", "inf", "1e400s", "1..2s"] {
            assert_eq!(read(bad), None, "{bad}");
        }
        assert_eq!(duration(Duration::from_secs(5_356_800)), "2 months");
    }
}
