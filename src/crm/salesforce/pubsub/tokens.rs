//! The token of a stream's calls: one new one until the server says something again.

use std::sync::Arc;

use crate::fault::{Fault, FaultKind};

use super::super::sign_in::{SignIn, Token};

/// Where a stream's calls get their token.
pub struct Tokens {
    sign_in: Arc<SignIn>,
    token: Option<Arc<Token>>,
    renewed: bool,
}

impl Tokens {
    /// Tokens of `sign_in`.
    #[must_use]
    pub const fn new(sign_in: Arc<SignIn>) -> Self {
        Self {
            sign_in,
            token: None,
            renewed: false,
        }
    }

    /// The token; signs in if there is none.
    ///
    /// # Errors
    /// As [`SignIn::token`].
    pub async fn get(&mut self) -> Result<Arc<Token>, Fault> {
        match &self.token {
            Some(token) => Ok(Arc::clone(token)),
            None => {
                let token = self.sign_in.token().await?;
                self.token = Some(Arc::clone(&token));
                Ok(token)
            }
        }
    }

    /// The server said something: the token is good.
    pub const fn proved(&mut self) {
        self.renewed = false;
    }

    /// Another token than `used`, which was refused.
    ///
    /// # Errors
    /// `Credentials` where that other one was refused, too; as [`SignIn::renewed`].
    pub async fn renew(&mut self, refusal: &str, used: &Arc<Token>) -> Result<(), Fault> {
        let is_current = |token: &Arc<Token>| Arc::ptr_eq(token, used);
        if !self.token.as_ref().is_some_and(is_current) {
            // Another subscription found it dead before.
            return Ok(());
        }
        self.token = None;
        if self.renewed {
            return Err(Fault::new(FaultKind::Credentials, refusal.to_owned()).remedy(
                "the CRM refuses a token that it has just given: check the session settings and the IP ranges of the \
                 Run-As user",
            ));
        }
        self.renewed = true;
        self.token = Some(self.sign_in.renewed(used).await?);
        Ok(())
    }
}
