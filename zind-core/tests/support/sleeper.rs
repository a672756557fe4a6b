//! A container that sleeps, and programs that are run in it.

use zind_core::{Command, Exec, Process, Stdio};

use crate::support::Traces;

pub fn sleeper() -> Process {
    let mut command = Command::new("sleep");
    command.arg("600").stdin(Stdio::Null);
    command.spawn().unwrap()
}

/// What zind keeps for good is made before somebody looks.
pub fn traces() -> Traces {
    Command::new("true").status().unwrap();
    Traces::now()
}

pub fn exec(argv: &[&str]) -> Exec {
    let mut exec = Exec::new(argv.iter().copied());
    (exec.stdin, exec.stdout, exec.stderr) = (Stdio::Null, Stdio::Pipe, Stdio::Stdout);
    exec
}

pub fn output(container: &Process, exec: &Exec) -> String {
    let output = container.exec(exec).unwrap().communicate(Vec::new(), &mut || false).unwrap();
    String::from_utf8_lossy(&output.stdout.to_vec()).into_owned()
}

pub fn end(container: &Process) {
    container.kill().unwrap();
    container.wait(None).unwrap();
}
