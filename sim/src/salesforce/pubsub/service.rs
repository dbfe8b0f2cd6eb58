//! The six RPCs.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::Stream;
use futures_util::stream;
use tokio_util::sync::CancellationToken;
use tonic::metadata::MetadataMap;
use tonic::{Code, Request, Response, Status, Streaming};

use super::super::cometd::Channel;
use super::super::faults::RpcFault;
use super::super::org::Org;
use super::super::sessions::User;
use super::access::{self, Caller};
use super::eventbus::pub_sub_server::PubSub;
use super::eventbus::{
    FetchRequest, FetchResponse, ManagedFetchRequest, ManagedFetchResponse, PublishRequest,
    PublishResponse, SchemaInfo, SchemaRequest, TopicInfo, TopicRequest,
};
use super::refusal::{self, BLANK_SCHEMA, NO_TOPIC, UNKNOWN_SCHEMA};
use super::stream::Subscribe;

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// The service of one org.
pub(super) struct Service {
    pub org: Arc<Org>,
}

impl Service {
    /// Admits a call, counts it, and lets a script spoil it; `topic` is what the request names.
    async fn admit(&self, rpc: &str, topic: &str, origin: Origin) -> Result<Admitted, Status> {
        let rpc_id = self.org.bus.rpc_id();
        self.org.counters.note(&format!("rpc {rpc}"));
        if let Some(fault) = self.org.faults.rpc_call(rpc, topic) {
            suffer(&self.org, fault, &origin.connection, &rpc_id).await?;
        }
        let caller = access::admit(&self.org, &origin.metadata)
            .map_err(|refusal| refusal.status(&rpc_id))?;
        Ok(Admitted { caller, rpc_id })
    }
}

struct Admitted {
    caller: Caller,
    rpc_id: String,
}

/// Where a call comes from.
struct Origin {
    metadata: MetadataMap,
    /// The end of its connection.
    connection: CancellationToken,
}

impl Origin {
    fn of<T>(request: &Request<T>) -> Self {
        let connection = request.extensions().get::<CancellationToken>();
        Self {
            metadata: request.metadata().clone(),
            connection: connection.cloned().unwrap_or_default(),
        }
    }
}

/// What a script does to a call or an answer; afterwards it goes on, if it does.
pub(super) async fn suffer(
    org: &Org,
    fault: RpcFault,
    connection: &CancellationToken,
    rpc_id: &str,
) -> Result<(), Status> {
    match fault {
        RpcFault::Status {
            status,
            code,
            message,
            ..
        } => Err(refusal::status(
            status.code(),
            code.as_deref(),
            message.as_deref().unwrap_or("Simulated failure."),
            rpc_id,
        )),
        RpcFault::Slow { seconds, .. } => {
            org.clock.sleep(Duration::from_secs(seconds)).await;
            Ok(())
        }
        RpcFault::Stall { .. } => {
            connection.cancelled().await;
            Err(Status::unavailable("the connection has ended"))
        }
        RpcFault::Cut { .. } => {
            connection.cancel();
            Err(Status::unavailable("the connection was cut"))
        }
    }
}

/// The topic's channel.
pub(super) fn topic(org: &Org, name: &str, rpc_id: &str) -> Result<Channel, Status> {
    org.streaming
        .channel(org, name)
        .ok_or_else(|| refusal::topic_not_found(&org.profile.org_id, name, rpc_id))
}

/// On a channel of one entity a missing permission is told; elsewhere its events are missing.
pub(super) fn may_subscribe(org: &Org, user: &User, channel: &Channel) -> bool {
    match channel {
        Channel::Entity(entity) => {
            user.view_all_data && !org.streaming.forbidden().contains(entity)
        }
        _ => true,
    }
}

#[tonic::async_trait]
impl PubSub for Service {
    type SubscribeStream = Answers<FetchResponse>;
    type PublishStreamStream = Answers<PublishResponse>;
    type ManagedSubscribeStream = Answers<ManagedFetchResponse>;

