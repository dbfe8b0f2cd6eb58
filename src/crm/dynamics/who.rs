//! The answer of `WhoAmI`: which environment a token is for, and whom it acts for.

use serde::Deserialize;

use crate::fault::{Fault, FaultKind};
use crate::model::record_id::RecordId;

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct WhoAmI {
    /// The user, a GUID in lower case.
    pub user_id: String,
    /// The environment's own id, likewise.
    pub organization_id: String,
}

impl WhoAmI {
    /// Reads an answer (Dataverse Web API, "WhoAmI function").
    pub fn read(body: &[u8]) -> Result<Self, Fault> {
        let told: Self = serde_json::from_slice(body).map_err(|error| {
            let what = "the answer of WhoAmI can't be read";
            Fault::new(FaultKind::Protocol, what).source(error)
        })?;
        let normal = |id: &str| {
            RecordId::guid(id)
                .map(|id| id.to_string())
                .map_err(|error| {
                    let what = "the answer of WhoAmI names no org";
                    Fault::new(FaultKind::Protocol, what).source(error)
                })
        };
        Ok(Self {
            user_id: normal(&told.user_id)?,
            organization_id: normal(&told.organization_id)?,
        })
    }
}
