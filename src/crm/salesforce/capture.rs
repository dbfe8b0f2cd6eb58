//! Which objects the org tells changes of: listed, selected and released through the Tooling API (Change Data Capture
//! Developer Guide, "Select Objects for Change Notifications with Metadata API and Tooling API").

use std::sync::Arc;

use serde::Serialize;
use serde_json::json;

use crate::crm::port::survey::Changes;
use crate::fault::{Fault, FaultKind};
use crate::model::name::ObjectName;

use super::Salesforce;
use super::needs::is_never_captured;
use super::place::channel_of;
use super::rest::{Refused, Rest};
use super::settings::Channels;
use super::setup::{self, Member, STANDARD};
use super::soql;

const MEMBER: &str = "/tooling/sobjects/PlatformEventChannelMember";

/// Selects and releases objects, on the channel that the connection listens to.
pub struct Capture {
    rest: Arc<Rest>,
    channels: Channels,
}

/// An object and the channels that carry it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Captured {
    /// The object.
    pub object: String,
    /// The channels.
    pub channels: Vec<String>,
    /// Whether the connection is told its changes.
    pub told: bool,
}

impl Salesforce {
    /// Lists, selects and releases what the org captures.
    #[must_use]
    pub fn capture(&self) -> Capture {
        Capture {
            rest: Arc::clone(&self.rest),
            channels: self.settings.channels.clone(),
        }
    }
}

impl Capture {
    /// Every object that a channel carries, by name.
    ///
    /// # Errors
    /// `Permission` without "View Setup and Configuration".
    pub async fn list(&self) -> Result<Vec<Captured>, Fault> {
        let mut listed: Vec<Captured> = Vec::new();
        for member in self.members().await? {
            let object = object_of(&member.selected_entity);
            let told = member.is_heard_on(&self.channels);
            match listed.iter_mut().find(|known| known.object == object) {
                Some(known) => {
                    known.channels.push(member.event_channel);
                    known.told |= told;
                }
                None => listed.push(Captured {
                    object,
                    channels: vec![member.event_channel],
                    told,
                }),
            }
        }
        listed.sort_by(|one, other| one.object.cmp(&other.object));
        Ok(listed)
    }

    /// Selects an object; whether it was not selected before.
    ///
    /// # Errors
    /// `Missing` for an object that has no change events, `Permission` without "Customize Application", `Throttled` where
    /// no more objects may be selected.
    pub async fn add(&self, object: &ObjectName) -> Result<bool, Fault> {
        let doing =
            |fault: Fault| fault.context(format_args!("selecting {object} for change events"));
        soql::identifier(object.as_str())?;
        if is_never_captured(object) {
            return Err(
                doing(Fault::new(FaultKind::Missing, "it has no change events"))
                    .remedy("it is polled"),
            );
        }
        let members = self.members().await?;
        if self.own(&members, object).next().is_some() {
            return Ok(false);
        }
        let entity = entity_of(object);
        let channel = match &self.channels {
            Channels::Standard | Channels::PerObject => STANDARD,
            Channels::Named(name) => name.trim_start_matches("/data/"),
        };
        let order = json!({
            "FullName": full_name(channel, &entity),
            "Metadata": { "eventChannel": channel, "selectedEntity": entity },
        });
        match self.rest.post(MEMBER, &order.to_string()).await {
            Ok(_) => Ok(true),
            // Somebody else was quicker.
            Err(refused) if refused.is("DUPLICATE_DEVELOPER_NAME") => Ok(false),
            Err(refused) => Err(doing(refusal(refused))),
        }
    }

    /// Releases an object on the connection's channel; whether it was selected there.
    ///
    /// # Errors
    /// `Permission` without "Customize Application".
    pub async fn remove(&self, object: &ObjectName) -> Result<bool, Fault> {
        let members = self.members().await?;
        let mut was_there = false;
        for member in self.own(&members, object) {
            match self.rest.delete(&format!("{MEMBER}/{}", member.id)).await {
                Ok(_) => was_there = true,
                Err(refused) if refused.status == 404 => {}
                Err(refused) => {
                    let doing = format_args!("releasing {object} from change events").to_string();
                    return Err(refusal(refused).context(doing));
                }
            }
        }
        Ok(was_there)
    }

    async fn members(&self) -> Result<Vec<Member>, Fault> {
        let members = setup::members(&self.rest).await;
        members.map_err(|refused| {
            let is_hidden = refused.is_hidden();
            let fault = refused.fault.context("listing what is captured");
            if is_hidden {
                fault.remedy("give the connection's user View Setup and Configuration: the permission set in config/salesforce has it")
            } else {
                fault
            }
        })
    }

    /// The members by which the connection is told an object's changes.
    fn own<'a>(
        &'a self,
        members: &'a [Member],
        object: &'a ObjectName,
    ) -> impl Iterator<Item = &'a Member> {
        members
            .iter()
            .filter(move |member| member.is_of(object) && member.is_heard_on(&self.channels))
    }
}

/// How an object's changes come, by what the channels carry; `None` if that is not known.
pub fn changes(object: &ObjectName, members: Option<&[Member]>, channels: &Channels) -> Changes {
    if is_never_captured(object) {
        return Changes::NeverTold;
    }
    let Some(members) = members else {
        return Changes::Unknown;
    };
    let mut own = members.iter().filter(|member| member.is_of(object));
    if own.any(|member| member.is_heard_on(channels)) {
        Changes::Told
    } else {
        Changes::NotSelected
    }
}

fn refusal(refused: Refused) -> Fault {
    if refused.is("LIMIT_EXCEEDED") {
        return refused.fault.remedy(
            "an org without the add-on captures five objects: release one first (`--remove`), or let this one be polled",
        );
    }
    if refused.is_hidden() {
        return refused.fault.remedy(
            "select it in Setup → Change Data Capture; or give the user Customize Application for the time of this command",
        );
    }
    refused.fault
}

/// The event's name: `Plan__ChangeEvent` of `Plan__c`.
fn entity_of(object: &ObjectName) -> String {
    channel_of(object).trim_start_matches("/data/").to_owned()
}

/// The object of an event's name.
fn object_of(entity: &str) -> String {
    match entity.strip_suffix("__ChangeEvent") {
        Some(custom) => format!("{custom}__c"),
        None => entity.trim_end_matches("ChangeEvent").to_owned(),
    }
}

/// A member's name: two underscores would part a namespace from it (Metadata API Developer Guide,
/// "PlatformEventChannelMember").
fn full_name(channel: &str, entity: &str) -> String {
    format!("{channel}_{entity}").replace("__", "_")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_go_there_and_back() {
        for (object, entity) in [
            ("Account", "AccountChangeEvent"),
            ("Plan__c", "Plan__ChangeEvent"),
            ("ns__Plan__c", "ns__Plan__ChangeEvent"),
        ] {
            assert_eq!(entity_of(&object.into()), entity);
            assert_eq!(object_of(entity), object);
        }
        assert_eq!(
            full_name("Sales__chn", "Plan__ChangeEvent"),
            "Sales_chn_Plan_ChangeEvent"
        );
    }
}
