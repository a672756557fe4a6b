//! A container that goes on without who started it, and how it is met again.
use std::time::Duration;

use zind_core::container::{LogQuery, State};
use zind_core::{Container, Containers, Restart, Spec};

fn main() -> Result<(), zind_core::Error> {
    let dir = std::env::temp_dir().join(format!("zind-living-example-{}", std::process::id()));
    let containers = Containers::open(Some(&dir))?;
    let mut spec = Spec::new(["sh", "-c", "echo here; exec sleep 0.2"]);
    spec.die_with_owner = false;
    let container = Container::builder(spec)
        .containers(&containers)
        .name("example")
        .restart(Restart::parse("on-failure:2")?)
        .create()?;
    container.start()?;

    // Another program would find it by its name, too.
    let found = containers.find("example")?;
    assert_eq!(found.state()?, State::Running);
    println!("{} runs as {:?}", found.short_id(), found.pid()?);
    println!("{:?}", found.wait(Some(Duration::from_secs(10)))?);
    found.start()?;
    println!("{:?}", found.wait(Some(Duration::from_secs(10)))?);
    for line in found.logs(LogQuery::default())?.lines() {
        println!("{}", String::from_utf8_lossy(&line?.text));
    }
    found.delete(true)?;
    std::fs::remove_dir_all(&dir).map_err(|_| zind_core::Error::Interrupted)
}
