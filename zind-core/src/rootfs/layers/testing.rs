//! What the tests of layers share.
#![forbid(unsafe_code)]

use std::path::PathBuf;

use super::{Change, Layers};

pub(super) struct Place(pub(super) PathBuf);

impl Place {
    pub(super) fn new(name: &str) -> Place {
        let dir = std::env::temp_dir().join(format!("zind-test-layers-{name}-{}", std::process::id()));
        std::fs::create_dir_all(dir.join("base")).unwrap();
        std::fs::write(dir.join("base/file"), "base").unwrap();
        Place(dir)
    }

    pub(super) fn layers(&self) -> Layers {
        Layers::create(self.0.join("layers"), [self.0.join("base")]).unwrap()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).unwrap();
    }
}

pub(super) fn write(layers: &Layers, name: &str, content: &str) {
    std::fs::write(layers.upper().unwrap().join(name), content).unwrap();
}

pub(super) fn changes(layers: &Layers, since: Option<&str>) -> Vec<(&'static str, String)> {
    let text = |change: Change| (change.kind.name(), change.path.to_string_lossy().into_owned());
    layers.diff(since).unwrap().into_iter().map(text).collect()
}

pub(super) fn entries(layers: &Layers) -> Vec<String> {
    let name = |entry: std::io::Result<std::fs::DirEntry>| entry.unwrap().file_name().into_string().unwrap();
    let mut names: Vec<String> = std::fs::read_dir(layers.dir()).unwrap().map(name).collect();
    names.sort();
    names
}
