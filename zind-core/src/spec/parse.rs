//! Sizes, durations and names as people write them.

use std::time::Duration;

use crate::error::{Error, Result};

/// `"64k"`, `"256m"`, `"1.5g"`, `"4096"`: bytes, with binary units, in either case.
pub fn parse_size(field: &'static str, text: &str) -> Result<u64> {
    let bad = || Error::spec(field, format!("{text:?} is no size; write 4096, \"64k\", \"256m\" or \"1.5g\""));
    let lower = text.trim().to_ascii_lowercase();
    let digits = lower.trim_end_matches('b').trim_end_matches('i');
    let (number, shift) = match digits.char_indices().next_back() {
        Some((at, 'k')) => (&digits[..at], 10),
        Some((at, 'm')) => (&digits[..at], 20),
        Some((at, 'g')) => (&digits[..at], 30),
        Some((at, 't')) => (&digits[..at], 40),
        _ => (digits, 0),
    };
    if let Ok(whole) = number.parse::<u64>() {
        return whole.checked_mul(1 << shift).ok_or_else(bad);
    }
    let value: f64 = number.parse().map_err(|_| bad())?;
    let bytes = value * (1u64 << shift) as f64;
    if bytes.is_finite() && (0.0..=9.0e18).contains(&bytes) { Ok(bytes as u64) } else { Err(bad()) }
}

/// Seconds, as a number that is neither negative nor beyond all measure.
pub fn parse_duration(field: &'static str, seconds: f64) -> Result<Duration> {
    Duration::try_from_secs_f64(seconds).map_err(|_| Error::spec(field, format!("{seconds} is no number of seconds")))
}

const RLIMITS: [&str; 16] = [
    "cpu",
    "fsize",
    "data",
    "stack",
    "core",
    "rss",
    "nproc",
    "nofile",
    "memlock",
    "as",
    "locks",
    "sigpending",
    "msgqueue",
    "nice",
    "rtprio",
    "rttime",
];

/// `"nofile"`, `"RLIMIT_NOFILE"`: the number of a resource of setrlimit(2).
pub fn parse_rlimit_name(name: &str) -> Result<u32> {
    let lower = name.to_ascii_lowercase();
    let short = lower.strip_prefix("rlimit_").unwrap_or(&lower);
    RLIMITS
        .iter()
        .position(|known| *known == short)
        .map(|number| number as u32)
        .ok_or_else(|| Error::spec("rlimits", format!("{name:?} is none of {}", RLIMITS.join(", "))))
}

/// The name of a resource by its number.
pub(crate) fn rlimit_name(resource: u32) -> &'static str {
    RLIMITS.get(resource as usize).copied().unwrap_or("unknown")
}

/// `"TERM"`, `"SIGTERM"`, `"15"`: the number of a signal.
pub fn parse_signal(name: &str) -> Result<i32> {
    if let Ok(number @ 1..=64) = name.parse::<i32>() {
        return Ok(number);
    }
    let upper = name.to_ascii_uppercase();
    let full = if upper.starts_with("SIG") { upper } else { format!("SIG{upper}") };
    if let Some(number) = real_time(&full) {
        return Ok(number);
    }
    full.parse::<nix::sys::signal::Signal>()
        .map(|signal| signal as i32)
        .map_err(|_| Error::spec("signal", format!("{name:?} is no signal; write \"TERM\", \"SIGTERM\" or 15")))
}

/// `SIGRTMIN+3`, as the C library counts them: signal(7).
fn real_time(name: &str) -> Option<i32> {
    const FIRST: i32 = 34;
    const LAST: i32 = 64;
    let (base, rest) = match (name.strip_prefix("SIGRTMIN"), name.strip_prefix("SIGRTMAX")) {
        (Some(rest), _) => (FIRST, rest),
        (_, Some(rest)) => (LAST, rest),
        _ => return None,
    };
    let offset = if rest.is_empty() { 0 } else { rest.strip_prefix('+').unwrap_or(rest).parse::<i32>().ok()? };
    base.checked_add(offset).filter(|number| (FIRST..=LAST).contains(number))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_take_binary_units() {
        let size = |text| parse_size("memory", text).ok();
        assert_eq!(size("4096"), Some(4096));
        assert_eq!(size("64k"), Some(65536));
        assert_eq!(size("256M"), Some(256 << 20));
        assert_eq!(size("1.5g"), Some(3 << 29));
        assert_eq!(size("1GiB"), Some(1 << 30));
        for bad in ["", "k", "-1", "1x", "1e300g", "nan", "99999999999999999999"] {
            assert_eq!(size(bad), None, "{bad}");
        }
    }

    #[test]
    fn signals_go_by_name_or_number() {
        assert_eq!(parse_signal("TERM").unwrap(), 15);
        assert_eq!(parse_signal("SIGRTMIN+3").unwrap(), 37);
        assert_eq!(parse_signal("rtmax-1").unwrap(), 63);
        assert!(parse_signal("RTMIN+31").is_err() && parse_signal("RTMIN3x").is_err());
        assert_eq!(parse_signal("sigkill").unwrap(), 9);
        assert_eq!(parse_signal("64").unwrap(), 64);
        assert!(parse_signal("0").is_err());
        assert!(parse_signal("65").is_err());
        assert!(parse_signal("FOO").is_err());
    }

    #[test]
    fn rlimits_go_by_name() {
        assert_eq!(parse_rlimit_name("nofile").unwrap(), 7);
        assert_eq!(parse_rlimit_name("RLIMIT_CPU").unwrap(), 0);
        assert!(parse_rlimit_name("files").is_err());
    }
}
