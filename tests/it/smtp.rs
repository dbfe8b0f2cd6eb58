//! A strict SMTP server (RFC 5321, 3207, 4954): it takes a mail in the right order of commands only, over TLS, from who has
//! the password, and keeps what it took.

use std::path::PathBuf;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use crate::road::world::{LOOK, PATIENCE};

pub const USER: &str = "sync@acme.example";
pub const PASSWORD: &str = "mail-hunter2";

/// Makes an authority, and a certificate for `localhost`.
const CERTIFICATES: &str = r#"
set -eu
cd "$1"
openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj "/CN=Tributary test CA" -keyout ca.key -out ca.crt 2>/dev/null
openssl req -newkey rsa:2048 -nodes -subj "/CN=localhost" -keyout server.key -out server.csr 2>/dev/null
printf 'subjectAltName=DNS:localhost\nbasicConstraints=CA:FALSE\n' > ext
openssl x509 -req -in server.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 -extfile ext -out server.crt 2>/dev/null
"#;

/// A mail that was taken.
#[derive(Debug, Clone)]
pub struct Mail {
    pub to: Vec<String>,
    pub head: String,
    pub text: String,
}

/// The server; it ends with the test.
pub struct Smtp {
    port: u16,
    implicit: bool,
    dir: tempfile::TempDir,
    kept: Arc<Kept>,
}

#[derive(Default)]
struct Kept {
    mails: Mutex<Vec<Mail>>,
    refused: Mutex<usize>,
    /// What clients did that no client may do.
    wrong: Mutex<Vec<String>>,
}

impl Smtp {
    /// TLS from the first byte, or STARTTLS.
    pub async fn start(implicit: bool) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let made = Command::new("bash")
            .args(["-c", CERTIFICATES, "certificates"])
            .arg(dir.path())
            .status();
        assert!(made.unwrap().success());
        let certificate = CertificateDer::from_pem_file(dir.path().join("server.crt")).unwrap();
        let key = PrivateKeyDer::from_pem_file(dir.path().join("server.key")).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let kept = Arc::new(Kept::default());
        let keeper = Arc::clone(&kept);
        tokio::spawn(async move {
            loop {
                let (socket, _) = listener.accept().await.unwrap();
                let (acceptor, kept) = (acceptor.clone(), Arc::clone(&keeper));
                tokio::spawn(async move {
                    // A client that goes away in the middle is no mail.
                    serve(socket, acceptor, implicit, &kept).await.ok();
                });
            }
        });
        Self {
            port,
            implicit,
            dir,
            kept,
        }
    }

    /// `[mail]` for it, with the password in a file.
    pub fn section(&self) -> String {
        let scheme = if self.implicit { "smtps" } else { "smtp" };
        self.set_password(PASSWORD);
        format!(
            "[mail]\nsmtp = \"{scheme}://localhost:{}\"\nfrom = \"{USER}\"\nuser = \"{USER}\"\npassword = {{ file = \"{}\" }}\n\
             ca_file = \"{}\"\n",
            self.port,
            self.password().display(),
            self.dir.path().join("ca.crt").display()
        )
    }

    fn password(&self) -> PathBuf {
        self.dir.path().join("password")
    }

    /// What the daemon reads as the password from here on.
    pub fn set_password(&self, password: &str) {
        std::fs::write(self.password(), password).unwrap();
    }

    pub fn mails(&self) -> Vec<Mail> {
        let wrong = self.kept.wrong.lock().unwrap();
        assert!(wrong.is_empty(), "{wrong:?}");
        self.kept.mails.lock().unwrap().clone()
    }

    /// How often a password was refused.
    pub fn refused(&self) -> usize {
        *self.kept.refused.lock().unwrap()
    }

    /// Waits for a mail to somebody whose subject holds a text.
    pub async fn mail(&self, to: &str, subject: &str) -> Mail {
        let until = Instant::now() + PATIENCE;
        loop {
            let mails = self.mails();
            let found = mails.iter().find(|mail| {
                let unfolded = mail.head.replace("\r\n ", " ");
                let mut lines = unfolded.lines();
                mail.to == [to]
                    && lines.any(|line| line.starts_with("Subject: ") && line.contains(subject))
            });
            if let Some(mail) = found {
                return mail.clone();
            }
            assert!(
                Instant::now() < until,
                "no mail to {to} of {subject:?}: {mails:#?}"
            );
            tokio::time::sleep(LOOK).await;
        }
    }
}

