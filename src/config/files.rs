//! The config's files as one tree: a directory's files are put where a single file has their tables.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use crate::config::document::{Node, Report, Shape, Table, parse};
use crate::config::nearest::nearest;
use crate::config::problem::Spot;

/// The daemon's own sections.
const MAIN: &str = "tributary.toml";
/// Far above any config written by hand; what is larger is another file.
const MAX_BYTES: u64 = 1024 * 1024;
/// Files of one config.
const MAX_FILES: usize = 10_000;
/// Folders, the table their files go to, and whether a connection's folder is between.
const FOLDERS: [(&str, &str, bool); 4] = [
    ("connections", "connection", false),
    ("jobs", "job", true),
    ("chains", "chain", true),
    ("objects", "object", false),
];

/// A config as it was found.
pub(super) struct Found {
    /// What relative paths start at.
    pub(super) root: PathBuf,
    /// Everything, as a single file would have it.
    pub(super) tree: Node,
    /// `tributary.toml` was no TOML: its sections are unknown, not empty.
    pub(super) main_is_broken: bool,
}

/// Reads all files of a config. `None` if nothing of it can be read.
pub(super) fn gather(path: &Path, report: &Report) -> Option<Found> {
    let metadata = match fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(error) => {
            report.wrong(
                &Spot::whole(path.to_string_lossy()),
                format!("can't be read: {error}"),
                "name a directory with a tributary.toml, or one file",
            );
            return None;
        }
    };
    if metadata.is_dir() {
        return Some(directory(path, report));
    }
    let name = path
        .file_name()
        .map_or_else(|| path.to_string_lossy(), OsStr::to_string_lossy);
    let tree = read(path, &name, report);
    let parent = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty());
    let root = parent.unwrap_or_else(|| Path::new("."));
    beside_nothing(root, &name, report);
    tree.table().is_some().then(|| Found {
        root: root.to_owned(),
        tree,
        main_is_broken: false,
    })
}

/// A directory's `tributary.toml` alone would be a daemon without connections.
fn beside_nothing(root: &Path, name: &str, report: &Report) {
    let folder = FOLDERS
        .iter()
        .find(|(folder, ..)| root.join(folder).is_dir());
    if let Some((folder, ..)) = folder.filter(|_| name == MAIN) {
        report.wrong(
            &Spot::whole(name),
            format!("has `{folder}/` beside it, which one file leaves out"),
            format!("name the directory: {}", root.display()),
        );
    }
}

fn directory(root: &Path, report: &Report) -> Found {
    let main = root.join(MAIN);
    let mut tree = if main.exists() {
        read(&main, MAIN, report)
    } else {
        report.wrong(
            &Spot::whole(MAIN),
            "is missing",
            format!(
                "make one in {} (it may be empty), or name the config's directory",
                root.display()
            ),
        );
        Node::new(Spot::whole(MAIN), Shape::Unreadable)
    };
    let main_is_broken = tree.table().is_none();
    if main_is_broken {
        tree.shape = Shape::Table(Table::default());
    }
    let mut walk = Walk {
        root,
        tree,
        files: 1,
        report,
    };
    walk.misspelt_folders();
    for (folder, table, nested) in FOLDERS {
        walk.folder(folder, table, nested);
    }
    Found {
        root: root.to_owned(),
        tree: walk.tree,
        main_is_broken,
    }
}

struct Walk<'a> {
    root: &'a Path,
    tree: Node,
    files: usize,
    report: &'a Report,
}

