//! Who calls: the three metadata headers that every RPC carries.

use tonic::metadata::MetadataMap;

use super::super::org::Org;
use super::super::sessions::User;
use super::refusal::{AUTHENTICATION, HEADERS, Refusal};

/// An admitted caller.
#[derive(Debug, Clone)]
pub(super) struct Caller {
    pub user: User,
    pub token: String,
}

/// Checks token, instance and tenant.
pub(super) fn admit(org: &Org, metadata: &MetadataMap) -> Result<Caller, Refusal> {
    let header = |name: &str| {
        metadata
            .get(name)
            .and_then(|value| value.to_str().ok())
            .filter(|value| !value.is_empty())
            .ok_or(HEADERS)
    };
    let (token, instance, tenant) = (
        header("accesstoken")?,
        header("instanceurl")?,
        header("tenantid")?,
    );
    if instance.trim_end_matches('/') != org.url() || tenant != org.profile.org_id {
        return Err(AUTHENTICATION);
    }
    let user = org.sessions.check(token).ok_or(AUTHENTICATION)?;
    Ok(Caller {
        user,
        token: token.to_owned(),
    })
}