async fn serve(
    socket: TcpStream,
    acceptor: TlsAcceptor,
    implicit: bool,
    kept: &Kept,
) -> std::io::Result<()> {
    if implicit {
        let stream = acceptor.accept(socket).await?;
        let mut talk = Talk::new(stream, true);
        talk.say("220 localhost ESMTP").await?;
        return talk.session(kept).await;
    }
    let mut talk = Talk::new(socket, false);
    talk.say("220 localhost ESMTP").await?;
    talk.session(kept).await?;
    if !talk.stream.buffer().is_empty() {
        let what = "plain text after STARTTLS".to_owned();
        kept.wrong.lock().unwrap().push(what);
    }
    let stream = acceptor.accept(talk.stream.into_inner()).await?;
    Talk::new(stream, true).session(kept).await
}

/// One client, from its first command to QUIT or STARTTLS.
struct Talk<S> {
    stream: BufReader<S>,
    secure: bool,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Talk<S> {
    fn new(stream: S, secure: bool) -> Self {
        Self {
            stream: BufReader::new(stream),
            secure,
        }
    }

    async fn say(&mut self, line: &str) -> std::io::Result<()> {
        self.stream
            .write_all(format!("{line}\r\n").as_bytes())
            .await?;
        self.stream.flush().await
    }

    /// A line, which ends as lines end in SMTP; `None` at the end.
    async fn line(&mut self, kept: &Kept) -> std::io::Result<Option<String>> {
        let mut line = String::new();
        if self.stream.read_line(&mut line).await? == 0 {
            return Ok(None);
        }
        match line.strip_suffix("\r\n") {
            Some(line) => Ok(Some(line.to_owned())),
            None => {
                kept.wrong.lock().unwrap().push(format!("{line:?}"));
                Ok(None)
            }
        }
    }

    async fn session(&mut self, kept: &Kept) -> std::io::Result<()> {
        let (mut greeted, mut known, mut from, mut to) = (false, false, false, Vec::new());
        while let Some(line) = self.line(kept).await? {
            let upper = line.to_ascii_uppercase();
            let answer = if upper.starts_with("EHLO ") {
                greeted = true;
                self.say("250-localhost").await?;
                if self.secure {
                    "250 AUTH PLAIN"
                } else {
                    "250 STARTTLS"
                }
            } else if upper == "QUIT" {
                return self.say("221 bye").await;
            } else if !greeted {
                "503 say EHLO first"
            } else if upper == "STARTTLS" && !self.secure {
                return self.say("220 go ahead").await;
            } else if !self.secure {
                "530 say STARTTLS first"
            } else if let Some(given) = line.strip_prefix("AUTH PLAIN ") {
                known =
                    STANDARD.decode(given).unwrap() == format!("\0{USER}\0{PASSWORD}").as_bytes();
                if known {
                    "235 welcome"
                } else {
                    *kept.refused.lock().unwrap() += 1;
                    "535 5.7.8 wrong user or password"
                }
            } else if !known {
                "530 5.7.0 say AUTH first"
            } else if upper == format!("MAIL FROM:<{}>", USER.to_uppercase()) {
                from = true;
                "250 ok"
            } else if let Some(rest) = line.strip_prefix("RCPT TO:<").filter(|_| from) {
                to.push(rest.trim_end_matches('>').to_owned());
                "250 ok"
            } else if upper == "DATA" && !to.is_empty() {
                self.say("354 go on").await?;
                let Some(mail) = self.data(kept, std::mem::take(&mut to)).await? else {
                    return Ok(());
                };
                kept.mails.lock().unwrap().push(mail);
                from = false;
                "250 2.0.0 queued"
            } else {
                kept.wrong.lock().unwrap().push(line.clone());
                "503 bad sequence of commands"
            };
            self.say(answer).await?;
        }
        Ok(())
    }

    async fn data(&mut self, kept: &Kept, to: Vec<String>) -> std::io::Result<Option<Mail>> {
        let mut whole = String::new();
        while let Some(line) = self.line(kept).await? {
            if line == "." {
                let (head, text) = whole.split_once("\r\n\r\n").unwrap();
                return Ok(Some(Mail {
                    to,
                    head: head.to_owned(),
                    // Quoted-printable breaks long lines.
                    text: text.replace("=\r\n", ""),
                }));
            }
            // A line that begins with a dot was given another one.
            whole.push_str(line.strip_prefix('.').unwrap_or(&line));
            whole.push_str("\r\n");
        }
        Ok(None)
    }
}
