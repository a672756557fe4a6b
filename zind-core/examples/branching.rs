//! Tries two ways on from one state of a root, and looks at what each changed.
//!
//! Needs busybox (the package busybox-static) for a root of a few files; any directory with a root file system will do.

use std::path::Path;

use zind_core::{Command, CopyOptions, Error, Layers};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let place = std::env::temp_dir().join(format!("zind-example-{}", std::process::id()));
    let result = branch(&place);
    std::fs::remove_dir_all(&place)?;
    Ok(result?)
}

fn branch(place: &Path) -> Result<(), Error> {
    let base = place.join("base");
    tiny_root(&base).expect("busybox is there, and the temporary directory can be written to");
    let work = Layers::create(place.join("work"), [base])?;
    let sh = |script: &str| Command::new("sh").args(["-c", script]).rootfs_layers(&work).output();
    sh("echo prepared > /srv/data")?;
    work.snapshot("prepared")?;
    for attempt in ["echo more >> /srv/data", "rm -r /srv"] {
        sh(attempt)?;
        for change in work.diff(Some("prepared"))? {
            println!("{attempt}: {} {}", change.kind.name(), change.path.display());
        }
        work.restore("prepared")?;
    }

    // What is in there comes out while a container runs, and never through a link that leads elsewhere.
    let process = Command::new("sh").args(["-c", "sleep 100"]).rootfs_layers(&work).spawn()?;
    process.copy_out("/srv/data", place.join("data"), &CopyOptions::new())?;
    process.kill()?;
    process.wait(None)?;
    assert_eq!(std::fs::read_to_string(place.join("data")).ok().as_deref(), Some("prepared\n"));
    work.delete()
}

fn tiny_root(root: &Path) -> std::io::Result<()> {
    for name in ["bin", "dev", "proc", "sys", "tmp", "srv"] {
        std::fs::create_dir_all(root.join(name))?;
    }
    std::fs::copy("/bin/busybox", root.join("bin/busybox"))?;
    for name in ["sh", "rm", "sleep"] {
        std::os::unix::fs::symlink("busybox", root.join("bin").join(name))?;
    }
    Ok(())
}
