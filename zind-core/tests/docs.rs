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

/// Those that docs/attacks.md has to have a row for.
const ATTACKS: &str = "
CVE-2015-1331 CVE-2015-1334 CVE-2015-1335 CVE-2015-8660 CVE-2016-3697 CVE-2016-8649 CVE-2016-8659 CVE-2016-9962 CVE-2016-10124 CVE-2017-5226
CVE-2017-5985 CVE-2018-6556 CVE-2019-5736 CVE-2019-10152 CVE-2019-12439 CVE-2019-14271 CVE-2019-16884 CVE-2019-18466 CVE-2019-18837
CVE-2019-19921 CVE-2020-5291 CVE-2020-10696 CVE-2020-14386 CVE-2020-15257 CVE-2021-3493 CVE-2021-20291 CVE-2021-22555 CVE-2021-29136
CVE-2021-30465 CVE-2021-32760 CVE-2021-41091 CVE-2021-41103 CVE-2021-43784 CVE-2022-0185 CVE-2022-0492 CVE-2022-1227 CVE-2022-23648
CVE-2022-47952 CVE-2023-0386 CVE-2023-2640 CVE-2023-25153 CVE-2023-25173 CVE-2023-25809 CVE-2023-27561 CVE-2023-28642 CVE-2023-32233
CVE-2024-1086 CVE-2024-1753 CVE-2024-3056 CVE-2024-9341 CVE-2024-9407 CVE-2024-9675 CVE-2024-9676 CVE-2024-11218 CVE-2024-21626
CVE-2024-23651 CVE-2024-23652 CVE-2024-23653 CVE-2024-25621 CVE-2024-40635 CVE-2024-45310 CVE-2025-4953 CVE-2025-9566 CVE-2025-24965
CVE-2025-31133 CVE-2025-47290 CVE-2025-47291 CVE-2025-52565 CVE-2025-52881 CVE-2025-54867 CVE-2025-62161 CVE-2025-62596 CVE-2026-24054
CVE-2026-31431 CVE-2026-39402 CVE-2026-40226 CVE-2026-41163 CVE-2026-41567 CVE-2026-43284 CVE-2026-43500 CVE-2026-44517 CVE-2026-46300
CVE-2026-46680 CVE-2026-48749 CVE-2026-48752 CVE-2026-50163 CVE-2026-53362 CVE-2026-53489 CVE-2026-55686 CVE-2026-88264 CVE-2026-88265
GHSA-6fw5-f8r9-fgfm GHSA-jq35-85cj-fj4p";

/// The rows of docs/attacks.md, cell by cell.
fn attacks() -> Vec<Vec<&'static str>> {
    include_str!("../../docs/attacks.md")
        .lines()
        .filter(|line| line.starts_with("| ") && !line.starts_with("| ---") && !line.starts_with("| attack "))
        .map(|line| line.trim_matches('|').split('|').map(str::trim).collect())
        .collect()
}

/// The tests that a cell names: file and function.
fn named(cell: &str) -> impl Iterator<Item = (&str, &str)> {
    cell.split('`').filter_map(|part| part.split_once("::"))
}

#[test]
fn every_attack_is_carried_out_in_a_virtual_machine() {
    let (listed, _) = include_str!("../../zind-py/tests/vm/attacks.py").split_once("ROOT = ").unwrap();
    let names: Vec<&str> =
        listed.split(|c: char| c.is_whitespace() || c == '"').filter_map(|word| word.split('[').next()).collect();
    let rows = attacks();
    assert!(rows.len() > 50);
    for row in &rows {
        let is_there =
            named(row[3]).any(|(file, name)| names.contains(&name) && names.contains(&file.trim_end_matches(".py")));
        assert!(is_there, "zind-py/tests/vm/attacks.py has no test of {row:?}");
    }
}

#[test]
fn every_attack_has_tests_that_are_there() {
    let top = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let text_of = |file: &str| {
        let path = if file.starts_with("zind-core/") { top.join(file) } else { top.join("zind-py/tests").join(file) };
        std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    };
    let rows = attacks();
    for row in &rows {
        assert_eq!(row.len(), 5, "{row:?}");
        assert!(row[3].contains("::") && row.iter().all(|cell| !cell.is_empty()), "{row:?}");
        let mut sources = String::new();
        for (file, name) in row[3..].iter().flat_map(|cell| named(cell)) {
            let text = text_of(file);
            let definition = if file.ends_with(".rs") { format!("fn {name}()") } else { format!("def {name}(") };
            assert!(text.contains(&definition), "{file} has no test {name}");
            sources += &text;
        }
        for attack in row[0].split(", ").filter(|attack| attack.contains('-')) {
            assert!(sources.contains(attack), "no test of {row:?} names {attack}");
        }
    }
    let known: Vec<&str> = rows.iter().flat_map(|row| row[0].split(", ")).collect();
    for attack in ATTACKS.split_whitespace() {
        assert_eq!(known.iter().filter(|known| **known == attack).count(), 1, "{attack} in docs/attacks.md");
    }
}
