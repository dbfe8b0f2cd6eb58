//! The signed-in users: their e-mail addresses, kept for the day on which the org lets nobody in.

use std::time::Duration;

use tokio::time::Instant;

use super::Watch;
use crate::fault::{Fault, FaultKind};
use crate::flow::board::Life;
use crate::model::name::ConnectionId;
use crate::notify::port::Address;

/// The longest that one look waits for an org.
const PATIENCE: Duration = Duration::from_secs(20);
/// When an org that did not say is asked again.
const AGAIN: Duration = Duration::from_mins(10);
/// When one that did is.
const ANEW: Duration = Duration::from_hours(24);

impl Watch {
    /// Asks orgs that let us in who is signed in, where anybody needs to know.
    pub(super) async fn look_at_users(&mut self) -> Result<(), Fault> {
        let picture = self.ground.board.picture();
        for (connection, shown) in picture.connections {
            let lets_in = matches!(
                shown.state,
                Life::Streaming | Life::Snapshotting | Life::Repairing
            );
            let is_due = self
                .users
                .get(&connection)
                .is_none_or(|at| *at <= Instant::now());
            if lets_in && is_due && self.ground.audience.asks_for_user(&connection) {
                let again = self.ask(&connection).await?;
                self.users.insert(connection, Instant::now() + again);
            }
        }
        Ok(())
    }

    /// Asks an org, and notes what it says; when to ask again.
    async fn ask(&mut self, connection: &ConnectionId) -> Result<Duration, Fault> {
        let Some(crm) = self.ground.crms.get(connection) else {
            return Ok(ANEW);
        };
        let asked = tokio::time::timeout(PATIENCE, crm.user_email()).await;
        let asked = asked.unwrap_or_else(|_| {
            let what = "the org does not say in time who is signed in";
            Err(Fault::new(FaultKind::Unavailable, what))
        });
        let email = match asked {
            Ok(Some(email)) if !email.trim().is_empty() => email.trim().to_owned(),
            Ok(_) => {
                tracing::warn!(
                    %connection,
                    "the signed-in user has no e-mail address, so nobody is told of failures: set `notify`"
                );
                return Ok(ANEW);
            }
            Err(fault) => {
                tracing::info!(
                    %connection, error = fault.report(), "the signed-in user's e-mail address is not known yet"
                );
                return Ok(AGAIN);
            }
        };
        let subject = subject(connection);
        let before = self.stored(&subject).await?;
        if before.as_ref() != Some(&email) {
            self.tell(&subject, before, &email, None).await?;
        }
        Ok(ANEW)
    }

    /// The address of a connection's user, if it is known.
    pub(super) async fn user(
        &mut self,
        connection: &ConnectionId,
    ) -> Result<Option<Address>, Fault> {
        let email = self.mark(&subject(connection)).await?;
        if email.is_none() && self.deaf.insert(connection.clone()) {
            tracing::warn!(
                %connection,
                "nobody is told: `notify` is not set, and the signed-in user's e-mail address is not known"
            );
        }
        Ok(email.map(Address::Mail))
    }
}

fn subject(connection: &ConnectionId) -> String {
    format!("user {connection}")
}
