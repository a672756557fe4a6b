//! All tests of a program once more as an ordinary user.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

/// Runs them, if root runs them. The caller has its descriptors and children to itself.
pub fn run_all_as_an_ordinary_user() {
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let dir = std::env::temp_dir().join(format!("zind-test-user-{}", std::process::id()));
    fs::create_dir_all(&dir).unwrap();
    let binary = dir.join("tests");
    fs::copy(std::env::current_exe().unwrap(), &binary).unwrap();
    for path in [&dir, &binary] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    let mut user = std::process::Command::new("setpriv");
    user.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all"]).arg(&binary).current_dir("/");
    let output = user.output().unwrap();
    fs::remove_dir_all(&dir).unwrap();
    let all = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && all.contains("0 failed"), "{all}");
}
