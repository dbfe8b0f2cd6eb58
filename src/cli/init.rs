//! `tributary init`: a first config by flags, and by questions on a terminal; then the next three commands.

use std::io::{BufRead, IsTerminal, Write};
use std::path::Path;
use std::process::ExitCode;

use crate::app;
use crate::config::first::{First, Jobs, Place};
use crate::config::oob::CrmKind;
use crate::fault::{Fault, FaultKind};

use super::args::InitOptions;
use super::output;

pub(super) fn init(path: &Path, options: InitOptions, json: bool) -> Result<ExitCode, Fault> {
    let input = std::io::stdin();
    let first = if input.is_terminal() {
        let mut questions = Questions {
            input: input.lock(),
            output: std::io::stderr(),
        };
        said(options, Some(&mut questions))?
    } else {
        said(options, None)?
    };
    let written = first.write(path)?;
    // It was read to be right; its jobs compile too.
    app::load(path)?;
    let next = next(path, &first);
    if json {
        let files: Vec<_> = written
            .iter()
            .map(|file| serde_json::json!({ "path": file.path, "new": file.is_new }))
            .collect();
        output::json(&serde_json::json!({ "files": files, "next": next }));
        return Ok(ExitCode::SUCCESS);
    }
    for file in &written {
        let how = if file.is_new {
            "written"
        } else {
            "kept as it is"
        };
        output::print(&format!("{}: {how}", file.path.display()));
    }
    output::print("next:");
    for command in &next {
        output::print(&format!("  {command}"));
    }
    Ok(ExitCode::SUCCESS)
}

/// The next commands, in their order.
fn next(path: &Path, first: &First) -> Vec<String> {
    let (at, id) = (path.display(), &first.connection);
    let config = if path == Path::new(".") {
        String::new()
    } else {
        format!(" --config {at}")
    };
    let mut next = Vec::new();
    if first.by_person {
        next.push(
            "export TRIBUTARY_STATE_KEY=$(openssl rand -base64 32)   # keep it: it opens the token"
                .to_owned(),
        );
    }
    match &first.secret {
        Place::Env(name) => next.push(format!("export {name}=…")),
        Place::File(file) => next.push(format!(
            "write the secret to {file}, for this user alone to read"
        )),
    }
    if first.by_person {
        next.push(format!("tributary auth {id}{config}"));
    }
    next.push(format!("tributary check --live {id}{config}"));
    next.push(format!("tributary serve{config}"));
    next
}

/// A person to ask.
struct Questions<I, O> {
    input: I,
    output: O,
}

/// Asks a person.
trait Ask {
    /// The answer; `default` if the line is empty.
    fn ask(&mut self, question: &str, default: Option<&str>) -> Result<String, Fault>;
}

impl<I: BufRead, O: Write> Ask for Questions<I, O> {
    fn ask(&mut self, question: &str, default: Option<&str>) -> Result<String, Fault> {
        let unread = |error: std::io::Error| {
            Fault::new(FaultKind::Config, "the answer can't be read").source(error)
        };
        loop {
            let shown = default.map_or_else(String::new, |default| format!(" [{default}]"));
            write!(self.output, "{question}{shown}: ")
                .and_then(|()| self.output.flush())
                .map_err(unread)?;
            let mut line = String::new();
            if self.input.read_line(&mut line).map_err(unread)? == 0 {
                let what = format!("no answer to: {question}");
                return Err(
                    Fault::new(FaultKind::Config, what).remedy("answer it, or give the flag")
                );
            }
            match (line.trim(), default) {
                ("", None) => {}
                ("", Some(default)) => return Ok(default.to_owned()),
                (answer, _) => return Ok(answer.to_owned()),
            }
        }
    }
}

