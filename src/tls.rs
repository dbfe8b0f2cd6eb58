//! TLS: the one cryptographic provider, and authorities of the operator's own beside the system's.

use std::path::Path;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

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
