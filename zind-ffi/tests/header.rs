//! The committed header is the one that the sources make. To renew it:
//! `ZIND_UPDATE_HEADER=1 cargo test -p zind-ffi header`.

use std::path::Path;

const HEADER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../include/zind.h");

fn generated() -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut config = cbindgen::Config::from_file(root.join("cbindgen.toml")).expect("cbindgen.toml can be read");
    config.after_includes = config.after_includes.map(|text| text.replace("@VERSION@", env!("CARGO_PKG_VERSION")));
    let bindings = cbindgen::generate_with_config(root, config).expect("the sources can be read");
    let mut text = Vec::new();
    bindings.write(&mut text);
    tidy(&String::from_utf8(text).expect("the header is UTF-8"))
}

/// Comments as C programmers write them, handles by their typedef names, no double blank lines.
fn tidy(text: &str) -> String {
    let (mut out, mut comment) = (String::new(), None::<Vec<&str>>);
    let (top, body) = text.split_once("#ifndef").expect("there is an include guard");
    out.push_str(top.trim());
    out.push_str("\n#ifndef");
    for line in body.lines() {
        let indent = &line[..line.len() - line.trim_start().len()];
        match (&mut comment, line.trim()) {
            (None, "/*") => comment = Some(Vec::new()),
            (Some(lines), "*/") => {
                let indent = if indent.len() > 1 { "    " } else { "" };
                out.push_str(&format!("{indent}/* {} */\n", lines.join(&format!("\n{indent} * "))));
                comment = None;
            }
            (Some(lines), text) => lines.push(text),
            (None, "") if out.ends_with("\n\n") => {}
            (None, _) if line.starts_with("typedef") || line.starts_with("struct") => {
                out.push_str(&format!("{line}\n"))
            }
            (None, _) => out.push_str(&format!("{}\n", line.replace("struct zind_", "zind_"))),
        }
    }
    out
}

#[test]
fn header_is_the_one_the_sources_make() {
    let generated = generated();
    if std::env::var_os("ZIND_UPDATE_HEADER").is_some() {
        std::fs::write(HEADER, &generated).expect("include/zind.h can be written");
    }
    let committed = std::fs::read_to_string(HEADER).unwrap_or_default();
    assert!(
        generated == committed,
        "include/zind.h is stale; renew it by: ZIND_UPDATE_HEADER=1 cargo test -p zind-ffi header"
    );
}
