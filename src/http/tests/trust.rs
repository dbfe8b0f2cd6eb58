//! Who is trusted: the system's authorities, and those of `ca_file`.

use std::io::{Read, Write};
use std::net::TcpListener;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use super::*;

/// An authority made for this test.
pub const AUTHORITY: &str = "\
-----BEGIN CERTIFICATE-----
MIIBmTCCAT+gAwIBAgIURgHwG380CD0KKuAvqp29qQWn2rwwCgYIKoZIzj0EAwIw
GTEXMBUGA1UEAwwOVGVzdCBhdXRob3JpdHkwIBcNMjYxMTI2MTYwOTExWhgPMjEy
NjExMDIxNjA5MTFaMBkxFzAVBgNVBAMMDlRlc3QgYXV0aG9yaXR5MFkwEwYHKoZI
zj0CAQYIKoZIzj0DAQcDQgAE8kxkDckt6mr8rwGgRn1Yd3O9GpQjfTkCJBnDX+6h
X0gVu/3a0wZFBIIDgfIvUSNaBvaMA+WRLd+tWuDHiS2P5KNjMGEwHQYDVR0OBBYE
FMyONeLvtoAWXbYamC73e5YPJxpdMB8GA1UdIwQYMBaAFMyONeLvtoAWXbYamC73
e5YPJxpdMA8GA1UdEwEB/wQFMAMBAf8wDgYDVR0PAQH/BAQDAgIEMAoGCCqGSM49
BAMCA0gAMEUCIQCiBDHd3St3ehVIBcrETBguEfnocMoILuFQMLAWUU6jKQIgNx7s
4emWZE9m7dZT0s6p6y69Fm2Ffd8i6c1nlxSearc=
-----END CERTIFICATE-----
";
/// Signed by it for `localhost`.
pub const SERVER: &str = "\
-----BEGIN CERTIFICATE-----
MIIBrjCCAVWgAwIBAgIUbEKXg3CxQ6vjnCN5H4TbjAE0dVAwCgYIKoZIzj0EAwIw
GTEXMBUGA1UEAwwOVGVzdCBhdXRob3JpdHkwIBcNMjYxMTI2MTYwOTExWhgPMjEy
NjExMDIxNjA5MTFaMBQxEjAQBgNVBAMMCWxvY2FsaG9zdDBZMBMGByqGSM49AgEG
CCqGSM49AwEHA0IABISL1HBRNtCNwzRuDkCGZ3FqgcZT1IkiQKdQmsb6TmyAaPxu
kH0W8VjVNmsdQK0Kc0X/4Z4rbdC3SaaZDdwlFJ6jfjB8MBoGA1UdEQQTMBGCCWxv
Y2FsaG9zdIcEfwAAATAJBgNVHRMEAjAAMBMGA1UdJQQMMAoGCCsGAQUFBwMBMB0G
A1UdDgQWBBQRXjnUR8MMe5J7dW3bxixJpW7sADAfBgNVHSMEGDAWgBTMjjXi77aA
Fl22Gpgu93uWDycaXTAKBggqhkjOPQQDAgNHADBEAiAwxz7buZxVLj7GvE7v3oHZ
IGufLQ38SjdbKbC+cehKQwIgUq0gWAcqZgmUciMq3G6kmj7u4NLZXmckxmnj+4BP
vbE=
-----END CERTIFICATE-----
";
pub const SERVER_KEY: &str = "\
-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgyIcQzykiYYDjMq7R
njAHct++uapsKCjQHT1wPmIxQA+hRANCAASEi9RwUTbQjcM0bg5AhmdxaoHGU9SJ
IkCnUJrG+k5sgGj8bpB9FvFY1TZrHUCtCnNF/+GeK23Qt0mmmQ3cJRSe
-----END PRIVATE KEY-----
";

/// Answers `calls` connections over TLS, whether they trust it or not.
fn serve(calls: usize) -> String {
    tls::install();
    let chain = vec![CertificateDer::from_pem_slice(SERVER.as_bytes()).unwrap()];
    let key = PrivateKeyDer::from_pem_slice(SERVER_KEY.as_bytes()).unwrap();
    let config = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    let config = Arc::new(config);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for socket in listener.incoming().take(calls) {
            let session = ServerConnection::new(Arc::clone(&config)).unwrap();
            let mut stream = StreamOwned::new(session, socket.unwrap());
            let mut request = [0; 4096];
            // A client that does not trust us hangs up here.
            if stream.read(&mut request).is_ok() {
                let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nhi";
                stream.write_all(answer).ok();
                stream.conn.send_close_notify();
                stream.flush().ok();
            }
        }
    });
    format!("https://localhost:{port}/")
}

#[tokio::test]
async fn an_authority_of_ones_own_is_trusted_once_it_is_named() {
    let url = serve(2);
    let strict = |ca_file| {
        client(HttpSettings {
            ca_file,
            plain_text: false,
            timeout: Duration::from_secs(20),
            ..HttpSettings::new("acme")
        })
    };
    let fault = strict(None).send(Request::get(&url)).await.unwrap_err();
    assert_eq!(fault.kind(), FaultKind::Unavailable);
    assert!(fault.report().contains("ca_file"), "{}", fault.report());

    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(AUTHORITY.as_bytes()).unwrap();
    let http = strict(Some(file.path().to_owned()));
    let answer = http.send(Request::get(&url)).await.unwrap();
    assert_eq!(answer.body().as_ref(), b"hi");
}

#[test]
fn a_file_without_certificates_is_named() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let settings = HttpSettings {
        ca_file: Some(file.path().to_owned()),
        ..HttpSettings::new("acme")
    };
    let fault = Http::new(settings, &Metrics::none()).err().unwrap();
    assert_eq!(fault.kind(), FaultKind::Config);
    assert!(fault.report().contains(&file.path().display().to_string()));
}
