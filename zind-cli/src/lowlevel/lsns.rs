//! `zind lsns`
#![forbid(unsafe_code)]

use std::collections::BTreeMap;

use clap::{Arg, ArgAction, ArgMatches, Command};
use serde_json::{Map, Value, json};
use zind_core::proc::Proc;
use zind_core::{Kind, Namespace, namespaces};

use super::of_util_linux;
use crate::Context;
use crate::arguments::{Given, list, optional, value, words};
use crate::failure::{Failure, Result};
use crate::table::{Table, json as write_json, print};
use crate::terminal;

/// A column: its name, whether it is a number, and what it is.
const COLUMNS: [(&str, bool, &str); 13] = [
    ("NS", true, "number of the namespace (inode)"),
    ("TYPE", false, "its kind"),
    ("PATH", false, "a path to it"),
    ("NPROCS", true, "number of processes in it"),
    ("PID", true, "lowest of them"),
    ("PPID", true, "parent of that"),
    ("COMMAND", false, "command line of that"),
    ("UID", true, "user of that"),
    ("USER", false, "name of that user"),
    ("NETNSID", true, "number by which this network namespace knows that one"),
    ("NSFS", false, "where it is mounted"),
    ("PNS", true, "number of the namespace above"),
    ("ONS", true, "number of the user namespace that owns it"),
];
const USUAL: [&str; 6] = ["NS", "TYPE", "NPROCS", "PID", "USER", "COMMAND"];
/// Those of network namespaces alone: `-t net`.
const OF_NET: [&str; 8] = ["NS", "TYPE", "NPROCS", "PID", "USER", "NETNSID", "NSFS", "COMMAND"];

pub fn arguments(command: Command) -> Command {
    let on = |name: &'static str, help: &'static str| Arg::new(name).long(name).help(help).action(ArgAction::SetTrue);
    let columns =
        COLUMNS.iter().fold("Columns:\n".to_owned(), |text, (name, _, what)| text + &format!("  {name:<8} {what}\n"));
    of_util_linux(command)
        .arg(on("json", "As JSON").short('J'))
        .arg(on("list", "As a list: so it is without --tree").short('l'))
        .arg(on("noheadings", "Without headings").short('n'))
        .arg(value("output", "COLUMNS", "These columns, separated by commas; +COLUMN adds one").short('o'))
        .arg(on("output-all", "All columns"))
        .arg(value("task", "PID", "Only the namespaces of this process").short('p'))
        .arg(on("raw", "Columns separated by one space, spaces in them as \\x20").short('r'))
        .arg(on("notruncate", "Do not cut columns").short('u'))
        .arg(on("nowrap", "Accepted: nothing is wrapped here").short('W'))
        .arg(list("type", "KIND", "Only mnt, net, ipc, user, pid, uts, cgroup or time").short('t'))
        .arg(
            optional(
                "tree",
                "RELATION",
                "As trees: by \"owner\" (without a value) or \"parent\"; or of each, its \"process\"",
            )
            .short('T')
            .overrides_with("list"),
        )
        .arg(words("namespace", "NAMESPACE", 0..=1).help("The processes of this namespace, by its number"))
        .after_help(columns)
}

pub fn run(given: &ArgMatches, _: &Context) -> Result {
    let tree = given.text("tree").map(Tree::of).transpose()?;
    let number = given.text("namespace").map(|text| number("namespace", text)).transpose()?;
    let all = chosen(given, number)?;
    let rows = match number {
        Some(_) => processes(&all),
        None => all.iter().map(row).collect(),
    };
    let rows = match tree {
        Some(tree) => tree.order(rows, number.is_some()),
        None => rows.into_iter().map(|row| (String::new(), row)).collect(),
    };
    let usual: &[&str] = match given.texts("type").as_slice() {
        _ if number.is_some() => &["PID", "PPID", "USER", "COMMAND"],
        ["net"] => &OF_NET,
        _ => &USUAL,
    };
    let columns = columns(given, usual)?;
    if given.get_flag("json") {
        let list = rows.iter().map(|(_, row)| object(row, &columns)).collect();
        write_json(&json!({ "namespaces": Value::Array(list) }))?;
        return Ok(0);
    }
    let is_bare = given.get_flag("noheadings");
    if given.get_flag("raw") {
        let mut text = if is_bare { String::new() } else { columns.join(" ") + "\n" };
        for (_, row) in &rows {
            let cells: Vec<String> = columns.iter().map(|column| row[column].replace(' ', "\\x20")).collect();
            text += &(cells.join(" ") + "\n");
        }
        print(&text)?;
        return Ok(0);
    }
    // The branches stand before the number, or, of processes, before the command.
    let branch = tree.map(|tree| if tree == Tree::Process || number.is_some() { "COMMAND" } else { "NS" });
    let is_number = |column: &&str| {
        branch != Some(*column) && COLUMNS.iter().any(|(name, is_number, _)| name == column && *is_number)
    };
    let headings: Vec<String> = columns
        .iter()
        .map(|column| if is_number(column) { format!(">{column}") } else { (*column).to_owned() })
        .collect();
    let headings: Vec<&str> = headings.iter().map(String::as_str).collect();
    let mut table = Table::new(&headings).gap(1);
    for (head, row) in &rows {
        let cell = |column: &&str| match branch {
            Some(own) if own == *column => format!("{head}{}", row[column]),
            _ => row[column].clone(),
        };
        table.row(columns.iter().map(cell));
    }
    let width = if given.get_flag("notruncate") { None } else { terminal::width() };
    let text = table.text(width);
    print(if is_bare { text.split_once('\n').map_or("", |(_, rest)| rest) } else { &text }).map(|()| 0)
}

