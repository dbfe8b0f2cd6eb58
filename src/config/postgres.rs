//! How a section names a PostgreSQL server: `url`, `password`, `ssl_mode`, `ca_file`, `statement_timeout`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::config::document::Report;
use crate::config::nearest::nearest;
use crate::config::problem::{Located, Problem};
use crate::config::reader::{Reader, list_of, shown};
use crate::config::secret::SecretRef;

/// A server and a database on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PostgresConfig {
    /// `url`: `postgres://USER@HOST:5432/DATABASE`, perhaps with parameters; without a password.
    pub url: String,
    /// `password`; none where the server asks for none.
    pub password: Option<SecretRef>,
    /// `ssl_mode`, or `sslmode` of the URL, in libpq's words; none: whatever the address calls for.
    pub ssl_mode: Option<&'static str>,
    /// `ca_file`: authorities that may sign the server's certificate, instead of the system's.
    pub ca_file: Option<PathBuf>,
    /// `statement_timeout`: a statement that takes longer is cancelled.
    pub statement_timeout: Duration,
}

const SHAPE: &str = "write \"postgres://USER@HOST:5432/DATABASE\"";
/// The keys beside `url`.
const KEYS: [&str; 4] = ["password", "ssl_mode", "ca_file", "statement_timeout"];
/// PostgreSQL documentation, "SSL Support": modes of `sslmode`. `allow` is left out: it encrypts when it is not
/// asked to, and checks nothing.
const MODES: [&str; 5] = ["disable", "prefer", "require", "verify-ca", "verify-full"];
/// Parameters that a URL may hold (PostgreSQL documentation, "Parameter Key Words"), and their words, if those are
/// counted.
const PARAMETERS: [(&str, &[&str]); 10] = [
    ("user", &[]),
    ("dbname", &[]),
    ("host", &[]),
    ("hostaddr", &[]),
    ("port", &[]),
    ("options", &[]),
    ("sslmode", &MODES),
    ("target_session_attrs", &["any", "read-write"]),
    ("channel_binding", &["disable", "prefer", "require"]),
    ("load_balance_hosts", &["disable", "random"]),
];

impl PostgresConfig {
    /// Whether a URL means PostgreSQL.
    pub(super) fn is_meant(url: &str) -> bool {
        url.starts_with("postgres:") || url.starts_with("postgresql:")
    }

    /// Reads the keys of a section whose `url` was taken from it already. All keys are looked at, whatever is wrong
    /// with one of them.
    pub(super) fn parse(
        reader: &mut Reader<'_>,
        url: &Located<String>,
        root: &Path,
    ) -> Option<Self> {
        let report = reader.report;
        let in_url = check_url(url, report);
        let password = reader.take("password");
        let password = password.and_then(|node| SecretRef::parse(node, root, report));
        let spot = reader.spot_of("ssl_mode");
        let mode = reader.word("ssl_mode", &MODES.map(|mode| (mode, mode)));
        if mode.is_some() && in_url.as_ref().is_some_and(Option::is_some) {
            report.wrong(&spot, "is given twice", "take `sslmode` out of `url`");
        }
        let mode = mode.or(in_url.flatten());
        let ca_file = reader.text("ca_file");
        if let (Some(file), Some(mode @ ("disable" | "prefer" | "require"))) = (&ca_file, mode) {
            report.wrong(
                &file.spot,
                format!("is not looked at with {mode:?}, which trusts any server"),
                "write ssl_mode = \"verify-full\" or \"verify-ca\", or remove `ca_file`",
            );
        }
        let least = Duration::from_secs(1);
        let timeout = reader.duration("statement_timeout", least, Duration::from_hours(1));
        in_url.map(|_| Self {
            url: url.value.clone(),
            password,
            ssl_mode: mode,
            ca_file: ca_file.map(|file| root.join(file.value)),
            statement_timeout: timeout.unwrap_or(Duration::from_mins(1)),
        })
    }

    /// Refuses these keys in a section whose `url` means something else.
    pub(super) fn refuse(reader: &mut Reader<'_>) {
        for key in KEYS {
            Self::refuse_key(reader, key);
        }
    }

    /// Refuses a key that a section has for PostgreSQL alone.
    pub(super) fn refuse_key(reader: &mut Reader<'_>, key: &'static str) {
        let remedy = format!("remove it, or {SHAPE} as url");
        reader.refuse(key, "has a meaning with PostgreSQL only", &remedy);
    }
}

/// The URL's `sslmode`, if the URL can be used. What is shown of it never holds a password.
#[allow(clippy::option_option)]
fn check_url(url: &Located<String>, report: &Report) -> Option<Option<&'static str>> {
    match read_url(&url.value) {
        Ok(mode) => Some(mode),
        Err(mistake) => {
            let problem = Problem::new(&url.spot, mistake.what, mistake.remedy);
            // A misspelt parameter may hold one.
            let open = url.value.split('?').next().unwrap_or_default();
            report.add(if mistake.quiet {
                problem
            } else {
                problem.value(shown(open))
            });
            None
        }
    }
}

