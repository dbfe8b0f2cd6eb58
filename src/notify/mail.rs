//! Mails by SMTP (RFC 5321): a connection for each, as they are few, and nothing sent that is not encrypted as configured.

use std::time::{Duration, SystemTime};

use aws_lc_rs::digest;
use chrono::{DateTime, Utc};
use lettre::address::AddressError;
use lettre::message::header::{ContentType, Header, HeaderName, HeaderValue};
use lettre::message::{Mailbox, MessageBuilder};
use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::client::{Certificate, Tls, TlsParameters};
use lettre::{Address, AsyncSmtpTransport, AsyncTransport, Message, Tokio1Executor};

use super::notice::Notice;
use crate::config::mail::{Encryption, MailConfig};
use crate::fault::{Fault, FaultKind};
use crate::tls;

/// The longest wait for each answer of the server.
const TIMEOUT: Duration = Duration::from_secs(30);

type Transport = AsyncSmtpTransport<Tokio1Executor>;

/// Sends mails by one server.
#[derive(Debug)]
pub struct Mailer {
    settings: MailConfig,
    from: Address,
}

impl Mailer {
    /// A mailer; nobody is reached yet, and the password is read when a mail is sent.
    ///
    /// # Errors
    /// `Config` for a sender that is none, or a certificate file that can't be used.
    pub fn new(settings: MailConfig) -> Result<Self, Fault> {
        tls::install();
        let from = address(&settings.from).map_err(|fault| fault.context("`[mail] from`"))?;
        let mailer = Self { settings, from };
        mailer.tls()?;
        Ok(mailer)
    }

    /// Sends a notice to one address; what the server answered.
    ///
    /// # Errors
    /// `Credentials` if the server refuses user or password, `Permission` if it refuses the mail, `Config` for an address
    /// that is none; `Unavailable` for what passes.
    pub async fn send(&self, to: &str, id: &str, notice: &Notice) -> Result<String, Fault> {
        let message = self.message(to, id, notice)?;
        let transport = self.transport()?;
        let answer = transport
            .send(message)
            .await
            .map_err(|error| self.fault(error))?;
        let said: Vec<&str> = answer.message().collect();
        Ok(format!("{} {}", answer.code(), said.join(" "))
            .trim()
            .to_owned())
    }

    fn message(&self, to: &str, id: &str, notice: &Notice) -> Result<Message, Fault> {
        let sender = Mailbox::new(Some("Tributary".to_owned()), self.from.clone());
        let head = Message::builder()
            .from(sender)
            .to(Mailbox::new(None, address(to)?))
            .subject(format!("[tributary] {}", notice.title))
            .message_id(Some(self.message_id(id)))
            .date(system_time(notice.at))
            .header(AutoSubmitted);
        body(head, notice.text())
    }

    /// The same for the same notice, so that a mail that comes twice can be told.
    fn message_id(&self, id: &str) -> String {
        let digest = digest::digest(&digest::SHA256, id.as_bytes());
        let hex: String = digest
            .as_ref()
            .iter()
            .take(16)
            .map(|byte| format!("{byte:02x}"))
            .collect();
        format!("<{hex}.tributary@{}>", self.from.domain())
    }

    fn transport(&self) -> Result<Transport, Fault> {
        let settings = &self.settings;
        let mut builder = Transport::builder_dangerous(settings.host.clone())
            .port(settings.port)
            .timeout(Some(TIMEOUT))
            .tls(self.tls()?);
        if let Some((user, password)) = &settings.login {
            let password = password
                .read()
                .map_err(|fault| fault.context("reading the password of `[mail]`"))?;
            let credentials = Credentials::new(user.clone(), password.expose().to_owned());
            builder = builder.credentials(credentials);
        }
        Ok(builder.build())
    }

    fn tls(&self) -> Result<Tls, Fault> {
        let settings = &self.settings;
        if settings.encryption == Encryption::None {
            return Ok(Tls::None);
        }
        let unusable = |error| {
            Fault::new(FaultKind::Config, "setting up TLS for `[mail]`")
                .source(error)
                .remedy("install ca-certificates, or set `ca_file`")
        };
        let mut builder = TlsParameters::builder(settings.host.clone());
        if let Some(file) = &settings.ca_file {
            for der in tls::authorities(file)? {
                let root = Certificate::from_der(der).map_err(unusable)?;
                builder = builder.add_root_certificate(root);
            }
        }
        let parameters = builder.build().map_err(unusable)?;
        Ok(match settings.encryption {
            Encryption::Implicit => Tls::Wrapper(parameters),
            Encryption::StartTls | Encryption::None => Tls::Required(parameters),
        })
    }

    fn fault(&self, error: lettre::transport::smtp::Error) -> Fault {
        let server = format!("mail server {}:{}", self.settings.host, self.settings.port);
        let code = error.status().map(u16::from);
        let (kind, what, remedy) = match code {
            // RFC 4954: what AUTH is answered with, and what it says to who did not.
            Some(530 | 534 | 535 | 538) => (
                FaultKind::Credentials,
                "refuses user or password",
                Some("see `user` and `password` of `[mail]`"),
            ),
            Some(500..) => (FaultKind::Permission, "refuses the mail", None),
            Some(_) => (FaultKind::Unavailable, "can't take the mail now", None),
            None if error.is_tls() => (
                FaultKind::Unavailable,
                "can't be spoken to by TLS",
                Some(
                    "if its certificate is of an authority of your own, set `ca_file` of `[mail]`",
                ),
            ),
            None if error.is_client() => (
                FaultKind::Config,
                "does not offer what `[mail]` asks for",
                Some(
                    "smtp:// asks for STARTTLS, `user` for AUTH; smtps:// is TLS from the first byte",
                ),
            ),
            None => (FaultKind::Unavailable, "is not reached", None),
        };
        let fault = Fault::new(kind, format!("{server} {what}")).source(error);
        match remedy {
            Some(remedy) => fault.remedy(remedy),
            None => fault,
        }
    }
}

