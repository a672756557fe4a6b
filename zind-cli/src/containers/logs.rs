//! `zind logs`
#![forbid(unsafe_code)]

use std::io::Write;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::{ArgMatches, Command};
use zind_core::container::{LogQuery, Stream};

use super::find;
use crate::Context;
use crate::arguments::{Given, number, switch, words};
use crate::failure::{Failure, Result};
use crate::text::{parse_duration, rfc3339, unix_time};

pub fn arguments(command: Command) -> Command {
    command
        .arg(switch("follow", "Go on until it has ended").short('f'))
        .arg(number("tail", "NUMBER", "Only the last lines; all without it").short('n'))
        .arg(number("since", "TIME", "From then on: a date (2026-11-25T12:00:00Z), or how long ago (10m)"))
        .arg(number("until", "TIME", "Until then"))
        .arg(switch("timestamps", "With times").short('t'))
        .arg(words("name", "CONTAINER", 1).help("Name, id or the beginning of one"))
}

pub fn run(given: &ArgMatches, context: &Context) -> Result {
    let container = find(context, given.text("name").unwrap_or_default())?;
    let tail = match given.text("tail") {
        None | Some("all") => None,
        Some(text) => Some(text.parse().map_err(|_| {
            Failure::new(format!("logs: --tail: {text:?} is no number of lines")).hint("write a number, or all")
        })?),
    };
    let mut query = LogQuery { follow: given.is_on("follow"), tail, ..LogQuery::default() };
    query.since = given.text("since").map(|text| time("--since", text)).transpose()?;
    query.until = given.text("until").map(|text| time("--until", text)).transpose()?;
    let logs = container.logs(query)?;
    if given.is_on("timestamps") {
        for line in logs.lines() {
            let line = line?;
            tell_lost(line.lost);
            if line.text.is_empty() && !line.is_whole {
                continue;
            }
            let mut text = format!("{} ", precise(line.time)).into_bytes();
            text.extend(line.text);
            text.push(b'\n');
            write(line.stream, &text)?;
        }
        return Ok(0);
    }
    for record in logs {
        let record = record?;
        tell_lost(record.lost);
        write(record.stream, &record.bytes)?;
    }
    Ok(0)
}

fn tell_lost(bytes: u64) {
    if bytes > 0 {
        eprintln!("zind: {bytes} bytes of output were lost here");
    }
}

fn write(stream: Stream, bytes: &[u8]) -> Result<()> {
    match stream {
        Stream::Stderr => std::io::stderr().lock().write_all(bytes)?,
        _ => {
            let mut out = std::io::stdout().lock();
            out.write_all(bytes)?;
            out.flush()?;
        }
    }
    Ok(())
}

/// With nanoseconds, so that times sort.
fn precise(time: SystemTime) -> String {
    let nanoseconds = time.duration_since(UNIX_EPOCH).unwrap_or_default().subsec_nanos();
    format!("{}.{nanoseconds:09}Z", rfc3339(time).trim_end_matches('Z'))
}

/// A date, seconds since 1970, or how long ago.
fn time(option: &str, text: &str) -> Result<SystemTime> {
    let after = |seconds: u64| UNIX_EPOCH + Duration::from_secs(seconds);
    if let Some(seconds) = unix_time(text).and_then(|seconds| u64::try_from(seconds).ok()) {
        return Ok(after(seconds));
    }
    if let Ok(seconds) = text.parse::<u64>() {
        return Ok(after(seconds.min(1 << 40)));
    }
    let ago = parse_duration(option, text).map_err(|failure| {
        failure.hint("write 2026-11-25T12:00:00Z, seconds since 1970, or how long ago: 10m, 1h30m")
    })?;
    Ok(SystemTime::now().checked_sub(ago).unwrap_or(UNIX_EPOCH))
}
