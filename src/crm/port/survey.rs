//! What is told of an org before it is synced: who answers, what is left, and what a sync of each object would meet.
//!
//! Contract for every engine:
//! * Calls are few and cheap, nothing is written; the calls that a survey takes do not grow with the records there are.
//! * What one object lacks is told as a [`Finding`] of that object and hides nothing of the others.
//! * What the user may not look up is told as not known, never as fine.

use std::collections::BTreeSet;

use async_trait::async_trait;
use serde::Serialize;

use crate::config::nearest::nearest;
use crate::crm::port::{OrgIdentity, Selection};
use crate::fault::Fault;
use crate::model::name::{FieldName, ObjectName};

/// Looks an org over.
#[async_trait]
pub trait Surveyor: Send + Sync {
    /// Signs in, and tells what it finds of the org and of each object in `selections`, in their order.
    ///
    /// # Errors
    /// Only where the org is not reached or does not let us in.
    async fn survey(&self, selections: &[Selection]) -> Result<Survey, Fault>;
}

/// What was found of an org.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Survey {
    /// Which org answered, and for whom.
    #[serde(flatten)]
    pub identity: OrgIdentity,
    /// The user's name, if it could be looked up.
    pub user_name: Option<String>,
    /// The API version that calls are made in.
    pub api_version: String,
    /// What the org allows, and what of it is left.
    pub quotas: Vec<Quota>,
    /// What concerns no object alone.
    pub findings: Vec<Finding>,
    /// The objects.
    pub objects: Vec<ObjectSurvey>,
}

/// An allowance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Quota {
    /// Of what, and in what time.
    pub name: &'static str,
    /// How much there is, if that is told.
    pub max: Option<u64>,
    /// How much of it is left.
    pub left: u64,
}

impl Quota {
    /// Whether less than a tenth is left.
    #[must_use]
    pub fn is_nearly_used(&self) -> bool {
        self.max.is_some_and(|max| self.left < max.div_ceil(10))
    }
}

/// What was found of an object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ObjectSurvey {
    /// The object.
    pub object: ObjectName,
    /// Whether there is one of that name that the user may see.
    pub exists: bool,
    /// How many records it has, as far as that is told cheaply.
    pub records: Option<u64>,
    /// How its first full sync is read.
    pub first_sync: Option<FirstSync>,
    /// How its changes come.
    pub changes: Changes,
    /// How many fields are selected.
    pub fields: usize,
    /// What is wrong with it.
    pub findings: Vec<Finding>,
}

impl ObjectSurvey {
    /// An object of which nothing is known yet.
    #[must_use]
    pub fn of(selection: &Selection) -> Self {
        Self {
            object: selection.object.clone(),
            exists: false,
            records: None,
            first_sync: None,
            changes: Changes::Unknown,
            fields: selection.fields.len(),
            findings: Vec::new(),
        }
    }

    /// The same with what kept it from being looked at.
    #[must_use]
    pub fn met(mut self, fault: &Fault) -> Self {
        self.findings.push(Finding::of(fault));
        self
    }
}

/// How a first full sync is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct FirstSync {
    /// By which of the CRM's ways: `REST`, `Bulk`, `Web API`.
    pub by: &'static str,
    /// Calls that it takes, its descriptions included; of a job, which is looked at until it is over, at least.
    pub calls: u64,
}

/// How an object's changes come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Changes {
    /// The CRM tells them.
    Told,
    /// The CRM would tell them if it were set so: it is asked for them from time to time.
    NotSelected,
    /// The CRM never tells them: it is asked for them from time to time.
    NeverTold,
    /// Could not be looked up.
    Unknown,
}

/// What an operator should know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// The selected field that it is about, if it is about one.
    pub field: Option<FieldName>,
    /// What was found.
    pub what: String,
    /// What to do about it.
    pub remedy: Option<String>,
}

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// It works, and not as well as it might.
    Warning,
    /// What the config asks for will not work, or not all of it.
    Broken,
}

impl Finding {
    /// Something that keeps the config from working.
    #[must_use]
    pub fn broken(what: impl Into<String>) -> Self {
        Self {
            severity: Severity::Broken,
            field: None,
            what: what.into(),
            remedy: None,
        }
    }

    /// Something that works, and not as well as it might.
    #[must_use]
    pub fn warning(what: impl Into<String>) -> Self {
        Self {
            severity: Severity::Warning,
            ..Self::broken(what)
        }
    }

    /// A fault, as what it keeps from working.
    #[must_use]
    pub fn of(fault: &Fault) -> Self {
        Self {
            remedy: fault.remedy_text().map(str::to_owned),
            ..Self::broken(fault.told())
        }
    }

    /// The selected field that it is about.
    #[must_use]
    pub fn field(mut self, field: &FieldName) -> Self {
        self.field = Some(field.clone());
        self
    }

    /// What to do about it.
    #[must_use]
    pub fn remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = Some(remedy.into());
        self
    }
}

/// The remedy for a name that is not there: the nearest of those that are, else `otherwise`.
#[must_use]
pub fn did_you_mean<'a>(
    name: &str,
    known: impl IntoIterator<Item = &'a str>,
    otherwise: &str,
) -> String {
    match nearest(name, known) {
        Some(near) => format!("did you mean `{near}`? Else {otherwise}"),
        None => otherwise.to_owned(),
    }
}

/// One thing that the user of a connection needs to be allowed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Need {
    /// The permission or privilege, by the CRM's own name.
    pub permission: String,
    /// The objects or fields that it is needed on.
    pub on: BTreeSet<String>,
    /// What for.
    pub why: String,
    /// Whether the daemon runs without it.
    pub optional: bool,
}

impl Need {
    /// A permission that the daemon does not run without.
    #[must_use]
    pub fn new(permission: impl Into<String>, why: impl Into<String>) -> Self {
        Self {
            permission: permission.into(),
            on: BTreeSet::new(),
            why: why.into(),
            optional: false,
        }
    }

    /// The objects or fields that it is needed on.
    #[must_use]
    pub fn on(mut self, names: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.on = names.into_iter().map(Into::into).collect();
        self
    }

    /// Without it the daemon runs.
    #[must_use]
    pub const fn optional(mut self) -> Self {
        self.optional = true;
        self
    }
}
