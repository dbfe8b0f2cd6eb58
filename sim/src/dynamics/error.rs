//! Errors of the Web API: a status, a code, a message.

use axum::http::StatusCode;
use serde_json::json;

use super::guid::Guid;
use super::node::Node;

/// A refused call.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{status} {code} {message}")]
pub struct ApiError {
    pub status: StatusCode,
    pub code: String,
    pub message: String,
    /// Seconds for `Retry-After`.
    pub retry_after: Option<u64>,
}

impl ApiError {
    #[must_use]
    pub fn new(status: StatusCode, code: &str, message: impl Into<String>) -> Self {
        Self {
            status,
            code: code.to_owned(),
            message: message.into(),
            retry_after: None,
        }
    }

    /// Bad OData: a wrong name, a wrong literal, an option that is not there.
    pub(crate) fn odata(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "0x80060888", message)
    }

    /// A value that a column does not take.
    pub(crate) fn argument(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "0x80040203", message)
    }

    /// A body that does not fit the table.
    pub(crate) fn payload(set: &str, problem: &str) -> Self {
        let message = format!(
            "Error identified in Payload provided by the user for Entity :'{set}', For more information on this \
             error please follow this help link https://go.microsoft.com/fwlink/?linkid=2195293  ---->  \
             InnerException : Microsoft.OData.ODataException: {problem}"
        );
        Self::new(StatusCode::BAD_REQUEST, "0x80048d19", message)
    }

    pub(crate) fn no_segment(segment: &str) -> Self {
        let message = format!("Resource not found for the segment '{segment}'.");
        Self::new(StatusCode::NOT_FOUND, "0x8006088a", message)
    }

    pub(crate) fn no_property(property: &str, type_name: &str) -> Self {
        Self::odata(format!(
            "Could not find a property named '{property}' on type '{type_name}'."
        ))
    }

    pub(crate) fn no_row(table: &str, id: Guid) -> Self {
        let message = format!("Entity '{table}' With Id = {id} Does Not Exist");
        Self::new(StatusCode::NOT_FOUND, "0x80040217", message)
    }

    pub(crate) fn no_keyed_row(table: &str) -> Self {
        let message =
            format!("A record with the specified key values does not exist in {table} entity");
        Self::new(StatusCode::NOT_FOUND, "0x80060891", message)
    }

    pub(crate) fn version_mismatch() -> Self {
        let message =
            "The version of the existing record doesn't match the RowVersion property provided.";
        Self::new(StatusCode::PRECONDITION_FAILED, "0x80060882", message)
    }

    pub(crate) fn duplicate_id() -> Self {
        let message = "A record with matching key values already exists.";
        Self::new(StatusCode::PRECONDITION_FAILED, "0x80040237", message)
    }

    pub(crate) fn duplicate_key(key: &str) -> Self {
        let message = format!(
            "Entity Key {key} violated. A record with the same value for {key} already exists. A duplicate record \
             cannot be created. Select one or more unique values and try again."
        );
        Self::new(StatusCode::PRECONDITION_FAILED, "0x80060892", message)
    }

    pub(crate) fn privilege(user: Guid, action: &str, table: &str) -> Self {
        let message = format!(
            "Principal user (Id={user}, type=8) is missing prv{action}{table} privilege on OTC for entity '{table}'."
        );
        Self::new(StatusCode::FORBIDDEN, "0x80040220", message)
    }

    pub(crate) fn stale_token(status: StatusCode) -> Self {
        let message =
            "Version stamp associated with the client has expired. Please perform a full sync.";
        Self::new(status, "0x80044352", message)
    }

    pub(crate) fn not_tracked(table: &str) -> Self {
        let message = format!("Entity {table} isn't enabled for change tracking.");
        Self::new(StatusCode::BAD_REQUEST, "0x80072491", message)
    }

    pub(crate) fn not_allowed(message: impl Into<String>) -> Self {
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "0x8006088c", message)
    }

    /// The simulator's own fault.
    pub(crate) fn broken(error: &dyn std::error::Error) -> Self {
        let message = format!("The simulator failed: {error}");
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "0x80040216", message)
    }

    /// The body; `detailed` adds the members that come with all annotations.
    #[must_use]
    pub fn body(&self, detailed: bool) -> Node {
        let mut error = json!({"code": self.code, "message": self.message});
        if detailed {
            let code = self.code.trim_start_matches("0x");
            error["@Microsoft.PowerApps.CDS.ErrorDetails.ApiExceptionSourceKey"] = "Web".into();
            error["@Microsoft.PowerApps.CDS.HelpLink"] = format!(
                "http://go.microsoft.com/fwlink/?LinkID=398563&error=Microsoft.Crm.CrmException%3a{code}&client=platform"
            )
            .into();
            error["@Microsoft.PowerApps.CDS.TraceText"] = "".into();
            error["@Microsoft.PowerApps.CDS.InnerError.Message"] = self.message.clone().into();
        }
        Node::Object(vec![("error".to_owned(), Node::Value(error))])
    }
}
