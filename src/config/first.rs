//! The first config: what an operator says of an org, as commented files that `check` passes.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use crate::config::Config;
use crate::config::id;
use crate::config::oob::CrmKind;
use crate::fault::{Fault, FaultKind};

/// What is said of the org.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct First {
    /// Which CRM it is.
    pub kind: CrmKind,
    /// The connection's id.
    pub connection: String,
    /// The org's URL.
    pub org: String,
    /// The app's id there.
    pub client_id: String,
    /// Whether a person agrees once, in place of an app that signs in by itself.
    pub by_person: bool,
    /// Where the app's secret is.
    pub secret: Place,
    /// Which out-of-the-box jobs.
    pub jobs: Jobs,
}

/// Where a secret is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// A variable of the environment.
    Env(String),
    /// A file.
    File(String),
}

/// Which out-of-the-box jobs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Jobs {
    /// `all`, `second` or `none`.
    Word(String),
    /// These, by id.
    Listed(Vec<String>),
}

/// A file, and whether it was written: one that was there stays as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// The file.
    pub path: PathBuf,
    /// Whether it is new.
    pub is_new: bool,
}

impl First {
    /// Writes the connection's file, and the daemon's unless there is one, into `folder`; nothing is overwritten, and
    /// nothing stays of what `check` would refuse.
    ///
    /// # Errors
    /// `Config` for what can't be a config, and if the connection's file is there; `Storage`.
    pub fn write(&self, folder: &Path) -> Result<Vec<Written>, Fault> {
        if let Some(wrong) = id::wrong(&self.connection, "connection's id") {
            let what = format!("connection `{}`: {wrong}", self.connection);
            return Err(Fault::new(FaultKind::Config, what).remedy(id::REMEDY));
        }
        if folder.is_file() {
            let what = format!(
                "`{}` is a file, and a first config is a directory",
                folder.display()
            );
            return Err(Fault::new(FaultKind::Config, what).remedy("name a directory by --config"));
        }
        let daemon = folder.join("tributary.toml");
        let connection = folder.join(format!("connections/{}.toml", self.connection));
        let mut written = Vec::new();
        if !create(&connection, &self.connection_file())? {
            let what = format!(
                "`{}` is there already, and is not overwritten",
                connection.display()
            );
            return Err(Fault::new(FaultKind::Config, what)
                .remedy("give the connection another id, or change that file by hand"));
        }
        written.push(Written {
            path: connection,
            is_new: true,
        });
        let created = create(&daemon, &self.daemon_file());
        if let Ok(is_new) = created {
            let path = daemon;
            written.push(Written { path, is_new });
        }
        let loaded = created.and_then(|_| {
            // Secrets are looked up at each use, so none has to be there yet.
            Config::load(folder, &BTreeMap::new()).map_err(Fault::from)
        });
        if let Err(fault) = loaded {
            for file in written.iter().filter(|file| file.is_new) {
                if let Err(error) = std::fs::remove_file(&file.path) {
                    tracing::warn!(file = %file.path.display(), %error, "could not be removed again");
                }
            }
            return Err(fault.context("nothing is written, as it would not be right"));
        }
        Ok(written)
    }

    fn connection_file(&self) -> String {
        let (id, kind) = (&self.connection, self.kind.name());
        let (org, client) = (quoted(&self.org), quoted(&self.client_id));
        let secret = match &self.secret {
            Place::Env(name) => format!("{{ env = {} }}", quoted(name)),
            Place::File(path) => format!("{{ file = {} }}", quoted(path)),
        };
        let flow = if self.by_person {
            "authorization_code"
        } else {
            "client_credentials"
        };
        let about_org = match self.kind {
            CrmKind::Salesforce => {
                "# The org's My Domain URL (Setup → My Domain), not the address that browsers show."
            }
            CrmKind::Dynamics => {
                "# The environment's URL. It does not change once data came from it."
            }
        };
        let about_secret = if self.by_person {
            "# A person agrees once: tributary auth. The secret is named, never written."
        } else {
            "# The secret is named, never written. A new one takes minutes to work: wait before you doubt it."
        };
        let more = match self.kind {
            CrmKind::Salesforce => {
                "# transport = \"cometd\"            # \"pubsub\", unless said\n\
                 # bulk_from = 20000                # objects with so many records are read by the Bulk API\n"
            }
            CrmKind::Dynamics => {
                "# daily_requests = 20000           # calls a day that it may take\n\
                 # language = 1033                  # of labels\n"
            }
        };
        let jobs = match &self.jobs {
            Jobs::Word(word) => quoted(word),
            Jobs::Listed(ids) => {
                let ids: Vec<String> = ids.iter().map(|id| quoted(id)).collect();
                format!("[{}]", ids.join(", "))
            }
        };
        let oob = match &self.jobs {
            Jobs::Word(word) if word == "none" => format!(
                "# Out-of-the-box jobs: none. Your own go to jobs/{id}/<job>.toml; `tributary oob {kind}` lists what there is.\n\
                 # oob = {{ catalog = 1, jobs = \"all\" }}\n"
            ),
            _ => format!(
                "# Out-of-the-box jobs (tributary oob {id}). A file jobs/{id}/<job>.toml changes one, or adds one of your own.\n\
                 oob = {{ catalog = 1, jobs = {jobs} }}\n"
            ),
        };
        format!(
            "# The file's name is the connection's id: {id}. docs/{kind}.md says what to do in the org.\n\
             kind = \"{kind}\"\n\n\
             {about_org}\norg = {org}\n\n\
             {about_secret}\nauth = {{ flow = \"{flow}\", client_id = {client}, client_secret = {secret} }}\n\n\
             {oob}\n{more}"
        )
    }