/// What makes trees of the rows.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Tree {
    Owner,
    Parent,
    Process,
}

impl Tree {
    fn of(text: &str) -> Result<Tree> {
        match text {
            "" | "owner" => Ok(Tree::Owner),
            "parent" => Ok(Tree::Parent),
            "process" => Ok(Tree::Process),
            _ => Err(Failure::new(format!("lsns: --tree: {text:?} is no relation"))
                .hint("it is one of owner, parent, process")),
        }
    }

    /// Each row below that which it belongs to, with the branch that stands before it.
    fn order(self, rows: Vec<Row>, are_processes: bool) -> Vec<(String, Row)> {
        let (own, above) = match self {
            _ if are_processes => ("PID", "PPID"),
            Tree::Owner => ("NS", "ONS"),
            Tree::Parent => ("NS", "PNS"),
            Tree::Process => ("PID", "PPID"),
        };
        let is_of = |row: &Row, other: &Row| row[above] == other[own] && row[own] != other[own];
        let is_top = |row: &&Row| row[above].is_empty() || !rows.iter().any(|other| is_of(row, other));
        let mut ordered = Vec::new();
        // Topmost last: what waits is taken from the end.
        let mut waiting: Vec<(String, String, &Row)> =
            rows.iter().filter(is_top).rev().map(|row| (String::new(), String::new(), row)).collect();
        while let Some((head, below, row)) = waiting.pop() {
            let children: Vec<&Row> =
                rows.iter().filter(|other| !other[above].is_empty() && is_of(other, row)).collect();
            let last = children.len().saturating_sub(1);
            for (index, child) in children.into_iter().enumerate().rev() {
                let (branch, on) = if index == last { ("└─", "  ") } else { ("├─", "│ ") };
                waiting.push((format!("{below}{branch}"), format!("{below}{on}"), child));
            }
            ordered.push((head, row.clone()));
            // Numbers that lead in a circle cannot be: a namespace is younger than what is above it.
            if ordered.len() > rows.len() {
                break;
            }
        }
        ordered
    }
}

fn number(what: &str, text: &str) -> Result<u64> {
    text.parse().map_err(|_| Failure::new(format!("lsns: {what}: {text:?} is no number")))
}

/// The namespaces that were asked for, by number.
fn chosen(given: &ArgMatches, number_wanted: Option<u64>) -> Result<Vec<Namespace>> {
    let kinds = given.texts("type");
    let kinds = kinds.iter().flat_map(|text| text.split(',')).map(|name| {
        Kind::from_name(name).ok_or_else(|| {
            let valid: Vec<&str> = Kind::ALL.iter().map(|kind| kind.name()).collect();
            Failure::new(format!("lsns: --type: there is no kind {name:?}"))
                .hint(format!("it is one of {}", valid.join(", ")))
        })
    });
    let kinds = kinds.collect::<Result<Vec<Kind>>>()?;
    let task = given.text("task").map(|text| number("--task", text)).transpose()?;
    let mut all = namespaces()?;
    all.retain(|namespace| {
        (kinds.is_empty() || kinds.contains(&namespace.kind))
            && task.is_none_or(|task| namespace.processes.iter().any(|pid| u64::try_from(*pid) == Ok(task)))
            && number_wanted.is_none_or(|number| namespace.id == number)
    });
    all.sort_by_key(|namespace| namespace.id);
    match (all.is_empty(), number_wanted, task) {
        (true, Some(number), _) => {
            Err(Failure::new(format!("lsns: there is no namespace {number} that this user can see")))
        }
        (true, None, Some(task)) => {
            Err(Failure::new(format!("lsns: there is no process {task} that this user can see")))
        }
        _ => Ok(all),
    }
}

type Row = BTreeMap<&'static str, String>;

