//! Secrets by reference: where one is kept, never what it is.

use std::env::VarError;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use crate::config::document::{Node, Report, Shape};
use crate::config::reader::Reader;
use crate::fault::{Fault, FaultKind};
use crate::secret::Secret;

/// A private key with its chain is far below; a file past it is not a secret.
const MAX_BYTES: u64 = 64 * 1024;

/// Where a secret is kept. Reading is left to the moment of use, so that a rotated secret is met.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SecretRef {
    /// `{ env = "NAME" }`: a variable of the daemon's environment.
    Env(String),
    /// `{ file = "PATH" }`: a file; a relative path starts at the config's root.
    File(PathBuf),
}

impl SecretRef {
    /// Reads the secret anew; a line break at its end is no part of it.
    ///
    /// # Errors
    /// `Credentials` if it is not there, empty, no UTF-8, or larger than 64 KiB; `Storage` (tried again) if the
    /// file can't be read for another reason.
    pub fn read(&self) -> Result<Secret, Fault> {
        let text = match self {
            // The error is not kept as cause: it prints a value that is no Unicode.
            Self::Env(name) => std::env::var(name).map_err(|error| match error {
                VarError::NotPresent => self.fault("is not set"),
                VarError::NotUnicode(_) => self.fault("is no UTF-8"),
            })?,
            Self::File(path) => read_file(path)?,
        };
        let text = text.trim_end_matches(['\r', '\n']);
        if text.is_empty() {
            return Err(self.fault("is empty"));
        }
        Ok(Secret::new(text))
    }

    fn fault(&self, what: &str) -> Fault {
        let place = match self {
            Self::Env(name) => format!("secret in the environment variable `{name}`"),
            Self::File(path) => format!("secret in the file {}", path.display()),
        };
        Fault::new(FaultKind::Credentials, format!("{place} {what}"))
            .remedy("put the secret there, and nothing else")
    }

    /// Reads `{ env = … }` or `{ file = … }`. Whatever else stands there is not shown.
    pub(super) fn parse(node: &Node, root: &Path, report: &Report) -> Option<Self> {
        const REMEDY: &str =
            "name its place: { env = \"NAME\" } or { file = \"/run/secrets/name\" }";
        match &node.shape {
            Shape::Unreadable => return None,
            Shape::Table(_) => {}
            _ => {
                report.wrong(&node.spot, "a secret may not stand in the config", REMEDY);
                return None;
            }
        }
        let mut reader = Reader::open(node, report)?;
        let env = reader.take("env").and_then(|node| env_name(node, report));
        let file = reader
            .take("file")
            .and_then(|node| quiet_text(node, report));
        let count = reader.entries().len();
        reader.close();
        match (env, file) {
            (Some(name), None) if count == 1 => Some(Self::Env(name)),
            (None, Some(path)) if count == 1 => Some(Self::File(root.join(path))),
            (None, None) if count == 1 => None,
            _ => {
                report.wrong(
                    &node.spot,
                    "names not exactly one place of a secret",
                    REMEDY,
                );
                None
            }
        }
    }
}

/// A text; of anything else nothing is shown.
fn quiet_text(node: &Node, report: &Report) -> Option<String> {
    match &node.shape {
        Shape::Text(_) | Shape::Given(_) => node.text(report).map(|text| text.value),
        Shape::Unreadable => None,
        _ => {
            report.wrong(&node.spot, "no text", "write the place's name in quotes");
            None
        }
    }
}

/// The name of a variable. What does not look like one is not shown: it may be the secret itself.
fn env_name(node: &Node, report: &Report) -> Option<String> {
    let name = quiet_text(node, report)?;
    let good = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
        && !name.starts_with(|c: char| c.is_ascii_digit());
    if !good {
        report.wrong(
            &node.spot,
            "no name of an environment variable",
            "write the variable's name (A-Z, a-z, 0-9, _), not the secret",
        );
        return None;
    }
    Some(name)
}

fn read_file(path: &Path) -> Result<String, Fault> {
    let reference = SecretRef::File(path.to_owned());
    let unreadable = |error: std::io::Error| {
        let missing = matches!(
            error.kind(),
            std::io::ErrorKind::NotFound | std::io::ErrorKind::PermissionDenied
        );
        let kind = if missing {
            FaultKind::Credentials
        } else {
            FaultKind::Storage
        };
        Fault::new(kind, format!("reading the secret in {}", path.display()))
            .remedy("let the daemon's user read the file")
            .source(error)
    };
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(MAX_BYTES + 1).read_to_end(&mut bytes))
        .map_err(unreadable)?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(reference.fault("is larger than 64 KiB"));
    }
    // The error would print the bytes.
    String::from_utf8(bytes).map_err(|_| reference.fault("is no UTF-8"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::document::parse;

    fn reference(text: &str) -> (Option<SecretRef>, String) {
        let report = Report::default();
        let root = parse("x.toml", &format!("secret = {text}"), &report);
        let node = root.table().unwrap().get("secret").unwrap();
        let secret = SecretRef::parse(node, Path::new("/etc/tributary"), &report);
        let problems = report.into_parts().0;
        (secret, format!("{problems:?}"))
    }

    #[test]
    fn takes_references_only_and_shows_nothing_else() {
        let env = SecretRef::Env("ACME".to_owned());
        assert_eq!(reference("{ env = \"ACME\" }").0, Some(env));
        let file = SecretRef::File(PathBuf::from("/etc/tributary/s"));
        assert_eq!(reference("{ file = \"s\" }").0, Some(file));
        for text in [
            "\"hunter2\"",
            "[\"hunter2\"]",
            "{ env = \"hunter2!\" }",
            "{ evn = \"hunter2\" }",
            "{ value = \"hunter2\" }",
            "{ env = \"A\", file = \"hunter2\" }",
            "{ env = \"A\", value = \"hunter2\" }",
            "{ env = 4711 }",
            "{ file = [4711] }",
            "{ }",
        ] {
            let (secret, problems) = reference(text);
            assert_eq!(secret, None, "{text}");
            assert!(problems.contains("Problem"), "{text}");
            let shows = problems.contains("hunter2") || problems.contains("4711");
            assert!(!shows, "{text}: {problems}");
        }
    }

    #[test]
    fn a_file_is_read_each_time() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        let secret = SecretRef::File(path.clone());
        assert_eq!(secret.read().unwrap_err().kind(), FaultKind::Credentials);
        for text in ["first\n", "second\r\n", "third"] {
            std::fs::write(&path, text).unwrap();
            assert_eq!(secret.read().unwrap().expose(), text.trim_end());
        }
        for bytes in [
            b"".to_vec(),
            b"\n".to_vec(),
            vec![0xff, 0xfe],
            vec![b'a'; 70_000],
        ] {
            std::fs::write(&path, &bytes).unwrap();
            let fault = secret.read().unwrap_err();
            assert_eq!(fault.kind(), FaultKind::Credentials);
            assert!(!fault.report().contains("aaa"));
        }
    }

    #[test]
    fn a_variable_is_read_from_the_environment() {
        let secret = SecretRef::Env("CARGO_MANIFEST_DIR".to_owned())
            .read()
            .unwrap();
        assert_eq!(secret.expose(), env!("CARGO_MANIFEST_DIR"));
        let fault = SecretRef::Env("TRIBUTARY_NOT_SET".to_owned())
            .read()
            .unwrap_err();
        assert!(fault.report().contains("TRIBUTARY_NOT_SET"), "{fault:?}");
    }
}
