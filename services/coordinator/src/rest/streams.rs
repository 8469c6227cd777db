//! `/scopes/{scope}/streams`.

use actix_web::{
    HttpRequest, HttpResponse,
    web::{Data, Json, Path, Query},
};
use serde::Deserialize;
use serde_json::json;
use types::{IndexName, ScopeName, Tag};
use wire::{
    Problem,
    coordinator::{
        CreateStream, DeleteStream, DescribeStream, ScaleStream, SealStream, StreamDescription, StreamName,
        UpdateStream,
    },
};

use super::{
    acl::{Permission, Resource},
    answer::Refusal,
    door::{Front, unknown_scope, unknown_stream},
    resize,
    scaling::{self, Window},
    shape::{CreateStreamRequest, StreamConfig, StreamProperty, StreamState, with_instance},
};
use crate::{State, Stream};

type Answer = Result<HttpResponse, Refusal>;

/// How often a change of policy scales a stream that others scale too, before it leaves it as it is.
const RESIZES_MAX: usize = 3;

/// What stands behind `?` of a listing.
#[derive(Debug, Deserialize)]
pub(crate) struct Filter {
    filter_type: Option<String>,
    filter_value: Option<String>,
}

/// What streams a listing shows.
enum Shown {
    All,
    /// Streams that we made for ourselves: we make none.
    Internal,
    Tagged(Tag),
}

impl Filter {
    fn read(&self) -> Result<Shown, Problem> {
        let refuse = |what: &str| Problem::bad_request("MalformedRequest", what);
        match (self.filter_type.as_deref(), &self.filter_value) {
            (None, _) => Ok(Shown::All),
            (Some("showInternalStreams"), _) => Ok(Shown::Internal),
            (Some("tag"), Some(tag)) => tag.parse().map(Shown::Tagged).map_err(|error| refuse(&error.to_string())),
            (Some("tag"), None) => Err(refuse("filter_type=tag needs filter_value")),
            (Some(_), _) => Err(refuse("filter_type must be showInternalStreams or tag")),
        }
    }
}

fn property(stream: &StreamDescription) -> StreamProperty {
    StreamProperty::of(stream, stream.segments.len())
}

/// A stream, if it is one of the scope.
fn live_in<'a>(state: &'a State, scope: &str, index: &IndexName) -> Result<&'a Stream, Problem> {
    let live = state.live_stream(index).ok().filter(|found| found.summary().scope.as_str() == scope);
    live.ok_or_else(|| unknown_stream(scope, index.as_str()))
}

/// GET `/scopes/{scope}/streams`: those that the caller may see.
pub(crate) async fn list(http: HttpRequest, front: Data<Front>, path: Path<String>, filter: Query<Filter>) -> Answer {
    let who = front.admit(&http, Resource::Scope(&path), Permission::Read).await?;
    front.ledger.whole().await?;
    let (scope, shown) = (front.scope(&path).await?, filter.read()?);
    let found: Vec<(StreamDescription, usize)> = front.ledger.read(|state| {
        let of_scope = state.live().filter(|stream| stream.summary().scope == scope);
        let fits = of_scope.filter(|stream| match &shown {
            Shown::All => true,
            Shown::Internal => stream.summary().index.as_str().starts_with('_'),
            Shown::Tagged(tag) => stream.summary().tags.contains(tag),
        });
        fits.map(|stream| (stream.summary().clone(), stream.graph().present().len())).collect()
    });
    let may_see = |stream: &StreamDescription| {
        who.is_allowed(Resource::Stream(scope.as_str(), stream.index.as_str()), Permission::Read)
    };
    let seen = found.iter().filter(|(stream, _)| may_see(stream));
    let streams: Vec<_> = seen.map(|(stream, segments)| StreamProperty::of(stream, *segments)).collect();
    Ok(HttpResponse::Ok().json(json!({ "streams": streams })))
}

/// POST `/scopes/{scope}/streams`: 201; 404 without the scope, 409 if the name is taken, 429 `QuotaStreams` while the scope is full.
pub(crate) async fn create(
    http: HttpRequest,
    front: Data<Front>,
    path: Path<String>,
    body: Json<CreateStreamRequest>,
) -> Answer {
    front.admit(&http, Resource::Scope(&path), Permission::ReadUpdate).await?;
    let scope = path.parse::<ScopeName>().map_err(|_| unknown_scope(&path))?;
    if !front.has_scope(&scope).await? {
        return Err(unknown_scope(&path).into());
    }
    let index = body.stream_name.parse::<IndexName>().map_err(|error| Problem::bad_request("InvalidKey", error))?;
    let new = body.into_inner().config().creation(scope, index.clone())?;
    if front.change::<DescribeStream>(&StreamName { index: index.clone() }).await.is_ok() {
        return Err(Problem::conflict("StreamDiffers", format_args!("stream {index} exists")).into());
    }
    let created = front.change::<CreateStream>(&new).await?;
    Ok(HttpResponse::Created().json(property(&created)))
}

