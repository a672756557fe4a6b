//! `zind top`, `zind stats`
#![forbid(unsafe_code)]

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use clap::{ArgMatches, Command};
use serde_json::{Value, json};
use zind_core::container::Filter;
use zind_core::{Container, Stats};

use super::find;
use crate::Context;
use crate::arguments::{Given, format, switch, words};
use crate::failure::Result;
use crate::table::{Format, Table, json as write_json, print};
use crate::terminal;
use crate::text::{binary_size, size};

pub fn top_arguments(command: Command) -> Command {
    command.arg(format()).arg(words("name", "CONTAINER", 1).help("Name, id or the beginning of one"))
}

/// What runs in it.
pub fn top(given: &ArgMatches, context: &Context) -> Result {
    let format = Format::of(given)?;
    let processes = find(context, given.text("name").unwrap_or_default())?.processes()?;
    if format == Format::Json {
        write_json(&Value::Array(processes.iter().map(|process| process.to_json()).collect()))?;
        return Ok(0);
    }
    let mut table = Table::new(&["UID", ">PID", ">PPID", ">INSIDE", "S", ">RSS", ">CPU", "COMMAND"]);
    for process in processes {
        let words: Vec<String> = process.cmdline.iter().map(|word| word.to_string_lossy().into_owned()).collect();
        let name = format!("[{}]", process.name.to_string_lossy());
        table.row([
            process.uid.to_string(),
            process.pid.to_string(),
            process.ppid.to_string(),
            process.container_pid.to_string(),
            process.state.to_string(),
            binary_size(process.rss),
            format!("{:.2}s", process.cpu.as_secs_f64()),
            if words.is_empty() { name } else { words.join(" ") },
        ]);
    }
    table.print().map(|()| 0)
}

pub fn stats_arguments(command: Command) -> Command {
    command
        .arg(switch("no-stream", "Once, and not every second"))
        .arg(switch("all", "Accepted for habit: what does not run uses nothing").short('a').hide(true))
        .arg(format())
        .arg(words("names", "CONTAINER", 0..).help("All that run, without one"))
}

/// A container with what it has used so far.
struct Reading {
    container: Container,
    stats: Stats,
    at: Instant,
}

/// Every second, until there is nothing to show any more.
pub fn stats(given: &ArgMatches, context: &Context) -> Result {
    let format = Format::of(given)?;
    let once = given.is_on("no-stream") || format == Format::Json;
    let containers = context.containers()?;
    let names = given.texts("names");
    let chosen = match names.is_empty() {
        true => containers.list(&Filter::default())?,
        false => names.iter().map(|name| Ok(containers.find(name)?)).collect::<Result<Vec<_>>>()?,
    };
    let read = |container: Container| -> Result<Reading> {
        let stats = container.stats()?;
        Ok(Reading { container, stats, at: Instant::now() })
    };
    let mut before = chosen.into_iter().map(read).collect::<Result<Vec<_>>>()?;
    let redraws = std::io::stdout().is_terminal() && !once;
    loop {
        std::thread::sleep(if once { Duration::from_millis(200) } else { Duration::from_secs(1) });
        // Whoever has ended meanwhile is left out.
        let now: Vec<Reading> = before.iter().filter_map(|one| read(one.container.clone()).ok()).collect();
        let rows: Vec<(String, f64, &Reading)> = now
            .iter()
            .map(|one| {
                let earlier = before.iter().find(|other| other.container.id() == one.container.id());
                let name = one.container.name().ok().flatten();
                let name = name.unwrap_or_else(|| one.container.short_id().to_owned());
                (name, earlier.map_or(0.0, |earlier| share(earlier, one)), one)
            })
            .collect();
        if format == Format::Json {
            write_json(&Value::Array(rows.iter().map(|(name, cpu, one)| object(name, *cpu, one)).collect()))?;
            return Ok(0);
        }
        let text = table(&rows).text(terminal::width());
        print(&if redraws { format!("\x1b[H\x1b[J{text}") } else { text })?;
        if once || now.is_empty() {
            return Ok(0);
        }
        before = now;
    }
}

fn cpu(stats: &Stats) -> Option<Duration> {
    Some(stats.cpu_user? + stats.cpu_system?)
}

/// CPU time per second between two readings, in hundredths of one CPU.
fn share(before: &Reading, now: &Reading) -> f64 {
    let used = cpu(&now.stats).zip(cpu(&before.stats)).map(|(now, before)| now.saturating_sub(before));
    let wall = now.at.duration_since(before.at).as_secs_f64();
    used.map_or(0.0, |used| if wall > 0.0 { used.as_secs_f64() / wall * 100.0 } else { 0.0 })
}

fn io(stats: &Stats) -> Option<(u64, u64)> {
    let disks = stats.io.as_ref()?;
    Some((disks.iter().map(|disk| disk.read_bytes).sum(), disks.iter().map(|disk| disk.write_bytes).sum()))
}

fn table(rows: &[(String, f64, &Reading)]) -> Table {
    let mut table = Table::new(&["CONTAINER ID", "NAME", ">CPU %", ">MEM USAGE", ">LIMIT", ">BLOCK I/O", ">PIDS"]);
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    for (name, share, one) in rows {
        let stats = &one.stats;
        table.row([
            one.container.short_id().to_owned(),
            name.clone(),
            or_dash(cpu(stats).map(|_| format!("{share:.2}%"))),
            or_dash(stats.memory_current.map(binary_size)),
            or_dash(stats.memory_limit.map(binary_size)),
            or_dash(io(stats).map(|(read, written)| format!("{} / {}", size(read), size(written)))),
            or_dash(stats.pids.map(|count| count.to_string())),
        ]);
    }
    table
}

fn object(name: &str, share: f64, one: &Reading) -> Value {
    let stats = &one.stats;
    json!({
        "id": one.container.id(),
        "name": name,
        "cpu_percent": share,
        "cpu": cpu(stats).map(|time| time.as_secs_f64()),
        "memory": stats.memory_current,
        "memory_limit": stats.memory_limit,
        "pids": stats.pids,
        "read_bytes": io(stats).map(|(read, _)| read),
        "write_bytes": io(stats).map(|(_, written)| written),
    })
}
