//! `[mail]`: the server that takes mails, who they are from, and how it knows us.

use std::path::{Path, PathBuf};

use crate::config::document::{Node, Report};
use crate::config::problem::{Located, Problem};
use crate::config::reader::{Reader, shown};
use crate::config::secret::SecretRef;

/// The section.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MailConfig {
    /// The host of `smtp`; its certificate is of this name.
    pub host: String,
    /// Its port: 465 for `smtps` and 587 for `smtp`, unless it is written.
    pub port: u16,
    /// How what is sent is encrypted.
    pub encryption: Encryption,
    /// `from`: the sender's address.
    pub from: String,
    /// `user` and `password`, for servers that ask for them.
    pub login: Option<(String, SecretRef)>,
    /// `ca_file`: PEM certificates trusted besides the system's.
    pub ca_file: Option<PathBuf>,
}

/// How mails are encrypted on their way to the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encryption {
    /// `smtps`: TLS from the first byte (RFC 8314).
    Implicit,
    /// `smtp`: STARTTLS (RFC 3207), and nothing is sent to a server that does not offer it.
    StartTls,
    /// `smtp` with `plain_text = true`: none.
    None,
}

pub(super) const REMEDY: &str =
    "add [mail] with smtp = \"smtps://host:465\" and from = \"name@host\"";

impl MailConfig {
    /// `None` where the section is not there, or is of no use.
    pub(super) fn parse(tree: &Node, root: &Path, report: &Report) -> Option<Self> {
        let mut reader = Reader::open_section(tree, "mail", report);
        if reader.entries().is_empty() {
            return None;
        }
        let plain_text = reader.boolean("plain_text").unwrap_or(false);
        let server = reader
            .required_text("smtp", "write smtp = \"smtps://host:465\"")
            .and_then(|url| server(&url, plain_text, report));
        let from = reader.required_text("from", "write from = \"name@host\"");
        if let Some(from) = &from {
            check_address(from, report);
        }
        let user = reader.text("user");
        let has_password = reader.take("password").is_some();
        let password = reader
            .take("password")
            .and_then(|node| SecretRef::parse(node, root, report));
        if user.is_some() != has_password {
            let (lacks, remedy) = if has_password {
                ("user", "write user = \"…\", or remove the password")
            } else {
                (
                    "password",
                    "write password = { env = \"…\" }, or remove the user",
                )
            };
            reader.missing(lacks, remedy);
        }
        let ca_file = reader.text("ca_file").map(|file| root.join(file.value));
        let at = reader.spot_of("plain_text");
        reader.close();
        let (host, port, encryption) = server?;
        if encryption == Encryption::None && has_password && !is_loopback(&host) {
            report.wrong(
                &at,
                "would send the password in plain text",
                "remove it: smtp:// asks the server for STARTTLS",
            );
        }
        Some(Self {
            host,
            port,
            encryption,
            from: from?.value,
            login: user.map(|user| user.value).zip(password),
            ca_file,
        })
    }
}

/// Host, port and encryption of an `smtp` URL.
fn server(
    url: &Located<String>,
    plain_text: bool,
    report: &Report,
) -> Option<(String, u16, Encryption)> {
    let schemes = [
        ("smtps://", 465, Encryption::Implicit),
        ("smtp://", 587, Encryption::StartTls),
    ];
    let found = schemes.iter().find_map(|(scheme, port, encryption)| {
        let rest = url.value.strip_prefix(scheme)?;
        Some((rest.trim_end_matches('/'), *port, *encryption))
    });
    let refuse = |what: &str| {
        let problem = Problem::new(&url.spot, what, "write \"smtps://host:465\"");
        report.add(problem.value(shown(&url.value)));
        None
    };
    let Some((rest, port, encryption)) = found else {
        return refuse("no smtp or smtps URL");
    };
    if rest.contains('@') {
        return refuse("a URL that holds a user or a password");
    }
    // An IPv6 address stands in brackets and has colons of its own.
    let (host, port) = match rest.rsplit_once(':') {
        Some((host, text)) if !text.ends_with(']') => match text.parse() {
            Ok(port) if port > 0 => (host, port),
            _ => return refuse("no port"),
        },
        _ => (rest, port),
    };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let plain = |c: char| c.is_ascii_alphanumeric() || ".-:_".contains(c);
    if host.is_empty() || !host.chars().all(plain) {
        return refuse("no smtp or smtps URL");
    }
    let encryption = match encryption {
        Encryption::StartTls if plain_text => Encryption::None,
        other => other,
    };
    Some((host.to_owned(), port, encryption))
}

