//! `tributary auth`: has a person authorise a connection, through the running daemon or beside none.

use std::io::BufRead;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;

use crate::admin;
use crate::app;
use crate::app::sign_in::desk_alone;
use crate::config::Config;
use crate::crm::port::consent::{Desk, Disconnected, Ended};
use crate::crm::port::survey::Need;
use crate::fault::{Fault, FaultKind};
use crate::http::request::Method;
use crate::model::name::ConnectionId;
use crate::runtime::shutdown::StopSignal;

use super::args::AuthOptions;
use super::daemon::Daemon;
use super::output;

/// How often the daemon is asked whether the person has answered.
const LOOK: Duration = Duration::from_millis(500);
/// A link waits no longer.
const PATIENCE: Duration = Duration::from_mins(10);

pub(super) async fn auth(
    path: &Path,
    options: &AuthOptions,
    json: bool,
) -> Result<ExitCode, Fault> {
    let config = app::load(path)?;
    let id = ConnectionId::new(&options.connection);
    let connection = config.connections.get(&id).ok_or_else(|| {
        Fault::new(FaultKind::Config, format!("no connection {id}")).remedy(format!(
            "add connections/{id}.toml, or name one of: {}",
            config
                .connections
                .keys()
                .map(ConnectionId::as_str)
                .collect::<Vec<_>>()
                .join(", ")
        ))
    })?;
    let needs = app::needs::needs(&config, connection)?;
    if !connection.is_by_person() {
        return by_itself(&config, &id, options, &needs, json).await;
    }
    let desk = Either::open(&config).await?;
    let outcome = if options.revoke {
        disconnect(&desk, &id, json).await
    } else {
        authorise(&desk, &config, &id, options.paste, json, &needs).await
    };
    desk.close().await?;
    outcome
}

async fn disconnect(desk: &Either, id: &ConnectionId, json: bool) -> Result<ExitCode, Fault> {
    let done: Disconnected = match desk {
        Either::Daemon(daemon) => daemon.call(Method::Delete, &path_of(id)).await?,
        Either::Alone(desk, _) => desk.disconnect(id).await?,
    };
    if json {
        output::json(&done);
        return Ok(ExitCode::SUCCESS);
    }
    output::print(match (done.had_token, done.revoked) {
        (true, true) => "the token is deleted here and revoked at the CRM",
        (true, false) => "the token is deleted here; the CRM was not made to revoke it",
        (false, _) => "there was no token",
    });
    output::print(&done.remains);
    Ok(ExitCode::SUCCESS)
}

async fn authorise(
    desk: &Either,
    config: &Config,
    id: &ConnectionId,
    paste: bool,
    json: bool,
    needs: &[Need],
) -> Result<ExitCode, Fault> {
    let callback = config.admin.callback(config.admin.listen);
    // Bound before the link is shown, as the answer may come at once.
    let listener = match desk {
        Either::Alone(..) if !paste => {
            let token = config.admin.token.as_ref().map(|token| token.read());
            let token = token.transpose()?;
            Some(admin::bind(config.admin.listen, token.as_ref()).await?)
        }
        _ => None,
    };
    let link = match desk {
        Either::Daemon(daemon) => daemon.call(Method::Post, &path_of(id)).await?,
        Either::Alone(desk, _) => Link {
            link: desk.link(id, &callback).await?,
            callback,
        },
    };
    if json {
        output::json(
            &serde_json::json!({ "link": link.link, "callback": link.callback, "needs": needs }),
        );
    } else {
        output::print(&format!(
            "callback URL that the app must allow: {}",
            link.callback
        ));
        print_needs("the person who agrees", needs);
        output::print(&format!("open this, sign in and agree:\n{}", link.link));
    }
    let ended = if paste {
        if !json {
            output::print("paste the address that the browser ends at:");
        }
        pasted(desk, id).await?
    } else {
        waited(desk, id, listener).await?
    };
    told(&ended, id, json)
}

fn told(ended: &Ended, id: &ConnectionId, json: bool) -> Result<ExitCode, Fault> {
    if json {
        output::json(ended);
    }
    match ended {
        Ended::Authorised { org, user } => {
            if !json {
                output::print(&format!(
                    "connection {id} is authorised: org {org}, user {user}"
                ));
            }
            Ok(ExitCode::SUCCESS)
        }
        Ended::Refused { .. } if json => Ok(ExitCode::FAILURE),
        Ended::Refused { error } => Err(Fault::new(FaultKind::Credentials, error.clone())),
        Ended::Waiting => Err(Fault::new(
            FaultKind::Credentials,
            format!("nobody answered the link of connection {id} in ten minutes"),
        )
        .remedy("run the command again")),
    }
}