impl Walk<'_> {
    /// A misspelt folder would be a config that is silently not there.
    fn misspelt_folders(&self) {
        let known: Vec<&str> = FOLDERS.iter().map(|(folder, ..)| *folder).collect();
        for (name, path) in self.list("") {
            if known.contains(&name.as_str()) || !path.is_dir() {
                continue;
            }
            if let Some(near) = nearest(&name, known.iter().copied()) {
                self.report.wrong(
                    &Spot::whole(name + "/"),
                    "no folder of a config",
                    format!("did you mean `{near}/`?"),
                );
            }
        }
    }

    fn folder(&mut self, folder: &str, table: &str, nested: bool) {
        if !self.root.join(folder).exists() {
            return;
        }
        for (name, path) in self.list(folder) {
            let shown = format!("{folder}/{name}");
            if !nested {
                self.file(&path, &shown, &[table], &name);
            } else if path.is_dir() {
                for (inner, path) in self.list(&shown) {
                    self.file(&path, &format!("{shown}/{inner}"), &[table, &name], &inner);
                }
            } else if !is_beside(&name) {
                self.report.wrong(
                    &Spot::whole(shown),
                    "stands in no connection's folder",
                    format!("move it to {folder}/<connection>/"),
                );
            }
        }
    }

    /// The entries of a folder by name, hidden ones left out.
    fn list(&self, folder: &str) -> Vec<(String, PathBuf)> {
        let unreadable = |error: std::io::Error| {
            self.report.wrong(
                &Spot::whole(format!("{folder}/")),
                format!("can't be read: {error}"),
                "let the daemon's user read the folder",
            );
        };
        let entries = match fs::read_dir(self.root.join(folder)) {
            Ok(entries) => entries,
            Err(error) => {
                unreadable(error);
                return Vec::new();
            }
        };
        let mut found = BTreeSet::new();
        for entry in entries {
            match entry {
                Ok(entry) => {
                    let name = entry.file_name().to_string_lossy().into_owned();
                    if !name.starts_with('.') {
                        found.insert((name, entry.path()));
                    }
                }
                Err(error) => unreadable(error),
            }
        }
        found.into_iter().collect()
    }

    fn file(&mut self, path: &Path, shown: &str, tables: &[&str], name: &str) {
        let Some(stem) = name.strip_suffix(".toml") else {
            if !is_beside(name) {
                self.report.wrong(
                    &Spot::whole(shown),
                    "no .toml file",
                    "name it <id>.toml, or move it elsewhere",
                );
            }
            return;
        };
        self.files += 1;
        if self.files > MAX_FILES {
            if self.files == MAX_FILES + 1 {
                self.report.wrong(
                    &Spot::whole(shown),
                    format!("more than {MAX_FILES} files"),
                    "name the config's own directory",
                );
            }
            return;
        }
        let node = read(path, shown, self.report);
        let mut at = &mut self.tree;
        for table in tables {
            match descend(at, table) {
                Some(next) => at = next,
                None => return,
            }
        }
        let Shape::Table(Table(entries)) = &mut at.shape else {
            return;
        };
        if let Some((_, other)) = entries.iter().find(|(id, _)| id == stem) {
            self.report.wrong(
                &node.spot,
                format!("stands in {} as well", other.spot),
                "keep one of them",
            );
            return;
        }
        entries.push((stem.to_owned(), node));
    }
}

/// The table `key` of `node`, made if it is not there; `None` if something else stands there.
fn descend<'n>(node: &'n mut Node, key: &str) -> Option<&'n mut Node> {
    let spot = Spot::whole(&node.spot.file);
    let Shape::Table(Table(entries)) = &mut node.shape else {
        return None;
    };
    let at = entries.iter().position(|(name, _)| name == key);
    let at = at.unwrap_or_else(|| {
        entries.push((key.to_owned(), Node::empty(spot)));
        entries.len() - 1
    });
    entries.get_mut(at).map(|(_, node)| node)
}

/// What may lie beside config files: notes and an editor's backups.
fn is_beside(name: &str) -> bool {
    name.ends_with(".md") || name.ends_with('~')
}

fn read(path: &Path, shown: &str, report: &Report) -> Node {
    let spot = Spot::whole(shown);
    let refuse = |what: String, remedy: &str| {
        report.wrong(&spot, what, remedy);
        Node::new(spot.clone(), Shape::Unreadable)
    };
    // Looked at before it is opened: opening a pipe would wait for its writer.
    match fs::metadata(path) {
        Ok(metadata) if metadata.is_file() => {}
        Ok(_) => return refuse("is no file".to_owned(), "put a file there"),
        Err(error) => {
            return refuse(
                format!("can't be read: {error}"),
                "let the daemon's user read it",
            );
        }
    }
    let mut bytes = Vec::new();
    let outcome =
        File::open(path).and_then(|file| file.take(MAX_BYTES + 1).read_to_end(&mut bytes));
    if let Err(error) = outcome {
        return refuse(
            format!("can't be read: {error}"),
            "let the daemon's user read it",
        );
    }
    if bytes.len() as u64 > MAX_BYTES {
        return refuse(
            "is larger than 1 MiB".to_owned(),
            "name a config file, or split it",
        );
    }
    match String::from_utf8(bytes) {
        Ok(text) => parse(shown, &text, report),
        Err(error) => {
            let good = error.utf8_error().valid_up_to();
            let line = error.as_bytes().get(..good).map_or(1, |bytes| {
                1 + bytes.iter().filter(|byte| **byte == b'\n').count()
            });
            let spot = Spot { line, ..spot };
            report.wrong(&spot, "is no UTF-8", "save the file as UTF-8");
            Node::new(spot, Shape::Unreadable)
        }
    }
}