struct Mistake {
    what: String,
    remedy: String,
    /// The URL may hold a password at a place where [`shown`] does not look for one.
    quiet: bool,
}

fn mistake<T>(what: impl Into<String>, remedy: impl Into<String>) -> Result<T, Mistake> {
    Err(Mistake {
        what: what.into(),
        remedy: remedy.into(),
        quiet: false,
    })
}

fn quiet_mistake<T>(what: &str, remedy: &str) -> Result<T, Mistake> {
    Err(Mistake {
        what: what.to_owned(),
        remedy: remedy.to_owned(),
        quiet: true,
    })
}

/// Reads `scheme://[user@][host[:port],…][/database][?key=value&…]` (PostgreSQL documentation, "Connection URIs"),
/// as the client library does: whatever stands before the first `@` is user and password.
fn read_url(url: &str) -> Result<Option<&'static str>, Mistake> {
    let Some((_, rest)) = url.split_once("://") else {
        return quiet_mistake("can't be read", SHAPE);
    };
    let (user, place) = rest.split_once('@').unwrap_or(("", rest));
    let (address, query) = place.split_once('?').unwrap_or((place, ""));
    let (hosts, database) = address.split_once('/').unwrap_or((address, ""));
    let named = |name: &str| query.split('&').any(|pair| key_of(pair) == name);
    if user.contains(':') || named("password") {
        return quiet_mistake(
            "holds a password",
            "take it out, and name its place: password = { env = \"NAME\" } or \
             { file = \"/run/secrets/name\" }",
        );
    }
    if rest.contains(|c: char| c.is_whitespace() || c.is_control()) {
        return mistake("holds a blank", "write it as %20");
    }
    let mode = parameters(query)?;
    if !hosts.is_empty() {
        for host in hosts.split(',') {
            check_host(host)?;
        }
    } else if !named("host") && !named("hostaddr") {
        return mistake("names no host", SHAPE);
    }
    if user.is_empty() && !named("user") {
        return mistake("names no user", SHAPE);
    }
    if database.is_empty() && !named("dbname") {
        return mistake("names no database", SHAPE);
    }
    Ok(mode)
}

fn key_of(pair: &str) -> &str {
    pair.split_once('=').map_or(pair, |(key, _)| key)
}

/// The query's `sslmode`.
fn parameters(query: &str) -> Result<Option<&'static str>, Mistake> {
    let mut mode = None;
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        let Some((_, words)) = PARAMETERS.iter().find(|(name, _)| *name == key) else {
            return unknown(key);
        };
        let word = words.iter().find(|word| **word == value);
        if value.is_empty() || (word.is_none() && !words.is_empty()) {
            let remedy = if words.is_empty() {
                format!("write {key}=…, or take it out")
            } else {
                format!("write {}", list_of(words.iter().copied()))
            };
            return mistake(
                format!("has a `{key}` that is not one of its values"),
                remedy,
            );
        }
        if key == "sslmode" {
            mode = word.copied();
        }
    }
    Ok(mode)
}

fn unknown<T>(key: &str) -> Result<T, Mistake> {
    let known = || PARAMETERS.iter().map(|(name, _)| *name);
    let remedy = match key {
        "sslrootcert" => "take it out, and set `ca_file`".to_owned(),
        "sslcert" | "sslkey" => {
            "take it out: the daemon logs in by password, not by certificate".to_owned()
        }
        _ => nearest(key, known()).map_or_else(
            || {
                let known: Vec<_> = known().collect();
                format!("take it out; known here: {}", known.join(", "))
            },
            |near| format!("did you mean `{near}`?"),
        ),
    };
    mistake(format!("has a parameter `{key}` that is not known"), remedy)
}

