//! Waiting until a container is ready for what it is there for.
#![forbid(unsafe_code)]

use std::time::{Duration, Instant};

use super::state::Phase;
use super::{Container, LogQuery};
use crate::error::{Error, Result};
use crate::process::Exec;

/// When a container is ready.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Ready {
    /// Something in its network namespace listens on this TCP port.
    Port(u16),
    /// A line with this in it has been written since its start.
    Line(String),
    /// This program, run in it, exits with 0.
    Command(Box<Exec>),
}

/// How long one look takes to come after the last.
const FIRST_PAUSE: Duration = Duration::from_millis(5);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);
/// Lines of the log in the error about a container that is not ready.
const TAIL: u64 = 10;

impl Container {
    /// Waits until it is ready.
    ///
    /// Errors: [`Error::State`] with the end of its log, if `timeout` is over first or it has ended; those of
    /// [`Container::exec`].
    pub fn wait_ready(&self, ready: &Ready, timeout: Duration) -> Result<()> {
        self.wait_ready_interruptible(ready, timeout, &mut || false)
    }

    /// As [`Container::wait_ready`]; `interrupted` is asked now and then, and ends the wait with [`Error::Interrupted`].
    pub fn wait_ready_interruptible(
        &self,
        ready: &Ready,
        timeout: Duration,
        interrupted: &mut dyn FnMut() -> bool,
    ) -> Result<()> {
        // None: further away than any clock goes.
        let deadline = Instant::now().checked_add(timeout);
        let left = || deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        let mut pause = FIRST_PAUSE;
        loop {
            let (_, phase) = self.phase()?;
            // A last look at one that has ended: its line may be there.
            if self.is_ready(ready, &phase, &left, interrupted)? {
                return Ok(());
            }
            match phase {
                Phase::Running(_) | Phase::Starting => {}
                Phase::Created => return Err(self.not_running("wait for")),
                Phase::Ended(_) => return Err(self.not_ready("it has ended", ready)),
            }
            if left() == Some(Duration::ZERO) {
                return Err(self.not_ready(&format!("{timeout:?} are over"), ready));
            }
            if interrupted() {
                return Err(Error::Interrupted);
            }
            std::thread::sleep(left().map_or(pause, |left| pause.min(left)));
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    fn is_ready(
        &self,
        ready: &Ready,
        phase: &Phase,
        left: &dyn Fn() -> Option<Duration>,
        interrupted: &mut dyn FnMut() -> bool,
    ) -> Result<bool> {
        match (ready, phase) {
            (Ready::Port(port), Phase::Running(running)) if running.waiting.is_none() => {
                let listens = |name: &str| {
                    let text = std::fs::read_to_string(format!("/proc/{}/net/{name}", running.pid)).unwrap_or_default();
                    text.lines().any(|line| is_listening(line, *port))
                };
                Ok(listens("tcp") || listens("tcp6"))
            }
            (Ready::Line(part), Phase::Running(_) | Phase::Ended(_)) => {
                let query = LogQuery { since: self.started()?, ..LogQuery::default() };
                for line in self.logs(query)?.lines() {
                    if String::from_utf8_lossy(&line?.text).contains(part.as_str()) {
                        return Ok(true);
                    }
                }
                Ok(false)
            }
            (Ready::Command(exec), Phase::Running(_)) => {
                let process = match self.exec_interruptible(exec, interrupted) {
                    // It has ended meanwhile.
                    Err(Error::State(_)) => return Ok(false),
                    result => result?,
                };
                process.expect_no_questions()?;
                match process.wait_interruptible(left(), interrupted) {
                    Ok(Some(exit)) => Ok(exit.success()),
                    Ok(None) => {
                        process.kill()?;
                        process.wait(None)?;
                        Ok(false)
                    }
                    Err(error) => {
                        let _ = process.kill();
                        Err(error)
                    }
                }
            }
            _ => Ok(false),
        }
    }

    fn not_ready(&self, why: &str, ready: &Ready) -> Error {
        let what = match ready {
            Ready::Port(port) => format!("nothing listens on port {port}"),
            Ready::Line(part) => format!("no line has {part:?} in it"),
            Ready::Command(_) => "its command did not succeed".to_owned(),
        };
        let tail = self.logs(LogQuery { tail: Some(TAIL), ..LogQuery::default() }).map(|logs| {
            let lines = logs.lines().filter_map(|line| line.ok());
            lines.map(|line| format!("\n  {}", String::from_utf8_lossy(&line.text))).collect::<String>()
        });
        let tail = tail.unwrap_or_default();
        let tail =
            if tail.is_empty() { "; it has written nothing".to_owned() } else { format!("; it wrote last:{tail}") };
        Error::State(format!("container {} is not ready: {what}, and {why}{tail}", self.short_id()))
    }
}

/// A line of `/proc/net/tcp` about a socket that listens: <https://docs.kernel.org/networking/proc_net_tcp.html>
fn is_listening(line: &str, port: u16) -> bool {
    let mut words = line.split_ascii_whitespace().skip(1);
    let local = words.next().and_then(|word| word.rsplit_once(':'));
    let state = words.nth(1);
    let number = local.and_then(|(_, number)| u16::from_str_radix(number, 16).ok());
    state == Some("0A") && number == Some(port)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_that_listens_is_told_from_others() {
        let line = "   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1 0";
        assert!(is_listening(line, 8080) && !is_listening(line, 8081));
        assert!(!is_listening(&line.replace(" 0A ", " 01 "), 8080));
        assert!(!is_listening("  sl  local_address rem_address   st tx_queue", 8080));
        assert!(is_listening("0: 00000000000000000000000000000000:0050 x:0 0A", 80));
    }
}
