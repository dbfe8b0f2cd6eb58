//! What the port of descriptions promises.

use crate::model::name::{ConnectionId, ObjectName};
use crate::state::descriptions::{Described, Descriptions};

use super::{account, acme, at};

/// A description is the newest one, of its own connection, for every engine on the store; a refresh stays asked for.
pub(super) async fn conforms(one: &dyn Descriptions, other: &dyn Descriptions) {
    let user = ObjectName::new("User");
    assert_eq!(one.description(acme(), &account()).await.unwrap(), None);
    assert!(one.described(acme()).await.unwrap().is_empty());
    let said = |body: &str, second| Described {
        body: body.to_owned(),
        read_at: at(second),
    };
    let put = async |object: &ObjectName, described: Described| {
        one.put_description(acme(), object, described)
            .await
            .unwrap();
    };
    put(&user, said("{}", 1)).await;
    put(&account(), said("first", 2)).await;
    put(&account(), said("{\"label\":\"Größe \\u0041 'x'\"}", 5)).await;
    assert_eq!(
        other.description(acme(), &account()).await.unwrap(),
        Some(said("{\"label\":\"Größe \\u0041 'x'\"}", 5))
    );
    assert_eq!(
        other.described(acme()).await.unwrap(),
        [(account(), at(5)), (user, at(1))]
    );
    let beta = ConnectionId::new("beta");
    assert_eq!(other.description(&beta, &account()).await.unwrap(), None);

    assert_eq!(one.refresh_asked(acme()).await.unwrap(), None);
    one.ask_refresh(acme(), at(3)).await.unwrap();
    one.ask_refresh(acme(), at(7)).await.unwrap();
    assert_eq!(other.refresh_asked(acme()).await.unwrap(), Some(at(7)));
    assert_eq!(other.refresh_asked(&beta).await.unwrap(), None);
}
