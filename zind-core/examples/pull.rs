//! Takes an image from a registry into a store, with a bar for each layer; Ctrl-C stops it, and the next call goes on.
//!
//! `cargo run --example pull -- NAME [STORE]`

use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use zind_core::{Error, Progress, ProgressEvent, PullOptions, PullPolicy, Store};

static STOP: AtomicBool = AtomicBool::new(false);

extern "C" fn stop(_: i32) {
    STOP.store(true, Ordering::Relaxed);
}

/// One line per layer, drawn anew at each event.
#[derive(Default)]
struct Bars {
    lines: BTreeMap<usize, String>,
    drawn: usize,
}

impl Progress for Bars {
    fn step(&mut self, event: &ProgressEvent<'_>) {
        let (Some((layer, _)), Some(total), true) = (event.layer, event.total, std::io::stderr().is_terminal()) else {
            return;
        };
        let full = (event.done * 30 / total.max(1)) as usize;
        let bar = format!("{}{}", "#".repeat(full), ".".repeat(30 - full.min(30)));
        let digest = event.digest.map(|digest| digest.short()).unwrap_or_default();
        let mega = |bytes: u64| bytes as f64 / 1e6;
        let line = format!("{digest} {:9} [{bar}] {:.1}/{:.1} MB", event.kind.name(), mega(event.done), mega(total));
        self.lines.insert(layer, line);
        let mut text = if self.drawn > 0 { format!("\x1b[{}A", self.drawn) } else { String::new() };
        self.lines.values().for_each(|line| text += &format!("\r\x1b[K{line}\n"));
        self.drawn = self.lines.len();
        // Who does not see the bars gets the image all the same.
        let _ = std::io::stderr().write_all(text.as_bytes());
    }

    fn interrupted(&mut self) -> bool {
        STOP.load(Ordering::Relaxed)
    }
}

fn pull(name: &str, place: Option<PathBuf>) -> Result<(), Error> {
    let store = Store::open(place)?;
    let mut options = PullOptions::default();
    options.policy = PullPolicy::Always;
    let image = store.pull(name, &options, &mut Bars::default())?;
    println!("{} {} {:.1} MB", image.digest(), image.tags().join(" "), image.size() as f64 / 1e6);
    Ok(())
}

fn main() -> ExitCode {
    let action = SigAction::new(SigHandler::Handler(stop), SaFlags::SA_RESTART, SigSet::empty());
    // SAFETY: the handler only stores into an atomic.
    let handled = unsafe { sigaction(Signal::SIGINT, &action) };
    let mut arguments = std::env::args().skip(1);
    let (Some(name), true) = (arguments.next(), handled.is_ok()) else {
        eprintln!("usage: pull NAME [STORE]");
        return ExitCode::from(2);
    };
    match pull(&name, arguments.next().map(PathBuf::from)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Error::Interrupted) => {
            eprintln!("interrupted; what has come is kept for the next call");
            ExitCode::from(130)
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
