//! Runs a program in a container, and looks at what came of it.

use std::time::Duration;

use zind_core::{Command, ExitKind};

fn main() -> Result<(), zind_core::Error> {
    let script = "echo hello from $(hostname), I am $(id -un); touch /usr/mine; ls /home";
    let output = Command::new("sh").args(["-c", script]).timeout(Duration::from_secs(10)).output()?;
    let text = String::from_utf8_lossy(&output.stdout.to_vec()).into_owned();
    print!("{text}");
    println!("{:?} in {:?}", output.exit, output.stats.wall);
    println!("{:?}", output.isolation.in_force());

    assert_eq!(text, "hello from zind, I am root\n");
    assert!(output.exit.success() && output.exit.kind == ExitKind::Exited);
    assert!(!std::path::Path::new("/usr/mine").exists());

    // What cannot be started is an error that names the step, the object, the errno and what to do.
    let error = Command::new("no-such-program").output().expect_err("there is no such program");
    println!("{error}");
    assert_eq!(error.errno(), Some(zind_core::Errno::ENOENT));
    Ok(())
}