    fn daemon_file(&self) -> String {
        let key = if self.by_person {
            "# Seals the token that a person's consent gives: openssl rand -base64 32\n\
             [state]\nkey = { env = \"TRIBUTARY_STATE_KEY\" }\n\n"
        } else {
            ""
        };
        format!(
            "# The daemon. docs/configuration.md has every key; `tributary check` names every mistake.\n\n\
             [daemon]\ndata_dir  = \"data\"                 # log, images, state, store; below this folder\n\
             time_zone = \"UTC\"                  # of schedules\n\n\
             [admin]\nlisten = \"127.0.0.1:8080\"          # the page, /metrics, /api/v1; another address needs a token\n\n\
             {key}\
             # One machine needs no more. For production: docs/kafka.md, docs/postgresql.md, config/examples/production.\n\
             [log]\nurl = \"embedded\"\n\n\
             [target]\nurl = \"sqlite:store.db\"            # below data_dir\n\n\
             [store]\nperson_key         = [\"email\"]     # what makes two persons one\n\
             corporate_currency = \"USD\"\n"
        )
    }
}

/// Makes the file with its folder; `false` if it is there.
fn create(path: &Path, text: &str) -> Result<bool, Fault> {
    let failed = |error: std::io::Error| {
        Fault::new(FaultKind::Storage, format!("writing `{}`", path.display()))
            .source(error)
            .remedy("let this user write there, or name another directory by --config")
    };
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(failed)?;
    }
    let mut file = match OpenOptions::new().write(true).create_new(true).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::AlreadyExists => return Ok(false),
        Err(error) => return Err(failed(error)),
    };
    file.write_all(text.as_bytes()).map_err(failed)?;
    Ok(true)
}

/// A text as TOML has it: a basic string escapes what JSON does.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn first(kind: CrmKind, org: &str) -> First {
        First {
            kind,
            connection: "acme".to_owned(),
            org: org.to_owned(),
            client_id: "3MVG9".to_owned(),
            by_person: false,
            secret: Place::Env("ACME_SECRET".to_owned()),
            jobs: Jobs::Word("all".to_owned()),
        }
    }

    const SALESFORCE: &str = "https://acme.my.salesforce.com";
    const DYNAMICS: &str = "https://contoso.crm.dynamics.com";

    #[test]
    fn every_form_of_it_is_a_right_config() {
        let forms = [
            first(CrmKind::Salesforce, SALESFORCE),
            first(CrmKind::Dynamics, DYNAMICS),
            First {
                by_person: true,
                secret: Place::File("/run/secrets/it's".to_owned()),
                jobs: Jobs::Listed(vec!["user_sync".to_owned(), "company_sync".to_owned()]),
                ..first(CrmKind::Salesforce, SALESFORCE)
            },
            First {
                by_person: true,
                jobs: Jobs::Word("none".to_owned()),
                ..first(CrmKind::Dynamics, DYNAMICS)
            },
        ];
        for form in forms {
            let folder = tempfile::tempdir().unwrap();
            let written = form.write(folder.path()).unwrap();
            assert_eq!(written.len(), 2);
            let config = Config::load(folder.path(), &BTreeMap::new()).unwrap();
            let jobs = match &form.jobs {
                Jobs::Word(word) if word == "none" => 0..1,
                Jobs::Listed(ids) => ids.len()..ids.len() + 1,
                Jobs::Word(_) => 3..100,
            };
            assert!(
                jobs.contains(&config.jobs.len()),
                "{form:?}: {}",
                config.jobs.len()
            );
            assert_eq!(config.connections["acme"].is_by_person(), form.by_person);
        }
    }

    #[test]
    fn nothing_is_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        first(CrmKind::Salesforce, SALESFORCE)
            .write(folder.path())
            .unwrap();
        let daemon = folder.path().join("tributary.toml");
        std::fs::write(&daemon, "# mine\n").unwrap();
        let again = first(CrmKind::Salesforce, SALESFORCE)
            .write(folder.path())
            .unwrap_err();
        assert!(again.report().contains("not overwritten"), "{again}");
        let second = First {
            connection: "contoso".to_owned(),
            ..first(CrmKind::Dynamics, DYNAMICS)
        };
        let written = second.write(folder.path()).unwrap();
        assert!(
            written
                .iter()
                .any(|file| !file.is_new && file.path == daemon)
        );
        assert_eq!(std::fs::read_to_string(daemon).unwrap(), "# mine\n");
    }

    #[test]
    fn what_would_be_wrong_leaves_nothing() {
        for wrong in [
            first(CrmKind::Salesforce, "https://acme.lightning.force.com"),
            First {
                connection: "../acme".to_owned(),
                ..first(CrmKind::Salesforce, SALESFORCE)
            },
            First {
                jobs: Jobs::Listed(vec!["no_such_sync".to_owned()]),
                ..first(CrmKind::Salesforce, SALESFORCE)
            },
        ] {
            let folder = tempfile::tempdir().unwrap();
            let fault = wrong.write(folder.path()).unwrap_err();
            assert_eq!(fault.kind(), FaultKind::Config, "{fault}");
            assert!(!folder.path().join("tributary.toml").exists());
            assert!(!folder.path().join("connections/acme.toml").exists());
        }
    }
}
