//! Addresses of nodes: entities, their dead letters, and what answers requests.

/// What a link leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Node {
    /// `$cbs`: takes tokens.
    Cbs,
    /// `<entity>/$management`: answers requests about locks.
    Management { entity: String, dead: bool },
    /// A queue, or a topic's subscription.
    Entity { name: String, dead: bool },
}

impl Node {
    /// Reads an address: a name, or a URL whose path is one.
    pub fn parse(address: &str) -> Option<Self> {
        let path = match address.split_once("://") {
            Some((_, rest)) => rest.split_once('/')?.1,
            None => address,
        };
        let path = path.trim_matches('/');
        if path.eq_ignore_ascii_case("$cbs") {
            return Some(Self::Cbs);
        }
        let (path, management) = strip(path, "/$management");
        let (name, dead) = strip(path, "/$deadletterqueue");
        if name.is_empty() || name.contains('$') {
            return None;
        }
        let name = name.to_owned();
        Some(match management {
            true => Self::Management { entity: name, dead },
            false => Self::Entity { name, dead },
        })
    }

    /// The entity's name; empty for `$cbs`.
    pub fn entity(&self) -> &str {
        match self {
            Self::Cbs => "",
            Self::Management { entity, .. } => entity,
            Self::Entity { name, .. } => name,
        }
    }

    /// The path that a token has to hold for.
    pub fn path(&self) -> String {
        let dead = if self.is_dead() {
            "/$deadletterqueue"
        } else {
            ""
        };
        match self {
            Self::Cbs => "$cbs".to_owned(),
            Self::Management { entity, .. } => format!("{entity}{dead}/$management"),
            Self::Entity { name, .. } => format!("{name}{dead}"),
        }
    }

    pub fn is_dead(&self) -> bool {
        match self {
            Self::Cbs => false,
            Self::Management { dead, .. } | Self::Entity { dead, .. } => *dead,
        }
    }
}

/// A path without its ending, and whether it had it.
fn strip<'p>(path: &'p str, ending: &str) -> (&'p str, bool) {
    let begin = path.len().checked_sub(ending.len());
    match begin.and_then(|begin| path.split_at_checked(begin)) {
        Some((head, tail)) if tail.eq_ignore_ascii_case(ending) => (head, true),
        _ => (path, false),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_names_or_urls() {
        let entity = |name: &str, dead| Node::Entity {
            name: name.to_owned(),
            dead,
        };
        assert_eq!(Node::parse("$cbs"), Some(Node::Cbs));
        assert_eq!(Node::parse("changes"), Some(entity("changes", false)));
        assert_eq!(
            Node::parse("amqps://h:1/changes/$DeadLetterQueue"),
            Some(entity("changes", true))
        );
        assert_eq!(
            Node::parse("t/Subscriptions/s"),
            Some(entity("t/Subscriptions/s", false))
        );
        let management = Node::parse("changes/$management").unwrap();
        assert_eq!(
            (management.entity(), management.is_dead()),
            ("changes", false)
        );
        let management = Node::parse("changes/$deadletterqueue/$management").unwrap();
        assert_eq!(
            (management.entity(), management.is_dead()),
            ("changes", true)
        );
        for wrong in ["", "/", "$other", "amqp://h", "a/$b"] {
            assert_eq!(Node::parse(wrong), None, "{wrong}");
        }
    }
}