/// A connection that nobody has to authorise: what its user needs, and whether it signs in.
async fn by_itself(
    config: &Config,
    id: &ConnectionId,
    options: &AuthOptions,
    needs: &[Need],
    json: bool,
) -> Result<ExitCode, Fault> {
    if options.revoke || options.paste {
        let what = format!("connection {id} signs in by itself, nobody has to authorise it");
        return Err(Fault::new(FaultKind::Config, what)
            .remedy("set flow = \"authorization_code\" in its `auth` if a person should"));
    }
    if !json {
        output::print(&format!(
            "connection {id} signs in by itself, nobody has to authorise it"
        ));
        print_needs("its user", needs);
    }
    let identity = app::sign_in::prove(config, id).await;
    if json {
        let (signed_in, error) = match &identity {
            Ok(identity) => (Some(identity), None),
            Err(fault) => (None, Some(fault.report())),
        };
        output::json(
            &serde_json::json!({ "needs": needs, "signed_in": signed_in, "error": error }),
        );
        return Ok(if identity.is_ok() {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        });
    }
    let identity = identity?;
    output::print(&format!(
        "connection {id} signs in: org {}, user {}; `tributary check --live {id}` names what is missing",
        identity.org_id, identity.user_id
    ));
    Ok(ExitCode::SUCCESS)
}

/// The least that somebody has to be allowed, for the jobs as they are configured.
fn print_needs(who: &str, needs: &[Need]) {
    output::print(&format!(
        "what {who} needs, for the jobs as they are configured:"
    ));
    for need in needs {
        let optional = if need.optional { " (optional)" } else { "" };
        output::print(&format!("  {}{optional}: {}", need.permission, need.why));
        if !need.on.is_empty() {
            let on: Vec<&str> = need.on.iter().map(String::as_str).collect();
            output::print(&format!("      on {}", on.join(", ")));
        }
    }
}

/// Waits for the answer to come to the callback.
async fn waited(
    desk: &Either,
    id: &ConnectionId,
    listener: Option<tokio::net::TcpListener>,
) -> Result<Ended, Fault> {
    let until = tokio::time::Instant::now() + PATIENCE;
    let stop = StopSignal::new();
    let serving = match (desk, listener) {
        (Either::Alone(desk, _), Some(listener)) => {
            let (desk, stop) = (Arc::clone(desk), stop.clone());
            Some(tokio::spawn(admin::consent::serve(listener, desk, stop)))
        }
        _ => None,
    };
    let ended = loop {
        let ended = desk.ended(id).await?;
        if !matches!(ended, Ended::Waiting) || tokio::time::Instant::now() > until {
            break ended;
        }
        tokio::time::sleep(LOOK).await;
    };
    stop.stop();
    if let Some(serving) = serving {
        // The page goes out to the person before we leave.
        let left = tokio::time::timeout(Duration::from_secs(3), serving).await;
        tracing::debug!(in_time = left.is_ok(), "the callback's listener ended");
    }
    Ok(ended)
}

/// Reads the address from the standard input, for a browser that can't reach us.
async fn pasted(desk: &Either, id: &ConnectionId) -> Result<Ended, Fault> {
    let line = tokio::task::spawn_blocking(|| {
        let mut line = String::new();
        std::io::stdin().lock().read_line(&mut line).map(|_| line)
    })
    .await;
    let unread = || Fault::new(FaultKind::Config, "the address can't be read");
    let line = line.map_err(|_| unread())?.map_err(|_| unread())?;
    let query = line.trim().split_once('?').map(|(_, query)| query);
    let query = query.and_then(|query| query.split('#').next());
    let query = query
        .filter(|query| query.contains("state="))
        .ok_or_else(|| {
            Fault::new(FaultKind::Config, "this is not the address of the callback")
                .remedy("paste the whole address, with `code=` and `state=` in it")
        })?;
    let refused = match desk {
        Either::Daemon(daemon) => take(daemon, query).await?,
        Either::Alone(desk, _) => admin::consent::take(desk, query).await.err(),
    };
    if let Some(fault) = refused {
        return Ok(Ended::Refused {
            error: fault.report(),
        });
    }
    desk.ended(id).await
}

/// Who asks the person: the running daemon, or we, while none runs.
enum Either {
    Daemon(Daemon),
    Alone(Arc<Desk>, Arc<dyn crate::state::port::State>),
}

impl Either {
    async fn open(config: &Config) -> Result<Self, Fault> {
        let daemon = Daemon::of(config)?;
        if daemon.is_alive().await {
            return Ok(Self::Daemon(daemon));
        }
        let (desk, state) = desk_alone(config).await?;
        Ok(Self::Alone(Arc::new(desk), state))
    }

    async fn ended(&self, id: &ConnectionId) -> Result<Ended, Fault> {
        match self {
            Self::Daemon(daemon) => daemon.call(Method::Get, &path_of(id)).await,
            Self::Alone(desk, _) => Ok(desk.ended(id).unwrap_or(Ended::Waiting)),
        }
    }

    async fn close(self) -> Result<(), Fault> {
        match self {
            Self::Daemon(_) => Ok(()),
            Self::Alone(_, state) => state.close().await,
        }
    }
}

#[derive(Deserialize)]
struct Link {
    link: String,
    callback: String,
}

/// Gives the daemon what came back; why it was refused, if it was.
async fn take(daemon: &Daemon, query: &str) -> Result<Option<Fault>, Fault> {
    let path = format!("{}?{query}", crate::config::admin::CALLBACK);
    Ok((!daemon.visit(&path).await?).then(|| {
        Fault::new(FaultKind::Credentials, "the daemon refused the address")
            .remedy("its log says why; ask for a new link")
    }))
}

/// Where a connection's authorisation is asked for.
fn path_of(id: &ConnectionId) -> String {
    format!("/api/v1/connections/{id}/authorization")
}