fn is_loopback(host: &str) -> bool {
    host == "localhost"
        || host
            .parse::<std::net::IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}

/// Reports what is no plain address: `name@host`, without a display name, quotes or line breaks.
pub(super) fn check_address(address: &Located<String>, report: &Report) {
    if !is_address(&address.value) {
        let problem = Problem::new(&address.spot, "no e-mail address", "write name@host");
        report.add(problem.value(shown(&address.value)));
    }
}

fn is_address(text: &str) -> bool {
    let Some((name, host)) = text.rsplit_once('@') else {
        return false;
    };
    let of_name = |c: char| c.is_ascii_alphanumeric() || ".!#$%&'*+/=?^_`{|}~-".contains(c);
    let of_host = |c: char| c.is_ascii_alphanumeric() || ".-".contains(c);
    let dotted = |text: &str| !text.split('.').any(str::is_empty);
    text.len() <= 254
        && name.chars().all(of_name)
        && host.chars().all(of_host)
        && dotted(name)
        && dotted(host)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::document::parse;

    fn mail(text: &str) -> (Option<MailConfig>, String) {
        let report = Report::default();
        let tree = parse("x.toml", &format!("[mail]\n{text}"), &report);
        let mail = MailConfig::parse(&tree, Path::new("/etc/tributary"), &report);
        let problems = report.into_parts().0;
        let told: Vec<String> = problems.iter().map(ToString::to_string).collect();
        (mail, told.join("\n"))
    }

    #[test]
    fn a_server_has_its_schemes_port_and_encryption() {
        for (url, host, port, encryption) in [
            (
                "smtps://mail.example",
                "mail.example",
                465,
                Encryption::Implicit,
            ),
            (
                "smtps://mail.example:26/",
                "mail.example",
                26,
                Encryption::Implicit,
            ),
            (
                "smtp://mail.example",
                "mail.example",
                587,
                Encryption::StartTls,
            ),
            ("smtp://[::1]:25", "::1", 25, Encryption::StartTls),
            ("smtp://[::1]", "::1", 587, Encryption::StartTls),
        ] {
            let (mail, told) = mail(&format!("smtp = \"{url}\"\nfrom = \"a@b.example\""));
            let mail = mail.expect(&told);
            assert_eq!(told, "");
            assert_eq!(
                (&*mail.host, mail.port, mail.encryption),
                (host, port, encryption)
            );
        }
    }

    #[test]
    fn what_can_not_be_sent_by_is_refused() {
        for (text, what) in [
            ("smtp = \"mail.example:465\"", "no smtp or smtps URL"),
            ("smtp = \"smtps://\"", "no smtp or smtps URL"),
            ("smtp = \"smtps://a b\"", "no smtp or smtps URL"),
            ("smtp = \"smtps://mail.example:0\"", "no port"),
            (
                "smtp = \"smtps://me:hunter2@mail.example\"",
                "a user or a password",
            ),
            ("from = \"a@b.example\"", "`mail.smtp`: is missing"),
            ("smtp = \"smtps://mail.example\"", "`mail.from`: is missing"),
            ("from = \"a@b\\nBcc: c@d\"", "no e-mail address"),
            ("user = \"me\"", "`mail.password`: is missing"),
            ("password = { env = \"PW\" }", "`mail.user`: is missing"),
            (
                "smtp = \"smtp://mail.example\"\nplain_text = true\nuser = \"me\"\npassword = { env = \"PW\" }",
                "the password in plain text",
            ),
        ] {
            let told = mail(text).1;
            assert!(told.contains(what), "{text}: {told}");
            assert!(!told.contains("hunter2"), "{told}");
        }
    }

    #[test]
    fn addresses_are_plain() {
        for good in ["a@b", "revops@example.com", "o'neil+x@a-b.example"] {
            assert!(is_address(good), "{good}");
        }
        for bad in [
            "",
            "a",
            "@b",
            "a@",
            "a b@c",
            "a@b c",
            "a@b\r\nBcc: c@d",
            "<a@b>",
            "A <a@b>",
            "a@b,c@d",
            "a..b@c",
            "a@b..c",
            "\"a\"@b",
            "ä@b",
            "a@b;c",
        ] {
            assert!(!is_address(bad), "{bad}");
        }
    }
}