/// A name, an IPv4 address, an IPv6 one in brackets, or a directory of sockets with `/` as `%2F`; and a port.
fn check_host(host: &str) -> Result<(), Mistake> {
    let after_address = host.rfind(']').map_or(host, |end| &host[end..]);
    let (name, port) = match after_address.rfind(':') {
        Some(_) => host.rsplit_once(':').unwrap_or((host, "")),
        None => (host, "5432"),
    };
    let is_name = !name.is_empty()
        && name.chars().all(|c| {
            c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | '%' | '[' | ']' | ':')
        });
    if !is_name {
        return mistake("names no host", SHAPE);
    }
    if port.parse::<u16>().is_ok_and(|port| port > 0) {
        return Ok(());
    }
    // `user:password` whose `@` was forgotten looks like host and port.
    quiet_mistake("names no port", SHAPE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::document::parse;

    fn section(text: &str) -> (Option<PostgresConfig>, Vec<String>) {
        let report = Report::default();
        let tree = parse("x.toml", &format!("[target]\n{text}"), &report);
        let mut reader = Reader::open_section(&tree, "target", &report);
        let url = reader.text("url").unwrap();
        let read = PostgresConfig::parse(&mut reader, &url, Path::new("/etc/tributary"));
        reader.close();
        let problems = report.into_parts().0;
        (read, problems.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn a_url_alone_is_enough() {
        let (read, problems) = section("url = \"postgres://me@db.example/store\"");
        assert_eq!(problems, Vec::<String>::new());
        assert_eq!(
            read.unwrap(),
            PostgresConfig {
                url: "postgres://me@db.example/store".to_owned(),
                password: None,
                ssl_mode: None,
                ca_file: None,
                statement_timeout: Duration::from_mins(1),
            }
        );
    }

    #[test]
    fn every_key_is_read() {
        let (read, problems) = section(
            "url = \"postgresql://me@db.example:6432/store\"\npassword = { file = \"pw\" }\n\
             ssl_mode = \"verify-ca\"\nca_file = \"ca.pem\"\nstatement_timeout = \"90s\"",
        );
        assert_eq!(problems, Vec::<String>::new());
        let read = read.unwrap();
        assert_eq!(
            read.password,
            Some(SecretRef::File(PathBuf::from("/etc/tributary/pw")))
        );
        assert_eq!(read.ssl_mode, Some("verify-ca"));
        assert_eq!(read.ca_file, Some(PathBuf::from("/etc/tributary/ca.pem")));
        assert_eq!(read.statement_timeout, Duration::from_secs(90));
    }

    #[test]
    fn addresses_of_many_shapes_are_taken() {
        for (url, mode) in [
            ("postgres://me@[::1]:5433/db", None),
            (
                "postgres://me@a:1,b:2/db?target_session_attrs=read-write",
                None,
            ),
            ("postgres://me@%2Fvar%2Frun%2Fpostgresql/db", None),
            ("postgres:///db?host=/var/run/postgresql&user=me", None),
            ("postgres://me@h/db?sslmode=require", Some("require")),
            ("postgres://h?user=me&dbname=db", None),
        ] {
            assert_eq!(read_url(url).ok(), Some(mode), "{url}");
        }
    }

    #[test]
    fn no_password_is_taken_or_shown() {
        for url in [
            "postgres://me:hunter2@host/db",
            "postgres://me:hunt@er2@host/db",
            "postgres://:hunter2@host/db",
            "postgres://me:hunt?er2@host/db",
            "postgres://me:hunt/er2@host/db",
            "postgres://me@host/db?pasword=hunter2",
            "postgres://me@host/db?password=hunter2",
            "postgres://me@host/db?sslmode=no&password=hunter2",
            "postgres:me:hunter2@host/db",
            "postgres://me:hunter2/db",
            "postgres://me@you:hunter2@host/db",
        ] {
            let (read, problems) = section(&format!("url = {url:?}"));
            assert_eq!(read, None, "{url}");
            assert_eq!(problems.len(), 1, "{url}: {problems:?}");
            assert!(!problems[0].contains("hunt"), "{url}: {problems:?}");
        }
        let (_, problems) = section("url = \"postgres://me@h/db\"\npassword = \"hunter2\"");
        assert_eq!(problems.len(), 1);
        assert!(!problems[0].contains("hunter2"), "{problems:?}");
    }

    #[test]
    fn all_mistakes_come_together() {
        let (_, problems) = section(
            "url = \"postgres://host/db\"\npassword = \"hunter2\"\nssl_mode = \"allow\"\n\
             statement_timeout = \"soon\"\nca_flie = \"x\"",
        );
        assert_eq!(problems.len(), 5, "{problems:?}");
    }

    #[test]
    fn what_contradicts_itself_is_refused() {
        for text in [
            "url = \"postgres://me@h/db?sslmode=require\"\nssl_mode = \"require\"",
            "url = \"postgres://me@h/db?sslmode=require\"\nca_file = \"ca.pem\"",
            "url = \"postgres://me@h/db\"\nssl_mode = \"prefer\"\nca_file = \"ca.pem\"",
            "url = \"postgres://me@h/db?sslmode=allow\"",
            "url = \"postgres://me@h/db?sslrootcert=ca.pem\"",
            "url = \"postgres://me@h/db?connect_timeout=3\"",
            "url = \"postgres://me@h/db?sslmod=require\"",
            "url = \"postgres://me@h:0/db\"",
            "url = \"postgres://me@h:x/db\"",
            "url = \"postgres://me@h,/db\"",
            "url = \"postgres://me@/db\"",
            "url = \"postgres://me@h/\"",
            "url = \"postgres://me@h\"",
            "url = \"postgres://h/db\"",
            "url = \"postgres://me@h/d b\"",
        ] {
            let (_, problems) = section(text);
            assert_eq!(problems.len(), 1, "{text}: {problems:?}");
        }
    }
}
