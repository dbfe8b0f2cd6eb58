//! Channels: which exist, which entities they carry, and how a wrong name is refused.
//!
//! Source: Change Data Capture Developer Guide, "Subscription Channels"; names are case-sensitive.

use std::collections::{BTreeMap, BTreeSet};

use super::super::org::Org;
use super::super::sessions::User;

const NO_VIEW_ALL: &str =
    "403::User not allowed to subscribe CDC without View All Data permissions";

/// What a custom channel carries: its entities, and the fields added to each one's updates and deletes.
pub type Members = BTreeMap<String, Vec<String>>;

/// What a subscription listens to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Channel {
    /// `/data/ChangeEvents`: every captured entity.
    Standard,
    /// `/data/AccountChangeEvent`, `/data/Employee__ChangeEvent`.
    Entity(String),
    /// `/data/{Name}__chn`.
    Custom(Members),
}

impl Channel {
    /// Whether an entity's events travel on it.
    pub fn carries(&self, entity: &str) -> bool {
        match self {
            Self::Standard => true,
            Self::Entity(only) => only == entity,
            Self::Custom(members) => members.contains_key(entity),
        }
    }

    /// The fields that an entity's events are enriched by.
    pub fn enriches(&self, entity: &str) -> &[String] {
        match self {
            Self::Custom(members) => members.get(entity).map_or(&[], Vec::as_slice),
            _ => &[],
        }
    }

    /// The channel of this name, if there is one.
    pub fn find(name: &str, org: &Org, custom: &BTreeMap<String, Members>) -> Option<Self> {
        find(name, org, custom).ok()
    }

    /// Finds a channel and asks whether this user may listen to it; the error is a Bayeux error text.
    pub fn open(
        name: &str,
        org: &Org,
        user: &User,
        custom: &BTreeMap<String, Members>,
        forbidden: &BTreeSet<String>,
    ) -> Result<Self, String> {
        let channel = find(name, org, custom)?;
        if let Self::Entity(entity) = &channel
            && (!user.view_all_data || forbidden.contains(entity))
        {
            return Err(NO_VIEW_ALL.to_owned());
        }
        Ok(channel)
    }
}

/// Finds a channel; the error is a Bayeux error text.
fn find(name: &str, org: &Org, custom: &BTreeMap<String, Members>) -> Result<Channel, String> {
    let mut segments = name.split('/');
    if segments.next() != Some("") || segments.clone().any(str::is_empty) || name.len() < 2 {
        return Err("403::Cannot create channel".to_owned());
    }
    let (first, second) = (segments.next().unwrap_or_default(), segments.next());
    if matches!(first, "meta" | "service") || name.contains('*') {
        return Err("403::Restricted channel".to_owned());
    }
    let stream = match (first, second, segments.next()) {
        ("data", Some(stream), None) => stream,
        ("data" | "event" | "topic" | "u" | "systemTopic", _, _) => return Err(missing(name)),
        _ => return Err("403:denied_by_security_policy:create_denied".to_owned()),
    };
    if stream == "ChangeEvents" {
        return Ok(Channel::Standard);
    }
    if let Some(members) = custom.get(stream) {
        return Ok(Channel::Custom(members.clone()));
    }
    entity(stream)
        .filter(|entity| org.captures(entity))
        .map(Channel::Entity)
        .ok_or_else(|| missing(name))
}

fn missing(name: &str) -> String {
    format!("400::The channel you requested to subscribe to doesn't exist {name}")
}

/// The object behind an event's name: `Employee__ChangeEvent` → `Employee__c`.
fn entity(event: &str) -> Option<String> {
    let stem = event.strip_suffix("ChangeEvent")?;
    match stem.strip_suffix("__") {
        Some(custom) if !custom.is_empty() => Some(format!("{custom}__c")),
        Some(_) => None,
        None => (!stem.is_empty() && !stem.ends_with("__c")).then(|| stem.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::super::options::SimOptions;
    use super::*;

    fn org() -> Arc<Org> {
        let org = Org::open(&SimOptions::default()).unwrap();
        org.capture("Account");
        org.capture("Employee__c");
        org
    }

    fn open(name: &str) -> Result<Channel, String> {
        let org = org();
        let custom = BTreeMap::from([(
            "Sync__chn".to_owned(),
            Members::from([("Account".into(), vec![])]),
        )]);
        Channel::open(name, &org, &org.profile.run_as, &custom, &BTreeSet::new())
    }

    #[test]
    fn names_are_found_with_their_case() {
        assert_eq!(open("/data/ChangeEvents"), Ok(Channel::Standard));
        assert_eq!(
            open("/data/AccountChangeEvent"),
            Ok(Channel::Entity("Account".into()))
        );
        assert_eq!(
            open("/data/Employee__ChangeEvent"),
            Ok(Channel::Entity("Employee__c".into()))
        );
        assert!(open("/data/Sync__chn").unwrap().carries("Account"));
        assert!(!open("/data/Sync__chn").unwrap().carries("Employee__c"));
        for wrong in [
            "/data/changeEvents",
            "/data/accountChangeEvent",
            "/data/AccountChangeEvents",
            "/data/Employee__cChangeEvent",
            "/data/Other__chn",
            "/data/ContactChangeEvent",
            "/data/ChangeEvent",
            "/data/__ChangeEvent",
            "/data",
            "/data/ChangeEvents/more",
            "/event/Alert__e",
        ] {
            assert_eq!(
                open(wrong).unwrap_err(),
                format!("400::The channel you requested to subscribe to doesn't exist {wrong}")
            );
        }
    }

    #[test]
    fn other_names_are_refused_by_kind() {
        let denied = "403:denied_by_security_policy:create_denied";
        for (name, error) in [
            ("/chat/room", denied),
            ("/Data/ChangeEvents", denied),
            ("/meta/connect", "403::Restricted channel"),
            ("/data/*", "403::Restricted channel"),
            ("/**", "403::Restricted channel"),
            ("data/ChangeEvents", "403::Cannot create channel"),
            ("/data/ChangeEvents/", "403::Cannot create channel"),
            ("/", "403::Cannot create channel"),
            ("", "403::Cannot create channel"),
        ] {
            assert_eq!(open(name).unwrap_err(), error, "{name}");
        }
    }

    #[test]
    fn permission_counts_where_one_entity_is_asked_for() {
        let org = org();
        let blind = User {
            view_all_data: false,
            ..org.profile.run_as.clone()
        };
        let none = BTreeMap::new();
        let forbidden = BTreeSet::from(["Account".to_owned()]);
        let open =
            |name: &str, user: &User, forbidden| Channel::open(name, &org, user, &none, forbidden);
        let nothing = BTreeSet::new();
        assert_eq!(
            open("/data/AccountChangeEvent", &blind, &nothing).unwrap_err(),
            NO_VIEW_ALL
        );
        let user = &org.profile.run_as;
        assert_eq!(
            open("/data/AccountChangeEvent", user, &forbidden).unwrap_err(),
            NO_VIEW_ALL
        );
        assert!(open("/data/Employee__ChangeEvent", user, &forbidden).is_ok());
        assert!(open("/data/ChangeEvents", &blind, &forbidden).is_ok());
    }
}
