//! The errors of the sign-in service: `error` by code, ids and time beside it.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::json;

use super::super::org::Org;

/// A refusal by its AADSTS number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub code: u32,
    pub text: String,
}

impl Refusal {
    pub fn new(code: u32, text: impl Into<String>) -> Self {
        Self {
            code,
            text: text.into(),
        }
    }

    /// A refusal with the usual words of its code.
    pub fn usual(code: u32) -> Self {
        let text = match code {
            70000 => "Provided grant is invalid or malformed.",
            70008 => {
                "The provided authorization code or refresh token has expired due to inactivity."
            }
            700_082 => "The refresh token has expired due to inactivity.",
            700_084 => {
                "The refresh token was issued to a single page app (SPA), and therefore has a fixed, limited lifetime of 1.00:00:00, which can't be extended."
            }
            50173 => {
                "The provided grant has expired due to it being revoked, a fresh auth token is needed."
            }
            70043 => {
                "The refresh token has expired or is invalid due to sign-in frequency checks by conditional access."
            }
            54005 => {
                "OAuth2 Authorization code was already redeemed, please retry with a new valid code or use an existing refresh token."
            }
            501_481 => {
                "The Code_Verifier does not match the code_challenge supplied in the authorization request."
            }
            65001 => "The user or administrator has not consented to use the application.",
            50076 => {
                "Due to a configuration change made by your administrator, or because you moved to a new location, you must use multi-factor authentication to access the resource."
            }
            50079 => {
                "Due to a configuration change made by your administrator, you must enroll in multi-factor authentication."
            }
            53000..=53003 => {
                "Access has been blocked by Conditional Access policies. The access policy does not allow token issuance."
            }
            7_000_215 | 70002 => "Invalid client secret provided.",
            7_000_222 => "The provided client secret keys are expired.",
            700_027 => {
                "The certificate with identifier used to sign the client assertion is not registered on application, or the assertion is not valid."
            }
            700_025 => {
                "Client is public so neither 'client_assertion' nor 'client_secret' should be presented."
            }
            700_016 | 700_011 => "Application was not found in the directory.",
            70001 => "The application is disabled.",
            70011 => {
                "The provided request must include a 'scope' input parameter that is valid for one resource."
            }
            28002 => {
                "Provided value for the input parameter scope is not valid when requesting an access token."
            }
            500_011 => "The resource principal was not found in the tenant.",
            50001 => "The resource is disabled or doesn't exist in the tenant.",
            90006 | 50033 => "The service is temporarily unavailable. Please retry later.",
            90012 => "Request has timed out. Please retry.",
            90002 => "Tenant not found. Check to make sure you have the correct tenant ID.",
            50194 => "Application is not configured as a multi-tenant application.",
            50105 => "The signed in user is not assigned to a role for the application.",
            50057 => "The user account is disabled.",
            50196 => {
                "The server terminated an operation because it encountered a client request loop."
            }
            _ => "The request was refused.",
        };
        Self::new(code, text)
    }

    /// The value of `error`, and the status.
    fn class(&self) -> (&'static str, StatusCode) {
        let bad = StatusCode::BAD_REQUEST;
        match self.code {
            50076 | 50079 | 53000..=53003 => ("interaction_required", bad),
            70002 | 7_000_215 | 7_000_222 | 700_027 | 700_025 => {
                ("invalid_client", StatusCode::UNAUTHORIZED)
            }
            7_000_218 => ("invalid_client", StatusCode::UNAUTHORIZED),
            700_016 | 700_011 | 70001 => ("unauthorized_client", bad),
            70011 | 28002 => ("invalid_scope", bad),
            500_011 | 50001 => ("invalid_resource", bad),
            90006 | 50033 => ("temporarily_unavailable", StatusCode::SERVICE_UNAVAILABLE),
            90012 => ("server_error", StatusCode::INTERNAL_SERVER_ERROR),
            70003 => ("unsupported_grant_type", bad),
            90002 | 50194 | 50059 | 900_144 => ("invalid_request", bad),
            // Page and practice agree: what a person must repair is an invalid grant.
            _ => ("invalid_grant", bad),
        }
    }

    /// The token endpoint's answer.
    pub fn answer(&self, org: &Org) -> Response {
        let (error, status) = self.class();
        let at = org.clock.now().format("%Y-%m-%d %H:%M:%SZ").to_string();
        let (trace, correlation) = (org.draw().to_string(), org.draw().to_string());
        let description = format!(
            "AADSTS{}: {} Trace ID: {trace} Correlation ID: {correlation} Timestamp: {at}",
            self.code, self.text
        );
        let mut body = json!({
            "error": error,
            "error_description": description,
            "error_codes": [self.code],
            "timestamp": at,
            "trace_id": trace,
            "correlation_id": correlation,
            "error_uri": format!("{}/error?code={}", org.url(), self.code),
        });
        if self.code == 65001 {
            body["suberror"] = "consent_required".into();
        }
        let no_store = [
            ("cache-control", "no-store, no-cache"),
            ("pragma", "no-cache"),
        ];
        (status, no_store, Json(body)).into_response()
    }

    /// The page that a person sees when the application can't be told.
    pub fn page(&self) -> Response {
        let page = format!(
            "<html><head><title>Sign in to your account</title></head><body><h1>Sorry, but we're having trouble \
             signing you in.</h1><p>AADSTS{}: {}</p></body></html>",
            self.code, self.text
        );
        (
            StatusCode::BAD_REQUEST,
            [("content-type", "text/html; charset=utf-8")],
            page,
        )
            .into_response()
    }

    /// `error` and `error_description` for a redirect.
    pub fn redirect(&self) -> (&'static str, String) {
        (
            self.class().0,
            format!("AADSTS{}: {}", self.code, self.text),
        )
    }
}