/// What the flags say, and for the rest the person; without one it is an error to leave out what has no default.
fn said(options: InitOptions, mut person: Option<&mut dyn Ask>) -> Result<First, Fault> {
    let mut ask = |flag: &str, given: Option<String>, question: &str, default: Option<&str>| match (
        given,
        &mut person,
        default,
    ) {
        (Some(given), _, _) => Ok(given),
        (None, Some(person), _) => person.ask(question, default),
        (None, None, Some(default)) => Ok(default.to_owned()),
        (None, None, None) => Err(Fault::new(
            FaultKind::Config,
            format!("--{flag} is not given, and there is no terminal to ask on"),
        )
        .remedy(format!("give --{flag}: {question}"))),
    };
    let kind = ask(
        "kind",
        options.kind,
        "Which CRM, salesforce or dynamics",
        Some("salesforce"),
    )?;
    let kind = CrmKind::from_name(&kind).ok_or_else(|| {
        Fault::new(FaultKind::Config, format!("`{kind}` is no kind of CRM"))
            .remedy("write salesforce or dynamics")
    })?;
    let (org, client) = match kind {
        CrmKind::Salesforce => (
            "The org's My Domain URL (Setup → My Domain), https://….my.salesforce.com",
            "The consumer key of the External Client App",
        ),
        CrmKind::Dynamics => (
            "The environment's URL, https://….crm.dynamics.com",
            "The application (client) id of the app registration",
        ),
    };
    let org = ask("org", options.org, org, None)?;
    let near = host_label(&org);
    let connection = ask(
        "connection",
        options.connection,
        "A short name for it",
        near.as_deref(),
    )?;
    let client_id = ask("client-id", options.client_id, client, None)?;
    let flow =
        "How to sign in: client_credentials, or authorization_code for a person who agrees once";
    let flow = ask("flow", options.flow, flow, Some("client_credentials"))?;
    let by_person = match flow.as_str() {
        "client_credentials" => false,
        "authorization_code" => true,
        other => {
            let what = format!("`{other}` is no flow that a first config has");
            let remedy =
                "write client_credentials or authorization_code; docs/sign-in.md has the others";
            return Err(Fault::new(FaultKind::Config, what).remedy(remedy));
        }
    };
    let secret = match options.secret_file {
        Some(file) => Place::File(file),
        None => {
            let variable = variable(&connection);
            let question = "The variable of the environment that will hold the secret";
            Place::Env(ask(
                "secret-env",
                options.secret_env,
                question,
                Some(&variable),
            )?)
        }
    };
    let given = (!options.jobs.is_empty()).then(|| options.jobs.join(","));
    let question =
        "Out-of-the-box jobs: all, second (for a second org), none, or their ids with commas";
    let jobs = ask("jobs", given, question, Some("all"))?;
    let jobs = match jobs.as_str() {
        "all" | "second" | "none" => Jobs::Word(jobs),
        ids => Jobs::Listed(ids.split(',').map(|id| id.trim().to_owned()).collect()),
    };
    Ok(First {
        kind,
        connection,
        org,
        client_id,
        by_person,
        secret,
        jobs,
    })
}

/// The first label of an address's host, if it can be an id.
fn host_label(org: &str) -> Option<String> {
    let (_, rest) = org.split_once("://")?;
    let label = rest.split(['.', '/', ':']).next()?;
    let is_id = !label.is_empty()
        && label
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    is_id.then(|| label.to_owned())
}

/// `ACME_SECRET` of `acme`.
fn variable(connection: &str) -> String {
    let name = connection.chars().map(|c| {
        if c.is_ascii_alphanumeric() {
            c.to_ascii_uppercase()
        } else {
            '_'
        }
    });
    format!("{}_SECRET", name.collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options() -> InitOptions {
        InitOptions {
            kind: None,
            connection: None,
            org: None,
            client_id: None,
            flow: None,
            secret_env: None,
            secret_file: None,
            jobs: Vec::new(),
        }
    }

    #[test]
    fn what_no_flag_says_is_asked_and_asked_again() {
        let answers =
            "dynamics\n\nhttps://contoso.crm.dynamics.com\n\n0000\n\n\nuser_sync, company_sync\n";
        let mut asked = Vec::new();
        let mut person = Questions {
            input: answers.as_bytes(),
            output: &mut asked,
        };
        let first = said(options(), Some(&mut person)).unwrap();
        assert_eq!(
            first,
            First {
                kind: CrmKind::Dynamics,
                connection: "contoso".to_owned(),
                org: "https://contoso.crm.dynamics.com".to_owned(),
                client_id: "0000".to_owned(),
                by_person: false,
                secret: Place::Env("CONTOSO_SECRET".to_owned()),
                jobs: Jobs::Listed(vec!["user_sync".to_owned(), "company_sync".to_owned()]),
            }
        );
        let asked = String::from_utf8(asked).unwrap();
        assert_eq!(asked.matches("The environment's URL").count(), 2, "{asked}");
        assert!(asked.contains("[CONTOSO_SECRET]"), "{asked}");
    }

    #[test]
    fn flags_are_not_asked_for_and_nobody_is_no_answer() {
        let given = || InitOptions {
            org: Some("https://acme.my.salesforce.com".to_owned()),
            client_id: Some("3MVG9".to_owned()),
            jobs: vec!["none".to_owned()],
            ..options()
        };
        let first = said(given(), None).unwrap();
        assert_eq!(
            (first.connection.as_str(), first.by_person),
            ("acme", false)
        );
        assert_eq!(first.jobs, Jobs::Word("none".to_owned()));
        let missing = InitOptions {
            client_id: None,
            ..given()
        };
        let fault = said(missing, None).unwrap_err();
        assert!(fault.report().contains("--client-id"), "{fault}");
        let mut silent = Questions {
            input: &b""[..],
            output: Vec::new(),
        };
        assert!(said(options(), Some(&mut silent)).is_err());
    }
}