fn row(namespace: &Namespace) -> Row {
    let pid = namespace.processes.first().copied().unwrap_or_default();
    let mut row = of_process(pid);
    row.insert("NS", namespace.id.to_string());
    row.insert("TYPE", namespace.kind.name().to_owned());
    row.insert("PATH", format!("/proc/{pid}/ns/{}", namespace.kind.name()));
    row.insert("NPROCS", namespace.processes.len().to_string());
    row.insert("COMMAND", namespace.command.clone());
    row.insert("UID", namespace.owner_uid.map(|uid| uid.to_string()).unwrap_or_default());
    row.insert("USER", namespace.owner_uid.map(user_name).unwrap_or_default());
    if namespace.kind == Kind::Net {
        row.insert("NETNSID", namespace.netnsid.map_or("unassigned".to_owned(), |number| number.to_string()));
    }
    row.insert("NSFS", mounted_at(namespace));
    row.insert("PNS", namespace.parent.map(|number| number.to_string()).unwrap_or_default());
    row.insert("ONS", namespace.owner.map(|number| number.to_string()).unwrap_or_default());
    row
}

/// One row for each process of the namespaces.
fn processes(all: &[Namespace]) -> Vec<Row> {
    let rows = all.iter().flat_map(|namespace| namespace.processes.iter().map(move |pid| (namespace, *pid)));
    rows.map(|(namespace, pid)| {
        let mut row = row(namespace);
        row.extend(of_process(pid));
        row
    })
    .collect()
}

/// What is known of a process itself; empty where it is gone.
fn of_process(pid: i32) -> Row {
    let mut row: Row = COLUMNS.iter().map(|(name, ..)| (*name, String::new())).collect();
    let process = Proc::open(pid).ok();
    let status = process.as_ref().and_then(|process| process.status().ok());
    let uid = status.as_ref().and_then(|status| status.uids()).map(|ids| ids[1]);
    let words = process.as_ref().and_then(|process| process.cmdline().ok()).unwrap_or_default();
    let words: Vec<String> = words.iter().map(|word| word.to_string_lossy().into_owned()).collect();
    let name = status.as_ref().map(|status| format!("[{}]", status.name().to_string_lossy())).unwrap_or_default();
    row.insert("PID", pid.to_string());
    row.insert("PPID", status.as_ref().and_then(|status| status.ppid()).map(|pid| pid.to_string()).unwrap_or_default());
    row.insert("UID", uid.map(|uid| uid.to_string()).unwrap_or_default());
    row.insert("USER", uid.map(user_name).unwrap_or_default());
    row.insert("COMMAND", if words.is_empty() { name } else { words.join(" ").chars().take(4096).collect() });
    row
}

fn user_name(uid: u32) -> String {
    let user = nix::unistd::User::from_uid(nix::unistd::Uid::from_raw(uid)).ok().flatten();
    user.map_or_else(|| uid.to_string(), |user| user.name)
}

/// Where the caller sees the namespace mounted: `net:[4026531840]` is the root of such a mount.
fn mounted_at(namespace: &Namespace) -> String {
    let root = format!("{}:[{}]", namespace.kind.name(), namespace.id);
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let places = mounts.lines().filter_map(|line| {
        let mut fields = line.split(' ').skip(3);
        (fields.next()? == root).then(|| fields.next()).flatten()
    });
    places.collect::<Vec<_>>().join(",")
}

fn columns<'a>(given: &'a ArgMatches, usual: &[&'a str]) -> Result<Vec<&'a str>> {
    if given.get_flag("output-all") {
        return Ok(COLUMNS.iter().map(|(name, ..)| *name).collect());
    }
    let Some(text) = given.text("output") else { return Ok(usual.to_vec()) };
    let (mut columns, text) = match text.strip_prefix('+') {
        Some(rest) => (usual.to_vec(), rest),
        None => (Vec::new(), text),
    };
    for wanted in text.split(',') {
        let known = COLUMNS.iter().find(|(name, ..)| name.eq_ignore_ascii_case(wanted));
        let Some((name, ..)) = known else {
            let names: Vec<&str> = COLUMNS.iter().map(|(name, ..)| *name).collect();
            return Err(Failure::new(format!("lsns: --output: {wanted:?} is no column"))
                .hint(format!("there are {}", names.join(", "))));
        };
        columns.push(name);
    }
    Ok(columns)
}

fn object(row: &Row, columns: &[&str]) -> Value {
    let member = |column: &&str| {
        let text = &row[column];
        let is_number = COLUMNS.iter().any(|(name, is_number, _)| name == column && *is_number);
        let value = match text.parse::<u64>() {
            _ if text.is_empty() => Value::Null,
            Ok(number) if is_number => json!(number),
            _ => json!(text),
        };
        (column.to_lowercase(), value)
    };
    Value::Object(columns.iter().map(member).collect::<Map<_, _>>())
}
