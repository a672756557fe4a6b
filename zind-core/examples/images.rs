//! An image from nothing but busybox: built, run, changed, committed and saved. `cargo run --example images [NAME]` pulls one.

use std::path::Path;

use zind_core::{
    ArchiveFormat, Builder, Command, CommitOptions, Error, IdMaps, Image, Layers, Progress, ProgressEvent, PullOptions,
    Store,
};

/// A line for each piece of work that has come to its end.
struct Lines;

impl Progress for Lines {
    fn step(&mut self, event: &ProgressEvent<'_>) {
        if Some(event.done) == event.total {
            eprintln!("{} {:?}: {} bytes", event.kind.name(), event.layer, event.done);
        }
    }
}

fn says(image: &Image) -> Result<String, Error> {
    let output = Command::of_image(image).output()?;
    Ok(String::from_utf8_lossy(&output.stdout.to_vec()).trim().to_owned())
}

fn build(store: &Store, place: &Path) -> Result<(), Error> {
    let mut builder = Builder::new(store);
    builder
        .copy("/usr/bin/busybox", "/bin/busybox")
        .run(["/bin/busybox", "sh", "-c", "/bin/busybox ln -s busybox /bin/sh; /bin/busybox ln -s busybox /bin/cat"])
        .run(["sh", "-c", "echo hello > /greeting"])
        .cmd(["cat", "/greeting"]);
    let built = builder.commit(&CommitOptions::new().tag("local/greeter:1"), &mut Lines)?;
    println!("{:?} says {}", built.image, says(&built.image)?);
    let again = builder.commit(&CommitOptions::new(), &mut ())?;
    println!("again: {:?}", again.steps.iter().map(|step| step.cached).collect::<Vec<_>>());

    let layers = Layers::create_over(place.join("work"), &built.image, &IdMaps::ByPrivilege, &mut ())?;
    let mut command = Command::new("sh");
    command.args(["-c", "echo good night > /greeting"]).rootfs_layers(&layers).status()?;
    let changed = layers.commit(store, &CommitOptions::new().tag("local/greeter:2").message("later"), &mut Lines)?;
    println!("{:?} says {}", changed, says(&changed)?);
    layers.delete()?;
    store.save(&[built.image, changed], &place.join("greeter.tar"), ArchiveFormat::OciArchive, &mut Lines)
}

fn main() -> Result<(), Error> {
    if let Some(name) = std::env::args().nth(1) {
        let image = Store::open(None)?.pull(&name, &PullOptions::default(), &mut Lines)?;
        println!("{image:?}: {} bytes in {} layers", image.size(), image.layers()?.len());
        return Ok(());
    }
    let place = std::env::temp_dir().join(format!("zind-images-{}", std::process::id()));
    let result = Store::open(Some(place.join("store"))).and_then(|store| build(&store, &place));
    let _ = std::fs::remove_dir_all(&place);
    result
}