fn body(head: MessageBuilder, text: String) -> Result<Message, Fault> {
    head.header(ContentType::TEXT_PLAIN)
        .body(text)
        .map_err(|error| Fault::new(FaultKind::Config, "a mail can't be written").source(error))
}

/// A bare address: what would end a header is refused by its grammar.
fn address(text: &str) -> Result<Address, Fault> {
    text.parse().map_err(|error: AddressError| {
        let what = format!("{text:?} is no e-mail address");
        Fault::new(FaultKind::Config, what).source(error)
    })
}

fn system_time(at: DateTime<Utc>) -> SystemTime {
    // An instant before 1970 has no mail.
    let seconds = u64::try_from(at.timestamp()).unwrap_or_default();
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
}

/// Nobody's absence answers a machine (RFC 3834).
#[derive(Clone)]
struct AutoSubmitted;

impl Header for AutoSubmitted {
    fn name() -> HeaderName {
        HeaderName::new_from_ascii_str("Auto-Submitted")
    }

    fn parse(_: &str) -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        Ok(Self)
    }

    fn display(&self) -> HeaderValue {
        HeaderValue::new(Self::name(), "auto-generated".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;
    use crate::notify::notice::Event;

    fn mailer() -> Mailer {
        Mailer::new(MailConfig {
            host: "mail.example".to_owned(),
            port: 465,
            encryption: Encryption::Implicit,
            from: "sync@acme.example".to_owned(),
            login: None,
            ca_file: None,
        })
        .unwrap()
    }

    fn written(notice: &Notice) -> String {
        let message = mailer().message("ann@acme.example", "a run", notice);
        String::from_utf8(message.unwrap().formatted()).unwrap()
    }

    #[test]
    fn a_mail_has_its_headers_and_no_others() {
        let at = DateTime::from_timestamp(1_767_607_872, 0).unwrap();
        let title = "é\r\nBcc: eve@evil.example\r\n\r\nhello";
        let mut notice = Notice::new(Event::Test, "success", title, at);
        // One that came by another way than `Notice::new`.
        notice.title = title.to_owned();
        notice.say("3 rejected");
        let mail = written(&notice);
        let (head, text) = mail.split_once("\r\n\r\n").unwrap();
        let unfolded = head.replace("\r\n ", " ");
        let names: Vec<&str> = unfolded
            .split("\r\n")
            .map(|line| line.split_once(':').unwrap().0)
            .collect();
        assert_eq!(
            names,
            [
                "From",
                "To",
                "Subject",
                "Message-ID",
                "Date",
                "Auto-Submitted",
                "Content-Type",
                "Content-Transfer-Encoding"
            ],
            "{head}"
        );
        assert!(
            head.contains("From: \"Tributary\" <sync@acme.example>")
                || head.contains("From: Tributary <sync@acme.example>"),
            "{head}"
        );
        assert!(head.contains("To: ann@acme.example"), "{head}");
        assert!(head.contains("Date: Mon, 05 Jan 2026 10:11:12"), "{head}");
        assert!(text.contains("3 rejected"), "{text}");
    }

    #[test]
    fn a_mail_that_is_sent_again_is_the_same() {
        let notice = Notice::new(Event::Test, "success", "x", DateTime::UNIX_EPOCH);
        assert_eq!(written(&notice), written(&notice));
        let other = mailer().message("ann@acme.example", "b", &notice).unwrap();
        assert_ne!(written(&notice).into_bytes(), other.formatted());
    }

    /// Whoever stands between may take STARTTLS out of the answer.
    #[tokio::test]
    async fn nothing_is_sent_to_a_server_without_starttls() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = async {
            let (mut socket, _) = listener.accept().await.unwrap();
            socket.write_all(b"220 x ESMTP\r\n").await.unwrap();
            let mut said = vec![0; 512];
            let count = socket.read(&mut said).await.unwrap();
            let answer = b"250-x\r\n250 AUTH PLAIN LOGIN\r\n";
            socket.write_all(answer).await.unwrap();
            said.truncate(count);
            socket.read_to_end(&mut said).await.unwrap();
            String::from_utf8(said).unwrap()
        };
        let mut password = tempfile::NamedTempFile::new().unwrap();
        std::io::Write::write_all(&mut password, b"hunter2").unwrap();
        let mailer = Mailer::new(MailConfig {
            host: "127.0.0.1".to_owned(),
            port,
            encryption: Encryption::StartTls,
            login: Some((
                "me".to_owned(),
                crate::config::secret::SecretRef::File(password.path().to_owned()),
            )),
            ..mailer().settings
        })
        .unwrap();
        let notice = Notice::new(Event::Test, "success", "x", DateTime::UNIX_EPOCH);
        let (said, sent) = tokio::join!(server, mailer.send("ann@acme.example", "x", &notice));
        let fault = sent.unwrap_err();
        assert_eq!(fault.kind(), FaultKind::Config, "{}", fault.report());
        assert!(!said.contains("AUTH") && !said.contains("MAIL"), "{said}");
        assert!(!fault.report().contains("hunter2"));
    }

    #[test]
    fn an_address_is_one_address() {
        let notice = Notice::new(Event::Test, "success", "x", DateTime::UNIX_EPOCH);
        for bad in ["", "ann", "a@b, c@d", "a@b\r\nBcc: c@d", "a@b>"] {
            let fault = mailer().message(bad, "x", &notice).unwrap_err();
            assert_eq!(fault.kind(), FaultKind::Config, "{bad:?}");
        }
    }
}
