//! Runs a program in a container and shows what is isolated.

use zind_core::Command;

fn main() -> Result<(), zind_core::Error> {
    let script = "id -u; hostname; ls / /home /root; ls /proc | grep -c '^[0-9]'; rm -rf /usr/share; ls /usr";
    let output = Command::new("sh").args(["-c", script]).output()?;
    print!("{}", String::from_utf8_lossy(&output.stdout.to_vec()));
    eprint!("{}", String::from_utf8_lossy(&output.stderr.to_vec()));
    println!("{:?} in {:?}; in force: {:?}", output.exit, output.stats.wall, output.isolation.in_force());
    Ok(())
}