    async fn get_topic(
        &self,
        request: Request<TopicRequest>,
    ) -> Result<Response<TopicInfo>, Status> {
        let name = request.get_ref().topic_name.clone();
        let Admitted { caller, rpc_id } =
            self.admit("GetTopic", &name, Origin::of(&request)).await?;
        if name.is_empty() {
            return Err(NO_TOPIC.status(&rpc_id));
        }
        let org = &self.org;
        let channel = topic(org, &name, &rpc_id)?;
        let schema_id = match &channel {
            Channel::Entity(entity) => org
                .object(entity)
                .map(|object| org.schemas.id_of(&object))
                .unwrap_or_default(),
            _ => String::new(),
        };
        Ok(Response::new(TopicInfo {
            topic_name: name,
            tenant_guid: format!("core/sim/{}", org.profile.org_id),
            can_publish: false,
            can_subscribe: may_subscribe(org, &caller.user, &channel),
            schema_id,
            rpc_id,
        }))
    }

    async fn get_schema(
        &self,
        request: Request<SchemaRequest>,
    ) -> Result<Response<SchemaInfo>, Status> {
        let id = request.get_ref().schema_id.clone();
        let Admitted { rpc_id, .. } = self.admit("GetSchema", "", Origin::of(&request)).await?;
        if id.is_empty() {
            return Err(BLANK_SCHEMA.status(&rpc_id));
        }
        // Schemas are made when asked for, also those of objects that no event has told of yet.
        let found = self.org.schemas.find(&id).or_else(|| {
            for object in self.org.objects() {
                self.org.schemas.id_of(&object);
            }
            self.org.schemas.find(&id)
        });
        let schema = found.ok_or_else(|| UNKNOWN_SCHEMA.status(&rpc_id))?;
        Ok(Response::new(SchemaInfo {
            schema_json: schema.json.clone(),
            schema_id: id,
            rpc_id,
        }))
    }

    async fn subscribe(
        &self,
        request: Request<Streaming<FetchRequest>>,
    ) -> Result<Response<Self::SubscribeStream>, Status> {
        let origin = Origin::of(&request);
        let connection = origin.connection.clone();
        let Admitted { caller, rpc_id } = self.admit("Subscribe", "", origin).await?;
        let call = Subscribe::new(
            Arc::clone(&self.org),
            caller,
            rpc_id,
            request.into_inner(),
            connection,
        );
        let answers = stream::unfold(call, Subscribe::next);
        Ok(Response::new(Box::pin(answers)))
    }

    async fn publish(
        &self,
        request: Request<PublishRequest>,
    ) -> Result<Response<PublishResponse>, Status> {
        let name = request.get_ref().topic_name.clone();
        let Admitted { rpc_id, .. } = self.admit("Publish", &name, Origin::of(&request)).await?;
        Err(not_published(&self.org, &name, &rpc_id))
    }

    async fn publish_stream(
        &self,
        request: Request<Streaming<PublishRequest>>,
    ) -> Result<Response<Self::PublishStreamStream>, Status> {
        let Admitted { rpc_id, .. } = self
            .admit("PublishStream", "", Origin::of(&request))
            .await?;
        let first = request.into_inner().message().await?;
        let name = first.map(|first| first.topic_name).unwrap_or_default();
        Err(not_published(&self.org, &name, &rpc_id))
    }

    async fn managed_subscribe(
        &self,
        request: Request<Streaming<ManagedFetchRequest>>,
    ) -> Result<Response<Self::ManagedSubscribeStream>, Status> {
        let Admitted { rpc_id, .. } = self
            .admit("ManagedSubscribe", "", Origin::of(&request))
            .await?;
        let text = "Managed event subscriptions are not simulated.";
        Err(refusal::status(Code::Unimplemented, None, text, &rpc_id))
    }
}

/// Change events come from changes only.
fn not_published(org: &Org, name: &str, rpc_id: &str) -> Status {
    if name.is_empty() {
        return NO_TOPIC.status(rpc_id);
    }
    match topic(org, name, rpc_id) {
        Ok(_) => refusal::status(
            Code::PermissionDenied,
            Some("topic.meta.permission"),
            "You don't have permission to publish to this topic.",
            rpc_id,
        ),
        Err(unknown) => unknown,
    }
}