/// GET `/scopes/{scope}/streams/{stream}`.
pub(crate) async fn describe(http: HttpRequest, front: Data<Front>, path: Path<(String, String)>) -> Answer {
    let (scope, stream) = path.into_inner();
    front.admit(&http, Resource::Stream(&scope, &stream), Permission::Read).await?;
    let index = stream.parse::<IndexName>().map_err(|_| unknown_stream(&scope, &stream))?;
    let look = |state: &State| {
        let live = live_in(state, &scope, &index)?;
        Ok::<_, Problem>((live.summary().clone(), live.graph().present().len()))
    };
    let (found, segments) = front.ledger.look(look).await?;
    Ok(HttpResponse::Ok().json(StreamProperty::of(&found, segments)))
}

/// PUT `/scopes/{scope}/streams/{stream}`: policies and tags become those of the body; what it leaves out goes. The stream is scaled
/// where the policy asks for another number of segments.
pub(crate) async fn update(
    http: HttpRequest,
    front: Data<Front>,
    path: Path<(String, String)>,
    body: Json<StreamConfig>,
) -> Answer {
    let (scope, stream) = path.into_inner();
    front.admit(&http, Resource::Stream(&scope, &stream), Permission::ReadUpdate).await?;
    let there = front.stream(&scope, &stream).await?;
    let (mut update, policy, segments) = body.update(there.index.clone())?;
    update.tags = update.tags.map(|asked| with_instance(&there.tags, asked)).transpose()?;
    if there.sealed && resize::entailed(&there, policy, segments).is_some() {
        let message = format_args!("stream {stream} is sealed: it keeps its {} segments", there.segments.len());
        return Err(Problem::conflict("StreamSealed", message).into());
    }
    let mut updated = front.change::<UpdateStream>(&update).await?;
    for _ in 0..RESIZES_MAX {
        let Some(scale) = resize::entailed(&updated, policy, segments) else { break };
        updated = match front.change::<ScaleStream>(&scale).await {
            // Somebody else has scaled it meanwhile.
            Err(problem) if problem.kind == "InvalidScale" => front.stream(&scope, &stream).await?,
            scaled => scaled?,
        };
    }
    Ok(HttpResponse::Ok().json(property(&updated)))
}

/// DELETE `/scopes/{scope}/streams/{stream}`: 204; 412 unless it is sealed.
pub(crate) async fn delete(http: HttpRequest, front: Data<Front>, path: Path<(String, String)>) -> Answer {
    let (scope, stream) = path.into_inner();
    front.admit(&http, Resource::Stream(&scope, &stream), Permission::ReadUpdate).await?;
    let there = front.stream(&scope, &stream).await?;
    if !there.sealed {
        return Err(Refusal::precondition(
            "NotSealed",
            format_args!("stream {stream} must be sealed before it is deleted"),
        ));
    }
    front.change::<DeleteStream>(&StreamName { index: there.index }).await?;
    Ok(HttpResponse::NoContent().finish())
}

/// PUT `/scopes/{scope}/streams/{stream}/state`: `SEALED` is the only state that can be asked for.
pub(crate) async fn seal(
    http: HttpRequest,
    front: Data<Front>,
    path: Path<(String, String)>,
    body: Json<StreamState>,
) -> Answer {
    let (scope, stream) = path.into_inner();
    front.admit(&http, Resource::Stream(&scope, &stream), Permission::ReadUpdate).await?;
    if body.stream_state != "SEALED" {
        let message = format!("streamState {:?} cannot be asked for: only SEALED can", body.stream_state);
        return Err(Problem::bad_request("MalformedRequest", message).into());
    }
    let there = front.stream(&scope, &stream).await?;
    front.change::<SealStream>(&StreamName { index: there.index }).await?;
    Ok(HttpResponse::Ok().json(body.into_inner()))
}

/// GET `/scopes/{scope}/streams/{stream}/scaling-events?from&to`.
pub(crate) async fn scaling_events(
    http: HttpRequest,
    front: Data<Front>,
    path: Path<(String, String)>,
    window: Query<Window>,
) -> Answer {
    let (scope, stream) = path.into_inner();
    front.admit(&http, Resource::Stream(&scope, &stream), Permission::Read).await?;
    let index = stream.parse::<IndexName>().map_err(|_| unknown_stream(&scope, &stream))?;
    let window = window.checked()?;
    let look = |state: &State| {
        let live = live_in(state, &scope, &index)?;
        Ok::<_, Problem>(scaling::History::of(live.graph(), live.summary().created))
    };
    let history = front.ledger.look(look).await?;
    Ok(HttpResponse::Ok().json(json!({ "scalingEvents": history.events(window)? })))
}
