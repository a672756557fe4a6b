//! Takes archives into a store and unpacks their images: `images PLACE load|import|lowers|list|save|gc|verify ARGUMENT...`

use std::path::{Path, PathBuf};

use zind_core::{ArchiveFormat, Error, ImageConfig, Owners, Store};

fn main() -> Result<(), Error> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let Some((place, rest)) = arguments.split_first() else { return Err(usage()) };
    let store = Store::open(Some(PathBuf::from(place)))?;
    match rest {
        ["load", file] => store.load(Path::new(file), &mut ())?.iter().for_each(|image| println!("{image:?}")),
        ["import", file, tag] => {
            println!("{:?}", store.import_rootfs(Path::new(file), Some(tag), ImageConfig::new(), &mut ())?);
        }
        ["lowers", name] => {
            for lower in store.lowers(&store.image(name)?, &Owners::of_caller(), &mut ())? {
                println!("{}", lower.display());
            }
        }
        ["list"] => {
            for image in store.images()? {
                println!("{} {:?} {} {} bytes", image.id().short(), image.tags(), image.platform(), image.size());
            }
        }
        ["save", name, file] => {
            store.save(&[store.image(name)?], Path::new(file), ArchiveFormat::OciArchive, &mut ())?;
        }
        ["remove", name] => store.remove(name)?,
        ["gc"] => println!("{:?}", store.gc()?),
        ["verify"] => store.verify(&mut ())?.iter().for_each(|fault| println!("{fault:?}")),
        _ => return Err(usage()),
    }
    Ok(())
}

fn usage() -> Error {
    Error::State("usage: images PLACE load|import|lowers|list|save|remove|gc|verify ARGUMENT...".to_owned())
}
