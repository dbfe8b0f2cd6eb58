//! TLS: the one cryptographic provider, and authorities of the operator's own beside the system's.

use std::io;
use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::fault::{Fault, FaultKind};

/// Makes aws-lc-rs the process's provider. Idempotent; whoever came first stays.
pub fn install() {
    // An error means that a provider is installed already.
    rustls::crypto::aws_lc_rs::default_provider()
        .install_default()
        .ok();
}

/// The certificates of a PEM file, each in DER: authorities to trust beside the system's own.
///
/// # Errors
/// `Config`, naming the file, if it can't be read or holds no certificate.
pub fn authorities(file: &Path) -> Result<Vec<Vec<u8>>, Fault> {
    let refused = |what: String| {
        Fault::new(FaultKind::Config, what)
            .remedy("`ca_file` is a PEM file with one or more `BEGIN CERTIFICATE` blocks")
    };
    let pem = std::fs::read(file).map_err(|error| {
        refused(format!(
            "certificate file `{}` can't be read",
            file.display()
        ))
        .source(error)
    })?;
    let mut found = Vec::new();
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let certificate = certificate.map_err(|error| {
            refused(format!("certificate file `{}` is no PEM", file.display())).source(error)
        })?;
        found.push(certificate.to_vec());
    }
    if found.is_empty() {
        return Err(refused(format!(
            "certificate file `{}` holds no certificate",
            file.display()
        )));
    }
    Ok(found)
}

/// Speaks TLS on a socket of one's own, for protocols whose libraries take a stream.
pub struct ClientTls {
    connector: TlsConnector,
}

impl ClientTls {
    /// Trusts the system's authorities, and those of `ca_file` beside them.
    ///
    /// # Errors
    /// `Config` if the file can't be read or holds no certificate, or if nothing is trusted at all.
    pub fn new(ca_file: Option<&Path>) -> Result<Self, Fault> {
        let mut roots = RootCertStore::empty();
        // What can't be loaded is not trusted; the others count.
        let system = rustls_native_certs::load_native_certs().certs;
        roots.add_parsable_certificates(system);
        if let Some(file) = ca_file {
            for der in authorities(file)? {
                roots.add(CertificateDer::from(der)).map_err(|error| {
                    let what = format!("certificate file `{}` is refused", file.display());
                    Fault::new(FaultKind::Config, what).source(error)
                })?;
            }
        }
        if roots.is_empty() {
            let what = "this system has no trusted authorities to check a certificate by";
            return Err(Fault::new(FaultKind::Config, what)
                .remedy("install ca-certificates, or set `ca_file`"));
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| Fault::new(FaultKind::Config, "setting up TLS").source(error))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self {
            connector: TlsConnector::from(Arc::new(config)),
        })
    }

    /// The handshake with `host`, whose certificate has to be its own and of an authority that is trusted.
    ///
    /// # Errors
    /// The socket's; `InvalidData` for a certificate that is refused, `InvalidInput` for a host that is none.
    pub async fn connect(&self, host: &str, socket: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        let name = ServerName::try_from(host.to_owned())
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        self.connector.connect(name, socket).await
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn file(text: &str) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        file
    }

    #[test]
    fn reads_every_certificate_of_a_file() {
        let pem = "-----BEGIN CERTIFICATE-----\nAQID\n-----END CERTIFICATE-----\n\
                   -----BEGIN CERTIFICATE-----\nBAU=\n-----END CERTIFICATE-----\n";
        let found = authorities(file(pem).path()).unwrap();
        assert_eq!(found, [vec![1, 2, 3], vec![4, 5]]);
    }

    #[test]
    fn names_the_file_that_is_none() {
        for text in ["", "hello", "-----BEGIN CERTIFICATE-----\n!!\n"] {
            let file = file(text);
            let fault = authorities(file.path()).unwrap_err();
            assert_eq!(fault.kind(), FaultKind::Config, "{text:?}");
            let name = file.path().display().to_string();
            assert!(fault.report().contains(&name), "{}", fault.report());
        }
        let fault = authorities(Path::new("/nowhere/ca.pem")).unwrap_err();
        assert!(fault.report().contains("/nowhere/ca.pem"));
    }
}
