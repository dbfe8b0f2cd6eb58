//! Where to sign in: the authority that an environment names in its challenge, if its host is one of Microsoft's.

use crate::fault::{Fault, FaultKind};

/// Hosts that sign people and applications in to Microsoft's clouds ("National clouds", Microsoft identity platform).
const HOSTS: [&str; 6] = [
    "login.microsoftonline.com",
    "login.windows.net",
    "login.microsoftonline.us",
    "login.microsoftonline.de",
    "login.partner.microsoftonline.cn",
    "login.chinacloudapi.cn",
];

/// The authority with its tenant, from the `WWW-Authenticate` header of a refused call:
/// `Bearer authorization_uri=https://login.microsoftonline.com/<tenant>/oauth2/authorize, resource_id=…`. Where
/// `own` names a host, that host is taken for the answer's, and the answer's tenant only if `own` has none.
///
/// # Errors
/// `Protocol` for a header without an authority, `Config` for an authority of an unknown host.
pub fn authority(challenge: Option<&str>, own: Option<&str>) -> Result<String, Fault> {
    if let Some(own) = own
        && tenant(own).is_some()
    {
        return Ok(own.to_owned());
    }
    let named = challenge.and_then(authorization_uri).ok_or_else(|| {
        Fault::new(
            FaultKind::Protocol,
            "the environment names no place to sign in",
        )
        .remedy(
            "check `org`, or set `authority_url` to `https://login.microsoftonline.com/<tenant>`",
        )
    })?;
    let Some(tenant) = tenant(named) else {
        let what = format!("the environment names `{named}` to sign in, without a tenant");
        return Err(Fault::new(FaultKind::Protocol, what));
    };
    if let Some(own) = own {
        return Ok(format!("{own}/{tenant}"));
    }
    let host = named
        .strip_prefix("https://")
        .and_then(|rest| rest.split('/').next());
    match host.filter(|host| HOSTS.contains(host)) {
        Some(host) => Ok(format!("https://{host}/{tenant}")),
        None => Err(Fault::new(
            FaultKind::Config,
            format!("the environment names `{named}` to sign in, which is no host of Microsoft's"),
        )
        .remedy("if it is right, set `authority_url` to it: a secret is sent there")),
    }
}

/// The first path part of an authority.
fn tenant(url: &str) -> Option<&str> {
    let (_, rest) = url.split_once("://")?;
    let tenant = rest.split('/').nth(1)?;
    let sound = !tenant.is_empty()
        && tenant
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_'));
    sound.then_some(tenant)
}

fn authorization_uri(challenge: &str) -> Option<&str> {
    let (_, rest) = challenge.split_once("authorization_uri=")?;
    let rest = rest.trim_start_matches('"');
    let end = rest.find([',', '"', ' ']).unwrap_or(rest.len());
    let uri = &rest[..end];
    (!uri.is_empty()).then_some(uri)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TENANT: &str = "3f1c1c0e-0000-4000-8000-00000000aaaa";

    fn challenge(uri: &str) -> String {
        format!("Bearer authorization_uri={uri}, resource_id=https://contoso.crm.dynamics.com/")
    }

    #[test]
    fn the_challenge_names_the_tenant() {
        for (host, form) in [
            ("login.microsoftonline.com", "oauth2/authorize"),
            ("login.microsoftonline.us", "oauth2/v2.0/authorize"),
        ] {
            let header = challenge(&format!("https://{host}/{TENANT}/{form}"));
            let found = authority(Some(&header), None).unwrap();
            assert_eq!(found, format!("https://{host}/{TENANT}"));
        }
        let quoted = format!("Bearer authorization_uri=\"https://login.windows.net/{TENANT}/x\"");
        assert!(authority(Some(&quoted), None).is_ok());
    }

    #[test]
    fn a_secret_is_sent_to_no_other_host() {
        for uri in [
            format!("https://login.evil.example/{TENANT}/oauth2/authorize"),
            format!("http://login.microsoftonline.com/{TENANT}/oauth2/authorize"),
            format!("https://login.microsoftonline.com.evil.example/{TENANT}/x"),
            format!("https://login.microsoftonline.com@evil.example/{TENANT}/x"),
            format!("https://login.microsoftonline.com:8443/{TENANT}/x"),
        ] {
            let fault = authority(Some(&challenge(&uri)), None).unwrap_err();
            assert_eq!(fault.kind(), FaultKind::Config, "{uri}");
        }
        for header in [None, Some("Bearer"), Some("Bearer authorization_uri=")] {
            let fault = authority(header, None).unwrap_err();
            assert_eq!(fault.kind(), FaultKind::Protocol, "{header:?}");
        }
        let rootless = challenge("https://login.microsoftonline.com/");
        assert!(authority(Some(&rootless), None).is_err());
    }

    #[test]
    fn the_operators_word_stands_above() {
        let header = challenge(&format!("https://login.microsoftonline.com/{TENANT}/x"));
        let own = Some("http://127.0.0.1:9");
        let found = authority(Some(&header), own).unwrap();
        assert_eq!(found, format!("http://127.0.0.1:9/{TENANT}"));
        let whole = "https://login.microsoftonline.us/contoso.com";
        assert_eq!(authority(None, Some(whole)).unwrap(), whole);
    }
}
