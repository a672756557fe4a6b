//! The table of limits in the documents is that of the code.
#![allow(missing_docs)]

use zind_core::cgroup::limits;

#[test]
fn every_limit_is_in_the_table_with_its_files_and_unit() {
    let document = include_str!("../../docs/limits.md");
    let code = |file: &str| if file.is_empty() { "–".to_owned() } else { format!("`{file}`") };
    let missing: Vec<String> = limits()
        .iter()
        .map(|row| format!("| `{}` | {} | {} | {} |", row.option, row.unit, code(row.v2), code(row.v1)))
        .filter(|line| !document.contains(line.as_str()))
        .collect();
    assert!(missing.is_empty(), "docs/limits.md lacks:\n{}", missing.join("\n"));
}
